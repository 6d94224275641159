//! Publishing: every event is delivered unchanged, once, and only to matching subscriptions.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use eventbroker::{Confirm, Event, Pattern, Scope, Source, Status};

use crate::Subject;
use crate::kit::{
    Ids, PATIENCE, builder, events, eventually, finish, listen, named, numbered, publish, publish_all, start, status,
};

/// JSON that a back end changes if it parses and serializes the payload.
const PAYLOADS: [&str; 8] = [
    r#"{"b":1,"a":2,"b":3}"#,
    r#"{ "spaces" : [ 1 ,	2 ] }"#,
    r#""é ü 漢字 😀 \u00e9 \ud83d\ude00 \/ \u0000""#,
    "12345678901234567890123456789.000100",
    "1e400",
    "-0.0",
    "null",
    r#"[[],{},"",false,0.1]"#,
];

/// The handler receives every field as published, and the payload byte by byte.
pub fn every_event_arrives_unchanged(subject: &dyn Subject) {
    let broker = start(subject);
    let (_, calls) = listen(&broker, named("all", "shop.**"));
    let sent: Vec<Event> = (0..100).map(rich_event).collect();
    let ids = publish_all(&broker, sent.iter().cloned());
    let arrived = calls.read(&ids);
    for event in &sent {
        let arrived = arrived.iter().find(|it| it.id() == event.id()).expect("it was read");
        assert_eq!(arrived.payload().as_bytes(), event.payload().as_bytes());
        assert_eq!(arrived.metadata(), event.metadata());
        assert_eq!(arrived.event_type(), event.event_type());
        assert_eq!(arrived.source(), event.source());
        assert_eq!(arrived.key(), event.key());
        assert_eq!(arrived.user_id(), event.user_id());
        assert_eq!(arrived.session_id(), event.session_id());
        assert_eq!(arrived.created_at(), event.created_at());
        let names = |it: &Event| [it.schema(), it.entity(), it.operation()].map(|name| name.map(str::to_owned));
        assert_eq!(names(arrived), names(event));
        assert_eq!(arrived.instance_id(), Some("one"));
    }
    finish(&broker);
    calls.assert_no_more(subject, &ids);
}

fn rich_event(number: usize) -> Event {
    let builder = Event::builder(Source::Frontend, "shop.orders.create")
        .payload_json(PAYLOADS[number % PAYLOADS.len()])
        .metadata("number", number)
        .metadata("nested", serde_json::json!({"ü": [1.5, null, {"deep": "\u{7}\"quoted\""}]}))
        .user_id(i64::MIN + number as i64)
        .session_id("session ' \" \\ %s ?")
        .entity("other entity");
    let builder = if number.is_multiple_of(3) { builder.key(format!("key {}", number % 5)) } else { builder };
    let builder = if number.is_multiple_of(2) { builder.id(format!("event '{number}' *>.{{}}")) } else { builder };
    builder.build().expect("a valid event")
}

/// The handler receives the trace context as published. Publishing the event again in another trace is a duplicate.
pub fn trace_context_reaches_the_handler(subject: &dyn Subject) {
    let broker = start(subject);
    let (_, calls) = listen(&broker, named("all", "traced.*"));
    let event = |trace: &str| {
        let builder =
            Event::builder(Source::System, "traced.it").id("traced").payload(&1).metadata("tracestate", "a=1,b=2");
        builder.traceparent(trace).build().expect("a valid event")
    };
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let ids = publish_all(&broker, [event(trace)]);
    let arrived = &calls.read(&ids)[0];
    assert_eq!(arrived.traceparent(), Some(trace));
    assert_eq!(arrived.metadata()["tracestate"], "a=1,b=2");
    let again = event("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
    assert!(broker.publish(again).expect("it is accepted").duplicate);
    finish(&broker);
    calls.assert_no_more(subject, &ids);
}

/// `publish_batch` and `publish_async` deliver every event, and report each outcome in order.
pub fn batch_and_async_publishes_are_delivered(subject: &dyn Subject) {
    let broker = start(subject);
    let (_, calls) = listen(&broker, named("all", "batch.*"));
    let sent = events("batch.many", 200);
    let outcomes = broker.publish_batch(sent.clone());
    let mut ids: Ids = outcomes.into_iter().map(|outcome| outcome.expect("it is accepted").id).collect();
    assert_eq!(ids, sent.iter().map(|event| event.id().clone()).collect());
    let single = events("batch.single", 100);
    let receipts: Vec<_> = single.iter().map(|it| broker.publish_async(it.clone()).expect("there is room")).collect();
    for (receipt, event) in receipts.iter().zip(&single) {
        assert_eq!(receipt.id(), event.id());
        let accepted = receipt.wait(PATIENCE).expect("it is accepted");
        assert_eq!((&accepted.id, accepted.duplicate), (event.id(), false));
        ids.insert(accepted.id);
    }
    calls.read(&ids);
    finish(&broker);
    calls.assert_no_more(subject, &ids);
}

/// With the ability `history` a new subscription receives earlier events too, else only later ones.
pub fn a_new_subscription_starts_at_the_default_position(subject: &dyn Subject) {
    let broker = start(subject);
    let earlier = publish_all(&broker, events("start.it", 10));
    let (_, calls) = listen(&broker, named("late", "start.*"));
    let mut expected = publish_all(&broker, events("start.it", 10));
    if subject.abilities().history {
        expected.extend(earlier);
    }
    calls.read(&expected);
    finish(&broker);
    calls.assert_no_more(subject, &expected);
}

/// Each new subscription name receives every event ever published.
pub fn later_subscriptions_receive_the_whole_history(subject: &dyn Subject) {
    let broker = start(subject);
    let mut ids = Ids::new();
    for round in 0..3 {
        ids.extend(publish_all(&broker, events("history.it", 20)));
        let (_, calls) = listen(&broker, named(&format!("round {round}"), "history.*"));
        calls.read(&ids);
    }
    finish(&broker);
}

/// With ten concurrent publishers each of ten subscriptions receives all of their events, and no others.
pub fn concurrent_publishers_reach_every_subscription(subject: &dyn Subject) {
    let broker = start(subject);
    let listeners: Vec<_> = (0..10).map(|number| listen(&broker, named(&format!("s{number}"), "many.*"))).collect();
    let at_once = Barrier::new(10);
    let ids: Ids = thread::scope(|scope| {
        let publisher = || {
            at_once.wait();
            publish_all(&broker, events("many.it", 10))
        };
        let publishers: Vec<_> = (0..10).map(|_| scope.spawn(publisher)).collect();
        publishers.into_iter().flat_map(|publisher| publisher.join().expect("a publisher")).collect()
    });
    assert_eq!(ids.len(), 100);
    for (_, calls) in &listeners {
        calls.read(&ids);
    }
    finish(&broker);
    for (_, calls) in &listeners {
        calls.assert_no_more(subject, &ids);
    }
}

/// Each of ten subscriptions receives exactly the event type that it subscribes to.
pub fn subscriptions_receive_only_their_event_type(subject: &dyn Subject) {
    let broker = start(subject);
    let at_once = Barrier::new(10);
    let topic = |number: usize| {
        let name = format!("topic.t{number}");
        at_once.wait();
        let (_, calls) = listen(&broker, named(&name, &name));
        let ids = publish_all(&broker, events(&name, 50));
        (calls, ids)
    };
    let listeners: Vec<_> = thread::scope(|scope| {
        let topic = &topic;
        let topics: Vec<_> = (0..10).map(|number| scope.spawn(move || topic(number))).collect();
        topics.into_iter().map(|topic| topic.join().expect("a topic")).collect()
    });
    for (calls, ids) in &listeners {
        calls.read(ids);
    }
    finish(&broker);
    for (calls, ids) in &listeners {
        calls.assert_no_more(subject, ids);
    }
}

/// The provider matches patterns as [`Pattern::matches`] does.
pub fn the_provider_matches_patterns_like_the_core(subject: &dyn Subject) {
    let broker = start(subject);
    let patterns = [
        "*",
        "**",
        "*.*",
        "*.**",
        "shop.*",
        "shop.**",
        "shop.orders.create",
        "shop.orders.*",
        "shop.*.create",
        "*.orders.*",
        "shop.o_d%rs.create",
        "größe.**",
    ];
    let types = [
        "shop",
        "stock",
        "shop.orders",
        "shop.orders.create",
        "shop.Orders.create",
        "shop.orders.create.late",
        "shop.users.create",
        "shopx.orders.create",
        "stock.orders.delete",
        "shop.o_d%rs.create",
        "größe.neu",
        "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p",
        "$x>.{y}.[z]?",
    ];
    let listeners = patterns.map(|pattern| listen(&broker, named(&format!("on {pattern}"), pattern)).1);
    let sent: Vec<Event> = types.iter().map(|event_type| numbered(event_type, 0)).collect();
    publish_all(&broker, sent.iter().cloned());
    let expected = patterns.map(|pattern| {
        let pattern = Pattern::parse(pattern).expect("a valid pattern");
        let matching = sent.iter().filter(|event| pattern.matches(event.event_type().as_str()));
        matching.map(|event| event.id().clone()).collect::<Ids>()
    });
    for (calls, expected) in listeners.iter().zip(&expected) {
        calls.read(expected);
    }
    finish(&broker);
    for (calls, expected) in listeners.iter().zip(&expected) {
        calls.assert_no_more(subject, expected);
    }
}

/// A rejected event is returned in the error, is not stored and is not delivered.
pub fn rejected_events_leave_no_trace(subject: &dyn Subject) {
    let broker = start(subject);
    let (_, calls) = listen(&broker, named("all", "refused.*"));
    let too_large = "x".repeat(1 << 20);
    let large = Event::builder(Source::System, "refused.large").payload(&too_large).build().expect("a valid event");
    let error = broker.publish(large.clone()).expect_err("the payload is too large");
    assert_eq!(error.code(), "invalid");
    assert_eq!(error.event().id(), large.id());
    assert_eq!(error.into_event().payload(), large.payload());
    assert_eq!(status(&broker, large.id()), None);
    let ids = publish_all(&broker, [numbered("refused.not", 0)]);
    calls.read(&ids);
    finish(&broker);
    calls.assert_no_more(subject, &ids);
}

/// A known id is accepted again and delivered once, also while the first publish is in flight. The same id with other
/// content is an error.
pub fn duplicate_ids_are_idempotent(subject: &dyn Subject) {
    let broker = start(subject);
    let (_, calls) = listen(&broker, named("all", "twice.*"));
    let event = Event::builder(Source::System, "twice.it").id("the same").payload(&1).build().expect("a valid event");
    let at_once = Barrier::new(8);
    let firsts: usize = thread::scope(|scope| {
        let publisher = || {
            at_once.wait();
            usize::from(!broker.publish(event.clone()).expect("it is accepted").duplicate)
        };
        let publishers: Vec<_> = (0..8).map(|_| scope.spawn(publisher)).collect();
        publishers.into_iter().map(|publisher| publisher.join().expect("a publisher")).sum()
    });
    assert_eq!(firsts, 1, "all but one publish report a duplicate");
    let ids = Ids::from([event.id().clone()]);
    calls.read(&ids);
    assert!(broker.publish(event).expect("it is accepted").duplicate);
    let other = Event::builder(Source::System, "twice.it").id("the same").payload(&2).build().expect("a valid event");
    let error = broker.publish(other).expect_err("its content differs");
    assert!(["id_conflict", "rejected"].contains(&error.code()), "{error}");
    let last = publish(&broker, numbered("twice.other", 0));
    calls.read(&Ids::from([last]));
    finish(&broker);
    calls.assert_no_more(subject, &ids);
}

/// With `Confirm::Buffered` events are accepted before the back end holds them. They are delivered, and their status is
/// stored.
pub fn buffered_publishes_are_delivered(subject: &dyn Subject) {
    let broker = subject.broker(builder("one").confirm(Confirm::Buffered));
    let (_, shared) = listen(&broker, named("shared", "soon.*"));
    let (_, local) = listen(&broker, named("local", "soon.*").scope(Scope::Local));
    let events = events("soon.it", 300);
    let ids: Ids = events.iter().map(|event| event.id().clone()).collect();
    publish(&broker, events[0].clone());
    for accepted in broker.publish_batch(events[1..250].to_vec()) {
        assert!(!accepted.expect("it is accepted").duplicate);
    }
    for event in &events[250..] {
        broker.publish_async(event.clone()).expect("there is room").wait(Duration::ZERO).expect("it is accepted");
    }
    assert!(broker.publish(events[7].clone()).expect("it is known").duplicate);
    shared.read(&ids);
    local.read(&ids);
    for id in &ids {
        eventually("both have handled it", || status(&broker, id) == Some(Status::Completed));
    }
    finish(&broker);
    shared.assert_no_more(subject, &ids);
    local.assert_no_more(subject, &ids);
}
