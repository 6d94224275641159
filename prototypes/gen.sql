-- 10 M events in C's tables, inserted through all indexes in the order of positions (layout as after a long run). :n millions
SET synchronous_commit = off; SET jit = off;
\timing on
SELECT format($f$INSERT INTO ev (position, id, source, type, payload, user_id, instance_id, schema, entity, operation, created_at, key)
SELECT p, (lpad(to_hex(1790000000000 + p * 8), 12, '0') || '7' || substr(md5(p::text), 1, 19))::uuid, 'system',
 'shop.' || (ARRAY['orders','orders','orders','orders','carts','users','payments','stock'])[1 + (hashint8(p) & 7)] || '.' || (ARRAY['create','create','create','update','delete','view','audit','sync'])[1 + ((hashint8(p) >> 3) & 7)] || CASE WHEN hashint8(p + 7) & 1023 = 0 THEN '.rare' ELSE '' END,
 '{"order":123456789,"customer":"c-1234567","amount":129.95,"currency":"EUR","lines":[1,2,3,4,5,6,7,88]}',
 CASE WHEN p %% 2 = 0 THEN (hashint8(p + 1) & 131071) END, 'instance-' || (p %% 4), 'shop', 'orders', 'create', to_timestamp(1790000000 + p * 0.008 - (hashint8(p + 3) & 1023) * 0.001), CASE WHEN p %% 3 = 0 THEN 'customer-' || (hashint8(p + 2) & 262143) END
FROM generate_series(%s::bigint, %s::bigint) p$f$, 1 + g * 500000, (g + 1) * 500000) FROM generate_series(0, 2 * :n - 1) g
\gexec
SELECT format($f$INSERT INTO ev_settled SELECT p, to_timestamp(1790000000 + p * 0.008 + 0.01), 900, s, 1, 2 FROM generate_series(%s::bigint, %s::bigint) p, generate_series(1, 2) s$f$, 1 + g * 500000, (g + 1) * 500000 - CASE WHEN g = 2 * :n - 1 THEN 2000 ELSE 0 END) FROM generate_series(0, 2 * :n - 1) g
\gexec
INSERT INTO ev_cursors (subscription, number, position, low) SELECT s, 1, :n * 1000000 - 1000, :n * 1000000 - 2000 FROM generate_series(1, 2) s;
INSERT INTO ev_leases SELECT p, p, now(), s, 1, NULL, 1, 0, false FROM generate_series(:n * 1000000 - 1999, :n * 1000000 - 1000) p, generate_series(1, 2) s;
CREATE TABLE ev_dead (number bigint PRIMARY KEY, position bigint NOT NULL, subscription integer NOT NULL, reason text, error text, errors text, settled_at timestamptz, attempts smallint, requeues smallint);
CREATE INDEX ev_dead_position ON ev_dead (position, subscription);
INSERT INTO ev_dead SELECT g, g * :n * 1000, 1 + g % 2, 'exhausted', 'boom', '[]', now(), 5, 0 FROM generate_series(1, 900) g;
UPDATE ev_settled s SET state = 3 FROM ev_dead d WHERE s.position = d.position AND s.subscription = d.subscription;
VACUUM ANALYZE;
