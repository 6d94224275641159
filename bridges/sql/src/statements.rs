//! The statements of a database, each declared once, and those that are the same in both databases.

/// Declares the struct `Statements` from the name and the text of each statement, with those that both databases have. In the shared
/// texts `?` begins a parameter. `columns` is the macro of the event's columns; `fill` makes a statement of a text, with the name of the
/// table in it.
macro_rules! statements {
    (columns: $columns:ident; fill: $fill:expr; $($(#[$doc:meta])* $name:ident: $text:expr,)*) => {
        $crate::statements::statements! { @declare $fill;
            $($(#[$doc])* $name: $text,)*
            select: concat!("SELECT ", $crate::statements::progress_columns!($columns), " FROM {events} e"),
            subscription:
                "SELECT id, pattern FROM {events}_subscriptions WHERE member_of = ?1 AND name = ?2 AND instance = ?3",
            change_pattern:
                "UPDATE {events}_subscriptions SET pattern = ?2, final_rest = ?3, dots = ?4, glob = ?5, literals = ?6 \
                 WHERE id = ?1",
            delete_subscription: "DELETE FROM {events}_subscriptions WHERE id = ?1",
            owned_subscriptions: "SELECT id FROM {events}_subscriptions WHERE owner = ?1 AND NOT durable",
            release_instance: "DELETE FROM {events}_instances WHERE holder = ?1",
            /// The distance from the oldest ready delivery to the newest event is at least the number of ready deliveries. They are
            /// counted only if that distance is large enough.
            is_full: "SELECT EXISTS (SELECT 1 FROM {events}_subscriptions s WHERE CASE WHEN \
                 (SELECT max(position) FROM {events}) + 1 - (SELECT min(d.position) FROM {events}_deliveries d \
                 WHERE d.state = 0 AND d.subscription = s.id) >= ?1 \
                 THEN (SELECT count(*) FROM (SELECT 1 FROM {events}_deliveries d \
                 WHERE d.state = 0 AND d.subscription = s.id LIMIT ?1) waiting) >= ?1 ELSE false END)",
            counter: "SELECT value FROM {events}_meta WHERE name = ?1",
            count_by_status: "SELECT status, count(*) FROM {events} GROUP BY status",
            count_dead_letters: "SELECT count(*), coalesce(max(d.dead_letter), 0) FROM {events}_deliveries d \
                 JOIN {events}_subscriptions s ON s.id = d.subscription \
                 WHERE d.state = 3 AND d.dead_letter IS NOT NULL AND s.member_of = ?1",
        }
    };
    (@declare $fill:expr; $($(#[$doc:meta])* $name:ident: $text:expr,)*) => {
        /// The statements, with the name of the table in them.
        pub(crate) struct Statements {
            $($(#[$doc])* pub(crate) $name: String,)*
        }

        impl Statements {
            pub(crate) fn new(table: &$crate::names::TableName) -> Self {
                let fill: fn(&str, &$crate::names::TableName) -> String = $fill;
                Self { $($name: fill($text, table),)* }
            }
        }
    };
}

/// The columns of an event and its progress, in the order in which `event_with_progress` reads them. Each database has its own
/// `event_columns`.
macro_rules! progress_columns {
    ($columns:ident) => {
        concat!($columns!(), ", e.status, e.retry_count, e.processed_at, e.completed_at, e.error")
    };
}
pub(crate) use {progress_columns, statements};
