//! The trace context of an event: checked, kept as metadata, and not part of the content that duplicates are compared
//! by.

use eventbroker::{Broker, Event, EventBuilder, Source};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn event() -> EventBuilder {
    Event::builder(Source::System, "a.b.c")
}

#[test]
fn a_traceparent_is_metadata_and_survives_json() {
    let event = event().traceparent(TRACE).build().expect("valid");
    assert_eq!((event.traceparent(), event.metadata()["traceparent"].as_str()), (Some(TRACE), Some(TRACE)));
    let read = Event::from_json(&event.to_json()).expect("valid");
    assert_eq!(read.traceparent(), Some(TRACE));
}

#[test]
fn a_later_version_may_have_further_fields() {
    let later = format!("cc{}-what-the-future-brings", &TRACE[2..]);
    assert_eq!(event().traceparent(&later).build().expect("valid").traceparent(), Some(&*later));
}

#[test]
fn the_builder_refuses_a_malformed_traceparent_and_a_reader_ignores_it() {
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
fn another_trace_context_makes_a_duplicate_and_other_metadata_a_conflict() {
    let broker = Broker::builder().start().expect("a running broker");
    let build = || event().id("one").metadata("table", "users");
    broker.publish(build().traceparent(TRACE).build().expect("valid")).expect("accepted");
    let again = build().metadata("tracestate", "a=1").metadata("baggage", "b=2").build().expect("valid");
    assert!(broker.publish(again).expect("accepted").duplicate);
    let other = build().metadata("more", 1).build().expect("valid");
    assert_eq!(broker.publish(other).expect_err("other metadata").code(), "id_conflict");
}
