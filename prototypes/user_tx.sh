#!/bin/bash
# A user's transaction settles one lease and stays open: claims, give backs and expiry go on, its key stays busy.
P="/usr/lib/postgresql/15/bin/psql -h /dev/shm/proto18 -U postgres -qAt -d utx"
cd /work/proto18; ./newdb.sh utx c 2>/dev/null
$P -c "INSERT INTO ev (id, source, type, key) SELECT gen_random_uuid(), 'system', 'shop.orders.create', CASE WHEN g IN (1, 5) THEN 'k' END FROM generate_series(1, 10) g"
$P -c "SELECT token, subscription, position FROM ev_claim(1, '{1}', '{3}', 1, 10000)"
( echo "BEGIN; SELECT 'settled in user tx', ev_settle(1, '{1}', '{1}', '{1}'); SELECT pg_sleep(3); COMMIT;" | $P ) & sleep 0.5
echo claim by 2: ; $P -c "SET statement_timeout = '500ms'" -c "SELECT token, position, (event).key FROM ev_claim(2, '{1}', '{100}', 1, 10000)"
echo expire 1: ; $P -c "SET statement_timeout = '500ms'" -c "SELECT ev_give_back(1, 1, NULL, true, 5000)"
echo claim by 2: ; $P -c "SET statement_timeout = '500ms'" -c "SELECT token, position, (event).key FROM ev_claim(2, '{1}', '{100}', 101, 10000)"
wait; echo claim by 2 after the commit: ; $P -c "SELECT token, position, (event).key FROM ev_claim(2, '{1}', '{100}', 201, 10000)"
