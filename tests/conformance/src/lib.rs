//! One suite of tests for every provider: what the broker promises must hold whatever stands behind it.
//!
//! A provider's own test file says how to get a back end, and what it is able to do:
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
//! That makes one `#[test]` per case, each with a subject of its own. A case that needs an ability which the subject does
//! not have says so and passes. Brokers of one subject share its back end.
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

/// No case takes longer, even on a busy machine; one that does hangs.
const CASE_LIMIT: Duration = Duration::from_secs(60);

/// What a provider is able to do beyond what every one has to. The default is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// One instance receives the events of a key in publish order.
    pub ordered: bool,
    /// The same for all events of an ordered subscription.
    pub whole_order: bool,
    /// While a call of one instance runs, others can handle whatever else it had.
    pub free_members: bool,
    /// Without a fault, each subscription gets each event once. (With one, every provider may repeat some.)
    pub exact: bool,
    /// Accepted events outlive the broker: they wait for a subscription of their name.
    pub durable: bool,
    /// Several brokers share the events of the subject.
    pub across_instances: bool,
    /// Brokers share the subscriptions of a name: one of them handles each event.
    pub groups: bool,
    /// A broadcast subscription of every broker gets each event.
    pub broadcast: bool,
    /// A new subscription gets what was published before it.
    pub history: bool,
    /// Every accepted event can be listed.
    pub query: bool,
    /// A new subscription can start at a position in the past.
    pub start_positions: bool,
    /// A broadcast subscription can outlive its process.
    pub durable_broadcast: bool,
    /// What operators ask for is answered for all instances: dead letters, replay, lag, streams.
    pub operator: bool,
    /// The subject can [restart](Subject::restart) its back end.
    pub restart: bool,
}

impl Abilities {
    /// Those of a durable back end that instances share: all but the whole history, and to be restarted by the suite.
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

    /// Those of one whose streams are divided into partitions, each of which has one owner.
    pub fn partitioned() -> Self {
        Self { whole_order: false, free_members: false, ..Self::shared() }
    }
}

/// A back end under test. Each case has one of its own, which holds nothing at the beginning.
pub trait Subject: Send + Sync {
    /// What it is able to do.
    fn abilities(&self) -> Abilities;

    /// A new connection to this subject's back end.
    fn provider(&self) -> Provider;

    /// Finishes and starts a broker with a new connection.
    fn broker(&self, builder: BrokerBuilder) -> Broker {
        builder.provider(self.provider()).start().expect("it starts")
    }

    /// Stops the back end and starts it again; what it held it still holds. Only called with that ability.
    fn restart(&self) {}
}

/// An ability that a case may need: its name, and how to see it.
type Need = (&'static str, fn(&Abilities) -> bool);

/// One case of the suite.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name, that of the function in [`cases`].
    pub name: &'static str,
    /// The abilities without which it is skipped.
    pub needs: &'static [Need],
    run: fn(&dyn Subject),
}

/// What became of a case that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has passed.
    Passed,
    /// The subject does not have this ability.
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
            // The receiver has gone only if the case took too long.
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
                Ok(()) => unreachable!("a case that ends tells its outcome"),
            },
            Err(RecvTimeoutError::Timeout) => panic!("{} did not end within {CASE_LIMIT:?}", self.name),
        }
    }
}

/// Runs every case one after the other, each on a fresh subject. Stops at the first that fails, by panicking.
pub fn run_all<S: Subject>(subject: impl Fn() -> S + Clone + Send + 'static) -> Vec<(&'static str, Outcome)> {
    CASES.iter().map(|case| (case.name, case.run(subject.clone()))).collect()
}

/// The suite.
pub const CASES: &[Case] = for_each_case!(list_each_case,);

/// Makes one test of each case. Takes a closure that makes a fresh [`Subject`].
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
            trace_contexts_travel [],
            batches_and_receipts_arrive [],
            a_new_subscription_starts_where_it_should [],
            later_subscriptions_see_the_whole_history [history],
            many_publishers_many_subscriptions [],
            types_do_not_leak [],
            patterns_mean_the_same [],
            refused_events_leave_nothing [],
            duplicate_ids_are_idempotent [],
            duplicate_ids_are_idempotent_across_instances [across_instances durable groups],

            failed_events_come_again [],
            a_panic_is_a_failed_attempt [],
            retries_end_with_a_dead_letter [],
            a_permanent_failure_is_not_retried [],
            failing_subscriptions_do_not_disturb_others [],
            a_stuck_subscription_does_not_block_others [],
            dead_letters_are_announced_once [],
            a_dead_letter_is_kept_when_its_notice_is_lost [],
            dead_letters_are_requeued [],
            handlers_may_publish [],

            order_per_type_is_kept [whole_order],
            order_per_key_is_kept [ordered],
            a_waiting_retry_holds_back_the_next [whole_order],

            subscribing_and_unsubscribing_lose_nothing [],
            unsubscribe_waits_for_the_running_call [],
            a_name_goes_on_where_it_was_left [durable],
            a_name_that_was_removed_begins_anew [durable groups],
            a_name_has_one_pattern_unless_it_is_changed [across_instances durable groups],
            a_paused_member_gives_back_what_it_has_not_begun [across_instances durable groups free_members],

            statuses_follow_the_handling [],
            retries_are_told_with_the_event [],
            statuses_cover_shared_and_local_subscriptions [],
            list_shows_each_event_once [query],

            stop_handles_what_is_queued [],
            stop_waits_for_running_handlers [],
            stop_tells_a_handler_to_give_up [],
            everyone_who_stops_gets_the_same_report [],
            publishing_and_subscribing_race_with_stop [],
            what_is_accepted_is_not_lost_by_stop [],

            events_reach_other_instances [across_instances groups],
            one_member_handles_each_event [across_instances groups],
            each_name_gets_all [across_instances groups],
            instances_need_not_have_the_same_subscriptions [across_instances groups],
            local_subscriptions_hear_their_own_instance_only [across_instances groups],
            an_event_is_failed_if_any_instance_failed [across_instances groups query],
            unfinished_events_go_to_another_member [across_instances groups durable],
            events_wait_for_a_member [across_instances groups durable],
            broadcast_reaches_every_instance [across_instances broadcast],
            nothing_accepted_is_lost_when_the_back_end_restarts [restart],
            an_instance_has_its_name_for_itself [across_instances],
            a_default_name_gets_a_suffix [across_instances],

            buffered_events_arrive [],
            a_new_name_starts_at_its_position [start_positions],
            a_start_position_counts_once [start_positions],
            a_start_after_an_unknown_event_is_refused [start_positions],
            a_durable_broadcast_goes_on_where_it_was [durable_broadcast],
            dead_letters_are_found_by_what_is_known_of_them [],
            dead_letters_are_those_of_every_instance [operator],
            dead_letters_outlive_their_instance [operator],
            dead_letters_are_purged [],
            requeued_letters_that_die_again_are_new_ones [],
            replay_delivers_a_range_again [operator],
            replay_goes_on_where_it_stopped [operator],
            replay_fits_the_subscription [operator],
            lag_tells_what_waits [operator],
            streams_show_every_instance [operator],
            streams_begin_where_they_should [operator],
        }
    };
}
