//! `scripts/soak NAME [--short]`: runs one long proof, prints its figures, and exits with 1 if a bound does not hold.
//! The short form prints comparisons of two rates or latencies without enforcing them, and checks every other bound.

mod figures;
mod idle;
mod ledger;
mod reentrant;
mod retries;
mod slow;
mod stopping;

use std::process::ExitCode;

use figures::Figures;

/// A proof: its name, its claim, and its function. The argument `true` selects the short form.
type Proof = (&'static str, &'static str, fn(bool, &mut Figures));

const PROOFS: &[Proof] = &[
    ("ledger", "8 publishers, 4 workers: nothing lost or repeated, keys in order, memory flat", ledger::plain),
    ("panics", "1 % of the calls panic: nothing lost, attempts exact, workers unchanged", ledger::panics),
    ("poison", "one event among 10,000 always fails: one dead letter, the others undisturbed", retries::poison),
    ("reentrant", "handlers that publish into their own full queues never block", reentrant::run),
    ("churn", "subscribe and unsubscribe under load: no call after unsubscribe has returned", ledger::churn),
    ("stop", "stop with 64 blocked publishers: each gets its event back within 100 ms", stopping::run),
    ("slow-one", "100 subscriptions, one sleeps 100 ms per event: the others keep their rate", slow::one),
    ("slow-many", "20 subscriptions that sleep 1 s beside 10 healthy ones", slow::many),
    ("failing", "100 failing events a second beside 1,000 healthy ones", retries::failing),
    ("idle", "an idle broker wakes fewer than 20 times a second", idle::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let short = arguments.iter().any(|argument| argument == "--short");
    let name = arguments.iter().find(|argument| !argument.starts_with("--"));
    let chosen: Vec<&Proof> =
        PROOFS.iter().filter(|proof| name.is_some_and(|name| name == "core" || name == proof.0)).collect();
    if chosen.is_empty() {
        eprintln!(
            "usage: scripts/soak NAME [--short], where NAME is `core` (all of them), `all`, `sql`, `redis`, `nats` (see the script), or one of"
        );
        PROOFS.iter().for_each(|(name, what, _)| eprintln!("  {name:<10} {what}"));
        return ExitCode::from(2);
    }
    let mut held = true;
    for (name, what, run) in chosen {
        println!("{name}: {what}");
        let mut figures = Figures::new(short);
        run(short, &mut figures);
        held &= figures.all_held();
    }
    println!("{}", if held { "every bound holds" } else { "a bound does not hold" });
    ExitCode::from(u8::from(!held))
}
