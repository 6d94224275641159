//! Faults of a server, a login or a setting, and changes to the stream by other programs. The error is clear and shows
//! no secret, no event is lost, and nothing panics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::{PATIENCE, RECOVERY, event, start, wait_until};
use eventbroker::dead_letter::DeadLetterFilter;
use eventbroker::query::Filter;
use eventbroker::{Broker, Event, EventId, HandlerError, PublishError, Scope, Source, Status, SubscribeOptions};
use eventbroker_conformance::nats::Server;
use eventbroker_nats::{Nats, OpenError, Storage};

fn listen(broker: &Broker, name: &str, pattern: &str) -> Receiver<Event> {
    let (sender, calls) = channel();
    broker
        .subscribe_with(SubscribeOptions::new(pattern).name(name), move |delivery| {
            // The receiver is dropped when the test has ended.
            let _ = sender.send(delivery.event().clone());
        })
        .expect("a subscription");
    calls
}

fn next(calls: &Receiver<Event>) -> EventId {
    calls.recv_timeout(PATIENCE).expect("the handler is called").id().clone()
}

fn refusal(nats: &Nats) -> String {
    match nats.open() {
        Err(OpenError::Setting(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn settings_out_of_bounds_are_named() {
    let nats = || Nats::new("nats://127.0.0.1:1");
    let short = Duration::from_millis(99);
    assert_eq!(refusal(&nats().lease_time(short)), "lease_time: is 99ms, at least 100ms is required");
    assert_eq!(refusal(&nats().dedupe_window(short)), "dedupe_window: is 99ms, at least 1s is required");
    let problem = refusal(&nats().idle_expiry(Duration::from_secs(29)));
    assert_eq!(problem, "idle_expiry: is 29s, at least 30s is required");
    let problem = refusal(&nats().max_age(Duration::from_secs(60)).dedupe_window(Duration::from_secs(61)));
    assert_eq!(problem, "max_age: is 60s, at least dedupe_window (61s) is required");
    assert_eq!(refusal(&nats().stream_name("")), "stream_name: is 0 bytes long, 1 to 200 are allowed");
    let problem = refusal(&nats().stream_name("a.b"));
    assert_eq!(problem, "stream_name: is \"a.b\", only letters, digits, - and _ are allowed");
    let problem = refusal(&nats().subject_prefix("events.>"));
    assert_eq!(problem, "subject_prefix: is \"events.>\", only letters, digits, - and _ are allowed");
    assert_eq!(refusal(&nats().replicas(6)), "replicas: is 6, at most 5 is allowed");
    let long = "x".repeat(256);
    assert_eq!(refusal(&nats().consumer_group(&long)), "consumer_group: is 256 bytes long, 1 to 255 are allowed");
    for url in ["", "nats://u:s3cret@x:port", "nats://u:s3cret@[", "nats://u:s3cret@ok, ", "wss://u:s3cret@ok"] {
        let problem = refusal(&Nats::new(url));
        assert!(problem.starts_with("url: ") && !problem.contains("s3cret"), "{problem}");
    }
    let problem = refusal(&nats().credentials_file("/no/such/file"));
    assert!(problem.starts_with("credentials_file: /no/such/file "), "{problem}");
}

#[test]
fn a_refused_login_is_reported_without_its_secret() {
    const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    const KEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    let by_password = r#"authorization { user: "me", password: "r1ght" }"#;
    let by_key = format!("authorization {{ users: [ {{ nkey: {KEY} }} ] }}");
    let server = Server::with(by_password);
    let (port, nats) = (server.port(), Nats::new(server.url()));
    nats.clone().user_and_password("me", "r1ght").open().expect("it opens");
    Nats::new(format!("nats://me:r%31ght@127.0.0.1:{port}")).open().expect("it opens");
    let wrong = [
        nats.clone(),
        nats.clone().user_and_password("me", "wr0ng"),
        nats.clone().token("wr0ng"),
        nats.clone().nkey(SEED),
        Nats::new(format!("nats://me:wr0ng@127.0.0.1:{port}")),
    ];
    for nats in wrong {
        let error = nats.open().expect_err("it is refused");
        let text = format!("{error} {error:?} {nats:?}");
        assert!(matches!(error, OpenError::Server(_)) && text.contains("refuses the login"), "{text}");
        assert!(!text.contains("wr0ng") && !text.contains("SUAC"), "{text}");
    }
    server.configure(r#"authorization { token: "t0ken" }"#);
    server.restart();
    nats.clone().token("t0ken").open().expect("it opens");
    Nats::new(format!("nats://t0ken@127.0.0.1:{port}")).open().expect("it opens");
    server.configure(&by_key);
    server.restart();
    nats.nkey(SEED).open().expect("it opens");
}

/// A login that is repaired while the broker runs.
#[test]
fn a_login_that_is_repaired_loses_no_event() {
    let server = Server::with(r#"authorization { user: "me", password: "r1ght" }"#);
    let broker = start(&Nats::new(server.url()).user_and_password("me", "r1ght"));
    let calls = listen(&broker, "all", "a.*");
    let first = broker.publish(event("a.b")).expect("it is accepted").id;
    assert_eq!(next(&calls), first);
    server.configure(r#"authorization { user: "me", password: "other" }"#);
    server.restart();
    let refused = || broker.stats().bridge.and_then(|bridge| bridge.last_error).unwrap_or_default();
    wait_until("the error is reported", || refused().contains("refuses the login"));
    assert!(!refused().contains("r1ght"), "{}", refused());
    server.configure(r#"authorization { user: "me", password: "r1ght" }"#);
    server.restart();
    let again = event("a.b");
    wait_until("it is accepted", || broker.publish(again.clone()).is_ok());
    assert_eq!(next(&calls), again.id().clone());
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_stream_with_other_settings_is_refused_unless_it_is_adopted() {
    let server = Server::start();
    let nats = Nats::new(server.url());
    nats.clone().max_age(Duration::from_secs(3600)).open().expect("it is made");
    let problem = refusal(&nats.clone().storage(Storage::Memory).max_messages(5));
    for part in ["RESOLVESPEC_EVENTS", "storage is \"file\"", "max_age is 3600000000000", "max_msgs is -1, not 5"] {
        assert!(problem.contains(part), "{part} in {problem}");
    }
    nats.clone().max_age(Duration::from_secs(3600)).open().expect("it is the same");
    let broker = start(&nats.adopt_stream(true));
    let calls = listen(&broker, "all", "*");
    assert_eq!(broker.publish(event("a.b")).expect("it is accepted").id, next(&calls));
    let info = Client::of(&server).info("STREAM.INFO.RESOLVESPEC_EVENTS");
    assert!(info.contains("\"max_age\":3600000000000"), "it stays as it is: {info}");
    assert!(broker.stop(PATIENCE).is_clean());
}

/// With `discard: old` a full stream drops unread messages to make room for new ones.
#[test]
fn a_stream_that_discards_unread_messages_is_refused() {
    let server = Server::start();
    let config = r#"{"name":"RESOLVESPEC_EVENTS","subjects":["events.>"],"retention":"limits","discard":"old","max_msgs":5,"storage":"file","num_replicas":1}"#;
    assert!(!Client::of(&server).ask("$JS.API.STREAM.CREATE.RESOLVESPEC_EVENTS", "", config).contains("error"));
    let problem = refusal(&Nats::new(server.url()).max_messages(5).max_age(Duration::ZERO));
    assert!(problem.contains("discard is \"old\", not \"new\""), "{problem}");
}

#[test]
fn a_message_that_is_too_large_is_refused_and_the_connection_stays() {
    let server = Server::with("max_payload: 2000");
    let broker = start(&Nats::new(server.url()));
    let calls = listen(&broker, "all", "a.*");
    let large = Event::builder(Source::System, "a.b").payload(&"x".repeat(3_000)).build().expect("a valid event");
    let refused = broker.publish(large).expect_err("it is too large");
    assert!(
        matches!(refused, PublishError::Rejected { .. }) && refused.to_string().contains("2000 bytes"),
        "{refused}"
    );
    let errors = || broker.stats().bridge.map_or(0, |bridge| bridge.errors);
    let before = errors();
    assert_eq!(broker.publish(event("a.b")).expect("it is accepted").id, next(&calls));
    assert_eq!(errors(), before, "no connection was cut");
    assert!(broker.stop(PATIENCE).is_clean());
}

/// Event types with characters that are special in a NATS subject reach the matching subscriptions only.
#[test]
fn no_type_is_a_wildcard() {
    let server = Server::start();
    let broker = start(&Nats::new(server.url()));
    let types = ["a.>", "a.b", "a.b.c", "$JS.API", "a.=3E", "ü.ß", "a.\u{200b}", "status.x", "deleted.x", ">.>"];
    let patterns = ["a.>", "a.*", "a.b", "$JS.*", "ü.*", "a.**", "*.x", ">.>", "*", "a.=3E"];
    let listeners: Vec<_> = patterns.iter().map(|pattern| listen(&broker, pattern, pattern)).collect();
    let sent: Vec<EventId> = types.iter().map(|it| broker.publish(event(it)).expect("it is accepted").id).collect();
    for (pattern, calls) in patterns.iter().zip(&listeners) {
        let parsed = eventbroker::Pattern::parse(pattern).expect("a pattern");
        let wanted: BTreeSet<&str> = types.iter().copied().filter(|it| parsed.matches(it)).collect();
        let came: Vec<String> = wanted
            .iter()
            .map(|_| calls.recv_timeout(PATIENCE).expect("it is called").event_type().as_str().to_owned())
            .collect();
        assert_eq!(came.iter().map(String::as_str).collect::<BTreeSet<_>>(), wanted, "{pattern}");
    }
    let is_settled =
        |id: &EventId| broker.get(id).is_ok_and(|it| it.is_some_and(|it| it.status() == Status::Completed));
    wait_until("all are settled", || sent.iter().all(is_settled));
    assert!(listeners.iter().all(|calls| calls.try_recv().is_err()), "no subscription got an event of another");
    assert!(broker.stop(PATIENCE).is_clean());
}

/// The original program writes an event, and status and deletion marks beside it.
#[test]
fn events_of_the_original_are_read_and_its_marks_are_skipped() {
    const ID: &str = "3f2f0c4e-8a52-4f0e-9f3b-2d1f1a1f5f11";
    let server = Server::start();
    let mut client = Client::of(&server);
    // The stream as the original creates it.
    let config = r#"{"name":"RESOLVESPEC_EVENTS","subjects":["events.>"],"retention":"limits","discard":"old","max_age":604800000000000,"storage":"file","num_replicas":1}"#;
    assert!(!client.ask("$JS.API.STREAM.CREATE.RESOLVESPEC_EVENTS", "", config).contains("error"));
    let broker = start(&Nats::new(server.url()));
    let (all, one) = (listen(&broker, "all", "*"), listen(&broker, "one", "public.users.*"));
    let body = format!(
        r#"{{"id":"{ID}","source":"database","type":"public.users.create","status":"pending","retry_count":0,"payload":{{"name":"x"}},"user_id":7,"session_id":"s","instance_id":"go","schema":"public","entity":"users","operation":"create","created_at":"2026-01-02T03:04:05.678901234Z","metadata":{{"table_name":"users"}}}}"#
    );
    let headers = format!(
        "Event-ID: {ID}\r\nEvent-Type: public.users.create\r\nEvent-Source: database\r\nEvent-Status: pending\r\nInstance-ID: go\r\n"
    );
    client.ask("events.database.public.users.create", &headers, &body);
    let status =
        format!(r#"{{"event_id":"{ID}","status":"completed","error":"","updated_at":"2026-01-02T03:04:06Z"}}"#);
    client.ask(&format!("events.status.{ID}"), "", &status);
    client.ask(
        &format!("events.deleted.{ID}"),
        "",
        &format!(r#"{{"event_id":"{ID}","deleted_at":"2026-01-02T03:04:06Z"}}"#),
    );
    client.ask("events.system.no.event", "", "{");
    let last = broker.publish(event("public.users.last")).expect("it is accepted").id;
    let id: EventId = ID.parse().expect("an id");
    for calls in [&all, &one] {
        // Two workers may handle the two events at the same time.
        let handled: BTreeMap<EventId, Event> = (0..2)
            .map(|_| calls.recv_timeout(PATIENCE).expect("the handler is called"))
            .map(|event| (event.id().clone(), event))
            .collect();
        assert_eq!(handled.keys().cloned().collect::<BTreeSet<_>>(), BTreeSet::from([id.clone(), last.clone()]));
        let original = &handled[&id];
        assert_eq!((original.instance_id(), original.user_id()), (Some("go"), Some(7)));
        assert!(calls.try_recv().is_err(), "marks are no events");
    }
    wait_until("it is found by its id", || {
        broker.get(&id).is_ok_and(|it| it.is_some_and(|it| it.status() == Status::Completed))
    });
    let listed = broker.list(&Filter::default()).expect("it answers").events;
    assert_eq!(listed.iter().map(|event| event.id().clone()).collect::<BTreeSet<_>>(), BTreeSet::from([id, last]));
    wait_until("all are acknowledged", || {
        let info = client.info("CONSUMER.INFO.RESOLVESPEC_EVENTS.resolvespec-workers==all");
        info.contains("\"num_ack_pending\":0") && info.contains("\"num_pending\":0")
    });
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_removed_stream_is_created_again() {
    let server = Server::start();
    let mut client = Client::of(&server);
    for removed in [&["RESOLVESPEC_EVENTS"][..], &["RESOLVESPEC_EVENTS", "RESOLVESPEC_EVENTS_STATE"]] {
        let broker = start(&Nats::new(server.url()).lease_time(Duration::from_secs(1)));
        let calls = listen(&broker, "all", "a.*");
        let first = broker.publish(event("a.b")).expect("it is accepted").id;
        assert_eq!(next(&calls), first);
        for stream in removed {
            let answer = client.info(&format!("STREAM.DELETE.{stream}"));
            assert!(answer.contains("\"success\":true"), "{answer}");
        }
        let began = Instant::now();
        let again = broker.publish(event("a.b")).expect("it is accepted").id;
        assert_eq!(next(&calls), again, "{removed:?}");
        assert!(began.elapsed() < RECOVERY, "{:?}", began.elapsed());
        broker.stop(PATIENCE);
    }
}

/// A full stream keeps unread messages and rejects new ones. Messages that every subscription has handled make room.
#[test]
fn a_full_stream_refuses_publishes_and_loses_no_event() {
    let server = Server::start();
    let broker = start(&Nats::new(server.url()).max_messages(20));
    let id = broker.subscribe_with(SubscribeOptions::new("a.*").name("all"), |_| ()).expect("a subscription");
    broker.unsubscribe(id).expect("it is there");
    let mut sent = BTreeSet::new();
    let refused = loop {
        match broker.publish(event("a.b")) {
            Ok(accepted) => assert!(sent.insert(accepted.id) && sent.len() <= 20, "it is never full"),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, PublishError::Full { .. }), "{refused}");
    let calls = listen(&broker, "all", "a.*");
    let again = refused.into_event();
    let took = wait_until("there is room again", || broker.publish(again.clone()).is_ok());
    assert!(took < RECOVERY, "{took:?}");
    sent.insert(again.id().clone());
    let came: BTreeSet<EventId> = sent.iter().map(|_| next(&calls)).collect();
    assert_eq!(came, sent);
    assert!(broker.stop(PATIENCE).is_clean());
}

/// The outage is longer than the duplicate window. An event sent twice may be stored twice, and no event is lost.
#[test]
fn an_outage_longer_than_the_duplicate_window_loses_no_event() {
    let server = Server::start();
    let broker = start(&Nats::new(server.url()).dedupe_window(Duration::from_secs(1)));
    let calls = listen(&broker, "all", "a.*");
    let before = broker.publish(event("a.b")).expect("it is accepted").id;
    server.crash();
    let during = event("a.b");
    thread::scope(|scope| {
        let publishing = scope.spawn(|| broker.publish(during.clone()));
        thread::sleep(Duration::from_secs(2));
        server.up();
        let held = publishing.join().expect("no panic").expect("it is accepted when the server is there");
        assert!(!held.duplicate);
    });
    let mut missing = BTreeSet::from([before, during.id().clone()]);
    while !missing.is_empty() {
        missing.remove(&next(&calls));
    }
    assert!(broker.stop(PATIENCE).is_clean());
}

/// Subscription names that are not valid as JetStream consumer names.
#[test]
fn any_subscription_name_is_allowed() {
    let server = Server::start();
    let broker = start(&Nats::new(server.url()).consumer_group("a.b *>/ü"));
    let long = "é".repeat(127);
    let names = ["a.b", "a b", "*", ">", "../x", "a==b", &long];
    let listeners: Vec<_> = names.iter().map(|name| listen(&broker, name, "a.*")).collect();
    let wide = SubscribeOptions::new("a.*").name("wide.>").scope(Scope::Broadcast);
    broker.subscribe_with(wide, |_| ()).expect("a subscription");
    let id = broker.publish(event("a.b")).expect("it is accepted").id;
    for calls in &listeners {
        assert_eq!(next(calls), id);
    }
    let known = broker.back_end_stats().expect("it answers").subscriptions;
    let known: BTreeSet<&str> = known.iter().map(|it| it.name.as_str()).collect();
    assert!(names.iter().all(|name| known.contains(name)), "{known:?}");
    assert!(broker.stop(PATIENCE).is_clean());
}

/// The rights are the subjects listed in `docs/nats.md`.
#[test]
fn a_user_needs_no_more_than_the_documented_rights() {
    let page = include_str!("../../../../docs/nats.md");
    let subjects = |what: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(what)).expect("a line of subjects");
        line.split_whitespace().map(|subject| format!("{subject:?}")).collect::<Vec<_>>().join(", ")
    };
    let rights = format!("publish: [{}], subscribe: [{}]", subjects("publish:"), subjects("subscribe:"));
    let server = Server::with(&format!(
        "authorization {{ users: [ {{ user: me, password: it, permissions: {{ {rights} }} }} ] }}"
    ));
    let second = Duration::from_secs(1);
    let nats = Nats::new(server.url()).user_and_password("me", "it").lease_time(second).idle_expiry(second);
    let broker = start(&nats.max_messages(30));
    let calls = listen(&broker, "all", "a.*");
    let id = broker
        .subscribe_with(SubscribeOptions::new("a.*").name("bad"), |_| Err::<(), _>(HandlerError::permanent("no")));
    let stream = broker.stream("a.*").expect("a stream");
    let publish = |count: usize| {
        let sent = (0..count).map(|_| broker.publish(event("a.b")).expect("it is accepted").id);
        let sent: BTreeSet<EventId> = sent.collect();
        let came: BTreeSet<EventId> = sent.iter().map(|_| next(&calls)).collect();
        assert_eq!(came, sent);
        sent
    };
    // Nothing is removed while a quarter of the stream is free.
    let sent = publish(20);
    stream.recv_timeout(PATIENCE).expect("it sees them too");
    wait_until("all are dead", || broker.dead_letter_count() == Ok(20));
    assert_eq!(broker.requeue_matching(&DeadLetterFilter { limit: Some(3), ..DeadLetterFilter::default() }), Ok(3));
    wait_until("they are dead again", || broker.dead_letter_count() == Ok(20));
    broker.back_end_stats().expect("it may ask");
    let listed = broker.list(&Filter::default()).expect("it may list").events;
    assert_eq!(listed.iter().map(|event| event.id().clone()).collect::<BTreeSet<_>>(), sent);
    broker.unsubscribe(id.expect("a subscription")).expect("it is there");
    assert_eq!(broker.remove_subscription("bad"), Ok(true));
    publish(5);
    // Handled messages are removed once a second when less than a quarter of the stream is free.
    wait_until("it may remove", || broker.list(&Filter::default()).is_ok_and(|page| page.events.len() < 25));
    assert_eq!(broker.stats().bridge.map(|bridge| bridge.last_error), Some(None));
    assert!(broker.stop(PATIENCE).is_clean());
}
