//! A select whose conditions depend on a request, with its values.

use std::time::SystemTime;

use eventbroker::dead_letter::DeadLetterFilter;
use eventbroker::provider::Replay;
use eventbroker::query::{Filter, Order};
use eventbroker::{EventId, Pattern, Status};

/// The parts of a select that the databases write differently.
pub(crate) trait Dialect {
    type Value;

    /// The character that begins a parameter.
    const PARAMETER: char;
    /// The casts of a pattern's columns.
    const PATTERN_CASTS: [&str; 4];
    /// The columns of an event's time.
    const CREATED: &str;

    fn text(text: String) -> Self::Value;
    fn number(number: i64) -> Self::Value;
    /// The values of `CREATED`.
    fn created(time: SystemTime) -> Vec<Self::Value>;
    /// The values of a pattern's columns.
    fn pattern(pattern: &Pattern) -> [Self::Value; 4];
    /// The condition that the type of `e` matches the pattern of `s`.
    fn condition() -> String;
}

/// A select, and the values of its parameters.
pub(crate) struct Select<D: Dialect> {
    pub(crate) text: String,
    pub(crate) values: Vec<D::Value>,
    /// The word before the next condition.
    join: &'static str,
}

impl<D: Dialect> Select<D> {
    /// A select without a condition.
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), values: Vec::new(), join: "WHERE" }
    }

    /// A select that ends in a condition, and its values.
    pub(crate) fn with_condition(text: &str, values: Vec<D::Value>) -> Self {
        Self { text: text.to_owned(), values, join: "AND" }
    }

    /// Adds a value. Returns its parameter.
    fn bind(&mut self, value: D::Value) -> String {
        self.values.push(value);
        format!("{}{}", D::PARAMETER, self.values.len())
    }

    fn and(&mut self, condition: &str) {
        self.text.push_str(&format!(" {} {condition}", self.join));
        self.join = "AND";
    }

    fn and_if(&mut self, condition: &str, value: Option<D::Value>) {
        if let Some(value) = value {
            let parameter = self.bind(value);
            self.and(&format!("{condition} {parameter}"));
        }
    }

    /// Adds a condition that ends in a text, if there is one.
    pub(crate) fn and_text(&mut self, condition: &str, text: Option<impl Into<String>>) {
        self.and_if(condition, text.map(|text| D::text(text.into())));
    }

    /// Adds a condition that ends in a number, if there is one.
    pub(crate) fn and_number(&mut self, condition: &str, number: Option<i64>) {
        self.and_if(condition, number.map(D::number));
    }

    /// Adds a condition on the time of the event, if there is a time to compare with.
    pub(crate) fn and_created(&mut self, comparison: &str, time: Option<SystemTime>) {
        if let Some(time) = time {
            let parameters: Vec<String> = D::created(time).into_iter().map(|value| self.bind(value)).collect();
            self.and(&format!("{} {comparison} ({})", D::CREATED, parameters.join(", ")));
        }
    }

    /// Adds the condition that the type of the event matches a pattern.
    pub(crate) fn and_matches(&mut self, pattern: &Pattern) {
        let names = ["final_rest", "dots", "glob", "literals"].into_iter().zip(D::PATTERN_CASTS);
        let columns = D::pattern(pattern).into_iter().zip(names);
        let columns = columns.map(|(value, (name, cast))| format!("{}{cast} AS {name}", self.bind(value)));
        let columns = columns.collect::<Vec<String>>().join(", ");
        self.and(&format!("EXISTS (SELECT 1 FROM (SELECT {columns}) s WHERE {})", D::condition()));
    }

    /// Orders and limits the rows. No condition may follow.
    pub(crate) fn order_and_limit(&mut self, order: &str, limit: usize) {
        let limit = self.bind(D::number(limit as i64));
        self.text.push_str(&format!(" ORDER BY {order} LIMIT {limit}"));
    }

    /// Adds a filter of events, with its limit. The select walks an index in the order of ids. Returns that order.
    pub(crate) fn filter(&mut self, filter: &Filter) -> &'static str {
        self.and_text("e.source =", filter.source.map(|source| source.as_str()));
        self.and_text("e.status =", filter.status.map(|status| status.as_str()));
        if filter.status.is_some_and(|status| status != Status::Completed) {
            // The planner takes the partial index only if its condition stands in the text.
            self.and("e.status <> 'completed'");
        }
        self.and_number("e.user_id =", filter.user_id);
        self.and_text("e.schema =", filter.schema.clone());
        self.and_text("e.entity =", filter.entity.clone());
        self.and_text("e.operation =", filter.operation.clone());
        self.and_text("e.instance_id =", filter.instance_id.clone());
        self.and_created(">=", filter.created_from);
        self.and_created("<=", filter.created_to);
        let (after, order) = match filter.order {
            Order::OldestFirst => ("e.id >", "e.id ASC"),
            Order::NewestFirst => ("e.id <", "e.id DESC"),
        };
        self.and_text(after, filter.after.as_ref().map(EventId::to_string));
        self.order_and_limit(order, filter.effective_limit());
        order
    }

    /// Adds a filter of dead letters, with its limit.
    pub(crate) fn filter_dead_letters(&mut self, filter: &DeadLetterFilter) {
        self.and_number("d.dead_letter >", filter.after.map(|after| i64::try_from(after).unwrap_or(i64::MAX)));
        self.and_text("s.name =", filter.name.clone());
        self.and_text("d.reason =", filter.reason.map(|reason| reason.as_str()));
        self.and_text("e.id =", filter.event_id.as_ref().map(EventId::to_string));
        filter.event_type.iter().for_each(|pattern| self.and_matches(pattern));
        self.order_and_limit("d.dead_letter", filter.effective_limit());
    }

    /// Adds the times and patterns of a replay to a subscription with the pattern `own`, with its limit.
    pub(crate) fn filter_replay(&mut self, replay: &Replay, own: &str) {
        self.and_created(">=", replay.from);
        self.and_created("<=", replay.to);
        // A pattern in the table was parsed when it was registered.
        let own = Pattern::parse(own).ok();
        own.iter().chain(&replay.event_type).for_each(|pattern| self.and_matches(pattern));
        self.order_and_limit("e.position", replay.limit);
    }
}
