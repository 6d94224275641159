#!/usr/bin/env python3
"""p50/p95 of pages of 100, newest first and oldest first, with the derived status of each event."""
import sys, time, random
sys.path.insert(0, '/work/proto18/py'); import psycopg2
DB, N = sys.argv[1], int(float(sys.argv[2]) * 1e6)
c = psycopg2.connect(host='/dev/shm/proto18', dbname=DB, user='postgres', options='-c enable_seqscan=off -c jit=off -c enable_hashjoin=off -c enable_mergejoin=off'); c.autocommit = True; k = c.cursor(); r = random.Random(1)
PROGRESS = """SELECT p.*, x.* FROM ({page}) p CROSS JOIN LATERAL (
 SELECT CASE WHEN count(*) FILTER (WHERE t.state IS NULL) > 0 THEN CASE WHEN count(t.state) + count(t.leased) > 0 THEN 'processing' ELSE 'pending' END
   WHEN bool_or(t.state >= 3) THEN 'failed' ELSE 'completed' END AS status, max(t.settled_at) AS completed_at, coalesce(max(t.attempts), 1) - 1 AS retries
 FROM (SELECT s.id, d.state, d.settled_at, d.attempts, CASE WHEN d.state IS NULL THEN (SELECT l.leased_at FROM ev_leases l WHERE l.subscription = s.id AND l.position = p.position) END AS leased
   FROM ev_subscriptions s LEFT JOIN LATERAL (SELECT * FROM ev_settled d WHERE d.position = p.position AND d.subscription = s.id OFFSET 0) d ON true WHERE p.type LIKE s.glob) t) x"""
OPEN = """WITH c AS MATERIALIZED (SELECT s.id, s.glob, k.position, k.low FROM ev_subscriptions s CROSS JOIN LATERAL (SELECT * FROM ev_cursors k WHERE k.subscription = s.id ORDER BY number DESC LIMIT 1) k)
 SELECT e.* FROM (
  SELECT position FROM (SELECT e.position FROM ev e WHERE e.position > (SELECT min(c.position) FROM c) AND e.position < %(after)s AND EXISTS (SELECT 1 FROM c WHERE c.position < e.position AND e.type LIKE c.glob) ORDER BY e.position DESC LIMIT 100) a
  UNION SELECT l.position FROM c CROSS JOIN LATERAL (SELECT l.position FROM ev_leases l WHERE l.subscription = c.id AND l.position >= c.low AND l.position < %(after)s ORDER BY l.position DESC LIMIT 100) l
  UNION SELECT w.position FROM c CROSS JOIN LATERAL (SELECT l.position FROM ev_waiting l WHERE l.subscription = c.id AND l.position >= c.low AND l.position < %(after)s ORDER BY l.position DESC LIMIT 100) w
  UNION SELECT position FROM (SELECT d.position FROM ev_dead d WHERE d.position < %(after)s ORDER BY d.position DESC LIMIT 100) d
 ) o JOIN ev e ON e.position BETWEEN o.position AND o.position ORDER BY o.position DESC LIMIT 100"""
def rid(): p = r.randrange(1, N); k.execute("SELECT id::text, type, user_id, key, created_at FROM ev WHERE position = %s", (p,)); return k.fetchone()
def q(name, sql, arg):
    ts = []; n = 0
    for i in range(150):
        a = arg(); t = time.time(); k.execute(PROGRESS.format(page=sql), a); n += len(k.fetchall()); ts.append((time.time() - t) * 1e3)
    ts.sort(); print(f'{name:44s} p50 {ts[75]:7.2f} p95 {ts[142]:7.2f} max {ts[-1]:7.2f} ms rows/page {n/150:.0f}', flush=True)
pos = lambda: r.randrange(1, N)
def pick(i):
    while True:
        x = rid()[i]
        if x is not None: return x
types = ['shop.orders.create', 'shop.users.audit', 'shop.stock.sync', 'shop.carts.view.rare']
q('id', "SELECT * FROM ev WHERE id = %(id)s::uuid", lambda: dict(id=rid()[0]))
for o, cmp in (('DESC', '<'), ('ASC', '>')):
    q('type ' + o, f"SELECT * FROM ev e WHERE hashtext(type) = hashtext(%(t)s) AND type = %(t)s AND position {cmp} %(after)s ORDER BY position {o} LIMIT 100", lambda: dict(t=r.choice(types), after=pos()))
    q('user ' + o, f"SELECT * FROM ev e WHERE user_id = %(u)s AND position {cmp} %(after)s ORDER BY position {o} LIMIT 100", lambda: dict(u=pick(2), after=N if o == 'DESC' else 0))
    q('key ' + o, f"SELECT * FROM ev e WHERE hashtext(key) = hashtext(%(k)s) AND key = %(k)s AND position {cmp} %(after)s ORDER BY position {o} LIMIT 100", lambda: dict(k=pick(3), after=N if o == 'DESC' else 0))
    q('time range 1 h ' + o, f"SELECT * FROM ev e WHERE created_at BETWEEN %(f)s AND %(f)s::timestamptz + '1 h' ORDER BY created_at {o} LIMIT 100", lambda: dict(f=rid()[4]))
    q('time from.. (half of all) ' + o, f"SELECT * FROM ev e WHERE created_at >= %(f)s ORDER BY created_at {o} LIMIT 100", lambda: dict(f=rid()[4]))
q('not completed, newest', OPEN, lambda: dict(after=N + 1)); q('not completed, from anywhere', OPEN, lambda: dict(after=pos()))
if len(sys.argv) > 3:
    q('type by (hash, bucket) DESC', "SELECT * FROM ev e WHERE hashtext(type) = hashtext(%(t)s) AND type = %(t)s AND (position >> 10)::integer <= (%(after)s >> 10)::integer AND position < %(after)s ORDER BY (position >> 10)::integer DESC, position DESC LIMIT 100", lambda: dict(t=r.choice(types), after=pos()))
