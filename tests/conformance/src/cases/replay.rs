//! Replay: events of a range are redelivered to one subscription.

use std::sync::atomic::Ordering;

use eventbroker::provider::{BackendError, Replay};
use eventbroker::{Event, Pattern, Status};

use crate::Subject;
use crate::kit::{
    Gate, Ids, dead_letters, events, eventually, finish, fragile, id_of, listen, listen_with, named, publish_all,
    start, status,
};

/// Every settled event of the range is redelivered, to one subscription only.
pub fn replay_redelivers_a_range(subject: &dyn Subject) {
    let broker = start(subject);
    let (_, calls) = listen(&broker, named("again", "range.*"));
    let (_, others) = listen(&broker, named("other", "range.*"));
    let sent: Vec<Event> = events("range.it", 30);
    let ids = publish_all(&broker, sent.iter().cloned());
    calls.read(&ids);
    others.read(&ids);
    for id in &ids {
        eventually("the event is completed", || status(&broker, id) == Some(Status::Completed));
    }
    let mut replay = Replay::of("again");
    (replay.after, replay.until) = (Some(id_of(&sent[9])), Some(id_of(&sent[19])));
    assert_eq!(broker.replay_dry_run(&replay).map(|it| it.deliveries), Ok(10));
    replay.from = Some(sent[15].created_at());
    let in_time = sent[10..20].iter().filter(|it| it.created_at() >= sent[15].created_at()).count() as u64;
    assert_eq!(broker.replay_dry_run(&replay).map(|it| it.deliveries), Ok(in_time));
    replay.from = None;
    assert_eq!(calls.rest().len(), 0, "a dry run delivers nothing");
    let replayed = broker.replay(&replay).expect("it can");
    assert_eq!((replayed.deliveries, replayed.next), (10, None));
    calls.read(&sent[10..20].iter().map(id_of).collect());
    for id in &ids {
        eventually("the event is completed again", || status(&broker, id) == Some(Status::Completed));
    }
    finish(&broker);
    assert!(!subject.abilities().exact || calls.rest().is_empty());
    others.assert_no_more(subject, &Ids::new());
}

/// A replay stops at its limit and returns a cursor to continue from. It includes dead letters.
pub fn replay_continues_from_its_cursor(subject: &dyn Subject) {
    let broker = start(subject);
    let works = fragile(&broker, "mended", "range.*");
    let ids = publish_all(&broker, events("range.it", 25));
    dead_letters(&broker, 25);
    // A dead letter is visible a moment before its delivery is closed, and a replay skips open deliveries.
    for id in &ids {
        eventually("the event is failed", || status(&broker, id) == Some(Status::Failed));
    }
    eventually("no delivery is open", || broker.stats().bridge.is_some_and(|bridge| bridge.leases == 0));
    works.store(true, Ordering::SeqCst);
    let mut replay = Replay::of("mended");
    replay.limit = 10;
    let mut deliveries = Vec::new();
    loop {
        let replayed = broker.replay(&replay).expect("it can");
        deliveries.push(replayed.deliveries);
        replay.after = match replayed.next {
            Some(next) => Some(next),
            None => break,
        };
    }
    assert_eq!(deliveries, [10, 10, 5]);
    assert_eq!(broker.dead_letter_count(), Ok(0));
    for id in &ids {
        eventually("the event is completed by the replay", || status(&broker, id) == Some(Status::Completed));
    }
    finish(&broker);
}

/// A replay covers events that match the subscription's pattern, received before or not, and skips open deliveries.
pub fn replay_skips_open_and_non_matching_events(subject: &dyn Subject) {
    let broker = start(subject);
    let earlier = publish_all(&broker, events("fit.early", 5));
    publish_all(&broker, events("other.it", 5));
    let gate = Gate::default();
    let held = gate.clone();
    let options = named("fits", "fit.*").concurrency(1);
    let (_, calls) = listen_with(&broker, options, move |_| held.pass());
    let open = publish_all(&broker, events("fit.late", 5));
    let first = calls.next();
    let mut replay = Replay::of("fits");
    assert_eq!(broker.replay_dry_run(&replay).map(|it| it.deliveries), Ok(5), "the five others are open");
    replay.event_type = Some(Pattern::parse("*.late").expect("a pattern"));
    assert_eq!(broker.replay(&replay).map(|it| it.deliveries), Ok(0));
    replay.event_type = None;
    assert_eq!(broker.replay(&replay).map(|it| it.deliveries), Ok(5));
    gate.open();
    let mut expected = &earlier | &open;
    expected.remove(first.id());
    calls.read(&expected);
    replay.subscription = "nobody".to_owned();
    let unknown = broker.replay(&replay).expect_err("there is none");
    assert!(matches!(&unknown, BackendError::Refused(reason) if reason.contains("nobody")), "{unknown}");
    replay = Replay::of("fits");
    replay.limit = 0;
    assert!(matches!(broker.replay(&replay), Err(BackendError::Refused(_))));
    finish(&broker);
    expected.insert(id_of(&first));
    calls.assert_no_more(subject, &expected);
}
