-- C: the events are the log; a subscription has a cursor (inserted rows, read newest first); a lease is a row that is made by the claim
-- and deleted by the verdict; what was settled is one narrow inserted row.
CREATE TABLE ev_cursors (
    subscription integer NOT NULL,
    number       bigint NOT NULL,
    -- Everything up to here was seen, but for the holes.
    position     bigint NOT NULL,
    -- No lease and no waiting delivery is below `low`; none waits if `waiting` is null, else none below it.
    low          bigint NOT NULL,
    waiting      bigint,
    -- Positions that were missing below `position`: their transactions may be open. `stale` may be filled only by the transactions `xids`.
    holes        bigint[] NOT NULL DEFAULT '{}',
    stale        bigint[] NOT NULL DEFAULT '{}',
    xids         xid8[] NOT NULL DEFAULT '{}',
    -- and by those from `xid_from` to before `xid_to`: a snapshot does not name transactions above the last that has ended.
    xid_from     xid8 NOT NULL DEFAULT '0',
    xid_to       xid8 NOT NULL DEFAULT '0',
    PRIMARY KEY (subscription, number)
);
INSERT INTO ev_cursors (subscription, number, position, low) VALUES (1, 0, 0, 0), (2, 0, 0, 0);
CREATE TABLE ev_leases (
    position     bigint NOT NULL,
    token        bigint NOT NULL,
    leased_at    timestamptz NOT NULL,
    subscription integer NOT NULL,
    holder       integer NOT NULL,
    key_hash     integer,
    claims       smallint NOT NULL,
    crashes      smallint NOT NULL,
    suspect      boolean NOT NULL,
    marked       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (subscription, position)
);
CREATE INDEX ev_leases_keys ON ev_leases (subscription, key_hash, position) WHERE key_hash IS NOT NULL;
-- Given back, expired, requeued, replayed, or behind a delivery of the same key.
CREATE TABLE ev_waiting (
    position     bigint NOT NULL,
    subscription integer NOT NULL,
    key_hash     integer,
    claims       smallint NOT NULL DEFAULT 0,
    crashes      smallint NOT NULL DEFAULT 0,
    suspect      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (subscription, position)
);
CREATE INDEX ev_waiting_keys ON ev_waiting (subscription, key_hash, position) WHERE key_hash IS NOT NULL;
CREATE TABLE ev_settled (
    position     bigint NOT NULL,
    settled_at   timestamptz NOT NULL,
    waited_us    integer NOT NULL,          -- leased_at = settled_at - waited
    subscription integer NOT NULL,
    attempts     smallint NOT NULL,
    state        smallint NOT NULL,         -- 2 done, 3 dead (details in ev_dead), 4 purged
    PRIMARY KEY (subscription, position)    -- each subscription appends at its own end: 31 bytes per entry instead of 48
);

CREATE FUNCTION ev_claim(who integer, wanted integer[], rooms integer[], first_token bigint, depth integer)
RETURNS TABLE (token bigint, subscription integer, "position" bigint, event ev) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off SET enable_sort = off SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    i integer; s integer; c ev_cursors; r record; w record; pattern text; kh integer; taken integer; room integer;
    ps bigint[]; ks integer[]; cl smallint[]; cr smallint[]; su boolean[];   -- to lease
    wp bigint[]; wk integer[];                                             -- to block
    gone bigint[];                                                         -- waiting rows that are leased now
    free integer[]; busy integer[]; filled bigint[];
    last bigint; running xid8[]; next_xid xid8; left_waiting bigint; changed boolean; found_low bigint; last_gone bigint;
BEGIN
    token := first_token;
    FOR i IN 1 .. array_length(wanted, 1) LOOP
        s := wanted[i]; room := rooms[i];
        SELECT * INTO c FROM ev_cursors k WHERE k.subscription = s ORDER BY k.number DESC LIMIT 1;
        CONTINUE WHEN c.waiting IS NULL AND c.holes = '{}' AND c.stale = '{}' AND NOT EXISTS (SELECT 1 FROM ev e WHERE e.position > c.position);
        PERFORM pg_advisory_xact_lock(18, s);
        SELECT * INTO c FROM ev_cursors k WHERE k.subscription = s ORDER BY k.number DESC LIMIT 1;
        SELECT glob INTO pattern FROM ev_subscriptions x WHERE x.id = s;
        ps := '{}'; ks := '{}'; cl := '{}'; cr := '{}'; su := '{}'; wp := '{}'; wk := '{}'; gone := '{}'; free := '{}'; busy := '{}'; filled := '{}';
        taken := 0; last := c.position; changed := false; left_waiting := NULL; running := NULL;
        -- 1. Waiting deliveries, the oldest first.
        IF c.waiting IS NOT NULL THEN
            FOR w IN SELECT x.position, x.key_hash, x.claims, x.crashes, x.suspect FROM ev_waiting x
                WHERE x.subscription = s AND x.position >= c.waiting ORDER BY x.position LIMIT room + depth LOOP
                IF taken >= room THEN left_waiting := coalesce(left_waiting, w.position); EXIT; END IF;
                kh := w.key_hash;
                IF kh IS NOT NULL AND kh <> ALL (free) THEN
                    IF kh = ANY (busy) THEN left_waiting := coalesce(left_waiting, w.position); CONTINUE; END IF;
                    IF EXISTS (SELECT 1 FROM ev_leases l WHERE l.subscription = s AND l.key_hash = kh AND l.position >= c.low) THEN
                        busy := busy || kh; left_waiting := coalesce(left_waiting, w.position); CONTINUE;
                    END IF;
                    free := free || kh;
                END IF;
                taken := taken + 1;
                ps := ps || w.position; ks := ks || kh; cl := cl || (w.claims + 1)::smallint; cr := cr || w.crashes; su := su || w.suspect; gone := gone || w.position;
                subscription := s; position := w.position;
                SELECT e.* INTO event FROM ev e WHERE e.position = w.position; RETURN NEXT; token := token + 1;
            END LOOP;
            changed := taken > 0 OR c.waiting IS DISTINCT FROM left_waiting;
        END IF;
        -- 2. Filled holes, and what is new. One statement, so that rows and running transactions are of one snapshot.
        IF taken < room THEN
            FOR r IN SELECT q.snap, x.position, x.type, x.key, x.event
                FROM (SELECT pg_current_snapshot() AS snap) q LEFT JOIN LATERAL (
                    (SELECT e.position, e.type, e.key, e AS event FROM ev e WHERE e.position = ANY (c.holes || c.stale))
                    UNION ALL
                    (SELECT e.position, e.type, e.key, e AS event FROM ev e WHERE e.position > c.position ORDER BY e.position LIMIT room - taken)) x ON true LOOP
                IF running IS NULL THEN running := ARRAY(SELECT pg_snapshot_xip(r.snap)); next_xid := pg_snapshot_xmax(r.snap); END IF;
                EXIT WHEN r.position IS NULL;
                changed := true;
                IF r.position <= c.position THEN
                    filled := filled || r.position;
                ELSE
                    IF r.position > last + 1 THEN
                        c.holes := c.holes || ARRAY(SELECT generate_series(last + 1, r.position - 1));
                    END IF;
                    last := r.position;
                END IF;
                CONTINUE WHEN NOT r.type LIKE pattern;
                kh := hashtext(r.key);
                IF kh IS NOT NULL AND kh <> ALL (free) THEN
                    IF kh <> ALL (busy) AND NOT EXISTS (SELECT 1 FROM ev_leases l WHERE l.subscription = s AND l.key_hash = kh AND l.position >= c.low)
                        AND NOT EXISTS (SELECT 1 FROM ev_waiting l WHERE l.subscription = s AND l.key_hash = kh AND l.position >= left_waiting) THEN
                        free := free || kh;
                    ELSE
                        busy := busy || kh; wp := wp || r.position; wk := wk || kh; left_waiting := least(left_waiting, r.position);
                        CONTINUE;
                    END IF;
                END IF;
                taken := taken + 1;
                ps := ps || r.position; ks := ks || kh; cl := cl || 1::smallint; cr := cr || 0::smallint; su := su || false;
                subscription := s; position := r.position; event := r.event; RETURN NEXT; token := token + 1;
            END LOOP;
            IF c.holes <> '{}' OR c.stale <> '{}' THEN
                IF filled <> '{}' THEN
                    c.holes := ARRAY(SELECT h FROM unnest(c.holes) h WHERE h <> ALL (filled));
                    c.stale := ARRAY(SELECT h FROM unnest(c.stale) h WHERE h <> ALL (filled));
                END IF;
                -- Whoever could fill these has ended, and has not.
                IF c.stale <> '{}' AND NOT EXISTS (SELECT 1 FROM unnest(running) x WHERE x = ANY (c.xids) OR x >= c.xid_from AND x < c.xid_to) THEN c.stale := '{}'; changed := true; END IF;
                IF c.stale = '{}' AND c.holes <> '{}' THEN
                    c.stale := c.holes; c.xids := running; c.xid_from := next_xid; c.xid_to := pg_current_xact_id();
                    c.holes := '{}'; changed := true;
                END IF;
            END IF;
        END IF;
        IF changed THEN
            IF gone <> '{}' THEN
                FOREACH last_gone IN ARRAY gone LOOP DELETE FROM ev_waiting x WHERE x.subscription = s AND x.position = last_gone; END LOOP;
            END IF;
            SELECT l.position INTO found_low FROM ev_leases l WHERE l.subscription = s AND l.position >= c.low ORDER BY l.position LIMIT 1;
            IF taken > 0 THEN
                INSERT INTO ev_leases (position, token, leased_at, subscription, holder, key_hash, claims, crashes, suspect)
                SELECT n.p, first_token + n.number - 1, clock_timestamp(), s, who, n.k, n.cl, n.cr, n.su
                FROM unnest(ps, ks, cl, cr, su) WITH ORDINALITY n(p, k, cl, cr, su, number);
                first_token := first_token + taken;
            END IF;
            IF wp <> '{}' THEN
                INSERT INTO ev_waiting (position, subscription, key_hash) SELECT n.p, s, n.k FROM unnest(wp, wk) n(p, k);
            END IF;
            INSERT INTO ev_cursors VALUES (s, c.number + 1, last, least(coalesce(found_low, last + 1), left_waiting, (SELECT min(x) FROM unnest(ps) x)),
                left_waiting, c.holes, c.stale, c.xids, c.xid_from, c.xid_to);
            DELETE FROM ev_cursors k WHERE k.subscription = s AND k.number = c.number;
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION ev_settle(who integer, positions bigint[], subscriptions integer[], tokens bigint[]) RETURNS bigint LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off SET enable_sort = off SET enable_material = off SET jit = off AS $$
DECLARE
    n integer := 0; at timestamptz := clock_timestamp(); began timestamptz; ps bigint[] := '{}'; ss integer[] := '{}'; ws integer[] := '{}';
BEGIN
    -- One row at a time: a join may be planned as a scan of all dead entries when the statistics say that the table is empty.
    FOR i IN 1 .. cardinality(positions) LOOP
        DELETE FROM ev_leases l WHERE l.subscription = subscriptions[i] AND l.position = positions[i] AND l.token = tokens[i] AND l.holder = who
        RETURNING l.leased_at INTO began;
        IF FOUND THEN
            ps := ps || positions[i]; ss := ss || subscriptions[i]; ws := ws || least(extract(epoch FROM at - began) * 1e6, 2e9)::integer;
        END IF;
    END LOOP;
    INSERT INTO ev_settled SELECT g.p, at, g.w, g.s, 1, 2 FROM unnest(ps, ss, ws) g(p, s, w);
    RETURN cardinality(ps);
END $$;

-- Gives leases back: of some tokens, or (tokens null) all of a holder that is dead. In steps of `so_many`.
CREATE FUNCTION ev_give_back(who integer, target integer, wanted bigint[], crashed boolean, so_many integer) RETURNS bigint LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off SET enable_sort = off SET enable_material = off SET jit = off AS $$
DECLARE c ev_cursors; lowest bigint; n bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(18, target);
    SELECT * INTO c FROM ev_cursors k WHERE k.subscription = target ORDER BY k.number DESC LIMIT 1;
    WITH found AS (SELECT l.position FROM ev_leases l WHERE l.subscription = target AND l.position >= c.low AND l.holder = who
            AND (wanted IS NULL OR l.token = ANY (wanted)) ORDER BY l.position LIMIT so_many FOR UPDATE SKIP LOCKED),
    gone AS (DELETE FROM ev_leases l USING found f WHERE l.subscription = target AND l.position BETWEEN f.position AND f.position RETURNING l.*),
    again AS (INSERT INTO ev_waiting SELECT g.position, g.subscription, g.key_hash, g.claims, g.crashes + (crashed AND g.marked)::integer, crashed FROM gone g RETURNING position)
    SELECT min(position), count(*) INTO lowest, n FROM again;
    IF n > 0 THEN
        INSERT INTO ev_cursors VALUES (target, c.number + 1, c.position, least(c.low, lowest), least(c.waiting, lowest), c.holes, c.stale, c.xids, c.xid_from, c.xid_to);
        DELETE FROM ev_cursors k WHERE k.subscription = target AND k.number = c.number;
    END IF;
    RETURN n;
END $$;
