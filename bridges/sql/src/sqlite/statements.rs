//! Every statement that is used on the tables, with the table's name in it.

pub(crate) mod pattern;
pub(crate) mod rows;

use crate::names::TableName;

/// The columns that a select of an event names, in the order in which `rows` reads them.
macro_rules! event_columns {
    () => {
        "e.id, e.source, e.type, e.payload, e.user_id, e.session_id, e.instance_id, e.schema, e.entity, e.operation, \
         e.created_at, e.metadata, e.key"
    };
}

/// Selects the dead letters of a group; conditions may follow.
pub(crate) const SELECT_LETTER: &str = concat!(
    "SELECT ",
    event_columns!(),
    ", e.status, e.retry_count, e.processed_at, e.completed_at, e.error, d.dead_letter, s.name, d.reason, d.attempts, \
     d.settled_at, d.errors, d.requeues FROM {events}_deliveries d JOIN {events}_subscriptions s ON s.id = d.subscription \
     JOIN {events} e ON e.position = d.position WHERE d.state = 3 AND d.dead_letter IS NOT NULL AND s.member_of = ?1"
);

/// The statements, with the name of the table in them. What they do is told where they are used.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) insert: String,
    pub(crate) by_id: String,
    pub(crate) select: String,
    pub(crate) ready: String,
    pub(crate) claim: String,
    pub(crate) lease: String,
    pub(crate) begin: String,
    pub(crate) rescue: String,
    pub(crate) is_full: String,
    pub(crate) count: String,
    pub(crate) counted: String,
    pub(crate) finish: String,
    pub(crate) bury: String,
    pub(crate) retried: String,
    pub(crate) unreadable: String,
    pub(crate) release: String,
    pub(crate) has_token: String,
    pub(crate) mark: String,
    pub(crate) unmark: String,
    pub(crate) extend: String,
    pub(crate) complete: String,
    pub(crate) is_open: String,
    pub(crate) refresh: String,
    pub(crate) subscription: String,
    pub(crate) subscribe: String,
    pub(crate) change_pattern: String,
    pub(crate) backfill: String,
    pub(crate) position: String,
    pub(crate) serve: String,
    pub(crate) unsubscribe: String,
    pub(crate) forget_deliveries: String,
    pub(crate) alive: String,
    pub(crate) gone: String,
    pub(crate) own: String,
    pub(crate) used: String,
    pub(crate) unused: String,
    pub(crate) named: String,
    pub(crate) name: String,
    pub(crate) keep_name: String,
    pub(crate) unname: String,
    pub(crate) tell: String,
    pub(crate) delete_deliveries: String,
    pub(crate) delete: String,
    pub(crate) counts: String,
    pub(crate) expired: String,
    pub(crate) requeue: String,
    pub(crate) reopen: String,
    pub(crate) purge: String,
    pub(crate) replay: String,
    pub(crate) lag: String,
    pub(crate) dead: String,
    pub(crate) last_position: String,
    /// The name of the table itself, for statements that depend on what is asked.
    pub(crate) events: String,
}

impl Statements {
    pub(crate) fn new(table: &TableName) -> Self {
        let fill = |text: &str| text.replace("{events}", table.as_str());
        Self {
            insert: fill(
                "INSERT INTO {events} (id, source, type, payload, user_id, session_id, instance_id, schema, entity, \
                 operation, created_at, metadata, key, origin) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) ON CONFLICT (id) DO NOTHING",
            ),
            by_id: fill(concat!(
                "SELECT ",
                event_columns!(),
                ", e.status, e.retry_count, e.processed_at, e.completed_at, e.error FROM {events} e WHERE e.id = ?1"
            )),
            select: fill(concat!(
                "SELECT ",
                event_columns!(),
                ", e.status, e.retry_count, e.processed_at, e.completed_at, e.error FROM {events} e"
            )),
            ready: fill("SELECT 1 FROM {events}_deliveries d WHERE d.state = 0 AND d.subscription = ?1 LIMIT 1"),
            // The oldest first. While a row of a key is leased, none of that key is taken, so what is taken of a key is a run
            // of its oldest. Behind keys that are leased it looks `?3` rows deep.
            claim: fill(concat!(
                "SELECT d.position, d.suspect, d.crashes, ",
                event_columns!(),
                " FROM (SELECT position, subscription, key, suspect, crashes FROM {events}_deliveries \
                 WHERE state = 0 AND subscription = ?1 ORDER BY position LIMIT ?3) d \
                 JOIN {events} e ON e.position = d.position \
                 WHERE d.key IS NULL OR NOT EXISTS (SELECT 1 FROM {events}_deliveries h \
                 WHERE h.subscription = d.subscription AND h.key = d.key AND h.state = 1) \
                 ORDER BY d.position LIMIT ?2"
            )),
            lease: fill(
                "UPDATE {events}_deliveries SET state = 1, token = ?3, holder = ?4, leased_until = ?5, claims = claims + 1 \
                 WHERE position = ?1 AND subscription = ?2",
            ),
            begin: fill(
                "UPDATE {events} SET status = 'processing', processed_at = coalesce(processed_at, ?2) \
                 WHERE position = ?1 AND status = 'pending'",
            ),
            rescue: fill(
                "UPDATE {events}_deliveries SET state = 0, suspect = 1, crashes = crashes + marked, marked = 0, \
                 holder = NULL, token = NULL WHERE state = 1 AND leased_until <= ?1",
            ),
            // What lies between the oldest delivery that waits and the newest event is no less than what waits: it is counted only
            // if that is enough.
            is_full: fill(
                "SELECT EXISTS (SELECT 1 FROM {events}_subscriptions s WHERE CASE WHEN \
                 (SELECT max(position) FROM {events}) + 1 - (SELECT min(d.position) FROM {events}_deliveries d \
                 WHERE d.state = 0 AND d.subscription = s.id) >= ?1 \
                 THEN (SELECT count(*) FROM (SELECT 1 FROM {events}_deliveries d \
                 WHERE d.state = 0 AND d.subscription = s.id LIMIT ?1) waiting) >= ?1 ELSE false END)",
            ),
            count: fill(
                "INSERT INTO {events}_meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = value + ?2 RETURNING value",
            ),
            counted: fill("SELECT value FROM {events}_meta WHERE name = ?1"),
            finish: fill(
                "UPDATE {events}_deliveries SET state = 2, attempts = ?4, settled_at = ?5, marked = 0 \
                 WHERE position = ?1 AND subscription = ?2 AND token = ?3 AND state = 1",
            ),
            bury: fill(
                "UPDATE {events}_deliveries SET state = 3, attempts = ?4, reason = ?5, error = ?6, settled_at = ?7, \
                 errors = ?8, dead_letter = ?9, marked = 0 \
                 WHERE position = ?1 AND subscription = ?2 AND token = ?3 AND state = 1",
            ),
            retried: fill("UPDATE {events} SET retry_count = max(retry_count, ?2) WHERE position = ?1"),
            unreadable: fill(
                "UPDATE {events}_deliveries SET state = 3, reason = 'unreadable', error = ?3, settled_at = ?4 \
                 WHERE position = ?1 AND subscription = ?2",
            ),
            release: fill(
                "UPDATE {events}_deliveries SET state = 0, marked = 0 \
                 WHERE position = ?1 AND subscription = ?2 AND token = ?3 AND state = 1",
            ),
            has_token: fill(
                "SELECT 1 FROM {events}_deliveries WHERE position = ?1 AND subscription = ?2 AND token = ?3",
            ),
            mark: fill(
                "UPDATE {events}_deliveries SET marked = 1 \
                 WHERE position = ?1 AND subscription = ?2 AND token = ?3 AND state = 1",
            ),
            unmark: fill(
                "UPDATE {events}_deliveries SET marked = 0, suspect = 0, crashes = 0 \
                 WHERE position = ?1 AND subscription = ?2 AND token = ?3 AND state = 1",
            ),
            extend: fill(
                "UPDATE {events}_deliveries SET leased_until = ?4 \
                 WHERE position = ?1 AND subscription = ?2 AND token = ?3 AND state = 1",
            ),
            // The usual end of an event: all its deliveries are done, and its origin has told nothing.
            complete: fill(
                "UPDATE {events} SET status = 'completed', error = NULL, completed_at = ?2 \
                 WHERE position = ?1 AND local_status IS NULL AND status = 'processing' AND NOT EXISTS \
                 (SELECT 1 FROM {events}_deliveries d WHERE d.position = ?1 AND d.counts AND d.state <> 2)",
            ),
            // It goes on as before: something is open, and something has begun.
            is_open: fill(
                "SELECT 1 FROM {events} WHERE position = ?1 AND status = 'processing' AND EXISTS \
                 (SELECT 1 FROM {events}_deliveries d WHERE d.position = ?1 AND d.counts AND d.state < 2)",
            ),
            // The status of an event follows from its deliveries, and from what its origin told of its own.
            refresh: fill(
                "UPDATE {events} AS e SET \
                 status = f.status, \
                 error = CASE f.status WHEN 'failed' THEN f.error END, \
                 retry_count = max(retry_count, f.retries), \
                 processed_at = CASE f.status WHEN 'pending' THEN processed_at ELSE coalesce(processed_at, ?2) END, \
                 completed_at = CASE WHEN f.status IN ('completed', 'failed') THEN ?2 END \
                 FROM (SELECT \
                   CASE WHEN open > 0 OR l.local_status IN ('pending', 'processing') THEN \
                     CASE WHEN begun > 0 OR l.local_status IS NOT NULL THEN 'processing' ELSE 'pending' END \
                   WHEN dead > 0 OR l.local_status = 'failed' THEN 'failed' ELSE 'completed' END AS status, \
                   coalesce(first_error, l.local_error) AS error, retries \
                   FROM {events} l, (SELECT count(*) FILTER (WHERE state < 2) AS open, \
                     count(*) FILTER (WHERE state > 0) AS begun, count(*) FILTER (WHERE state > 2) AS dead, \
                     min(error) FILTER (WHERE state > 2) AS first_error, \
                     coalesce(max(attempts), 1) - 1 AS retries \
                     FROM {events}_deliveries WHERE position = ?1 AND counts) \
                   WHERE l.position = ?1) f \
                 WHERE e.position = ?1",
            ),
            subscription: fill(
                "SELECT id, pattern FROM {events}_subscriptions WHERE member_of = ?1 AND name = ?2 AND instance = ?3",
            ),
            subscribe: fill(
                "INSERT INTO {events}_subscriptions \
                 (member_of, name, instance, pattern, final_rest, dots, glob, literals, durable) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) RETURNING id",
            ),
            change_pattern: fill(
                "UPDATE {events}_subscriptions SET pattern = ?2, final_rest = ?3, dots = ?4, glob = ?5, literals = ?6 \
                 WHERE id = ?1",
            ),
            // What a new subscription missed; the statuses of the events do not depend on it.
            backfill: fill(
                "INSERT INTO {events}_deliveries (position, subscription, key, counts) \
                 SELECT e.position, s.id, e.key, 0 FROM {events}_subscriptions s, {events} e \
                 WHERE s.id = ?1 AND e.position > ?2 AND e.created_at >= ?3 AND {matches}",
            )
            .replace("{matches}", &pattern::condition("e.type")),
            position: fill("SELECT position FROM {events} WHERE id = ?1"),
            serve: fill("UPDATE {events}_subscriptions SET owner = ?2, alive_until = ?3, used_at = ?4 WHERE id = ?1"),
            unsubscribe: fill("DELETE FROM {events}_subscriptions WHERE id = ?1"),
            forget_deliveries: fill("DELETE FROM {events}_deliveries WHERE subscription = ?1 RETURNING position"),
            alive: fill("UPDATE {events}_subscriptions SET alive_until = ?2 WHERE owner = ?1 AND NOT durable"),
            gone: fill(
                "SELECT id FROM {events}_subscriptions WHERE owner IS NOT NULL AND NOT durable AND alive_until <= ?1",
            ),
            own: fill("SELECT id FROM {events}_subscriptions WHERE owner = ?1 AND NOT durable"),
            used: fill(
                "UPDATE {events}_subscriptions SET used_at = ?4 WHERE member_of = ?1 AND name = ?2 AND instance = ?3",
            ),
            unused: fill("SELECT id, member_of, name FROM {events}_subscriptions WHERE used_at < ?1"),
            named: fill("SELECT holder, alive_until FROM {events}_instances WHERE name = ?1"),
            name: fill(
                "INSERT INTO {events}_instances VALUES (?1, ?2, ?3) \
                 ON CONFLICT DO UPDATE SET holder = excluded.holder, alive_until = excluded.alive_until",
            ),
            keep_name: fill("UPDATE {events}_instances SET alive_until = ?2 WHERE holder = ?1"),
            unname: fill("DELETE FROM {events}_instances WHERE holder = ?1"),
            tell: fill(
                "UPDATE {events} SET local_status = ?3, local_error = ?4, retry_count = max(retry_count, ?5) \
                 WHERE id = ?1 AND origin = ?2 RETURNING position",
            ),
            delete_deliveries: fill(
                "DELETE FROM {events}_deliveries WHERE position = (SELECT position FROM {events} WHERE id = ?1) \
                 RETURNING state",
            ),
            delete: fill("DELETE FROM {events} WHERE id = ?1"),
            counts: fill("SELECT status, count(*) FROM {events} GROUP BY status"),
            // What waits or runs is not old, whatever the status of its event says: it may have been delivered again.
            expired: fill(
                "SELECT id FROM {events} e WHERE created_at < ?1 AND completed_at < ?1 \
                 AND status IN ('completed', 'failed') AND NOT EXISTS \
                 (SELECT 1 FROM {events}_deliveries d WHERE d.position = e.position AND d.state < 2) \
                 ORDER BY created_at LIMIT ?2",
            ),
            requeue: fill(
                "UPDATE {events}_deliveries SET state = 0, attempts = 0, requeues = requeues + 1, suspect = 0, \
                 crashes = 0, marked = 0, holder = NULL, token = NULL, reason = NULL, error = NULL, errors = NULL, \
                 settled_at = NULL, dead_letter = NULL \
                 WHERE dead_letter = ?2 AND state = 3 \
                 AND subscription IN (SELECT id FROM {events}_subscriptions WHERE member_of = ?1) \
                 RETURNING position, counts",
            ),
            reopen: fill(
                "UPDATE {events} SET status = 'processing', error = NULL, completed_at = NULL WHERE position = ?1",
            ),
            purge: fill(
                "UPDATE {events}_deliveries SET state = 4, errors = NULL, dead_letter = NULL \
                 WHERE dead_letter = ?2 AND state = 3 \
                 AND subscription IN (SELECT id FROM {events}_subscriptions WHERE member_of = ?1)",
            ),
            replay: fill(
                "INSERT INTO {events}_deliveries (position, subscription, key, counts) \
                 SELECT position, ?2, key, 0 FROM {events} WHERE position = ?1 \
                 ON CONFLICT DO UPDATE SET state = 0, attempts = 0, requeues = requeues + (state = 3), suspect = 0, \
                 crashes = 0, marked = 0, holder = NULL, token = NULL, reason = NULL, error = NULL, errors = NULL, \
                 settled_at = NULL, dead_letter = NULL RETURNING counts",
            ),
            lag: fill(
                "SELECT s.member_of, s.name, s.instance, s.pattern, \
                 (SELECT count(*) FROM {events}_deliveries d WHERE d.state = 0 AND d.subscription = s.id), \
                 coalesce(l.leased, 0), coalesce(x.dead, 0), \
                 (SELECT e.created_at FROM {events} e WHERE e.position = (SELECT min(d.position) \
                 FROM {events}_deliveries d WHERE d.state = 0 AND d.subscription = s.id)) \
                 FROM {events}_subscriptions s \
                 LEFT JOIN (SELECT subscription, count(*) AS leased FROM {events}_deliveries WHERE state = 1 \
                 GROUP BY subscription) l ON l.subscription = s.id \
                 LEFT JOIN (SELECT subscription, count(*) AS dead FROM {events}_deliveries WHERE state = 3 \
                 GROUP BY subscription) x ON x.subscription = s.id \
                 ORDER BY s.member_of, s.name, s.instance",
            ),
            dead: fill(
                "SELECT count(*), coalesce(max(d.dead_letter), 0) FROM {events}_deliveries d \
                 JOIN {events}_subscriptions s ON s.id = d.subscription \
                 WHERE d.state = 3 AND d.dead_letter IS NOT NULL AND s.member_of = ?1",
            ),
            last_position: fill("SELECT coalesce(max(position), 0) FROM {events}"),
            events: table.as_str().to_owned(),
        }
    }
}
