//! Every statement that is used on the tables, with the table's name in it. What is more than one step is a function of the database
//! (`schema.sql`), so that it is one round trip. There is told why tables are joined by `BETWEEN x AND x`, and what `+ 0` is for.

pub(crate) mod pattern;
pub(crate) mod rows;
pub(crate) mod select;

use crate::names::TableName;
use crate::postgres::statements::rows::{event_columns, progress_columns};

/// Selects the dead letters of a group; conditions may follow.
pub(crate) const SELECT_LETTER: &str = concat!(
    "SELECT ",
    progress_columns!(),
    ", d.dead_letter, s.name, d.reason, d.attempts, d.settled_at, d.errors, d.requeues FROM {events}_deliveries d \
     JOIN {events}_subscriptions s ON s.id = d.subscription JOIN {events} e ON e.position BETWEEN d.position AND d.position \
     WHERE d.state = 3 AND d.dead_letter IS NOT NULL AND s.member_of = $1"
);

/// The statements. What they do is told where they are used.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) insert: String,
    pub(crate) insert_one: String,
    pub(crate) by_id: String,
    pub(crate) select: String,
    pub(crate) position: String,
    pub(crate) claim: String,
    pub(crate) rescue: String,
    pub(crate) is_full: String,
    pub(crate) settle: String,
    pub(crate) mark: String,
    pub(crate) unmark: String,
    pub(crate) extend: String,
    pub(crate) tell: String,
    pub(crate) subscription: String,
    pub(crate) subscriptions: String,
    pub(crate) subscribe: String,
    pub(crate) change_pattern: String,
    pub(crate) backfill: String,
    pub(crate) note_missed: String,
    pub(crate) catch_up: String,
    pub(crate) caught_up: String,
    pub(crate) serve: String,
    pub(crate) unsubscribe: String,
    pub(crate) forget: String,
    pub(crate) orphans: String,
    pub(crate) gone: String,
    pub(crate) own: String,
    pub(crate) unused: String,
    pub(crate) name: String,
    pub(crate) unname: String,
    pub(crate) others: String,
    pub(crate) show_life: String,
    pub(crate) used: String,
    pub(crate) delete: String,
    pub(crate) counts: String,
    pub(crate) expire: String,
    pub(crate) count: String,
    pub(crate) counted: String,
    pub(crate) requeue: String,
    pub(crate) purge: String,
    pub(crate) replay: String,
    pub(crate) lag: String,
    pub(crate) dead: String,
    pub(crate) oldest_transaction: &'static str,
    /// The name of the table itself, for statements that depend on what is asked.
    pub(crate) events: String,
}

impl Statements {
    pub(crate) fn new(table: &TableName) -> Self {
        let fill = |text: &str| {
            text.replace("{matches:e.type}", &pattern::condition("e.type")).replace("{events}", table.as_str())
        };
        Self {
            insert: fill(
                "INSERT INTO {events} (id, source, type, payload, user_id, session_id, instance_id, schema, entity, operation, \
                 created_at, created_nanos, metadata, key, origin) \
                 SELECT i.id, i.source, i.type, i.payload::json, i.user_id, i.session_id, i.instance_id, i.schema, i.entity, \
                 i.operation, i.created_at, i.created_nanos, i.metadata::json, i.key, $15 \
                 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[], \
                 $9::text[], $10::text[], $11::timestamptz[], $12::smallint[], $13::text[], $14::text[]) WITH ORDINALITY \
                 AS i(id, source, type, payload, user_id, session_id, instance_id, schema, entity, operation, created_at, \
                 created_nanos, metadata, key, number) ORDER BY i.number ON CONFLICT (id) DO NOTHING RETURNING id",
            ),
            // One notification for all events of a transaction: PostgreSQL sends equal ones once.
            insert_one: fill(
                "WITH stored AS (INSERT INTO {events} (id, source, type, payload, user_id, session_id, instance_id, schema, entity, \
                 operation, created_at, created_nanos, metadata, key) \
                 VALUES ($1::text, $2::text, $3::text, $4::text::json, $5::bigint, $6::text, $7::text, $8::text, $9::text, $10::text, \
                 $11::text::timestamptz, $12::bigint::smallint, $13::text::json, $14::text) \
                 ON CONFLICT (id) DO NOTHING RETURNING id) \
                 SELECT id FROM stored, pg_notify($15::text, $16::text)",
            ),
            by_id: fill(concat!("SELECT ", progress_columns!(), " FROM {events} e WHERE e.id = ANY ($1)")),
            select: fill(concat!("SELECT ", progress_columns!(), " FROM {events} e WHERE true")),
            position: fill("SELECT e.position, e.xid::text::bigint FROM {events} e WHERE e.id = $1"),
            claim: fill(concat!(
                "SELECT c.token, c.subscription, c.position, c.suspect, c.crashes, ",
                event_columns!(),
                " FROM {events}_claim($1, make_interval(secs => $2), $3, $4, $5, $6) c \
                 CROSS JOIN LATERAL (SELECT (c.event).*) e ORDER BY c.token"
            )),
            rescue: fill(
                "UPDATE {events}_deliveries d SET state = 0, suspect = true, crashes = crashes + marked::integer, marked = false, \
                 holder = NULL, token = NULL FROM (SELECT position, subscription FROM {events}_deliveries \
                 WHERE state = 1 AND leased_until <= clock_timestamp() ORDER BY leased_until LIMIT 10000 \
                 FOR UPDATE SKIP LOCKED) x WHERE d.position BETWEEN x.position AND x.position AND d.subscription = x.subscription",
            ),
            // What lies between the oldest delivery that waits and the newest event is no less than what waits: it is counted only
            // if that is enough.
            is_full: fill(
                "SELECT EXISTS (SELECT 1 FROM {events}_subscriptions s WHERE CASE WHEN \
                 (SELECT max(position) FROM {events}) + 1 - (SELECT min(d.position) FROM {events}_deliveries d \
                 WHERE d.state = 0 AND d.subscription = s.id) >= $1 \
                 THEN (SELECT count(*) FROM (SELECT 1 FROM {events}_deliveries d \
                 WHERE d.state = 0 AND d.subscription = s.id LIMIT $1) waiting) >= $1 ELSE false END)",
            ),
            settle: fill("SELECT * FROM {events}_settle($1, $2, $3, $4, $5, $6, $7, $8, $9)"),
            mark: fill(
                "UPDATE {events}_deliveries SET marked = true \
                 WHERE position = $1 AND subscription = $2 AND token = $3 AND holder = $4 AND state + 0 = 1",
            ),
            unmark: fill(
                "UPDATE {events}_deliveries SET marked = false, suspect = false, crashes = 0 \
                 WHERE position = $1 AND subscription = $2 AND token = $3 AND holder = $4 AND state + 0 = 1",
            ),
            extend: fill(
                "UPDATE {events}_deliveries d SET leased_until = clock_timestamp() + make_interval(secs => $5) \
                 FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS i(position, subscription, token) \
                 WHERE d.position BETWEEN i.position AND i.position AND d.subscription = i.subscription AND d.token = i.token \
                 AND d.holder = $4 AND d.state + 0 = 1 RETURNING i.token",
            ),
            tell: fill("SELECT {events}_tell($1, $2, $3, $4, $5)"),
            subscription: fill(
                "SELECT id, pattern FROM {events}_subscriptions WHERE member_of = $1 AND name = $2 AND instance = $3",
            ),
            subscriptions: fill(
                "SELECT s.name, s.id FROM unnest($2::text[], $3::text[]) AS i(name, instance) \
                 JOIN {events}_subscriptions s ON s.member_of = $1 AND s.name = i.name AND s.instance = i.instance",
            ),
            subscribe: fill(
                "INSERT INTO {events}_subscriptions (member_of, name, instance, pattern, final_rest, dots, glob, literals, \
                 durable, missed_after, missed_since, missed_from) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::bigint, $11, \
                 CASE WHEN $10::bigint IS NOT NULL THEN pg_snapshot_xmin(pg_current_snapshot()) END) \
                 ON CONFLICT DO NOTHING RETURNING id",
            ),
            change_pattern: fill(
                "UPDATE {events}_subscriptions SET pattern = $2, final_rest = $3, dots = $4, glob = $5, literals = $6 \
                 WHERE id = $1",
            ),
            // What a new subscription missed; the statuses of the events do not depend on it.
            backfill: fill(
                "INSERT INTO {events}_deliveries (position, subscription, key, counts) \
                 SELECT e.position, s.id, e.key, false FROM {events}_subscriptions s, {events} e \
                 WHERE s.id = $1 AND e.position > s.missed_after AND e.created_at >= s.missed_since AND {matches:e.type} \
                 ON CONFLICT DO NOTHING",
            ),
            // Whatever did not see a new subscription belongs to a transaction that was there before it could be seen.
            note_missed: fill(
                "UPDATE {events}_subscriptions SET missed_before = pg_snapshot_xmax(pg_current_snapshot()) \
                 WHERE missed_from IS NOT NULL AND missed_before IS NULL",
            ),
            catch_up: fill(
                "INSERT INTO {events}_deliveries (position, subscription, key, counts) \
                 SELECT e.position, s.id, e.key, false FROM {events}_subscriptions s, {events} e \
                 WHERE s.missed_before <= pg_snapshot_xmin(pg_current_snapshot()) \
                 AND e.xid >= s.missed_from AND e.xid < s.missed_before \
                 AND e.position > s.missed_after AND e.created_at >= s.missed_since AND {matches:e.type} ON CONFLICT DO NOTHING",
            ),
            caught_up: fill(
                "WITH ended AS (UPDATE {events}_subscriptions SET missed_from = NULL, missed_before = NULL \
                 WHERE missed_before <= $1::text::xid8 RETURNING id) \
                 SELECT count(*) FROM {events}_subscriptions WHERE missed_from IS NOT NULL \
                 AND id NOT IN (SELECT id FROM ended)",
            ),
            serve: fill(
                "UPDATE {events}_subscriptions SET owner = $2, alive_until = clock_timestamp() + make_interval(secs => $3), \
                 used_at = clock_timestamp() WHERE id = $1",
            ),
            unsubscribe: fill("DELETE FROM {events}_subscriptions WHERE id = $1"),
            forget: fill("SELECT {events}_forget($1, $2)"),
            // Subscriptions that were removed while an event for them was being stored.
            orphans: fill(
                "WITH RECURSIVE ids AS (SELECT min(subscription) AS id FROM {events}_deliveries WHERE state = 0 \
                 UNION ALL SELECT (SELECT min(d.subscription) FROM {events}_deliveries d WHERE d.state = 0 \
                 AND d.subscription > ids.id) FROM ids WHERE ids.id IS NOT NULL) \
                 SELECT id FROM ids WHERE id IS NOT NULL \
                 AND NOT EXISTS (SELECT 1 FROM {events}_subscriptions s WHERE s.id = ids.id)",
            ),
            gone: fill(
                "SELECT id FROM {events}_subscriptions WHERE owner IS NOT NULL AND NOT durable AND alive_until <= clock_timestamp()",
            ),
            own: fill("SELECT id FROM {events}_subscriptions WHERE owner = $1 AND NOT durable"),
            unused: fill(
                "SELECT id, member_of, name FROM {events}_subscriptions \
                 WHERE used_at < clock_timestamp() - make_interval(secs => $1)",
            ),
            name: fill(
                "INSERT INTO {events}_instances AS n VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3)) \
                 ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, alive_until = excluded.alive_until \
                 WHERE n.holder = excluded.holder OR n.alive_until <= clock_timestamp() RETURNING true",
            ),
            unname: fill("DELETE FROM {events}_instances WHERE holder = $1"),
            others: fill(
                "SELECT EXISTS (SELECT 1 FROM {events}_instances WHERE holder <> $1 AND alive_until > clock_timestamp())",
            ),
            show_life: fill(
                "WITH named AS (UPDATE {events}_instances SET alive_until = clock_timestamp() + make_interval(secs => $2) \
                 WHERE holder = $1) \
                 UPDATE {events}_subscriptions SET alive_until = clock_timestamp() + make_interval(secs => $3) \
                 WHERE owner = $1 AND NOT durable",
            ),
            used: fill(
                "UPDATE {events}_subscriptions s SET used_at = clock_timestamp() \
                 FROM unnest($2::text[], $3::text[]) AS i(name, instance) \
                 WHERE s.member_of = $1 AND s.name = i.name AND s.instance = i.instance",
            ),
            delete: fill(
                "WITH old AS (DELETE FROM {events} WHERE id = $1 RETURNING position), gone AS \
                 (DELETE FROM {events}_deliveries d USING old WHERE d.position BETWEEN old.position AND old.position) \
                 SELECT count(*) FROM old",
            ),
            counts: fill("SELECT status, count(*) FROM {events} GROUP BY status"),
            // What waits or runs is not old, whatever the status of its event says: it may have been delivered again.
            expire: fill(
                "WITH old AS (SELECT e.position FROM {events} e \
                 WHERE e.created_at < clock_timestamp() - make_interval(secs => $1) \
                 AND e.completed_at < clock_timestamp() - make_interval(secs => $1) \
                 AND e.status IN ('completed', 'failed') AND NOT EXISTS \
                 (SELECT 1 FROM {events}_deliveries d WHERE d.position BETWEEN e.position AND e.position AND d.state < 2) \
                 ORDER BY e.created_at LIMIT $2 FOR UPDATE SKIP LOCKED), \
                 deleted AS (DELETE FROM {events} e USING old WHERE e.position BETWEEN old.position AND old.position), \
                 gone AS (DELETE FROM {events}_deliveries d USING old WHERE d.position BETWEEN old.position AND old.position \
                 RETURNING d.state) \
                 SELECT count(*) FILTER (WHERE state = 3), (SELECT count(*) FROM old) FROM gone",
            ),
            count: fill(
                "INSERT INTO {events}_meta AS m VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = m.value + excluded.value",
            ),
            counted: fill("SELECT value FROM {events}_meta WHERE name = $1"),
            requeue: fill("SELECT * FROM {events}_requeue($1, $2)"),
            purge: fill(
                "UPDATE {events}_deliveries SET state = 4, errors = NULL, dead_letter = NULL \
                 WHERE dead_letter = ANY ($2) AND state = 3 \
                 AND subscription IN (SELECT id FROM {events}_subscriptions WHERE member_of = $1)",
            ),
            replay: fill("SELECT {events}_replay($1, $2)"),
            lag: fill(
                "SELECT s.member_of, s.name, s.instance, s.pattern, \
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
            ),
            dead: fill(
                "SELECT count(*), coalesce(max(d.dead_letter), 0) FROM {events}_deliveries d \
                 JOIN {events}_subscriptions s ON s.id = d.subscription \
                 WHERE d.state = 3 AND d.dead_letter IS NOT NULL AND s.member_of = $1",
            ),
            // In any database of the server: their numbers are all from one sequence. When a transaction of another user began is
            // shown to members of `pg_read_all_stats` only.
            oldest_transaction: "SELECT extract(epoch FROM clock_timestamp() - min(begun))::float8 FROM \
                 (SELECT xact_start AS begun FROM pg_stat_activity WHERE backend_xid IS NOT NULL \
                 UNION ALL SELECT prepared FROM pg_prepared_xacts) open",
            events: table.as_str().to_owned(),
        }
    }
}
