#!/bin/bash
# rates.sh DESIGN SECONDS [reader]: publishes at full speed, drains, vacuums, sizes
D=$1; B=/usr/lib/postgresql/15/bin; K=$D; [ $D = base ] || K=new; [ $D = base ] && K=base
H=/dev/shm/proto18; DB=rate_${D}
cd /work/proto18; ./newdb.sh $DB ${D}
PAY='{"order":123456789,"customer":"c-1234567","amount":129.95,"currency":"EUR","lines":[1,2,3,4,5,6,7,88]}'
PGOPTIONS='-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off' nice -n 5 $B/pgbench -h $H -U postgres -n -M prepared -c 8 -j 1 -T $2 -D "payload=$PAY" -f pub${4}_$K.sql $DB 2>&1 | grep -E "tps|actually|ERROR" | sed "s/^/$D publish /"
R=""; [ "$3" = rr ] && R="--reader rr"; [ "$3" = dump ] && R="--reader dump"
nice -n 5 python3 drive.py $D 300 --db $DB --nopub --drain --claim 1024 $R
$B/psql -h $H -U postgres -d $DB -qAt -c "VACUUM" 2>/dev/null
$B/psql -h $H -U postgres -d $DB -qAt -F ' ' -f sizes.sql | sed "s/^/$D size /"
