//! Acknowledgements that are under way. To wait for the answer to one batch before the next is sent would make the way to the server and
//! back the bound of the rate. So a few batches are sent one behind the other; one whose answer does not come is sent again, and its deliveries
//! stay in hand until then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider::BackendError;
use parking_lot::{Condvar, Mutex};

use crate::jetstream::message::{self as js, Ack};
use crate::provider::backend::Database;
use crate::transport::runtime::Session;

/// Batches that are under way at a time.
const UNDER_WAY: usize = 8;
/// How long the answer may take.
const LIMIT: Duration = Duration::from_secs(2);

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Unconfirmed {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    failed: Vec<Batch>,
}

/// Acknowledgements of leases.
#[derive(Debug)]
struct Batch {
    acks: Vec<Ack>,
    tokens: Vec<u64>,
}

/// A batch that is under way. Whatever becomes of it, it is told.
struct UnderWay {
    database: Arc<Database>,
    batch: Option<Batch>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let unconfirmed = &self.database.unconfirmed;
        let mut state = unconfirmed.state.lock();
        state.under_way -= 1;
        state.failed.extend(self.batch.take());
        unconfirmed.changed.notify_all();
    }
}

/// Sends acknowledgements of leases, and waits only while too many are under way.
pub(crate) fn send(database: &Arc<Database>, acks: Vec<Ack>, tokens: Vec<u64>) -> Result<(), BackendError> {
    mend(database)?;
    {
        let mut state = database.unconfirmed.state.lock();
        let deadline = Instant::now() + LIMIT;
        while state.under_way >= UNDER_WAY {
            if database.unconfirmed.changed.wait_until(&mut state, deadline).timed_out() {
                return Err(js::unavailable("acknowledgements are not answered"));
            }
        }
        state.under_way += 1;
    }
    let batch = Some(Batch { acks, tokens });
    let mut under_way = UnderWay { database: Arc::clone(database), batch };
    database.runtime.post(move |session| {
        let session = session.ok()?;
        Some(Box::pin(async move {
            let acks = under_way.batch.as_ref().map_or(&[][..], |batch| &batch.acks);
            match Session::within(LIMIT, js::ack_all(&session, acks)).await {
                Some(Ok(())) => {
                    if let Some(batch) = under_way.batch.take() {
                        under_way.database.settle(&batch.tokens);
                    }
                }
                Some(Err(_)) => {}
                None => session.give_up("acknowledgements were not answered"),
            }
        }))
    });
    Ok(())
}

/// Sends again what was not answered.
pub(crate) fn mend(database: &Arc<Database>) -> Result<(), BackendError> {
    let failed = std::mem::take(&mut database.unconfirmed.state.lock().failed);
    if failed.is_empty() {
        return Ok(());
    }
    let acks: Vec<Ack> = failed.iter().flat_map(|batch| batch.acks.iter().cloned()).collect();
    let sent = database.runtime.call(move |session| async move { js::ack_all(&session, &acks).await });
    match &sent {
        Ok(()) => failed.iter().for_each(|batch| database.settle(&batch.tokens)),
        Err(_) => database.unconfirmed.state.lock().failed.extend(failed),
    }
    sent
}

/// Waits until nothing is under way, and sends once more what was not answered.
pub(crate) fn finish(database: &Arc<Database>) -> Result<(), BackendError> {
    {
        let mut state = database.unconfirmed.state.lock();
        let deadline = Instant::now() + LIMIT;
        while state.under_way > 0 && !database.unconfirmed.changed.wait_until(&mut state, deadline).timed_out() {}
    }
    mend(database)
}
