-- Version 1. `{events}` is the name of the table.
CREATE TABLE {events} (
    position     INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    source       TEXT NOT NULL,
    type         TEXT NOT NULL,
    status       TEXT NOT NULL DEFAULT 'pending',
    retry_count  INTEGER NOT NULL DEFAULT 0,
    error        TEXT,
    payload      TEXT,
    user_id      INTEGER,
    session_id   TEXT,
    instance_id  TEXT,
    schema       TEXT,
    entity       TEXT,
    operation    TEXT,
    created_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000000Z', 'now')),
    processed_at TEXT,
    completed_at TEXT,
    metadata     TEXT,
    key          TEXT,
    -- The provider that published the event, and the status and error of its local deliveries.
    origin       TEXT,
    local_status TEXT,
    local_error  TEXT
);
CREATE INDEX {events}_by_status ON {events} (status, id) WHERE status <> 'completed';
CREATE INDEX {events}_by_user ON {events} (user_id, id, created_at) WHERE user_id IS NOT NULL;
CREATE INDEX {events}_by_source ON {events} (source, id, created_at);
CREATE INDEX {events}_by_schema ON {events} (schema, id, created_at) WHERE schema IS NOT NULL;
CREATE INDEX {events}_by_entity ON {events} (entity, id, created_at) WHERE entity IS NOT NULL;
CREATE INDEX {events}_by_operation ON {events} (operation, id, created_at) WHERE operation IS NOT NULL;
CREATE INDEX {events}_by_instance ON {events} (instance_id, id, created_at);
CREATE INDEX {events}_by_created ON {events} (created_at);

CREATE TABLE {events}_subscriptions (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    member_of  TEXT NOT NULL,
    name       TEXT NOT NULL,
    pattern    TEXT NOT NULL,
    -- `pattern` in the form that the trigger compares with: see `pattern.rs`.
    final_rest INTEGER NOT NULL,
    dots       INTEGER NOT NULL,
    glob       TEXT NOT NULL,
    literals   TEXT,
    -- Only of a broadcast subscription: the name of its instance if it is durable, else its provider.
    instance   TEXT NOT NULL DEFAULT '',
    durable    INTEGER NOT NULL DEFAULT 0,
    -- Only of a broadcast subscription: the provider that serves it, and when it expires without a heartbeat.
    owner      TEXT,
    alive_until INTEGER,
    -- When a provider served the subscription last.
    used_at    TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000000Z', 'now')),
    UNIQUE (member_of, name, instance)
);

-- The names of instances: the process that holds each, and when the name expires without a heartbeat.
CREATE TABLE {events}_instances (
    name        TEXT PRIMARY KEY,
    holder      TEXT NOT NULL,
    alive_until INTEGER NOT NULL
) WITHOUT ROWID;

-- state: 0 ready, 1 leased, 2 done, 3 dead, 4 dead and purged.
CREATE TABLE {events}_deliveries (
    position     INTEGER NOT NULL,
    subscription INTEGER NOT NULL,
    state        INTEGER NOT NULL DEFAULT 0,
    -- Whether the event's status depends on the delivery.
    counts       INTEGER NOT NULL DEFAULT 1,
    key          TEXT,
    attempts     INTEGER NOT NULL DEFAULT 0,
    claims       INTEGER NOT NULL DEFAULT 0,
    suspect      INTEGER NOT NULL DEFAULT 0,
    crashes      INTEGER NOT NULL DEFAULT 0,
    marked       INTEGER NOT NULL DEFAULT 0,
    holder       TEXT,
    token        INTEGER,
    leased_until INTEGER,
    settled_at   TEXT,
    reason       TEXT,
    error        TEXT,
    -- Only of a dead letter: its number, the errors of its attempts as JSON, and how often it was requeued before.
    dead_letter  INTEGER,
    errors       TEXT,
    requeues     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (position, subscription)
) WITHOUT ROWID;
CREATE INDEX {events}_deliveries_ready ON {events}_deliveries (subscription, position) WHERE state = 0;
CREATE INDEX {events}_deliveries_leased ON {events}_deliveries (leased_until) WHERE state = 1;
CREATE INDEX {events}_deliveries_keys ON {events}_deliveries (subscription, key) WHERE state = 1 AND key IS NOT NULL;
CREATE INDEX {events}_deliveries_dead ON {events}_deliveries (dead_letter, subscription) WHERE state = 3;

-- Makes one delivery for each subscription whose pattern matches, whichever program inserts the event.
CREATE TRIGGER {events}_deliver AFTER INSERT ON {events} BEGIN
    INSERT INTO {events}_deliveries (position, subscription, key, counts)
    SELECT NEW.position, s.id, NEW.key, s.owner IS NULL OR s.owner IS NEW.origin
    FROM {events}_subscriptions s
    WHERE {matches};
    UPDATE {events} SET status = 'completed', completed_at = created_at
    WHERE position = NEW.position AND status = 'pending' AND NOT EXISTS (
        SELECT 1 FROM {events}_deliveries d WHERE d.position = NEW.position AND d.counts);
END;
