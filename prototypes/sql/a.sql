-- A: updated rows with a moving bound.
CREATE SEQUENCE ev_token;
CREATE TABLE ev_deliveries (
    position     bigint NOT NULL,
    token        bigint,
    leased_at    timestamptz,
    settled_at   timestamptz,
    subscription integer NOT NULL,
    holder       integer,
    key_hash     integer,
    state        smallint NOT NULL DEFAULT 0,   -- 0 ready, 1 leased, 2 done, 3 dead
    attempts     smallint NOT NULL DEFAULT 0,
    claims       smallint NOT NULL DEFAULT 0,
    crashes      smallint NOT NULL DEFAULT 0,
    suspect      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (position, subscription)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX ev_deliveries_ready ON ev_deliveries (subscription, (position + 0)) WHERE state = 0;   -- `+ 0`: no other index fits, whatever the statistics say
CREATE INDEX ev_deliveries_keys ON ev_deliveries (subscription, key_hash, token) WHERE key_hash IS NOT NULL AND token IS NOT NULL;
CREATE FUNCTION ev_deliver() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off SET enable_sort = off SET enable_material = off SET jit = off AS $$
BEGIN
    INSERT INTO ev_deliveries (position, subscription, key_hash)
    SELECT n.position, s.id, hashtext(n.key) FROM inserted n JOIN ev_subscriptions s ON n.type LIKE s.glob;
    RETURN NULL;
END $$;
CREATE TRIGGER ev_deliver AFTER INSERT ON ev REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION ev_deliver();

-- `bounds`: nothing ready is below (the member's memory; give-backs lower it by a row of ev_returns, or a notification).
CREATE FUNCTION ev_claim(who integer, wanted integer[], rooms integer[], bounds bigint[], depth integer)
RETURNS TABLE (token bigint, subscription integer, "position" bigint, event ev) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off SET enable_sort = off SET enable_material = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    i integer; r record; newest smallint;
    ps bigint[]; free integer[]; busy integer[];
BEGIN
    FOR i IN 1 .. array_length(wanted, 1) LOOP
        CONTINUE WHEN NOT EXISTS (SELECT 1 FROM ev_deliveries d WHERE d.subscription = wanted[i] AND d.state = 0 AND d.position + 0 >= bounds[i]);
        PERFORM pg_advisory_xact_lock(18, wanted[i]);
        ps := '{}'; free := '{}'; busy := '{}';
        FOR r IN SELECT d.position, d.key_hash FROM ev_deliveries d
            WHERE d.subscription = wanted[i] AND d.state = 0 AND d.position + 0 >= bounds[i] ORDER BY d.position + 0 LIMIT rooms[i] + depth LOOP
            IF r.key_hash IS NOT NULL AND r.key_hash <> ALL (free) THEN
                CONTINUE WHEN r.key_hash = ANY (busy);
                SELECT d.state INTO newest FROM ev_deliveries d WHERE d.subscription = wanted[i] AND d.key_hash = r.key_hash AND d.token IS NOT NULL
                ORDER BY d.token DESC LIMIT 1;
                IF newest = 1 THEN busy := busy || r.key_hash; CONTINUE; END IF;
                free := free || r.key_hash;
            END IF;
            ps := ps || r.position;
            EXIT WHEN array_length(ps, 1) >= rooms[i];
        END LOOP;
        RETURN QUERY
        WITH leased AS (
            UPDATE ev_deliveries d SET state = 1, token = nextval('ev_token'), holder = who, leased_at = clock_timestamp(), claims = d.claims + 1
            FROM (SELECT p.position, wanted[i] AS s FROM unnest(ps) p(position) OFFSET 0) p WHERE d.position BETWEEN p.position AND p.position AND d.subscription = p.s AND d.state + 0 = 0
            RETURNING d.token, d.subscription, d.position)
        SELECT l.token, l.subscription, l.position, e FROM leased l JOIN ev e ON e.position BETWEEN l.position AND l.position ORDER BY l.position;
    END LOOP;
END $$;

CREATE FUNCTION ev_settle(who integer, positions bigint[], subscriptions integer[], tokens bigint[]) RETURNS bigint LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off SET enable_sort = off SET enable_material = off SET jit = off AS $$
DECLARE n bigint;
BEGIN
    UPDATE ev_deliveries d SET state = 2, attempts = 1, settled_at = clock_timestamp()
    FROM unnest(positions, subscriptions, tokens) i(position, subscription, token)
    WHERE d.position BETWEEN i.position AND i.position AND d.subscription = i.subscription AND d.token + 0 = i.token AND d.holder = who AND d.state + 0 = 1;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
