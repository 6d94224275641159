//! The values of the statement `settle`.

use postgres::Error;
use postgres::types::ToSql;

use super::Statements;
use crate::leases::DeliveryRow;
use crate::postgres::transport::Session;

/// How a lease ends. The numbers are the states of a delivery in `schema.sql`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    Ready = 0,
    Done = 2,
    Dead = 3,
}

/// Verdicts, column by column.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    positions: Vec<i64>,
    subscriptions: Vec<i64>,
    tokens: Vec<i64>,
    states: Vec<i32>,
    attempts: Vec<i32>,
    reasons: Vec<Option<&'static str>>,
    messages: Vec<Option<String>>,
    histories: Vec<Option<String>>,
}

impl Verdicts {
    pub(crate) fn push(&mut self, row: DeliveryRow, token: u64, verdict: Verdict, attempts: u32) {
        self.positions.push(row.position);
        self.subscriptions.push(row.subscription);
        self.tokens.push(token as i64);
        self.states.push(verdict as i32);
        self.attempts.push(attempts.try_into().unwrap_or(i32::MAX));
        self.reasons.push(None);
        self.messages.push(None);
        self.histories.push(None);
    }

    /// Explains the last verdict: the reason, the message, and the errors of the attempts.
    pub(crate) fn explain(&mut self, reason: &'static str, message: String, history: Option<String>) {
        if let Some(last) = self.reasons.len().checked_sub(1) {
            (self.reasons[last], self.messages[last], self.histories[last]) = (Some(reason), Some(message), history);
        }
    }

    /// Settles. Returns the tokens of the leases that were lost before.
    pub(crate) fn settle(&self, session: &mut Session, sql: &Statements, member: &str) -> Result<Vec<u64>, Error> {
        let values: [&(dyn ToSql + Sync); 9] = [
            &member,
            &self.positions,
            &self.subscriptions,
            &self.tokens,
            &self.states,
            &self.attempts,
            &self.reasons,
            &self.messages,
            &self.histories,
        ];
        session.query(&sql.settle, &values)?.iter().map(|row| Ok(row.try_get::<_, i64>(0)? as u64)).collect()
    }
}
