#!/bin/bash
# run_trend.sh SECONDS EXTRA... -- DESIGNS : one after the other
S=$1; shift; X=(); while [ "$1" != -- ]; do X+=("$1"); shift; done; shift
cd /work/proto18
for d in "$@"; do ./newdb.sh t_$d $d; nice -n 5 python3 drive.py $d $S --db t_$d "${X[@]}"; done
