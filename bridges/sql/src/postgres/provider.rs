//! Assembles a provider of its parts.

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
use crate::postgres::transport::{Address, Links, Notifier, shares_sessions};
use crate::provider::capabilities;
use crate::settings::{OpenError, Pooler, Postgres};

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
        let (address, listen_at) = self.addresses()?;
        let links = self.connections.max_connections as usize - usize::from(listen_at.is_some());
        let links = Links::start(links, &address)
            .map_err(|error| OpenError::Unavailable(format!("a thread could not be started: {error}")))?;
        let sql = Arc::new(Statements::new(&table));
        // Questions of operators may take long, so they share one connection.
        let lookups = Tables { links: links.last(), sql: sql.clone() };
        let tables = Tables { links, sql };
        let prepared = lookups.call_within(OPEN_LIMIT, move |session, _| prepare(session, &table));
        prepared.map_err(|error| open_error(&address, error))?.map_err(OpenError::Schema)?;
        let member = Arc::new(Member::new(&self.shared));
        let backlog = Arc::new(Backlog::new(self.shared.max_backlog));
        let notifier = Arc::new(Notifier::new(
            listen_at,
            tables.links.clone(),
            &self.notifications.channel,
            &tables.sql.events,
            self.notifications.poll_interval,
        ));
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
        let operator = Operator { tables: lookups, member: member.clone(), notifier: notifier.clone() };
        let housekeeping =
            Housekeeping::new(tables.clone(), member.clone(), backlog.clone(), notifier.clone(), catching_up.clone());
        let ingest = Ingest::new(tables.clone(), member.clone(), notifier.clone(), housekeeping);
        let settler = Settler::new(tables.clone(), member.clone(), notifier.clone(), catching_up);
        Ok(Provider::new("postgres", capabilities())
            .with_store(Arc::new(store))
            .with_mirror(Box::new(mirror(tables)))
            .with_operator(Arc::new(operator))
            .with_ingest(Box::new(ingest), Box::new(settler)))
    }

    /// The address of the database, and the address to listen at, if there is one.
    fn addresses(&self) -> Result<(Arc<Address>, Option<Arc<Address>>), OpenError> {
        let address = Arc::new(Address::parse(self.url.expose())?);
        let shares_sessions = shares_sessions(&address).map_err(|error| open_error(&address, error))?;
        let is_pooled = shares_sessions || self.connections.pooler == Pooler::True;
        if is_pooled && self.connections.pooler == Pooler::False {
            return Err(OpenError::Setting(format!(
                "pooler: is false, but a pooler shares the server's sessions between clients ({address}); true or auto is required"
            )));
        }
        address.set_pooled(is_pooled);
        let listen_at = if !self.notifications.listen_url.is_empty() {
            Some(self.listen_address(&address)?)
        } else {
            (!is_pooled && self.connections.max_connections > 1).then(|| address.clone())
        };
        let (pooler, listens) = (is_pooled, listen_at.is_some());
        tracing::info!(%address, pooler, listens, setting = ?self.connections.pooler, "{}", match (is_pooled, listens) {
            (true, false) => "a pooler shares sessions: events of other instances are found by polling",
            (true, true) => "a pooler shares sessions: notifications come through listen_url",
            (false, _) => "each connection has a session of its own",
        });
        Ok((address, listen_at))
    }

    /// The address to listen at, beside `publish_at`.
    fn listen_address(&self, publish_at: &Address) -> Result<Arc<Address>, OpenError> {
        let named = |problem: String| format!("listen_url: {}", problem.trim_start_matches("url: "));
        let address = Address::parse(self.notifications.listen_url.expose());
        let mut address = address.map_err(|error| OpenError::Setting(named(error.to_string())))?;
        // A server that has become read-only sends no notifications of the one that has taken over.
        address.leave_with(publish_at);
        let address = Arc::new(address);
        let is_pooled = shares_sessions(&address);
        let is_pooled =
            is_pooled.map_err(|error| OpenError::Unavailable(named(open_error(&address, error).to_string())))?;
        if is_pooled {
            return Err(OpenError::Setting(named(format!(
                "a pooler shares the server's sessions between clients ({address}), so no notification would come; an address \
                 without a pooler is required"
            ))));
        }
        Ok(address)
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
