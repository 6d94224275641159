//! The statements on the tables, the conversion of rows, and the steps that take several statements.

mod pattern;
mod procedures;
mod rows;
mod select;

pub(crate) use pattern::{columns, condition};
pub(crate) use procedures::{Tables, execute};
pub(crate) use rows::values;
pub(crate) use select::Select;

use crate::statements::{progress_columns, statements};
use rows::event_columns;

statements! {
    columns: event_columns;
    fill: |text, table| text.replace("{matches}", &condition("e.type")).replace("{events}", table.as_str());
    insert: "INSERT INTO {events} (id, source, type, payload, user_id, session_id, instance_id, schema, entity, \
        operation, created_at, metadata, key, origin) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) ON CONFLICT (id) DO NOTHING",
    by_id: concat!("SELECT ", progress_columns!(event_columns), " FROM {events} e WHERE e.id = ?1"),
    /// Whether `claim` would find a row. A long search must not hold the lock of the writers.
    can_claim: "SELECT 1 FROM (SELECT subscription, key FROM {events}_deliveries \
        WHERE state = 0 AND subscription = ?1 ORDER BY position LIMIT ?2) d \
        WHERE d.key IS NULL OR NOT EXISTS (SELECT 1 FROM {events}_deliveries h \
        WHERE h.subscription = d.subscription AND h.key = d.key AND h.state = 1) LIMIT 1",
    /// Claims the oldest first. No row is claimed while a row of its key is leased, so the claimed rows of a key are its oldest, without a
    /// gap. Behind rows of leased keys, `?3` rows are read.
    claim: concat!(
        "SELECT d.position, d.suspect, d.crashes, ",
        event_columns!(),
        " FROM (SELECT position, subscription, key, suspect, crashes FROM {events}_deliveries \
         WHERE state = 0 AND subscription = ?1 ORDER BY position LIMIT ?3) d \
         JOIN {events} e ON e.position = d.position \
         WHERE d.key IS NULL OR NOT EXISTS (SELECT 1 FROM {events}_deliveries h \
         WHERE h.subscription = d.subscription AND h.key = d.key AND h.state = 1) \
         ORDER BY d.position LIMIT ?2"
    ),
    lease: "UPDATE {events}_deliveries SET state = 1, token = ?3, holder = ?4, leased_until = ?5, claims = claims + 1 \
        WHERE position = ?1 AND subscription = ?2",
    mark_processing: "UPDATE {events} SET status = 'processing', processed_at = coalesce(processed_at, ?2) \
        WHERE position = ?1 AND status = 'pending'",
    expire_leases: "UPDATE {events}_deliveries SET state = 0, suspect = 1, crashes = crashes + marked, marked = 0, \
        holder = NULL, token = NULL WHERE state = 1 AND leased_until <= ?1",
    add_to_counter:
        "INSERT INTO {events}_meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = value + ?2 RETURNING value",
    settle_done: "UPDATE {events}_deliveries SET state = 2, attempts = ?4, settled_at = ?5, marked = 0 \
        WHERE position = ?1 AND subscription = ?2 AND token = ?3 AND state = 1",
    settle_dead: "UPDATE {events}_deliveries SET state = 3, attempts = ?4, reason = ?5, error = ?6, settled_at = ?7, \
        errors = ?8, dead_letter = ?9, marked = 0 \
        WHERE position = ?1 AND subscription = ?2 AND token = ?3 AND state = 1",
    record_retries: "UPDATE {events} SET retry_count = max(retry_count, ?2) WHERE position = ?1",
    settle_unreadable: "UPDATE {events}_deliveries SET state = 3, reason = 'unreadable', error = ?3, settled_at = ?4 \
        WHERE position = ?1 AND subscription = ?2",
    release: "UPDATE {events}_deliveries SET state = 0, marked = 0 \
        WHERE position = ?1 AND subscription = ?2 AND token = ?3 AND state = 1",
    has_token: "SELECT 1 FROM {events}_deliveries WHERE position = ?1 AND subscription = ?2 AND token = ?3",
    mark: "UPDATE {events}_deliveries SET marked = 1 \
        WHERE position = ?1 AND subscription = ?2 AND token = ?3 AND state = 1",
    unmark: "UPDATE {events}_deliveries SET marked = 0, suspect = 0, crashes = 0 \
        WHERE position = ?1 AND subscription = ?2 AND token = ?3 AND state = 1",
    extend: "UPDATE {events}_deliveries SET leased_until = ?4 \
        WHERE position = ?1 AND subscription = ?2 AND token = ?3 AND state = 1",
    /// The usual end of an event: all its deliveries are done, and no local status is recorded.
    complete_event: "UPDATE {events} SET status = 'completed', error = NULL, completed_at = ?2 \
        WHERE position = ?1 AND local_status IS NULL AND status = 'processing' AND NOT EXISTS \
        (SELECT 1 FROM {events}_deliveries d WHERE d.position = ?1 AND d.counts AND d.state <> 2)",
    /// Whether the status stays: a delivery is open, and one has begun.
    is_event_open: "SELECT 1 FROM {events} WHERE position = ?1 AND status = 'processing' AND EXISTS \
        (SELECT 1 FROM {events}_deliveries d WHERE d.position = ?1 AND d.counts AND d.state < 2)",
    /// Derives the status of an event from its deliveries and from its local status.
    refresh_status: "UPDATE {events} AS e SET \
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
    insert_subscription: "INSERT INTO {events}_subscriptions \
        (member_of, name, instance, pattern, final_rest, dots, glob, literals, durable) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) RETURNING id",
    /// Makes the deliveries that a new subscription has missed. The statuses of the events do not depend on them.
    backfill: "INSERT INTO {events}_deliveries (position, subscription, key, counts) \
        SELECT e.position, s.id, e.key, 0 FROM {events}_subscriptions s, {events} e \
        WHERE s.id = ?1 AND e.position > ?2 AND e.created_at >= ?3 AND {matches}",
    position: "SELECT position FROM {events} WHERE id = ?1",
    record_owner: "UPDATE {events}_subscriptions SET owner = ?2, alive_until = ?3, used_at = ?4 WHERE id = ?1",
    forget_deliveries: "DELETE FROM {events}_deliveries WHERE subscription = ?1 RETURNING position",
    extend_broadcasts: "UPDATE {events}_subscriptions SET alive_until = ?2 WHERE owner = ?1 AND NOT durable",
    expired_broadcasts:
        "SELECT id FROM {events}_subscriptions WHERE owner IS NOT NULL AND NOT durable AND alive_until <= ?1",
    record_use: "UPDATE {events}_subscriptions SET used_at = ?4 WHERE member_of = ?1 AND name = ?2 AND instance = ?3",
    unused_subscriptions: "SELECT id, member_of, name FROM {events}_subscriptions WHERE used_at < ?1",
    instance: "SELECT holder, alive_until FROM {events}_instances WHERE name = ?1",
    claim_instance: "INSERT INTO {events}_instances VALUES (?1, ?2, ?3) \
        ON CONFLICT DO UPDATE SET holder = excluded.holder, alive_until = excluded.alive_until",
    extend_instance: "UPDATE {events}_instances SET alive_until = ?2 WHERE holder = ?1",
    record_local_status: "UPDATE {events} SET local_status = ?3, local_error = ?4, retry_count = max(retry_count, ?5) \
        WHERE id = ?1 AND origin = ?2 RETURNING position",
    delete_deliveries: "DELETE FROM {events}_deliveries WHERE position = (SELECT position FROM {events} WHERE id = ?1) \
        RETURNING state",
    delete_event: "DELETE FROM {events} WHERE id = ?1",
    /// An event with an open delivery has not expired, whatever its status: it may have been delivered again.
    expired: "SELECT id FROM {events} e WHERE created_at < ?1 AND completed_at < ?1 \
        AND status IN ('completed', 'failed') AND NOT EXISTS \
        (SELECT 1 FROM {events}_deliveries d WHERE d.position = e.position AND d.state < 2) \
        ORDER BY created_at LIMIT ?2",
    requeue: "UPDATE {events}_deliveries SET state = 0, attempts = 0, requeues = requeues + 1, suspect = 0, \
        crashes = 0, marked = 0, holder = NULL, token = NULL, reason = NULL, error = NULL, errors = NULL, \
        settled_at = NULL, dead_letter = NULL \
        WHERE dead_letter = ?2 AND state = 3 \
        AND subscription IN (SELECT id FROM {events}_subscriptions WHERE member_of = ?1) \
        RETURNING position, counts",
    reopen_event: "UPDATE {events} SET status = 'processing', error = NULL, completed_at = NULL WHERE position = ?1",
    purge: "UPDATE {events}_deliveries SET state = 4, errors = NULL, dead_letter = NULL \
        WHERE dead_letter = ?2 AND state = 3 \
        AND subscription IN (SELECT id FROM {events}_subscriptions WHERE member_of = ?1)",
    replay: "INSERT INTO {events}_deliveries (position, subscription, key, counts) \
        SELECT position, ?2, key, 0 FROM {events} WHERE position = ?1 \
        ON CONFLICT DO UPDATE SET state = 0, attempts = 0, requeues = requeues + (state = 3), suspect = 0, \
        crashes = 0, marked = 0, holder = NULL, token = NULL, reason = NULL, error = NULL, errors = NULL, \
        settled_at = NULL, dead_letter = NULL RETURNING counts",
    lag: "SELECT s.member_of, s.name, s.instance, s.pattern, \
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
    last_position: "SELECT coalesce(max(position), 0) FROM {events}",
    /// Selects the dead letters of a group. Conditions may follow.
    dead_letters: concat!(
        "SELECT ",
        progress_columns!(event_columns),
        ", d.dead_letter, s.name, d.reason, d.attempts, d.settled_at, d.errors, d.requeues FROM {events}_deliveries d \
         JOIN {events}_subscriptions s ON s.id = d.subscription JOIN {events} e ON e.position = d.position \
         WHERE d.state = 3 AND d.dead_letter IS NOT NULL AND s.member_of = ?1"
    ),
    /// Selects the events that a replay may deliver to a subscription again. Conditions may follow.
    replayable: "SELECT e.position, e.id FROM {events} e LEFT JOIN {events}_deliveries d \
        ON d.position = e.position AND d.subscription = ?1 WHERE coalesce(d.state, 2) > 1",
}
