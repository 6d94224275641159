//! What the owner of a partition does before it hands out anything of it: it takes back what others have had, and waits until everything that
//! the server has delivered and nobody has settled is in its own hands. The server does not say which messages those are, only how many; so
//! it counts those that were here before it asked and are still here after the answer, and of which no end is under way. If they are as many, they
//! are the same.

use std::collections::HashSet;
use std::slice;
use std::sync::Arc;

use eventbroker::provider::BackendError;
use futures_util::future::try_join_all;

use crate::jetstream::consumer::progress;
use crate::membership::recover;
use crate::provider::backend::Database;
use crate::subscriptions::Leg;
use crate::transport::runtime::Session;

/// Begins to read a partition on this connection; whether it was read on an earlier one, so that what is missing was lost on its way.
pub(crate) async fn begin(
    session: &Session,
    database: &Database,
    leg: &Leg,
    was_read: bool,
) -> Result<(), BackendError> {
    let lost = recover(session, database, leg).await?;
    if was_read {
        database.intake.spare(&leg.ack_name(), &lost);
    }
    look(session, database, leg).await
}

/// Looks at those that wait for something, beside what else is done.
pub(crate) fn look_again(database: &Arc<Database>) {
    let legs = database.intake.incomplete();
    if legs.is_empty() {
        return;
    }
    let on_thread = Arc::clone(database);
    database.runtime.post(move |session| {
        let session = session.ok()?;
        Some(Box::pin(async move {
            if let Err(error) = try_join_all(legs.iter().map(|leg| look(&session, &on_thread, leg))).await {
                // It is looked at again.
                tracing::debug!(%error, "the server did not say what it waits for");
            }
        }))
    });
}

/// Looks whether everything is here.
async fn look(session: &Session, database: &Database, leg: &Leg) -> Result<(), BackendError> {
    let key = leg.ack_name();
    let Some(hold) = database.intake.held(&key) else { return Ok(()) };
    let before = surely_here(database, leg);
    let told = progress(session, slice::from_ref(leg)).await?.pop().flatten();
    // Without a consumer there is nothing to wait for; somebody makes it again.
    let told = told.unwrap_or_default();
    let after = surely_here(database, leg);
    let here = before.intersection(&after).count() as u64;
    let missing = told.open.saturating_sub(here).try_into().unwrap_or(usize::MAX);
    database.intake.is_missing(&key, hold, missing, told.deliveries);
    Ok(())
}

/// The messages of a partition that have their place in the order here, and of which no end is under way.
fn surely_here(database: &Database, leg: &Leg) -> HashSet<u64> {
    let _all_are_somewhere = database.handing_out.lock();
    let mut here = database.handed_out(leg, |held| !held.is_ending);
    here.extend(database.intake.waiting(&leg.ack_name()));
    here
}
