//! Acknowledgements whose answers are pending. A wait for each answer would bound the rate by the round trip, so a few batches are in flight at a
//! time. A batch without an answer is sent again, and its messages stay held until then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::jetstream::ack::ack_all;
use crate::jetstream::api::unavailable;
use crate::jetstream::{Ack, Result};
use crate::subscriptions::HeldMessages;
use crate::transport::{Runtime, Session};

/// The largest number of batches in flight.
const IN_FLIGHT: usize = 8;
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(2);

/// The acknowledgements in flight, and those to retry.
pub(crate) struct PendingAcks {
    runtime: Arc<Runtime>,
    held: Arc<HeldMessages>,
    batches: Mutex<Batches>,
    changed: Condvar,
}

#[derive(Default)]
struct Batches {
    in_flight: usize,
    failed: Vec<AckBatch>,
}

/// The acknowledgements of leases, and the tokens of these.
#[derive(Default)]
pub(crate) struct AckBatch {
    pub(crate) acks: Vec<Ack>,
    pub(crate) tokens: Vec<u64>,
}

/// A batch in flight. Its drop counts it as ended, also when its task is cancelled, and leaves a batch without an answer to the next retry.
struct InFlight {
    pending: Arc<PendingAcks>,
    batch: Option<AckBatch>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut batches = self.pending.batches.lock();
        batches.in_flight -= 1;
        batches.failed.extend(self.batch.take());
        self.pending.changed.notify_all();
    }
}

impl PendingAcks {
    pub(crate) fn new(runtime: &Arc<Runtime>, held: &Arc<HeldMessages>) -> Self {
        let (runtime, held) = (Arc::clone(runtime), Arc::clone(held));
        Self { runtime, held, batches: Mutex::default(), changed: Condvar::new() }
    }

    /// Sends acknowledgements of leases. Waits only while too many batches are in flight.
    pub(crate) fn send(self: &Arc<Self>, batch: AckBatch) -> Result<()> {
        self.retry()?;
        {
            let mut batches = self.batches.lock();
            let deadline = Instant::now() + LIMIT;
            while batches.in_flight >= IN_FLIGHT {
                if self.changed.wait_until(&mut batches, deadline).timed_out() {
                    return Err(unavailable("acknowledgements are not answered"));
                }
            }
            batches.in_flight += 1;
        }
        let mut in_flight = InFlight { pending: Arc::clone(self), batch: Some(batch) };
        self.runtime.post(move |session| {
            let session = session.ok()?;
            Some(Box::pin(async move {
                let acks = in_flight.batch.as_ref().map_or(&[][..], |batch| &batch.acks);
                match Session::within(LIMIT, ack_all(&session, acks)).await {
                    Some(Ok(())) => {
                        if let Some(batch) = in_flight.batch.take() {
                            in_flight.pending.held.settle(&batch.tokens);
                        }
                    }
                    Some(Err(_)) => {}
                    None => session.give_up("acknowledgements were not answered"),
                }
            }))
        });
        Ok(())
    }

    /// Sends the acknowledgements without an answer again.
    pub(crate) fn retry(&self) -> Result<()> {
        let failed = std::mem::take(&mut self.batches.lock().failed);
        if failed.is_empty() {
            return Ok(());
        }
        let acks: Vec<Ack> = failed.iter().flat_map(|batch| batch.acks.iter().cloned()).collect();
        let sent = self.runtime.call(move |session| async move { ack_all(&session, &acks).await });
        match &sent {
            Ok(()) => failed.iter().for_each(|batch| self.held.settle(&batch.tokens)),
            Err(_) => self.batches.lock().failed.extend(failed),
        }
        sent
    }

    /// Waits until no batch is in flight, and retries those without an answer once.
    pub(crate) fn finish(&self) -> Result<()> {
        {
            let mut batches = self.batches.lock();
            let deadline = Instant::now() + LIMIT;
            while batches.in_flight > 0 && !self.changed.wait_until(&mut batches, deadline).timed_out() {}
        }
        self.retry()
    }
}
