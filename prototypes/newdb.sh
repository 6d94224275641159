#!/bin/bash
# newdb.sh DB DESIGN
P="/usr/lib/postgresql/15/bin/psql -h /dev/shm/proto18 -U postgres -qAt -v ON_ERROR_STOP=1"
$P -d postgres -c "DROP DATABASE IF EXISTS $1 WITH (FORCE)" -c "CREATE DATABASE $1"
[ $2 = base ] || cat /work/proto18/sql/common.sql > /tmp/proto18.$1.sql
[ $2 = base ] && : > /tmp/proto18.$1.sql
cat /work/proto18/sql/$2.sql >> /tmp/proto18.$1.sql
$P -d $1 -f /tmp/proto18.$1.sql 2>&1 | grep -v "^$"
