//! Assembles a provider of its parts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use eventbroker::provider::{BackendError, Provider};

use crate::backlog::Backlog;
use crate::member::Member;
use crate::postgres::consume::Ingest;
use crate::postgres::housekeeping::Housekeeping;
use crate::postgres::publish::{LastConfirmed, Mirror};
use crate::postgres::query::{Operator, Store};
use crate::postgres::schema::prepare;
use crate::postgres::settle::Settler;
use crate::postgres::statements::{Statements, Tables};
use crate::postgres::transport::{Address, Link, Notifier, Sync};
use crate::provider::capabilities;
use crate::settings::OpenError;
use crate::settings::Postgres;

/// How long opening may take: another instance may be making the tables.
const OPEN_LIMIT: Duration = Duration::from_secs(75);

impl Postgres {
    /// Connects, makes or migrates the tables, and returns a provider for one broker. Waits at most 75 s: for another instance that
    /// makes the tables, or for a server that does not answer.
    ///
    /// # Errors
    /// [`OpenError`]: a setting is wrong, the server can't be reached or refuses, or the tables are not ours or of a later version.
    pub fn open(&self) -> Result<Provider, OpenError> {
        let table = self.check()?;
        let address = Arc::new(Address::parse(self.url.expose())?);
        let sql = Arc::new(Statements::new(&table));
        // One connection for each part: publishes, claims, verdicts, and the questions of operators.
        let tables = |name: &str, sync: Sync| -> Result<Tables, OpenError> {
            let link = Link::start(name, &address, sync).map(Arc::new).map_err(|error: io::Error| {
                OpenError::Unavailable(format!("a thread could not be started: {error}"))
            })?;
            Ok(Tables { link, sql: sql.clone() })
        };
        let lookups = tables("look", Sync::Full)?;
        let prepared = lookups.call_within(OPEN_LIMIT, move |session, _| prepare(session, &table));
        prepared.map_err(|error| open_error(&address, error))?.map_err(OpenError::Schema)?;
        // Claims and verdicts that a crash of the server undoes are made again.
        let (out, claims, verdicts) =
            (tables("out", Sync::Full)?, tables("in", Sync::Later)?, tables("back", Sync::Later)?);
        let member = Arc::new(Member::new(&self.shared));
        let backlog = Arc::new(Backlog::new(self.shared.max_backlog));
        let (link, poll_interval) = (claims.link.clone(), self.notifications.poll_interval);
        let notifier =
            Arc::new(Notifier::new(address.clone(), link, &self.notifications.channel, &sql.events, poll_interval));
        // An earlier instance may have left subscriptions that have to catch up.
        let catching_up = Arc::new(AtomicBool::new(true));
        let last_confirmed = Arc::<LastConfirmed>::default();
        let mirror = |tables| Mirror {
            tables,
            member: member.clone(),
            backlog: backlog.clone(),
            notifier: notifier.clone(),
            last_confirmed: last_confirmed.clone(),
        };
        let store = Store { tables: lookups.clone(), member: member.clone(), mirror: mirror(lookups.clone()) };
        let operator = Operator { tables: lookups, member: member.clone(), notifier: notifier.clone(), address };
        let housekeeping =
            Housekeeping::new(claims.clone(), member.clone(), backlog.clone(), notifier.clone(), catching_up.clone());
        let ingest = Ingest::new(claims, member.clone(), notifier.clone(), housekeeping);
        let settler = Settler::new(verdicts, member.clone(), notifier.clone(), catching_up);
        Ok(Provider::new("postgres", capabilities())
            .with_store(Arc::new(store))
            .with_mirror(Box::new(mirror(out)))
            .with_operator(Arc::new(operator))
            .with_ingest(Box::new(ingest), Box::new(settler)))
    }
}

/// The error of opening, which names the place.
fn open_error(address: &Address, error: BackendError) -> OpenError {
    let (BackendError::Unavailable(reason) | BackendError::Refused(reason)) = error else {
        return OpenError::Unavailable(error.to_string());
    };
    let place = address.to_string();
    if reason.starts_with(&place) {
        return OpenError::Unavailable(reason);
    }
    OpenError::Unavailable(format!("{place}: {}", reason.trim_start_matches("PostgreSQL: ")))
}
