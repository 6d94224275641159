#!/usr/bin/env python3
"""drive.py DESIGN SECONDS [--reader rr|dump] [--rate R] [--retention S] [--keys] [--window W] [--drain N] : publishes with pgbench, consumes with one member, prints windows."""
import sys, os, time, threading, subprocess, queue, argparse, json, signal
sys.path.insert(0, '/work/proto18/py')
import psycopg2
ap = argparse.ArgumentParser(); ap.add_argument('design'); ap.add_argument('seconds', type=int)
ap.add_argument('--reader'); ap.add_argument('--rate', type=int, default=2000); ap.add_argument('--retention', type=float)
ap.add_argument('--keys', action='store_true'); ap.add_argument('--window', type=int, default=20); ap.add_argument('--db'); ap.add_argument('--claim', type=int, default=256)
ap.add_argument('--payload', default='[1,12345678901234567]'); ap.add_argument('--readat', type=float, default=0); ap.add_argument('--nopub', action='store_true'); ap.add_argument('--stick', action='store_true', help='one lease is never settled'); ap.add_argument('--drain', action='store_true'); ap.add_argument('--hold', type=int, default=0)
a = ap.parse_args()
D = a.design; DB = a.db or D; H = '/dev/shm/proto18'
OPT = '-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c enable_bitmapscan=off -c jit=off -c synchronous_commit=off'
def conn():
    c = psycopg2.connect(host=H, dbname=DB, user='postgres', options=OPT); c.autocommit = True; return c
stop = threading.Event(); q = queue.SimpleQueue()
st = dict(claims=0, claim_t=0.0, claim_max=0.0, dels=0, lag=[], settles=0, settle_t=0.0, hk=0.0, ct=[])
lock = threading.Lock(); total = [0]; idle = [0]; done = threading.Event()
bounds = [0, 0]
def claimer():
    c = conn(); k = c.cursor(); token = 1; N = a.claim; marks = []; last_mark = 0; top = [0, 0]
    if D == 'base': k.execute("PREPARE cl(bigint) AS SELECT c.token, c.subscription, c.position, extract(epoch from (c.event).created_at)::float8, (c.event).payload FROM ev_claim('m1', '30s', 10000, '{1,2}', '{%d,%d}', $1) c" % (N, N))
    elif D == 'a': k.execute("PREPARE cl(bigint[]) AS SELECT c.token, c.subscription, c.position, extract(epoch from (c.event).created_at)::float8, (c.event).payload FROM ev_claim(1, '{1,2}', '{%d,%d}', $1, 10000) c" % (N, N))
    elif D == 'b': k.execute("PREPARE cl(bigint) AS SELECT c.token, c.subscription, c.position, extract(epoch from (c.event).created_at)::float8, (c.event).payload, c.in_slot FROM ev_claim(1, '{1,2}', '{%d,%d}', $1) c" % (N, N))
    else: k.execute("PREPARE cl(bigint) AS SELECT c.token, c.subscription, c.position, extract(epoch from (c.event).created_at)::float8, (c.event).payload FROM ev_claim(1, '{1,2}', '{%d,%d}', $1, 10000) c" % (N, N))
    while not stop.is_set():
        t = time.time()
        if D == 'a':
            if t - last_mark > 0.01:
                last_mark = t
                k.execute("SELECT pg_snapshot_xmin(s)::text::bigint, pg_current_xact_id()::text::bigint FROM pg_current_snapshot() s"); lo, hi = k.fetchone()
                while marks and marks[0][0] <= lo: bounds[:] = [max(x, y) for x, y in zip(bounds, marks.pop(0)[1])]
                marks.append((hi, list(top)))
                if len(marks) > 1000: marks.pop(1)
            k.execute("EXECUTE cl(%s)", (list(bounds),))
        else:
            k.execute("EXECUTE cl(%d)" % token); token += 2 * N
        rows = k.fetchall(); n = time.time()
        if D == 'a':
            for r in rows: top[r[1]-1] = max(top[r[1]-1], r[2])
        with lock:
            st['claims'] += 1; st['claim_t'] += n - t; st['claim_max'] = max(st['claim_max'], n - t); st['dels'] += len(rows); st['ct'].append(n - t)
            st['lag'].extend(n - r[3] for r in rows)
        if rows:
            q.put(rows); total[0] += len(rows); idle[0] = 0
            while q.qsize() > 3: time.sleep(0.001)
        elif a.drain and total[0] and idle[0] > 300: done.set(); break
        else: idle[0] += 1; time.sleep(0.002)
    c.close()
def settler():
    c = conn(); k = c.cursor()
    if D == 'base': k.execute("PREPARE se(bigint[],bigint[],bigint[],integer[],integer[]) AS SELECT * FROM ev_settle('m1', $1, $2, $3, $4, $5, array_fill(NULL::text, ARRAY[cardinality($1)]), array_fill(NULL::text, ARRAY[cardinality($1)]), array_fill(NULL::text, ARRAY[cardinality($1)]))")
    elif D == 'b': k.execute("PREPARE se(bigint[],integer[],bigint[],smallint[]) AS SELECT ev_settle(1, $1, $2, $3, $4)")
    else: k.execute("PREPARE se(bigint[],integer[],bigint[]) AS SELECT ev_settle(1, $1, $2, $3)")
    rows = []; stuck = []
    arr = lambda x: "'{" + ','.join(map(str, x)) + "}'"
    while True:
        if not rows:
            try: rows = q.get(timeout=0.1)
            except queue.Empty:
                if stop.is_set(): break
                continue
        while len(rows) < 256:
            try: rows = rows + q.get_nowait()
            except queue.Empty: break
        now, rows = rows[:256], rows[256:]
        if a.stick and not stuck: stuck.append(now.pop(0))
        if not now: continue
        p, s, t = arr(r[2] for r in now), arr(r[1] for r in now), arr(r[0] for r in now)
        b = time.time()
        if D == 'base': k.execute(f"EXECUTE se({p},{s},{t},{arr([2]*len(now))},{arr([1]*len(now))})")
        elif D == 'b': k.execute(f"EXECUTE se({p},{s},{t},{arr(r[5] for r in now)})")
        else: k.execute(f"EXECUTE se({p},{s},{t})")
        e = time.time()
        with lock: st['settles'] += 1; st['settle_t'] += e - b
    c.close()
def housekeeper():
    c = conn(); k = c.cursor(); low = 0; n = 0
    while not stop.wait(1):
        b = time.time(); n += 1
        if D == 'base':
            k.execute("UPDATE ev_deliveries d SET state = 0, suspect = true, crashes = crashes + marked::integer, marked = false, holder = NULL, token = NULL FROM (SELECT position, subscription FROM ev_deliveries WHERE state = 1 AND leased_until <= clock_timestamp() ORDER BY leased_until LIMIT 10000 FOR UPDATE SKIP LOCKED) x WHERE d.position BETWEEN x.position AND x.position AND d.subscription = x.subscription")
            if a.retention: k.execute("WITH old AS (SELECT e.position FROM ev e WHERE e.created_at < clock_timestamp() - make_interval(secs => %s) AND e.completed_at < clock_timestamp() - make_interval(secs => %s) AND e.status IN ('completed', 'failed') AND NOT EXISTS (SELECT 1 FROM ev_deliveries d WHERE d.position BETWEEN e.position AND e.position AND d.state < 2) ORDER BY e.created_at LIMIT 10000 FOR UPDATE SKIP LOCKED), deleted AS (DELETE FROM ev e USING old WHERE e.position BETWEEN old.position AND old.position), gone AS (DELETE FROM ev_deliveries d USING old WHERE d.position BETWEEN old.position AND old.position RETURNING d.state) SELECT count(*) FROM gone", (a.retention, a.retention))
        elif D == 'b' and n % 15 == 0:
            k.execute("SELECT ev_rotate()"); r = k.fetchone()[0]
            if r != 'rotated': print('rotate:', r, flush=True)
        if D != 'base' and a.retention:
            # from a moving bound; the prototype skips the check of open deliveries
            k.execute("WITH old AS (SELECT e.position FROM ev e WHERE e.position > %s AND e.created_at < clock_timestamp() - make_interval(secs => %s) ORDER BY e.position LIMIT 10000), d AS (DELETE FROM ev e USING old WHERE e.position BETWEEN old.position AND old.position) SELECT max(position) FROM old", (low, a.retention))
            m = k.fetchone()[0]
            if m:
                if D == 'c': [k.execute("DELETE FROM ev_settled WHERE subscription = %s AND position > %s AND position <= %s", (s, low, m)) for s in (1, 2)]
                if D == 'a': k.execute("DELETE FROM ev_deliveries WHERE position > %s AND position <= %s", (low, m))
                low = m
        st['hk'] = max(st['hk'], time.time() - b)
    c.close()
mon = conn(); mk = mon.cursor()
def stats():
    mk.execute("SELECT pg_stat_clear_snapshot()")
    mk.execute("SELECT coalesce(sum(idx_tup_read),0)::bigint FROM pg_stat_user_indexes"); r = mk.fetchone()[0]
    mk.execute("SELECT coalesce(sum(n_dead_tup),0)::bigint, coalesce(sum(pg_total_relation_size(relid)),0)::bigint FROM pg_stat_user_tables"); return r, *mk.fetchone()
reader = None; dump = None
def open_reader():
    global reader
    reader = psycopg2.connect(host=H, dbname=DB, user='postgres'); r = reader.cursor(); r.execute('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1')
    if a.reader == 'dump':
        r.execute("SELECT format('LOCK TABLE %%I IN ACCESS SHARE MODE', relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r','p')" % ())
        for (x,) in r.fetchall(): r.execute(x)
if a.reader and not a.readat: open_reader()
kind = 'base' if D == 'base' else 'new'
env = dict(os.environ, PGOPTIONS=OPT.replace('-c synchronous_commit=off', ''))
pub = None
if not a.nopub:
    pub = subprocess.Popen(['nice', '-n', '5', '/usr/lib/postgresql/15/bin/pgbench', '-h', H, '-U', 'postgres', '-n', '-M', 'prepared', '-c', '8', '-j', '1', '-T', str(a.seconds), *(['-R', str(a.rate)] if a.rate else []),
        '-D', 'payload=' + a.payload, '-f', f'/work/proto18/pub{"key" if a.keys else ""}_{kind}.sql', DB], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
ts = [threading.Thread(target=f, daemon=True) for f in ([] if a.hold else [claimer, settler]) + [housekeeper]]
for t in ts: t.start()
start = time.time()
if a.drain:
    prev = stats(); done.wait(a.seconds); stop.set(); [t.join(60) for t in ts]; took = time.time() - start; time.sleep(1.2); cur = stats(); d = max(1, total[0])
    ct = sorted(st['ct'])
    print(D, json.dumps(dict(drained=total[0], seconds=round(took, 1), dels_s=round(total[0] / took), idx_per_del=round((cur[0] - prev[0]) / d, 1), claim50=round(ct[len(ct)//2]*1e3,1), claim99=round(ct[int(len(ct)*.99)]*1e3,1), settle_us_per=round(st['settle_t']/d*1e6,1), dead=cur[1], mb=round(cur[2]/1e6, 1))), flush=True)
    sys.exit()
prev = stats(); w = 0; out = []
while time.time() - start < a.seconds:
    w += 1; time.sleep(max(0, start + w * a.window - time.time()))
    if a.readat and not reader and time.time() - start > a.readat: open_reader()
    cur = stats()
    with lock: s = dict(st); st.update(claims=0, claim_t=0.0, claim_max=0.0, dels=0, lag=[], settles=0, settle_t=0.0, hk=0.0, ct=[])
    l = sorted(s['lag']) or [0]; ct = sorted(s['ct']) or [0]; d = max(1, s['dels'])
    row = dict(t=round(time.time() - start), dels_s=round(s['dels'] / a.window), claims_s=round(s['claims'] / a.window), lag50=round(l[len(l)//2]*1e3, 2), lag99=round(l[int(len(l)*.99)]*1e3, 2),
        claim50=round(ct[len(ct)//2]*1e3, 2), claim99=round(ct[int(len(ct)*.99)]*1e3, 2), claim_max=round(s['claim_max']*1e3, 1), settle_ms=round(s['settle_t'] / max(1, s['settles'])*1e3, 2), settle_us_per=round(s['settle_t'] / d*1e6, 1),
        hk_ms=round(s['hk']*1e3, 1), idx_per_del=round((cur[0] - prev[0]) / d, 1), dead=cur[1], mb=round(cur[2] / 1e6, 1))
    print(D, json.dumps(row), flush=True); prev = cur
if pub:
    o = pub.communicate()[0]; print(D, 'pub:', [x for x in o.splitlines() if 'tps' in x or 'latency average' in x or 'lag' in x or 'ERROR' in x or 'error' in x][:4], flush=True)
time.sleep(1.5); stop.set(); [t.join(5) for t in ts]
