//! The ends of leases.

use postgres::Error;

use super::Statements;
use crate::leases::DeliveryRow;
use crate::postgres::transport::Session;

/// The state in which a delivery is left, as in `schema.sql`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum State {
    Ready = 0,
    Done = 2,
    Dead = 3,
}

/// The end of one lease.
pub(crate) struct Verdict {
    pub(crate) row: DeliveryRow,
    pub(crate) token: u64,
    pub(crate) state: State,
    pub(crate) attempts: u32,
    pub(crate) reason: Option<&'static str>,
    pub(crate) error: Option<String>,
    /// The errors of the attempts, as JSON.
    pub(crate) history: Option<String>,
}

/// Ends leases. Returns the tokens of those that were lost before.
pub(crate) fn settle(
    session: &mut Session,
    sql: &Statements,
    member: &str,
    verdicts: &[Verdict],
) -> Result<Vec<u64>, Error> {
    fn column<'a, T>(verdicts: &'a [Verdict], value: impl Fn(&'a Verdict) -> T) -> Vec<T> {
        verdicts.iter().map(value).collect()
    }
    let lost = session.query(
        &sql.settle,
        &[
            &member,
            &column(verdicts, |it| it.row.position),
            &column(verdicts, |it| it.row.subscription),
            &column(verdicts, |it| it.token as i64),
            &column(verdicts, |it| it.state as i32),
            &column(verdicts, |it| i32::try_from(it.attempts).unwrap_or(i32::MAX)),
            &column(verdicts, |it| it.reason),
            &column(verdicts, |it| it.error.as_deref()),
            &column(verdicts, |it| it.history.as_deref()),
        ],
    )?;
    lost.iter().map(|row| Ok(row.try_get::<_, i64>(0)? as u64)).collect()
}
