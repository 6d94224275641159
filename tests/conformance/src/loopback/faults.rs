//! Fault injection: the setters for tests, and the state that the server checks.

use std::time::Duration;

use eventbroker::EventId;

use super::Loopback;

#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) unavailable: bool,
    pub(super) refusal: Option<String>,
    pub(super) answers_to_lose: u32,
    pub(super) sends_held: bool,
    pub(super) registrations_held: bool,
    pub(super) receives_held: bool,
    pub(super) answers_held: bool,
    pub(super) settles_held: bool,
    /// An event that is not delivered.
    pub(super) withheld: Option<EventId>,
    /// How far back `asked_at` of new leases is dated.
    pub(super) delay: Duration,
}

impl Loopback {
    /// Sets the lease time. Default 5 s; the broker extends a lease each third of it.
    pub fn set_lease_time(&self, time: Duration) {
        self.change(|server| server.lease_time = time);
    }

    /// Makes every call fail as unavailable, or succeed again.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.change(|server| server.faults.unavailable = unavailable);
    }

    /// Refuses each new event with this reason, or accepts events again.
    pub fn refuse(&self, reason: Option<&str>) {
        self.change(|server| server.faults.refusal = reason.map(str::to_owned));
    }

    /// Stores the events of the next `count` sends, but returns an error to the sender: the answer is lost.
    pub fn lose_answers(&self, count: u32) {
        self.change(|server| server.faults.answers_to_lose = count);
    }

    /// Blocks `send` before it stores anything, or unblocks it.
    pub fn hold_sends(&self, hold: bool) {
        self.change(|server| server.faults.sends_held = hold);
    }

    /// Blocks `register`, or unblocks it.
    pub fn hold_registrations(&self, hold: bool) {
        self.change(|server| server.faults.registrations_held = hold);
    }

    /// Blocks `receive`, or unblocks it.
    pub fn hold_receives(&self, hold: bool) {
        self.change(|server| server.faults.receives_held = hold);
    }

    /// Blocks each `receive` that has leased deliveries before it returns, or unblocks it.
    pub fn hold_answers(&self, hold: bool) {
        self.change(|server| server.faults.answers_held = hold);
    }

    /// Dates new leases back by `delay`, as if the process had been frozen before it read the answer.
    pub fn answer_late(&self, delay: Duration) {
        self.change(|server| server.faults.delay = delay);
    }

    /// Blocks `settle`, or unblocks it.
    pub fn hold_settles(&self, hold: bool) {
        self.change(|server| server.faults.settles_held = hold);
    }

    /// Gives the name of an instance to another member, also while the back end is unavailable.
    pub fn take_name(&self, instance: &str) {
        self.change(|server| {
            let somebody = server.number();
            server.instances.insert(instance.to_owned(), somebody);
        });
    }

    /// Expires all leases now.
    pub fn expire_leases(&self) {
        self.change(|server| server.take_back(|_| true));
    }

    /// Expires the leases of one event now.
    pub fn expire_lease(&self, id: &EventId) {
        self.change(|server| server.take_back(|lease| lease.id == *id));
    }

    /// Withholds this event from every queue, or none.
    pub fn withhold(&self, id: Option<&EventId>) {
        self.change(|server| server.faults.withheld = id.cloned());
    }

    /// Expires all leases, and records `crashes` crashes for each of their deliveries.
    pub fn crash_holders(&self, crashes: u32) {
        self.change(|server| {
            let held = server.leases.values().map(|lease| ((lease.queue.clone(), lease.number), crashes));
            server.suspects.extend(held.collect::<Vec<_>>());
            server.take_back(|_| true);
        });
    }
}
