//! The statements on the tables, and the conversion of rows. A step that takes several statements is a function of the database
//! (`schema.sql`), so that it is one round trip. `schema.sql` says why tables are joined by `BETWEEN x AND x`, and why `+ 0` is added.

mod pattern;
mod procedures;
mod rows;
mod select;
mod verdicts;

pub(crate) use pattern::{columns, condition};
pub(crate) use procedures::{Tables, Work, forget, seconds};
pub(crate) use rows::{exact_time, insert_values, split_time, storable, unreadable};
pub(crate) use select::Select;
pub(crate) use verdicts::{State, Verdict, settle};

use crate::postgres::transport::{SYNCED, UNSYNCED};
use crate::statements::{progress_columns, statements};
use rows::event_columns;

/// Inserts events in their order. `$condition` is a condition that is true.
macro_rules! insert_events {
    ($condition:literal) => {
        concat!(
            "INSERT INTO {events} (id, source, type, payload, user_id, session_id, instance_id, schema, entity, operation, \
        created_at, created_nanos, metadata, key, origin) \
        SELECT i.id, i.source, i.type, i.payload::json, i.user_id, i.session_id, i.instance_id, i.schema, i.entity, \
        i.operation, i.created_at, i.created_nanos, i.metadata::json, i.key, $15 \
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[], \
        $9::text[], $10::text[], $11::timestamptz[], $12::smallint[], $13::text[], $14::text[]) WITH ORDINALITY \
        AS i(id, source, type, payload, user_id, session_id, instance_id, schema, entity, operation, created_at, \
        created_nanos, metadata, key, number) WHERE ", $condition, " ORDER BY i.number ON CONFLICT (id) DO NOTHING RETURNING id"
        )
    };
}

statements! {
    columns: event_columns;
    fill: |text, table| text
        .replace('?', "$")
        .replace("{matches:e.type}", &condition("e.type"))
        .replace("{synced}", SYNCED)
        .replace("{unsynced}", UNSYNCED)
        .replace("{events}", table.as_str());
    insert: insert_events!("{synced}"),
    /// The same in a transaction of the program, which says itself how it is committed.
    insert_in: insert_events!("true"),
    /// PostgreSQL sends equal notifications of one transaction once.
    insert_one:
        "WITH stored AS (INSERT INTO {events} (id, source, type, payload, user_id, session_id, instance_id, schema, entity, \
        operation, created_at, created_nanos, metadata, key) \
        VALUES ($1::text, $2::text, $3::text, $4::text::json, $5::bigint, $6::text, $7::text, $8::text, $9::text, $10::text, \
        $11::text::timestamptz, $12::bigint::smallint, $13::text::json, $14::text) \
        ON CONFLICT (id) DO NOTHING RETURNING id) \
        SELECT id FROM stored, pg_notify($15::text, $16::text)",
    by_id: concat!("SELECT ", progress_columns!(event_columns), " FROM {events} e WHERE e.id = ANY ($1)"),
    position: "SELECT e.position, e.xid::text::bigint FROM {events} e WHERE e.id = $1",
    claim: concat!(
        "SELECT c.token, c.subscription, c.position, c.suspect, c.crashes, ",
        event_columns!(),
        " FROM {events}_claim($1, make_interval(secs => $2), $3, $4, $5, $6) c \
         CROSS JOIN LATERAL (SELECT (c.event).*) e WHERE {unsynced} ORDER BY c.token"
    ),
    expire_leases:
        "UPDATE {events}_deliveries d SET state = 0, suspect = true, crashes = crashes + marked::integer, marked = false, \
        holder = NULL, token = NULL FROM (SELECT position, subscription FROM {events}_deliveries \
        WHERE state = 1 AND leased_until <= clock_timestamp() ORDER BY leased_until LIMIT 10000 \
        FOR UPDATE SKIP LOCKED) x WHERE d.position BETWEEN x.position AND x.position AND d.subscription = x.subscription \
        AND {unsynced}",
    settle: "SELECT * FROM {events}_settle($1, $2, $3, $4, $5, $6, $7, $8, $9) WHERE {unsynced}",
    mark: "UPDATE {events}_deliveries SET marked = true \
        WHERE position = $1 AND subscription = $2 AND token = $3 AND holder = $4 AND state + 0 = 1 AND {unsynced}",
    unmark: "UPDATE {events}_deliveries SET marked = false, suspect = false, crashes = 0 \
        WHERE position = $1 AND subscription = $2 AND token = $3 AND holder = $4 AND state + 0 = 1 AND {unsynced}",
    extend: "UPDATE {events}_deliveries d SET leased_until = clock_timestamp() + make_interval(secs => $5) \
        FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS i(position, subscription, token) \
        WHERE d.position BETWEEN i.position AND i.position AND d.subscription = i.subscription AND d.token = i.token \
        AND d.holder = $4 AND d.state + 0 = 1 AND {unsynced} RETURNING i.token",
    record_local_status: "SELECT {events}_tell($1, $2, $3, $4, $5) WHERE {synced}",
    subscriptions: "SELECT s.name, s.id FROM unnest($2::text[], $3::text[]) AS i(name, instance) \
        JOIN {events}_subscriptions s ON s.member_of = $1 AND s.name = i.name AND s.instance = i.instance",
    insert_subscription:
        "INSERT INTO {events}_subscriptions (member_of, name, instance, pattern, final_rest, dots, glob, literals, \
        durable, missed_after, missed_since, missed_from) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::bigint, $11, \
        CASE WHEN $10::bigint IS NOT NULL THEN pg_snapshot_xmin(pg_current_snapshot()) END) \
        ON CONFLICT DO NOTHING RETURNING id",
    /// Makes the deliveries that a new subscription has missed. The statuses of the events do not depend on them.
    backfill: "INSERT INTO {events}_deliveries (position, subscription, key, counts) \
        SELECT e.position, s.id, e.key, false FROM {events}_subscriptions s, {events} e \
        WHERE s.id = $1 AND e.position > s.missed_after AND e.created_at >= s.missed_since AND {matches:e.type} \
        ON CONFLICT DO NOTHING",
    /// A transaction that did not see the new subscription had begun before the subscription was visible.
    record_missed: "UPDATE {events}_subscriptions SET missed_before = pg_snapshot_xmax(pg_current_snapshot()) \
        WHERE missed_from IS NOT NULL AND missed_before IS NULL",
    catch_up: "INSERT INTO {events}_deliveries (position, subscription, key, counts) \
        SELECT e.position, s.id, e.key, false FROM {events}_subscriptions s, {events} e \
        WHERE s.missed_before <= pg_snapshot_xmin(pg_current_snapshot()) \
        AND e.xid >= s.missed_from AND e.xid < s.missed_before \
        AND e.position > s.missed_after AND e.created_at >= s.missed_since AND {matches:e.type} ON CONFLICT DO NOTHING",
    end_catch_up: "WITH ended AS (UPDATE {events}_subscriptions SET missed_from = NULL, missed_before = NULL \
        WHERE missed_before <= $1::text::xid8 RETURNING id) \
        SELECT count(*) FROM {events}_subscriptions WHERE missed_from IS NOT NULL \
        AND id NOT IN (SELECT id FROM ended)",
    record_owner:
        "UPDATE {events}_subscriptions SET owner = $2, alive_until = clock_timestamp() + make_interval(secs => $3), \
        used_at = clock_timestamp() WHERE id = $1",
    forget_deliveries: "SELECT {events}_forget($1, $2)",
    /// Ids of removed subscriptions that still have deliveries: an event was being stored while the subscription was removed.
    orphaned_subscriptions:
        "WITH RECURSIVE ids AS (SELECT min(subscription) AS id FROM {events}_deliveries WHERE state = 0 \
        UNION ALL SELECT (SELECT min(d.subscription) FROM {events}_deliveries d WHERE d.state = 0 \
        AND d.subscription > ids.id) FROM ids WHERE ids.id IS NOT NULL) \
        SELECT id FROM ids WHERE id IS NOT NULL \
        AND NOT EXISTS (SELECT 1 FROM {events}_subscriptions s WHERE s.id = ids.id)",
    expired_broadcasts:
        "SELECT id FROM {events}_subscriptions WHERE owner IS NOT NULL AND NOT durable AND alive_until <= clock_timestamp()",
    unused_subscriptions: "SELECT id, member_of, name FROM {events}_subscriptions \
        WHERE used_at < clock_timestamp() - make_interval(secs => $1)",
    claim_instance: "INSERT INTO {events}_instances AS n VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3)) \
        ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, alive_until = excluded.alive_until \
        WHERE n.holder = excluded.holder OR n.alive_until <= clock_timestamp() RETURNING true",
    has_other_instances:
        "SELECT EXISTS (SELECT 1 FROM {events}_instances WHERE holder <> $1 AND alive_until > clock_timestamp())",
    heartbeat: "WITH named AS (UPDATE {events}_instances SET alive_until = clock_timestamp() + make_interval(secs => $2) \
        WHERE holder = $1) \
        UPDATE {events}_subscriptions SET alive_until = clock_timestamp() + make_interval(secs => $3) \
        WHERE owner = $1 AND NOT durable AND {unsynced}",
    record_use: "UPDATE {events}_subscriptions s SET used_at = clock_timestamp() \
        FROM unnest($2::text[], $3::text[]) AS i(name, instance) \
        WHERE s.member_of = $1 AND s.name = i.name AND s.instance = i.instance",
    delete_event: "WITH old AS (DELETE FROM {events} WHERE id = $1 RETURNING position), gone AS \
        (DELETE FROM {events}_deliveries d USING old WHERE d.position BETWEEN old.position AND old.position) \
        SELECT count(*) FROM old WHERE {synced}",
    /// An event with an open delivery has not expired, whatever its status: it may have been delivered again.
    delete_expired: "WITH old AS (SELECT e.position FROM {events} e \
        WHERE e.created_at < clock_timestamp() - make_interval(secs => $1) \
        AND e.completed_at < clock_timestamp() - make_interval(secs => $1) \
        AND e.status IN ('completed', 'failed') AND NOT EXISTS \
        (SELECT 1 FROM {events}_deliveries d WHERE d.position BETWEEN e.position AND e.position AND d.state < 2) \
        ORDER BY e.created_at LIMIT $2 FOR UPDATE SKIP LOCKED), \
        deleted AS (DELETE FROM {events} e USING old WHERE e.position BETWEEN old.position AND old.position), \
        gone AS (DELETE FROM {events}_deliveries d USING old WHERE d.position BETWEEN old.position AND old.position \
        RETURNING d.state) \
        SELECT count(*) FILTER (WHERE state = 3), (SELECT count(*) FROM old) FROM gone WHERE {unsynced}",
    add_to_counter:
        "INSERT INTO {events}_meta AS m VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = m.value + excluded.value",
    requeue: "SELECT * FROM {events}_requeue($1, $2) WHERE {synced}",
    purge: "UPDATE {events}_deliveries SET state = 4, errors = NULL, dead_letter = NULL \
        WHERE dead_letter = ANY ($2) AND state = 3 \
        AND subscription IN (SELECT id FROM {events}_subscriptions WHERE member_of = $1) AND {synced}",
    replay: "SELECT {events}_replay($1, $2)",
    lag: "SELECT s.member_of, s.name, s.instance, s.pattern, \
        (SELECT count(*) FROM {events}_deliveries d WHERE d.state = 0 AND d.subscription = s.id), \
        coalesce(l.leased, 0), coalesce(x.dead, 0), o.created_at, o.created_nanos \
        FROM {events}_subscriptions s \
        LEFT JOIN LATERAL (SELECT e.created_at, e.created_nanos FROM {events} e WHERE e.position = \
        (SELECT min(d.position) FROM {events}_deliveries d WHERE d.state = 0 AND d.subscription = s.id)) o ON true \
        LEFT JOIN (SELECT subscription, count(*) AS leased FROM {events}_deliveries WHERE state = 1 \
        GROUP BY subscription) l ON l.subscription = s.id \
        LEFT JOIN (SELECT subscription, count(*) AS dead FROM {events}_deliveries WHERE state = 3 \
        GROUP BY subscription) x ON x.subscription = s.id \
        ORDER BY s.member_of, s.name, s.instance",
    /// The age of the oldest open transaction in any database of the server, because all take their numbers from one sequence. Only a member
    /// of `pg_read_all_stats` sees when a transaction of another user began.
    oldest_transaction: "SELECT extract(epoch FROM clock_timestamp() - min(begun))::float8 FROM \
        (SELECT xact_start AS begun FROM pg_stat_activity WHERE backend_xid IS NOT NULL \
        UNION ALL SELECT prepared FROM pg_prepared_xacts) open",
    /// Selects the dead letters of a group. Conditions may follow.
    dead_letters: concat!(
        "SELECT ",
        progress_columns!(event_columns),
        ", d.dead_letter, s.name, d.reason, d.attempts, d.settled_at, d.errors, d.requeues FROM {events}_deliveries d \
         JOIN {events}_subscriptions s ON s.id = d.subscription JOIN {events} e ON e.position BETWEEN d.position AND d.position \
         WHERE d.state = 3 AND d.dead_letter IS NOT NULL AND s.member_of = $1"
    ),
    /// Selects the events that a replay may deliver to a subscription again. Conditions may follow.
    replayable: "SELECT e.position, e.id FROM {events} e LEFT JOIN LATERAL (SELECT d.state FROM {events}_deliveries d \
        WHERE d.position = e.position AND d.subscription = $1 OFFSET 0) d ON true WHERE coalesce(d.state, 2) > 1",
    /// Selects the events behind a transaction and a position in it, up to the oldest open transaction. Conditions may follow.
    tail: concat!(
        "SELECT ",
        progress_columns!(event_columns),
        ", e.xid::text::bigint, e.position FROM {events} e \
         WHERE e.xid < pg_snapshot_xmin(pg_current_snapshot()) AND (e.xid, e.position) > ($1::text::xid8, $2)"
    ),
    /// The newest transaction that has begun.
    last_transaction: "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1",
    /// The oldest open transaction.
    horizon: "SELECT pg_snapshot_xmin(pg_current_snapshot())::text",
    /// The name of the events' table, which is the payload of notifications.
    events: "{events}",
}
