//! The policy `DropNewest`: a full subscription drops and counts new events; all others receive them.

use std::time::Duration;

use eventbroker::{Broker, Event, Overflow, Status, SubscribeOptions, Verdict};

use crate::support::{Gate, Settlements, event, stats_of};

/// A broker whose subscription "tight" is full: one call waits at the gate, one event is queued. "roomy" accepts
/// everything.
fn full() -> (Broker, Gate, Settlements) {
    let broker = Broker::builder().start().expect("a running broker");
    let gate = Gate::closed();
    let options = SubscribeOptions::new("a.*").name("tight").concurrency(1).queue_capacity(1);
    let handler_gate = gate.clone();
    broker
        .subscribe_with(options.overflow(Overflow::DropNewest), move |_| handler_gate.pass())
        .expect("a subscription");
    broker.publish(event("a.running")).expect("accepted");
    gate.wait_for_arrival();
    broker.publish(event("a.queued")).expect("accepted");
    broker.subscribe_with(SubscribeOptions::new("*").name("roomy"), |_| ()).expect("a subscription");
    let settlements = Settlements::of(&broker);
    (broker, gate, settlements)
}

fn status(broker: &Broker, event: &Event) -> Status {
    broker.get(event.id()).expect("the memory store").expect("the event").status()
}

#[test]
fn a_new_event_is_accepted_and_dropped_only_by_the_full_subscription() {
    let (broker, gate, settlements) = full();
    let sent: Vec<Event> = (0..10).map(|_| event("a.new")).collect();
    for event in &sent {
        assert!(!broker.publish(event.clone()).expect("accepted").duplicate);
    }
    let verdicts = settlements.take(20);
    let of = |name: &str| verdicts.iter().filter(|it| it.name == name).collect::<Vec<_>>();
    assert!(of("roomy").iter().all(|it| (it.verdict, it.attempts) == (Verdict::Done, 1)));
    let dropped = of("tight");
    assert!(dropped.iter().all(|it| (it.verdict, it.attempts, &it.error) == (Verdict::Dropped, 0, &None)));
    assert_eq!(dropped.iter().map(|it| &it.id).collect::<Vec<_>>(), sent.iter().map(Event::id).collect::<Vec<_>>());
    assert!(sent.iter().all(|event| status(&broker, event) == Status::Failed));
    assert_eq!((stats_of(&broker, "tight").deliveries.dropped, stats_of(&broker, "roomy").deliveries.dropped), (10, 0));

    gate.open();
    assert_eq!(settlements.take(2).iter().map(|it| it.verdict).collect::<Vec<_>>(), [Verdict::Done; 2]);
    let stats = broker.stats();
    assert_eq!((stats.accepted, stats.rejected, stats.completed, stats.failed), (12, 0, 2, 10));
    assert_eq!((stats.dead_letters, stats.deliveries.dropped), (0, 10));
}

#[test]
fn events_of_a_busy_key_are_dropped_too() {
    let broker = Broker::builder().start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let gate = Gate::closed();
    let options = SubscribeOptions::new("*").ordered().queue_capacity(2).overflow(Overflow::DropNewest);
    let handler_gate = gate.clone();
    broker.subscribe_with(options, move |_| handler_gate.pass()).expect("a subscription");
    let sent: Vec<Event> = (0..6).map(|_| event("a")).collect();
    broker.publish(sent[0].clone()).expect("accepted");
    gate.wait_for_arrival();
    for event in &sent[1..] {
        broker.publish(event.clone()).expect("accepted");
    }
    gate.open();
    let verdicts = settlements.take(6);
    let ids = |verdict| verdicts.iter().filter(|it| it.verdict == verdict).map(|it| &it.id).collect::<Vec<_>>();
    assert_eq!(ids(Verdict::Done), [sent[0].id(), sent[1].id(), sent[2].id()]);
    assert_eq!(ids(Verdict::Dropped), [sent[3].id(), sent[4].id(), sent[5].id()]);
}

#[test]
fn a_synchronous_publish_reports_the_drop() {
    let (broker, gate, _settlements) = full();
    let report = broker.publish_sync(event("a.new")).expect("accepted");
    assert!(!report.is_success());
    assert_eq!((report.open.len(), report.error()), (0, None));
    let mut settled: Vec<_> = report.settled.iter().map(|it| (&*it.name, it.verdict, it.attempts)).collect();
    settled.sort_by_key(|it| it.0);
    assert_eq!(settled, [("roomy", Verdict::Done, 1), ("tight", Verdict::Dropped, 0)]);
    gate.open();
    assert!(broker.stop(Duration::from_secs(10)).is_clean());
}
