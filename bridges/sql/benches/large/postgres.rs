//! A database of many events, on a server of its own.

use eventbroker::provider::Provider;
use eventbroker_conformance::postgres::Server;
use eventbroker_sql::Postgres;
use postgres::{Client, NoTls};

use super::{RETENTION, Table, prepare, steps};

pub(super) struct Database {
    url: String,
    rows: u64,
    /// It goes with this.
    _server: Server,
}

impl Table for Database {
    fn rows(&self) -> u64 {
        self.rows
    }

    fn provider(&self) -> Provider {
        Postgres::new(&self.url).retention(RETENTION).open().expect("it opens")
    }
}

pub(super) fn filled(rows: u64) -> Database {
    let server = Server::durable();
    let database = Database { url: server.database(), rows, _server: server };
    prepare(database.provider());
    let mut sql = Client::connect(&database.url, NoTls).expect("it connects");
    let mut run = |text: &str| sql.batch_execute(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    run("SET synchronous_commit = off; SET maintenance_work_mem = '512MB'; SET max_parallel_maintenance_workers = 2; \
         ALTER TABLE events DISABLE TRIGGER events_deliver; \
         CREATE TEMP TABLE dropped AS SELECT indexname, indexdef FROM pg_indexes \
         WHERE schemaname = 'public' AND indexname LIKE 'events\\_%\\_%' AND indexdef NOT LIKE 'CREATE UNIQUE%'; \
         DO $$ DECLARE d record; BEGIN FOR d IN SELECT * FROM dropped LOOP EXECUTE 'DROP INDEX ' || d.indexname; END LOOP; END $$");
    let failed = "i % 10000 = 9999";
    for (first, end) in steps(rows) {
        run(&format!(
            "INSERT INTO events (id, source, type, status, payload, user_id, instance_id, schema, entity, operation, \
             created_at, completed_at, key) SELECT '01900000-0000-7000-8000-' || lpad(i::text, 12, '0'), 'database', \
             'shop.entity' || (i % 50) || '.create', CASE WHEN {failed} THEN 'failed' ELSE 'completed' END, \
             json_build_object('total', i), i % 10000, 'host', 'shop', 'entity' || (i % 50), 'create', \
             to_timestamp(1700000000 + i / 100), now(), 'k' || (i % 100000) FROM generate_series({first}, {end} - 1) i"
        ));
        run(&format!(
            "INSERT INTO events_deliveries (position, subscription, state, key, attempts, settled_at) \
             SELECT i + 1, 1, CASE WHEN {failed} THEN 3 ELSE 2 END, 'k' || (i % 100000), 1, now() \
             FROM generate_series({first}, {end} - 1) i"
        ));
    }
    run("DO $$ DECLARE d record; BEGIN FOR d IN SELECT * FROM dropped LOOP EXECUTE d.indexdef; END LOOP; END $$; \
         ALTER TABLE events ENABLE TRIGGER events_deliver");
    run("VACUUM ANALYZE events");
    run("VACUUM ANALYZE events_deliveries");
    run("CHECKPOINT");
    database
}
