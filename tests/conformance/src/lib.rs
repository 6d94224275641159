//! One suite of tests for every provider: the broker's guarantees must hold with any back end.
//!
//! The test file of a provider defines how to create a back end, and its abilities:
//!
//! ```ignore
//! use eventbroker::provider::Provider;
//! use eventbroker_conformance::{Abilities, Subject, conformance_tests};
//!
//! struct Redis(Server);
//!
//! impl Subject for Redis {
//!     fn abilities(&self) -> Abilities {
//!         Abilities { free_members: false, ..Abilities::shared() }
//!     }
//!     fn provider(&self) -> Provider {
//!         self.0.open()
//!     }
//! }
//!
//! conformance_tests!(|| Redis(Server::fresh()));
//! ```
//!
//! The macro generates one `#[test]` per case, each with a subject of its own. A case that needs an ability that the
//! subject lacks prints `skipped` and passes. All brokers of a subject share its back end.
#![allow(clippy::missing_panics_doc, reason = "a test fails by panicking")]

pub mod access;
pub mod cases;
#[cfg(unix)]
mod certificate;
#[cfg(unix)]
pub mod disk;
pub mod example;
#[cfg(unix)]
pub mod faults;
pub mod folder;
mod kit;
pub mod load;
pub mod loopback;
#[cfg(unix)]
pub mod nats;
#[cfg(unix)]
pub mod network;
pub mod partitioning;
#[cfg(unix)]
pub mod pgbouncer;
#[cfg(unix)]
mod port;
#[cfg(unix)]
pub mod postgres;
pub mod processes;
pub mod proxy;
#[cfg(unix)]
pub mod redis;
pub mod rooms;
pub mod statuses;
#[cfg(unix)]
pub mod tls;
pub mod traces;
pub mod watch;

use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::Builder;
use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker::{Broker, BrokerBuilder};

/// Deadline of a case. It is generous for a busy machine: a case that exceeds it hangs.
const CASE_LIMIT: Duration = Duration::from_secs(60);

/// Optional abilities of a provider. The default has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// One instance receives the events of a key in publish order.
    pub ordered: bool,
    /// One instance receives all events of an ordered subscription in publish order.
    pub whole_order: bool,
    /// While one instance runs a call, other members can handle the rest of its deliveries.
    pub free_members: bool,
    /// Without a fault each subscription receives each event once. With one, every provider may redeliver some.
    pub exact: bool,
    /// Accepted events outlive the broker: they wait for a subscription of their name.
    pub durable: bool,
    /// Several brokers share the events of the subject.
    pub across_instances: bool,
    /// Brokers share the subscriptions of a name: one of them handles each event.
    pub groups: bool,
    /// A broadcast subscription receives each event on every broker.
    pub broadcast: bool,
    /// A new subscription receives the events published before it.
    pub history: bool,
    /// Every accepted event can be listed.
    pub query: bool,
    /// A new subscription can start at a position in the past.
    pub start_positions: bool,
    /// A broadcast subscription can outlive its process.
    pub durable_broadcast: bool,
    /// Dead letters, replay, lag and streams cover all instances.
    pub operator: bool,
    /// The subject can [restart](Subject::restart) its back end.
    pub restart: bool,
}

impl Abilities {
    /// The abilities of a durable back end shared by instances: all but `history` and `restart`.
    pub fn shared() -> Self {
        Self {
            ordered: true,
            whole_order: true,
            free_members: true,
            exact: true,
            durable: true,
            across_instances: true,
            groups: true,
            broadcast: true,
            history: false,
            query: true,
            start_positions: true,
            durable_broadcast: true,
            operator: true,
            restart: false,
        }
    }

    /// The abilities of a back end with partitions, each of which has one owner.
    pub fn partitioned() -> Self {
        Self { whole_order: false, free_members: false, ..Self::shared() }
    }
}

/// A back end under test. Each case gets one of its own, empty at the start.
pub trait Subject: Send + Sync {
    /// The abilities of the back end.
    fn abilities(&self) -> Abilities;

    /// Opens a new connection to the back end.
    fn provider(&self) -> Provider;

    /// Builds and starts a broker with a new connection.
    fn broker(&self, builder: BrokerBuilder) -> Broker {
        builder.provider(self.provider()).start().expect("it starts")
    }

    /// Restarts the back end without loss of data. Only called with the ability [`restart`](Abilities::restart).
    fn restart(&self) {}
}

/// An ability that a case needs: its name, and how to read it.
type Need = (&'static str, fn(&Abilities) -> bool);

/// One case of the suite.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The name of the function in [`cases`].
    pub name: &'static str,
    /// The abilities that the case needs. Without one of them it is skipped.
    pub needs: &'static [Need],
    run: fn(&dyn Subject),
}

/// The outcome of a case that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The case passed.
    Passed,
    /// The case was skipped, because the subject lacks this ability.
    Skipped(&'static str),
}

impl Case {
    #[doc(hidden)]
    pub const fn new(name: &'static str, needs: &'static [Need], run: fn(&dyn Subject)) -> Self {
        Self { name, needs, run }
    }

    /// Runs the case on a fresh subject. Panics if the case fails, or does not end within a minute.
    pub fn run<S: Subject>(self, subject: impl FnOnce() -> S + Send + 'static) -> Outcome {
        let (sender, receiver) = channel();
        let body = move || {
            let subject = subject();
            let abilities = subject.abilities();
            let missing = self.needs.iter().find(|(_, has)| !has(&abilities)).map(|(name, _)| *name);
            if missing.is_none() {
                (self.run)(&subject);
            }
            // The receiver is dropped only if the case exceeded its deadline.
            let _ = sender.send(missing.map_or(Outcome::Passed, Outcome::Skipped));
        };
        let thread = Builder::new().name(self.name.to_owned()).spawn(body).expect("a thread");
        match receiver.recv_timeout(CASE_LIMIT) {
            Ok(outcome) => {
                if let Outcome::Skipped(ability) = outcome {
                    println!("skipped: {} needs the ability `{ability}`", self.name);
                }
                outcome
            }
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                Err(panic) => resume_unwind(panic),
                Ok(()) => unreachable!("a case that returns sends its outcome"),
            },
            Err(RecvTimeoutError::Timeout) => panic!("{} did not end within {CASE_LIMIT:?}", self.name),
        }
    }
}

/// Runs every case in turn, each on a fresh subject. Panics at the first failure.
pub fn run_all<S: Subject>(subject: impl Fn() -> S + Clone + Send + 'static) -> Vec<(&'static str, Outcome)> {
    CASES.iter().map(|case| (case.name, case.run(subject.clone()))).collect()
}

/// The suite.
pub const CASES: &[Case] = for_each_case!(list_each_case,);

/// Generates one `#[test]` per case. Takes a closure that creates a fresh [`Subject`].
#[macro_export]
macro_rules! conformance_tests {
    ($subject:expr) => {
        $crate::for_each_case!(test_each_case, $subject);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! test_each_case {
    ([$subject:expr] $($case:ident [$($need:ident)*],)*) => {
        $(
            #[test]
            fn $case() {
                $crate::make_case!($case [$($need)*]).run($subject);
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! list_each_case {
    ([] $($case:ident [$($need:ident)*],)*) => {
        &[$($crate::make_case!($case [$($need)*])),*]
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! make_case {
    ($case:ident [$($need:ident)*]) => {
        $crate::Case::new(
            stringify!($case),
            &[$((stringify!($need), |abilities: &$crate::Abilities| abilities.$need)),*],
            $crate::cases::$case,
        )
    };
}

/// The cases, each with the abilities that it needs.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_case {
    ($then:ident, $($args:tt)*) => {
        $crate::$then! { [$($args)*]
            every_event_arrives_unchanged [],
            trace_context_reaches_the_handler [],
            batch_and_async_publishes_are_delivered [],
            a_new_subscription_starts_at_the_default_position [],
            later_subscriptions_receive_the_whole_history [history],
            concurrent_publishers_reach_every_subscription [],
            subscriptions_receive_only_their_event_type [],
            the_provider_matches_patterns_like_the_core [],
            rejected_events_leave_no_trace [],
            duplicate_ids_are_idempotent [],
            duplicate_ids_are_idempotent_across_instances [across_instances durable groups],

            failed_attempts_are_retried [],
            a_panic_is_a_failed_attempt [],
            retries_end_with_a_dead_letter [],
            a_permanent_failure_is_not_retried [],
            failing_subscriptions_do_not_disturb_others [],
            a_stuck_subscription_does_not_block_others [],
            dead_letters_are_announced_once [],
            a_dead_letter_is_kept_when_its_notice_is_lost [],
            dead_letters_are_requeued [],
            handlers_may_publish [],

            an_ordered_subscription_keeps_publish_order [whole_order],
            order_per_key_is_kept [ordered],
            the_next_subscription_keeps_the_order [ordered durable],
            a_waiting_retry_blocks_an_ordered_subscription [whole_order],

            subscribing_and_unsubscribing_lose_nothing [],
            unsubscribe_waits_for_the_running_call [],
            a_subscription_resumes_its_backlog [durable],
            a_removed_subscription_starts_without_a_backlog [durable groups],
            a_second_pattern_is_refused_without_change_pattern [across_instances durable groups],
            a_paused_member_releases_its_queued_deliveries [across_instances durable groups free_members],

            status_goes_from_pending_to_completed_or_failed [],
            the_retry_count_is_stored_with_the_event [],
            status_covers_shared_and_local_subscriptions [],
            list_returns_each_event_once [query],

            stop_drains_the_queue [],
            stop_waits_for_running_handlers [],
            stop_cancels_running_handlers_at_its_deadline [],
            concurrent_stops_return_the_same_report [],
            publishing_and_subscribing_race_with_stop [],
            stop_loses_no_accepted_event [],

            events_reach_other_instances [across_instances groups],
            one_member_handles_each_event [across_instances groups],
            every_subscription_receives_every_event [across_instances groups],
            instances_may_have_different_subscriptions [across_instances groups],
            local_subscriptions_receive_only_their_own_instance [across_instances groups],
            an_event_is_failed_if_any_instance_failed [across_instances groups query],
            unsettled_deliveries_go_to_another_member [across_instances groups durable],
            a_subscription_without_members_keeps_its_backlog [across_instances groups durable],
            broadcast_reaches_every_instance [across_instances broadcast],
            a_back_end_restart_loses_no_accepted_event [restart],
            an_instance_name_is_exclusive [across_instances],
            a_default_instance_name_gets_a_suffix [across_instances],

            buffered_publishes_are_delivered [],
            a_new_subscription_starts_at_its_start_position [start_positions],
            a_start_position_applies_only_to_a_new_subscription [start_positions],
            a_start_after_an_unknown_event_is_refused [start_positions],
            a_durable_broadcast_receives_missed_events [durable_broadcast],
            dead_letters_are_filtered_and_paged [],
            dead_letters_of_other_instances_are_listed_and_requeued [operator],
            dead_letters_outlive_their_instance [operator],
            dead_letters_are_purged [],
            a_requeued_dead_letter_that_fails_again_gets_a_new_number [],
            replay_redelivers_a_range [operator],
            replay_continues_from_its_cursor [operator],
            replay_skips_open_and_non_matching_events [operator],
            lag_reports_ready_leased_and_dead_deliveries [operator],
            streams_receive_the_events_of_every_instance [operator],
            streams_start_at_their_position [operator],
        }
    };
}
