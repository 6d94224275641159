//! Wrong passwords and missing rights that are repaired later. The bridge retries at a bounded rate, recovers without a
//! restart of the broker, and shows no secret. Run alone in its process, because it reads all traces of the process.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::provider::Provider;
use eventbroker::{Broker, Config, EventId, PublishError, SubscribeOptions};

use crate::traces::Traces;
use crate::watch::{PATIENCE, RECOVERY, event, last_error, listen, wait_until};

/// The password of the user, and a wrong one.
pub const SECRETS: [&str; 2] = ["s3cret-0ne", "s3cret-tw0"];

/// The measurements of one fault.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// From the failed publish until the bridge reported the cause.
    pub reported_after: Duration,
    /// Attempts per second counted by the server, of the most frequent kind.
    pub per_second: f64,
}

/// A fault of the broker's user: its name, the texts one of which the error must contain, and the function that causes
/// it.
pub type Fault<'a> = (&'static str, &'static [&'static str], &'a dyn Fn());

fn has_any(text: &str, expected: &[&str]) -> bool {
    expected.iter().any(|expected| text.contains(expected))
}

/// `open` opens the server with a password, and returns the text of the settings and of a refusal. `repair` restores
/// the first of the [`SECRETS`] and every right of the user. `tries` returns the server's count of each kind of
/// attempt.
///
/// # Panics
/// If an event is lost or made up, a fault is not reported, the server gets more than 10 attempts a second, the broker
/// recovers too late, or a secret is shown.
pub fn repaired(
    open: impl Fn(&str) -> (String, Option<Provider>),
    faults: &[Fault<'_>],
    repair: impl Fn(),
    tries: impl Fn() -> Vec<u64>,
) -> Vec<Seen> {
    let traces = Traces::of_process();
    let (mut shown, refused) = open(SECRETS[1]);
    assert!(refused.is_none(), "the password is wrong");
    let (settings, provider) = open(SECRETS[0]);
    let provider = provider.expect("it opens");
    write!(shown, "{settings} {provider:?}").expect("a text grows");
    let mut config = Config::default();
    config.sync_timeout = Duration::from_millis(500);
    let broker = Broker::builder().config(config).provider(provider).start().expect("it starts");
    let calls = listen(&broker, SubscribeOptions::new("a.*").name("all"));
    let mut sent: BTreeSet<EventId> = BTreeSet::new();
    sent.insert(broker.publish(event("a.b")).expect("it is accepted").id);
    let mut seen = Vec::new();
    for (name, expected, break_it) in faults {
        break_it();
        let refused = broker.publish(event("a.b")).expect_err("it can't be stored");
        assert!(matches!(refused, PublishError::Unknown { .. }), "{name}: {refused}");
        // The first error may be a lost connection or a timeout.
        let reported_after = wait_until("the fault is reported", || has_any(&last_error(&broker), expected));
        let stats = broker.stats();
        write!(shown, "{refused} {refused:?} {stats:?}").expect("a text grows");
        sent.insert(refused.into_event().id().clone());
        // The first attempts follow each other fast.
        thread::sleep(Duration::from_secs(1));
        let (before, began) = (tries(), Instant::now());
        thread::sleep(Duration::from_secs(2));
        let (after, took) = (tries(), began.elapsed().as_secs_f64());
        let most = after.iter().zip(&before).map(|(after, before)| after - before).max().expect("a kind of try");
        let per_second = most as f64 / took;
        repair();
        let back = wait_until("events are accepted again", || match broker.publish(event("a.b")) {
            Ok(held) => sent.insert(held.id),
            Err(error) => !sent.insert(error.into_event().id().clone()),
        });
        println!(
            "{name}: reported after {reported_after:?}, {per_second:.1} attempts/s, recovered {back:?} after the repair"
        );
        assert!(back < RECOVERY, "{name}: {back:?}");
        assert!(per_second <= 10.0, "{name}: {per_second} attempts per second");
        seen.push(Seen { reported_after, per_second });
    }
    let mut came = BTreeSet::new();
    wait_until("all are handled", || {
        came.extend(calls.try_iter());
        came.is_superset(&sent)
    });
    assert_eq!(came, sent);
    assert!(broker.stop(PATIENCE).is_clean());
    let traces = traces.text();
    assert!(has_any(&traces, faults[0].1), "the traces contain the fault: {traces}");
    for secret in SECRETS {
        assert!(!shown.contains(secret) && !traces.contains(secret), "a secret is shown");
    }
    seen
}
