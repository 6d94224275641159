-- The wide row of an event, written once. Used by A, B and C.
CREATE SEQUENCE ev_position;
CREATE TABLE ev (
    -- The transaction has its number before it takes a position: see "holes" in c.sql.
    position      bigint PRIMARY KEY DEFAULT (CASE WHEN pg_current_xact_id() IS NOT NULL THEN nextval('ev_position') END),
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    user_id       bigint,
    -- A UUID as it is; for another text its hash (version 8), and the text in `name`.
    id            uuid NOT NULL,
    created_nanos smallint NOT NULL DEFAULT 0,
    name          text,
    source        text NOT NULL,
    type          text COLLATE "C" NOT NULL,
    payload       json,
    session_id    text,
    instance_id   text,
    schema        text,
    entity        text,
    operation     text,
    metadata      json,
    key           text,
    origin        text
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05);
CREATE UNIQUE INDEX ev_id ON ev (id);
CREATE INDEX ev_type ON ev (hashtext(type), position);
CREATE INDEX ev_user ON ev (user_id, position) WHERE user_id IS NOT NULL;
CREATE INDEX ev_key ON ev (hashtext(key), position) WHERE key IS NOT NULL;
CREATE INDEX ev_created ON ev (created_at);
CREATE TABLE ev_subscriptions (id integer PRIMARY KEY, glob text NOT NULL);
INSERT INTO ev_subscriptions VALUES (1, 'shop.orders.%'), (2, 'shop.orders.%');
-- One row per member, inserted again at each heartbeat in the real thing or updated every 10 s; here once.
CREATE TABLE ev_members (holder integer PRIMARY KEY, alive_until timestamptz NOT NULL, version integer NOT NULL DEFAULT 2);
INSERT INTO ev_members VALUES (1, now() + '1 day'), (2, now() + '1 day');
