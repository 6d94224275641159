//! The context of a trace is a part of an event's metadata: checked, kept, and no part of what the event says.

use eventbroker::{Broker, Event, EventBuilder, Source};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn event() -> EventBuilder {
    Event::builder(Source::System, "a.b.c")
}

#[test]
fn it_is_metadata_and_survives_json() {
    let event = event().traceparent(TRACE).build().expect("valid");
    assert_eq!((event.traceparent(), event.metadata()["traceparent"].as_str()), (Some(TRACE), Some(TRACE)));
    let read = Event::from_json(&event.to_json()).expect("valid");
    assert_eq!(read.traceparent(), Some(TRACE));
}

#[test]
fn a_later_version_may_go_on() {
    let later = format!("cc{}-what-the-future-brings", &TRACE[2..]);
    assert_eq!(event().traceparent(&later).build().expect("valid").traceparent(), Some(&*later));
}

#[test]
fn what_is_malformed_is_refused_and_ignored_when_it_comes_from_elsewhere() {
    for bad in [
        "",
        "00",
        &TRACE[..54],
        &format!("{TRACE}-more"),
        &format!("{TRACE}0"),
        &TRACE.to_uppercase(),
        &TRACE.replace("00-", "ff-"),
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
    ] {
        let refused = event().traceparent(bad).build().expect_err("refused");
        assert_eq!(refused.invalid().field, "traceparent", "{bad}");
        let again = refused.into_builder().traceparent(TRACE).build().expect("set again");
        assert_eq!(again.traceparent(), Some(TRACE));
        let foreign = event().metadata("traceparent", bad).build().expect("metadata is free");
        assert_eq!((foreign.traceparent(), foreign.metadata().len()), (None, 1), "{bad}");
    }
}

#[test]
fn the_same_event_in_another_trace_is_a_duplicate_and_other_metadata_is_not() {
    let broker = Broker::builder().start().expect("it starts");
    let build = || event().id("one").metadata("table", "users");
    broker.publish(build().traceparent(TRACE).build().expect("valid")).expect("accepted");
    let again = build().metadata("tracestate", "a=1").metadata("baggage", "b=2").build().expect("valid");
    assert!(broker.publish(again).expect("accepted").duplicate);
    let other = build().metadata("more", 1).build().expect("valid");
    assert_eq!(broker.publish(other).expect_err("it says more").code(), "id_conflict");
}
