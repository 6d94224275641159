//! The check for losses: entries that are gone before a subscription has read them, because another client has removed them or the server
//! has lost them. The member that finds a loss counts and logs it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider::BackendError;

use crate::scripts::{CHECK_LOSSES, Client};
use crate::subscriptions::{self, LocalSubscription, LocalSubscriptions};

pub(super) struct LossCheck {
    local: Arc<LocalSubscriptions>,
    lease_time: Duration,
    /// The result of the last check, by consumer group and number of the stream: the server may lose its own copy.
    results: HashMap<(Arc<str>, usize), String>,
    /// The time of the next check: four times per lease. A new subscription is checked at once.
    pub(super) next: Instant,
}

impl LossCheck {
    pub(super) fn new(local: Arc<LocalSubscriptions>, lease_time: Duration) -> Self {
        Self { local, lease_time, results: HashMap::new(), next: Instant::now() }
    }

    pub(super) fn check(&mut self, client: &mut Client) -> Result<(), BackendError> {
        let local = self.local.all();
        self.results.retain(|(xgroup, _), _| local.iter().any(|it| it.xgroup == *xgroup));
        let (now, streams) = (Instant::now(), client.layout.streams.len());
        if now < self.next && local.len() * streams == self.results.len() {
            return Ok(());
        }
        self.next = now + self.lease_time / 4;
        for subscription in &local {
            for number in 1..=streams {
                if !self.check_stream(client, subscription, number)? {
                    subscriptions::restore(client, &self.local, subscription)?;
                    self.check_stream(client, subscription, number)?;
                }
            }
        }
        Ok(())
    }

    /// Checks one stream. False if the stream or the consumer group is not there.
    fn check_stream(&mut self, client: &mut Client, of: &LocalSubscription, at: usize) -> Result<bool, BackendError> {
        let (stream, key) = (client.layout.streams[at - 1].clone(), (Arc::clone(&of.xgroup), at));
        let last = self.results.get(&key).map_or("", String::as_str);
        let found = client.run_on(&CHECK_LOSSES, &[&stream], &[&*of.xgroup, last])?;
        let Some((result, lost, unknown)): Option<(String, i64, i64)> = found else { return Ok(false) };
        if lost > 0 || unknown > 0 {
            tracing::error!(
                stream,
                at_least = lost,
                "data loss: entries of the stream are gone that were not handled; another client trims or removes them, \
                 or the server has evicted or lost them"
            );
        }
        self.results.insert(key, result);
        Ok(true)
    }
}
