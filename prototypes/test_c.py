#!/usr/bin/env python3
"""Correctness of C's cursor with holes and of the order per key: publishers that commit late and out of order, roll back, and repeat ids; a long writer; members that give back and die."""
import sys, random, threading, time, uuid
sys.path.insert(0, '/work/proto18/py'); import psycopg2
DB = 'test_c'; H = '/dev/shm/proto18'
def conn(): c = psycopg2.connect(host=H, dbname=DB, user='postgres'); c.autocommit = True; return c
SECS = float(sys.argv[1]) if len(sys.argv) > 1 else 15
stop = threading.Event(); committed = set(); ids = []; L = threading.Lock(); M = threading.Lock(); log = []
def publisher(n):
    c = conn(); k = c.cursor(); r = random.Random(n)
    while not stop.is_set():
        k.execute('BEGIN'); mine = []
        for _ in range(r.choice([1, 1, 1, 5, 20])):
            i = str(uuid.uuid4()) if r.random() > .1 or not ids else r.choice(ids)
            k.execute("INSERT INTO ev (id, source, type, key) VALUES (%s, 'system', %s, %s) ON CONFLICT (id) DO NOTHING RETURNING position", (i, r.choice(['shop.orders.create', 'other.x.y']), r.choice([None, 'a', 'b', 'c', 'd%d' % r.randrange(50)])))
            x = k.fetchone()
            if x: mine.append((i, x[0]))
            if r.random() < .05: time.sleep(r.random() * .03)
        if r.random() < .3: time.sleep(r.random() * .05)
        if n == 0: time.sleep(2)          # the long writer
        if r.random() < .1: k.execute('ROLLBACK')
        else:
            k.execute('COMMIT')
            with L: committed.update(p for _, p in mine); ids.extend(i for i, _ in mine[:1])
def member(h):
    c = conn(); k = c.cursor(); r = random.Random(100 + h); token = 1; held = []
    while not (stop.is_set() and quiet.is_set()):
        with M:
            k.execute("SELECT token, subscription, position, (event).key FROM ev_claim(%s, '{1,2}', '{%s,%s}', %s, 10000)", (h, r.randrange(1, 30), r.randrange(1, 30), token)); rows = k.fetchall(); token += 100
            log.extend(('claim', h, s, p, key) for t, s, p, key in rows); held += rows
        if rows: seen[0] = time.time()
        time.sleep(r.random() * .01)
        x = r.random()
        held.sort(key=lambda v: v[2])
        if held and x < .1:
            n = r.randrange(len(held)); s = held[n][1]; key = held[n][3]
            # the core gives back a delivery and all later ones of its key
            back = [v for v in held if v[1] == s and v[2] >= held[n][2] and (v[3] == key if key else v is held[n])]
            with M:
                k.execute("SELECT ev_give_back(%s, %s, %s, false, 5000)", (h, s, [v[0] for v in back])); assert k.fetchone()[0] == len(back)
                log.extend(('back', h, v[1], v[2], v[3]) for v in back)
            held = [v for v in held if v not in back]
        elif held and x < .13 and not stop.is_set():
            with M:
                for s in (1, 2):
                    k.execute("SELECT ev_give_back(%s, %s, NULL, true, 5000)", (h, s))
                log.extend(('back', h, v[1], v[2], v[3]) for v in held)
            held = []
        elif held:
            n = r.randrange(1, len(held) + 1); done = held[:n]
            with M:
                k.execute("SELECT ev_settle(%s, %s, %s, %s)", (h, [v[2] for v in done], [v[1] for v in done], [v[0] for v in done])); n_ = k.fetchone()[0]
                if n_ != len(done):
                    k.execute("SELECT subscription, position, token, holder, claims FROM ev_leases WHERE holder = %s", (h,)); left = k.fetchall()
                    print('LOST', n_, len(done), [v for v in done][:5], left[:5], len(held)); stop.set(); quiet.set(); raise SystemExit
                log.extend(('done', h, v[1], v[2], v[3]) for v in done)
            held = held[n:]
seen = [time.time()]; quiet = threading.Event()
ps = [threading.Thread(target=publisher, args=(n,)) for n in range(7)]; ms = [threading.Thread(target=member, args=(h,)) for h in (1, 2, 3)]
[t.start() for t in ps + ms]; time.sleep(SECS); stop.set(); [t.join() for t in ps]
while time.time() - seen[0] < 2: time.sleep(.1)
quiet.set(); [t.join() for t in ms]
k = conn().cursor(); k.execute("SELECT position FROM ev"); assert {r[0] for r in k.fetchall()} == committed
k.execute("SELECT position FROM ev WHERE type LIKE 'shop.orders.%'"); want = {r[0] for r in k.fetchall()}
for s in (1, 2):
    k.execute("SELECT position FROM ev_settled WHERE subscription = %s", (s,)); got = [r[0] for r in k.fetchall()]
    assert len(got) == len(set(got)); print('subscription', s, 'wanted', len(want), 'settled', len(got), 'missing', len(want - set(got)), sorted(want - set(got))[:5], 'extra', len(set(got) - want))
k.execute("SELECT (SELECT count(*) FROM ev_leases), (SELECT count(*) FROM ev_waiting), (SELECT count(*) FROM ev_cursors)"); print('leases, waiting, cursors', k.fetchone())
k.execute("SELECT * FROM ev_cursors"); print(k.fetchall())
# order per key: no lease of a key while another member holds one; nothing claimed while an earlier given-back one waits
bad = overlap = 0; held = {}; waiting = {}
for what, h, s, p, key in log:
    if key is None: continue
    hs, ws = held.setdefault((s, key), {}), waiting.setdefault((s, key), set())
    if what == 'claim':
        if any(o != h for o in hs.values()): overlap += 1
        if any(x < p for x in ws): bad += 1
        hs[p] = h; ws.discard(p)
    else:
        hs.pop(p, None)
        if what == 'back': ws.add(p)
print('keys: overlaps', overlap, 'overtaken', bad, 'log', len(log))
