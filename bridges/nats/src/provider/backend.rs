//! The parts of a provider, assembled. Only the top loops beside this file take all of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use eventbroker_bridge_kit::identity::new_boot_id;

use crate::consume::{PullBuffer, Puller};
use crate::housekeeping::Housekeeping;
use crate::jetstream::{KeyValue, Layout, ServerClock};
use crate::membership::Membership;
use crate::partitions::{Claims, Hooks};
use crate::publish::Publisher;
use crate::query::Locator;
use crate::settings::{Nats, OpenError};
use crate::settle::PendingAcks;
use crate::subscriptions::{HeldMessages, Subscriptions};
use crate::transport::{self, Runtime};

/// The parts of a provider.
pub(super) struct Backend {
    pub(super) settings: Arc<Nats>,
    pub(super) runtime: Arc<Runtime>,
    pub(super) layout: Arc<Layout>,
    pub(super) kv: KeyValue,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) membership: Arc<Membership>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) held: Arc<HeldMessages>,
    pub(super) pending: Arc<PendingAcks>,
    /// `None` without partitions.
    pub(super) claims: Option<Arc<Claims>>,
    pub(super) buffer: Arc<PullBuffer>,
    pub(super) puller: Arc<Puller>,
    pub(super) locator: Arc<Locator>,
    pub(super) housekeeping: Arc<Housekeeping>,
}

impl Backend {
    /// Assembles the parts. Nothing connects yet.
    pub(super) fn new(settings: Nats) -> Result<Self, OpenError> {
        let (boot, settings) = (new_boot_id(), Arc::new(settings));
        let (lease, times) = (settings.lease_time, settings.lease_times());
        let (runtime, conn) = transport::open(&settings, &boot)?;
        let (runtime, layout, kv) = (Arc::new(runtime), Arc::new(Layout::new(&settings)), KeyValue::new(&settings));
        let clock = Arc::new(ServerClock::new(&kv, &boot));
        let subscriptions = Arc::new(Subscriptions::new(&layout, &kv, lease));
        let membership = Arc::new(Membership::new(&kv, &clock, &subscriptions, lease, boot.clone()));
        let has_partitions = layout.has_partitions();
        let buffer = Arc::new(PullBuffer::new(times, has_partitions));
        let on_loss = Arc::clone(&buffer);
        runtime.on_loss(move || on_loss.notify());
        let on_full = Arc::clone(&buffer);
        let publisher =
            Publisher::new(&runtime, conn, &settings, &layout, &clock, Box::new(move |()| on_full.notify()));
        let room = Arc::clone(&buffer);
        let held = Arc::new(HeldMessages::new(Box::new(move |settled| {
            if has_partitions {
                room.make_room(settled);
            }
        })));
        let claims = has_partitions.then(|| {
            let (in_buffer, under_lease, news) = (Arc::clone(&buffer), Arc::clone(&held), Arc::clone(&buffer));
            let hooks = Hooks {
                partitions_here: Box::new(move |durable: String| partitions_here(&in_buffer, &under_lease, &durable)),
                on_renewed: Box::new(move |result| {
                    if let Err(error) = result {
                        news.fail(error);
                    }
                    news.notify();
                }),
            };
            Arc::new(Claims::new(&runtime, &kv, &boot, times, layout.partitions, hooks))
        });
        Ok(Self {
            pending: Arc::new(PendingAcks::new(&runtime, &held)),
            puller: Arc::new(Puller {
                runtime: Arc::clone(&runtime),
                kv: kv.clone(),
                buffer: Arc::clone(&buffer),
                held: Arc::clone(&held),
                membership: Arc::clone(&membership),
                times,
            }),
            locator: Arc::new(Locator::new(&runtime, &layout, &kv)),
            housekeeping: Arc::new(Housekeeping {
                settings: Arc::clone(&settings),
                layout: Arc::clone(&layout),
                kv: kv.clone(),
                clock,
                subscriptions: Arc::clone(&subscriptions),
                boot,
            }),
            publisher: Arc::new(publisher),
            settings,
            runtime,
            layout,
            kv,
            subscriptions,
            membership,
            held,
            claims,
            buffer,
        })
    }

    /// Whether messages of a partition of a subscription are here, held or in the buffer.
    pub(super) fn has_messages_here(&self, durable: &str) -> bool {
        !partitions_here(&self.buffer, &self.held, durable).is_empty()
    }
}

/// The partitions of a subscription with messages here, held or in the buffer.
fn partitions_here(buffer: &PullBuffer, held: &HeldMessages, durable: &str) -> BTreeSet<u32> {
    let _moves = held.lock_moves();
    let mut partitions = buffer.partitions(durable);
    partitions.append(&mut held.partitions(durable));
    partitions
}
