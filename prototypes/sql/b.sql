-- B: append-only log with rotation. Leases and outcomes are inserted, never changed; four slots; a slot is truncated when all its leases have outcomes.
CREATE TABLE ev_slots (number bigint PRIMARY KEY, slot smallint NOT NULL, began timestamptz NOT NULL DEFAULT clock_timestamp());
INSERT INTO ev_slots VALUES (0, 0);
CREATE TABLE ev_cursors (slot smallint NOT NULL, subscription integer NOT NULL, number bigint NOT NULL, position bigint NOT NULL,
    holes bigint[] NOT NULL DEFAULT '{}', stale bigint[] NOT NULL DEFAULT '{}', xids xid8[] NOT NULL DEFAULT '{}', xid_from xid8 NOT NULL DEFAULT '0', xid_to xid8 NOT NULL DEFAULT '0',
    PRIMARY KEY (slot, subscription, number)) PARTITION BY LIST (slot);
CREATE TABLE ev_leases (position bigint NOT NULL, token bigint NOT NULL, leased_at timestamptz NOT NULL, subscription integer NOT NULL, holder integer NOT NULL,
    key_hash integer, slot smallint NOT NULL, claims smallint NOT NULL DEFAULT 1, PRIMARY KEY (slot, subscription, position, token)) PARTITION BY LIST (slot);
CREATE TABLE ev_outcomes (position bigint NOT NULL, token bigint NOT NULL, settled_at timestamptz NOT NULL, subscription integer NOT NULL,
    slot smallint NOT NULL, attempts smallint NOT NULL, state smallint NOT NULL, PRIMARY KEY (slot, subscription, position, token)) PARTITION BY LIST (slot);
DO $$ BEGIN FOR i IN 0..3 LOOP
    EXECUTE format('CREATE TABLE ev_cursors_%1$s PARTITION OF ev_cursors FOR VALUES IN (%1$s) WITH (autovacuum_enabled = off)', i);
    EXECUTE format('CREATE TABLE ev_leases_%1$s PARTITION OF ev_leases FOR VALUES IN (%1$s) WITH (autovacuum_enabled = off)', i);
    EXECUTE format('CREATE TABLE ev_outcomes_%1$s PARTITION OF ev_outcomes FOR VALUES IN (%1$s) WITH (autovacuum_enabled = off)', i);
END LOOP; END $$;
INSERT INTO ev_cursors (slot, subscription, number, position) VALUES (0, 1, 0, 0), (0, 2, 0, 0);

CREATE FUNCTION ev_claim(who integer, wanted integer[], rooms integer[], first_token bigint)
RETURNS TABLE (token bigint, subscription integer, "position" bigint, in_slot smallint, event ev) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off SET enable_sort = off SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
DECLARE i integer; s integer; now_slot smallint; c ev_cursors; r record; pattern text; taken integer; ps bigint[]; filled bigint[]; last bigint; running xid8[]; next_xid xid8; changed boolean;
BEGIN
    token := first_token;
    SELECT x.slot INTO now_slot FROM ev_slots x ORDER BY x.number DESC LIMIT 1;
    FOR i IN 1 .. array_length(wanted, 1) LOOP
        s := wanted[i];
        SELECT * INTO c FROM ev_cursors k WHERE k.slot = now_slot AND k.subscription = s ORDER BY k.number DESC LIMIT 1;
        CONTINUE WHEN c.holes = '{}' AND c.stale = '{}' AND NOT EXISTS (SELECT 1 FROM ev e WHERE e.position > c.position);
        PERFORM pg_advisory_xact_lock(18, s);
        SELECT x.slot INTO now_slot FROM ev_slots x ORDER BY x.number DESC LIMIT 1;
        SELECT * INTO c FROM ev_cursors k WHERE k.slot = now_slot AND k.subscription = s ORDER BY k.number DESC LIMIT 1;
        SELECT glob INTO pattern FROM ev_subscriptions x WHERE x.id = s;
        ps := '{}'; filled := '{}'; taken := 0; last := c.position; changed := false;
        FOR r IN SELECT q.snap, x.position, x.type, x.event FROM (SELECT pg_current_snapshot() AS snap) q LEFT JOIN LATERAL (
                (SELECT e.position, e.type, e AS event FROM ev e WHERE e.position = ANY (c.holes || c.stale))
                UNION ALL (SELECT e.position, e.type, e AS event FROM ev e WHERE e.position > c.position ORDER BY e.position LIMIT rooms[i])) x ON true LOOP
            running := ARRAY(SELECT pg_snapshot_xip(r.snap)); next_xid := pg_snapshot_xmax(r.snap);
            EXIT WHEN r.position IS NULL;
            changed := true;
            IF r.position <= c.position THEN filled := filled || r.position;
            ELSE
                IF r.position > last + 1 THEN c.holes := c.holes || ARRAY(SELECT generate_series(last + 1, r.position - 1)); END IF;
                last := r.position;
            END IF;
            CONTINUE WHEN NOT r.type LIKE pattern;
            taken := taken + 1; ps := ps || r.position;
            subscription := s; position := r.position; in_slot := now_slot; event := r.event; RETURN NEXT; token := token + 1;
        END LOOP;
        IF c.holes <> '{}' OR c.stale <> '{}' THEN
            IF filled <> '{}' THEN
                c.holes := ARRAY(SELECT h FROM unnest(c.holes) h WHERE h <> ALL (filled));
                c.stale := ARRAY(SELECT h FROM unnest(c.stale) h WHERE h <> ALL (filled));
            END IF;
            IF c.stale <> '{}' AND NOT EXISTS (SELECT 1 FROM unnest(running) x WHERE x = ANY (c.xids) OR x >= c.xid_from AND x < c.xid_to) THEN c.stale := '{}'; changed := true; END IF;
            IF c.stale = '{}' AND c.holes <> '{}' THEN
                c.stale := c.holes; c.xids := running; c.xid_from := next_xid; c.xid_to := pg_current_xact_id();
                c.holes := '{}'; changed := true;
            END IF;
        END IF;
        IF changed THEN
            INSERT INTO ev_leases (position, token, leased_at, subscription, holder, slot)
            SELECT n.p, first_token + n.number - 1, clock_timestamp(), s, who, now_slot FROM unnest(ps) WITH ORDINALITY n(p, number);
            first_token := first_token + taken;
            INSERT INTO ev_cursors VALUES (now_slot, s, c.number + 1, last, c.holes, c.stale, c.xids, c.xid_from, c.xid_to);
        END IF;
    END LOOP;
END $$;
CREATE FUNCTION ev_settle(who integer, positions bigint[], subscriptions integer[], tokens bigint[], slots smallint[]) RETURNS bigint LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off SET enable_sort = off SET enable_material = off SET jit = off AS $$
DECLARE n bigint;
BEGIN
    INSERT INTO ev_outcomes
    SELECT i.position, i.token, clock_timestamp(), i.subscription, i.slot, 1, 2 FROM unnest(positions, subscriptions, tokens, slots) i(position, subscription, token, slot)
    JOIN ev_leases l ON l.slot = i.slot AND l.subscription = i.subscription AND l.position BETWEEN i.position AND i.position AND l.token = i.token AND l.holder = who
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
-- Goes on into the next slot if that is empty; truncates what is done. 'locked': a dump holds it, tried later (the real thing then makes another slot).
CREATE FUNCTION ev_rotate() RETURNS text LANGUAGE plpgsql SET jit = off AS $$
DECLARE x ev_slots; next smallint; full_slot boolean; k smallint; done text := '';
BEGIN
    SELECT * INTO x FROM ev_slots ORDER BY number DESC LIMIT 1;
    next := (x.slot + 1) % 4;
    EXECUTE format('SELECT EXISTS (SELECT 1 FROM ev_leases_%s)', next) INTO full_slot;
    IF full_slot THEN
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM ev_leases_%1$s l WHERE NOT EXISTS (SELECT 1 FROM ev_outcomes_%1$s o WHERE o.slot = l.slot AND o.subscription = l.subscription AND o.position = l.position AND o.token = l.token))', next) INTO full_slot;
        IF full_slot THEN RETURN 'open leases'; END IF;
        SET LOCAL lock_timeout = '50ms';
        BEGIN
            EXECUTE format('TRUNCATE ev_leases_%1$s, ev_outcomes_%1$s, ev_cursors_%1$s', next);
        EXCEPTION WHEN lock_not_available THEN RETURN 'locked';
        END;
    END IF;
    SET LOCAL lock_timeout = 0;
    PERFORM pg_advisory_xact_lock(18, id) FROM (SELECT id FROM ev_subscriptions ORDER BY id) q;
    INSERT INTO ev_slots VALUES (x.number + 1, next);
    INSERT INTO ev_cursors SELECT next, q.subscription, q.number, q.position, q.holes, q.stale, q.xids, q.xid_from, q.xid_to FROM ev_subscriptions s CROSS JOIN LATERAL
        (SELECT * FROM ev_cursors k WHERE k.slot = x.slot AND k.subscription = s.id ORDER BY k.number DESC LIMIT 1) q;
    RETURN 'rotated';
END $$;
