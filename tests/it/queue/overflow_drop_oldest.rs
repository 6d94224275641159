//! The policy `DropOldest`: each event beyond the capacity drops the oldest queued event, and nothing else.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventbroker::{
    Broker, BrokerBuilder, Event, Outcome, Overflow, RetryPolicy, Source, Status, SubscribeOptions, Verdict,
};

use crate::support::{Gate, Settlements, manual_clock, number_of, numbered, stats_of, wait_until};

fn keyed_number(number: u64, key: &str) -> Event {
    Event::builder(Source::System, "a.b").key(key).payload(&number).build().expect("a valid event")
}

/// A broker with one subscription, "dropping", to "a.b". The handler records the numbers of the events, waits at the
/// gate for those in `held`, and fails the first attempt of those in `failing`.
struct Scene {
    gate: Gate,
    broker: Broker,
    settlements: Settlements,
    handled: Arc<Mutex<Vec<u64>>>,
}

fn scene(builder: BrokerBuilder, options: SubscribeOptions, held: &'static [u64], failing: &'static [u64]) -> Scene {
    let broker = builder.start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let (gate, handled) = (Gate::closed(), Arc::default());
    let (handler_gate, notes): (_, Arc<Mutex<Vec<u64>>>) = (gate.clone(), Arc::clone(&handled));
    let retry = RetryPolicy::fixed(3, Duration::from_secs(1));
    let options = options.name("dropping").overflow(Overflow::DropOldest).retry(retry);
    broker
        .subscribe_with(options, move |delivery| {
            let number = number_of(delivery.event());
            if failing.contains(&number) && delivery.attempt() == 1 {
                return Outcome::Retry("not yet".into());
            }
            if held.contains(&number) {
                handler_gate.pass();
            }
            notes.lock().expect("no panic").push(number);
            Outcome::Done
        })
        .expect("a subscription");
    Scene { broker, settlements, gate, handled }
}

impl Scene {
    fn publish(&self, event: Event) {
        assert!(!self.broker.publish(event).expect("accepted").duplicate);
    }

    fn handled(&self) -> Vec<u64> {
        self.handled.lock().expect("no panic").clone()
    }

    /// Waits until `count` deliveries wait for a retry or are parked behind one, and none is queued.
    fn wait_for_waiting(&self, count: u64) {
        wait_until("the deliveries wait", || {
            let stats = stats_of(&self.broker, "dropping");
            (stats.waiting, stats.queued) == (count, 0)
        });
    }

    fn dropped(&self) -> u64 {
        stats_of(&self.broker, "dropping").deliveries.dropped
    }
}

fn capacity(events: usize) -> SubscribeOptions {
    SubscribeOptions::new("a.b").queue_capacity(events).concurrency(1)
}

#[test]
fn the_oldest_queued_event_is_dropped_counted_and_failed() {
    let it = scene(Broker::builder(), capacity(3), &[0], &[]);
    it.publish(numbered("a.b", 0));
    it.gate.wait_for_arrival();
    let sent: Vec<Event> = (1..=5).map(|number| numbered("a.b", number)).collect();
    for event in &sent {
        it.publish(event.clone());
    }
    let drops = it.settlements.take(2);
    for (drop, event) in drops.iter().zip(&sent) {
        assert_eq!((&drop.id, drop.verdict, drop.attempts), (event.id(), Verdict::Dropped, 0));
        assert_eq!((drop.name.as_str(), &drop.error), ("dropping", &None));
        let held = it.broker.get(event.id()).expect("the memory store").expect("the event");
        assert_eq!(held.status(), Status::Failed);
    }
    let stats = it.broker.stats();
    assert_eq!((it.dropped(), stats.deliveries.dropped, stats.failed), (2, 2, 2));
    assert_eq!((stats.accepted, stats.rejected, stats.dead_letters), (6, 0, 0));

    it.gate.open();
    assert!(it.settlements.take(4).iter().all(|it| it.verdict == Verdict::Done));
    assert_eq!(it.handled(), [0, 3, 4, 5]);
}

#[test]
fn an_ordered_subscription_drops_the_oldest_behind_the_running_call() {
    let it = scene(Broker::builder(), capacity(2).ordered(), &[0], &[]);
    it.publish(numbered("a.b", 0));
    it.gate.wait_for_arrival();
    for number in 1..=4 {
        it.publish(numbered("a.b", number));
    }
    assert!(it.settlements.take(2).iter().all(|it| it.verdict == Verdict::Dropped));
    it.gate.open();
    assert!(it.settlements.take(3).iter().all(|it| it.verdict == Verdict::Done));
    assert_eq!(it.handled(), [0, 3, 4]);
}

#[test]
fn the_oldest_event_is_dropped_whether_it_waits_for_a_worker_or_behind_its_key() {
    let it = scene(Broker::builder(), capacity(3), &[0], &[]);
    it.publish(keyed_number(0, "k"));
    it.gate.wait_for_arrival();
    for (number, key) in [(1, "k"), (2, "l"), (3, "l"), (4, "m")] {
        it.publish(keyed_number(number, key));
    }
    assert_eq!(number_of_drop(&it), 1);
    it.gate.open();
    assert_eq!(it.settlements.take(4).len(), 4);
    let mut handled = it.handled();
    handled.sort_unstable();
    assert_eq!(handled, [0, 2, 3, 4]);
}

#[test]
fn events_behind_busy_keys_are_dropped_oldest_first_across_keys() {
    let it = scene(Broker::builder(), capacity(3).concurrency(2), &[0, 10], &[]);
    it.publish(keyed_number(0, "k"));
    it.publish(keyed_number(10, "l"));
    it.gate.wait_for_arrival();
    it.gate.wait_for_arrival();
    for (number, key) in [(11, "l"), (1, "k"), (12, "l"), (2, "k"), (3, "k"), (13, "l")] {
        it.publish(keyed_number(number, key));
    }
    assert_eq!([number_of_drop(&it), number_of_drop(&it), number_of_drop(&it)], [11, 1, 12]);
    it.gate.open();
    it.settlements.take(5);
    let of_key = |key: u64| it.handled().into_iter().filter(|number| number / 10 == key).collect::<Vec<_>>();
    assert_eq!((of_key(0), of_key(1)), (vec![0, 2, 3], vec![10, 13]));
}

/// The number of the next event that was dropped.
fn number_of_drop(it: &Scene) -> u64 {
    let drop = it.settlements.next();
    assert_eq!(drop.verdict, Verdict::Dropped);
    number_of(&it.broker.get(&drop.id).expect("the memory store").expect("the event"))
}

#[test]
fn a_dropped_head_of_a_key_does_not_block_the_events_behind_it() {
    let it = scene(Broker::builder(), capacity(2), &[0], &[]);
    it.publish(numbered("a.b", 0));
    it.gate.wait_for_arrival();
    for number in 1..=6 {
        it.publish(keyed_number(number, "k"));
    }
    assert_eq!(it.settlements.take(4).iter().filter(|it| it.verdict == Verdict::Dropped).count(), 4);
    it.gate.open();
    it.settlements.take(3);
    assert_eq!(it.handled(), [0, 5, 6]);
    // The key is free again.
    it.publish(keyed_number(7, "k"));
    it.settlements.next();
    assert_eq!(it.handled(), [0, 5, 6, 7]);
}

#[test]
fn a_waiting_retry_is_never_dropped() {
    let clock = manual_clock();
    let it = scene(Broker::builder().manual_clock(&clock), capacity(2), &[0], &[100]);
    it.publish(numbered("a.b", 100));
    it.wait_for_waiting(1);
    it.publish(numbered("a.b", 0));
    it.gate.wait_for_arrival();
    for number in 1..=5 {
        it.publish(numbered("a.b", number));
    }
    assert!(it.settlements.take(3).iter().all(|it| it.verdict == Verdict::Dropped));
    clock.advance(Duration::from_secs(1));
    // A due retry that cannot run yet is not dropped either.
    it.publish(numbered("a.b", 6));
    assert_eq!(number_of_drop(&it), 4);
    it.gate.open();
    assert!(it.settlements.take(4).iter().all(|it| it.verdict == Verdict::Done));
    let mut handled = it.handled();
    handled.sort_unstable();
    assert_eq!(handled, [0, 5, 6, 100]);
}

#[test]
fn events_parked_behind_a_waiting_retry_are_never_dropped() {
    let clock = manual_clock();
    let it = scene(Broker::builder().manual_clock(&clock), capacity(1).ordered(), &[], &[1]);
    it.publish(numbered("a.b", 1));
    it.wait_for_waiting(1);
    for number in 2..=5 {
        it.publish(numbered("a.b", number));
        it.wait_for_waiting(number);
    }
    clock.advance(Duration::from_secs(1));
    assert!(it.settlements.take(5).iter().all(|it| it.verdict == Verdict::Done));
    assert_eq!((it.handled(), it.dropped()), (vec![1, 2, 3, 4, 5], 0));
}

#[test]
fn events_parked_behind_a_retry_are_not_dropped_when_they_become_ready() {
    let clock = manual_clock();
    let it = scene(Broker::builder().manual_clock(&clock), capacity(1), &[1, 2, 3], &[1, 2]);
    it.publish(keyed_number(1, "k"));
    it.wait_for_waiting(1);
    it.publish(numbered("a.b", 2));
    it.wait_for_waiting(2);
    it.publish(keyed_number(3, "k"));
    it.wait_for_waiting(3);
    clock.advance(Duration::from_secs(1));
    it.gate.wait_for_arrival(); // 1 runs again, then 2 or 3, whichever the timer and the lane enqueue first
    it.gate.open_once();
    it.gate.wait_for_arrival();
    assert_eq!(it.settlements.next().verdict, Verdict::Done);
    // The other one of 2 and 3 is ready, and waits for the one at the gate.
    it.publish(numbered("a.b", 4));
    it.publish(numbered("a.b", 5));
    assert_eq!(
        number_of_drop(&it),
        4,
        "a delivery that has waited holds no place in the queue, so dropping it would free none"
    );
    it.gate.open();
    assert!(it.settlements.take(3).iter().all(|it| it.verdict == Verdict::Done));
    let mut handled = it.handled();
    handled.sort_unstable();
    assert_eq!((handled, it.dropped()), (vec![1, 2, 3, 5], 1));
}

#[test]
fn the_oldest_queued_event_is_dropped_behind_deliveries_that_have_waited() {
    let clock = manual_clock();
    let it = scene(Broker::builder().manual_clock(&clock), capacity(2).ordered(), &[1], &[1]);
    it.publish(numbered("a.b", 1));
    it.wait_for_waiting(1);
    it.publish(numbered("a.b", 2));
    it.wait_for_waiting(2);
    clock.advance(Duration::from_secs(1));
    it.gate.wait_for_arrival(); // 1 runs again; 2 has waited with it, and the queue is empty
    for number in 3..=5 {
        it.publish(numbered("a.b", number));
    }
    assert_eq!(number_of_drop(&it), 3);
    it.gate.open();
    assert!(it.settlements.take(4).iter().all(|it| it.verdict == Verdict::Done));
    assert_eq!((it.handled(), it.dropped()), (vec![1, 2, 4, 5], 1));
}

#[test]
fn other_subscriptions_of_a_dropped_event_still_receive_it() {
    let it = scene(Broker::builder(), capacity(1), &[0], &[]);
    let all = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&all);
    let note =
        move |delivery: &eventbroker::Delivery<'_>| notes.lock().expect("no panic").push(number_of(delivery.event()));
    it.broker.subscribe_with(SubscribeOptions::new("*").name("all").ordered(), note).expect("a subscription");
    it.publish(numbered("a.b", 0));
    it.gate.wait_for_arrival();
    let sent: Vec<Event> = (1..=3).map(|number| numbered("a.b", number)).collect();
    for event in &sent {
        it.publish(event.clone());
    }
    it.gate.open();
    let verdicts = it.settlements.take(8);
    assert_eq!(verdicts.iter().filter(|it| it.verdict == Verdict::Dropped && it.name == "dropping").count(), 2);
    assert_eq!(verdicts.iter().filter(|it| it.verdict == Verdict::Done && it.name == "all").count(), 4);
    assert_eq!(*all.lock().expect("no panic"), [0, 1, 2, 3]);
    let status = |event: &Event| it.broker.get(event.id()).expect("the memory store").expect("the event").status();
    assert_eq!(sent.iter().map(status).collect::<Vec<_>>(), [Status::Failed, Status::Failed, Status::Completed]);
}
