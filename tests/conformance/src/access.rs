//! Passwords and rights that are wrong, and repaired later, as every provider takes them: the server is asked seldom meanwhile, everything goes
//! on without a restart of the broker, and no secret is shown anywhere. Alone in its process, all of whose traces it reads.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::provider::Provider;
use eventbroker::{Broker, Config, EventId, PublishError, SubscribeOptions};

use crate::traces::Traces;
use crate::watch::{PATIENCE, RECOVERY, event, last_error, listen, wait_until};

/// The password of the user, and another one.
pub const SECRETS: [&str; 2] = ["s3cret-0ne", "s3cret-tw0"];

/// What was seen of one fault.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// How long after the first publish gave up it was told what is wrong.
    pub told: Duration,
    /// Tries that the server counted in a second, of the kind that there were most of.
    pub per_second: f64,
}

/// What is done to the user of the broker: what it is called, what may be told of it (one of these), and what does it.
pub type Fault<'a> = (&'static str, &'static [&'static str], &'a dyn Fn());

fn tells(text: &str, told: &[&str]) -> bool {
    told.iter().any(|told| text.contains(told))
}

/// `open` opens the server as its user with a password, and returns all that is shown of the settings and of a refusal. `repair` gives the user
/// the first of the [`SECRETS`] and every right again. `tries` is what the server has counted of each kind of try.
///
/// # Panics
/// If something is lost or made up, a fault is not told, the server is asked too often, it goes on too late, or a secret is shown.
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
    for (name, told, break_it) in faults {
        break_it();
        let refused = broker.publish(event("a.b")).expect_err("it can't be stored");
        assert!(matches!(refused, PublishError::Unknown { .. }), "{name}: {refused}");
        // It may be told first that the server is away for a moment, or has not answered yet.
        let told = wait_until("it is told", || tells(&last_error(&broker), told));
        let stats = broker.stats();
        write!(shown, "{refused} {refused:?} {stats:?}").expect("a text grows");
        sent.insert(refused.into_event().id().clone());
        // The first tries come quickly.
        thread::sleep(Duration::from_secs(1));
        let (before, began) = (tries(), Instant::now());
        thread::sleep(Duration::from_secs(2));
        let (after, took) = (tries(), began.elapsed().as_secs_f64());
        let most = after.iter().zip(&before).map(|(after, before)| after - before).max().expect("a kind of try");
        let per_second = most as f64 / took;
        repair();
        let back = wait_until("it takes events again", || match broker.publish(event("a.b")) {
            Ok(held) => sent.insert(held.id),
            Err(error) => !sent.insert(error.into_event().id().clone()),
        });
        println!(
            "{name}: told {told:?} after, {per_second:.1} tries a second, it goes on {back:?} after it was repaired"
        );
        assert!(back < RECOVERY, "{name}: {back:?}");
        assert!(per_second <= 10.0, "{name}: {per_second} tries a second");
        seen.push(Seen { told, per_second });
    }
    let mut came = BTreeSet::new();
    wait_until("all are handled", || {
        came.extend(calls.try_iter());
        came.is_superset(&sent)
    });
    assert_eq!(came, sent);
    assert!(broker.stop(PATIENCE).is_clean());
    let traces = traces.text();
    assert!(tells(&traces, faults[0].1), "the traces were read: {traces}");
    for secret in SECRETS {
        assert!(!shown.contains(secret) && !traces.contains(secret), "a secret is shown");
    }
    seen
}
