//! `eventbroker-compare`: measures the broker and its rivals on the same work, in turn, and checks the goals of the
//! design. Each section has a file of its own; the measuring is in `harness`, the rivals in `rivals`, the output in
//! `report`.

mod bridges;
mod charts;
mod fan_out;
mod harness;
mod keys;
mod latency;
mod machine;
mod memory;
mod metrics;
mod payloads;
mod race;
mod report;
mod retries;
mod rivals;
mod round_trip;
mod routing;
mod throughput;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use harness::Plan;
use machine::Machine;
use report::{Report, Section};

/// A section: its name, and its function.
type Part = (&'static str, fn(&Plan) -> Section);

const PARTS: &[Part] = &[
    ("throughput", throughput::run),
    ("routing", routing::run),
    ("fan-out", fan_out::run),
    ("round-trip", round_trip::run),
    ("latency", latency::run),
    ("memory", memory::run),
    ("retries", retries::run),
    ("keys", keys::run),
    ("payloads", payloads::run),
    ("metrics", metrics::run),
    ("sqlite", bridges::sqlite),
    ("postgres", bridges::postgres),
    ("redis", bridges::redis),
    ("nats", bridges::nats),
];

/// Measure eventbroker and its rivals on the same work, in turn: A B C A B C
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Figures are medians over the rounds, with minimum and maximum; ratios are taken round by round.
The exit code is 0 whatever the figures, unless --enforce is given. Text goes to standard output."
)]
struct Options {
    /// Number of rounds, one sample of each contestant per round [default: 7, with --quick 2]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: Option<u16>,
    /// Run only this section. May be given several times
    #[arg(long, value_name = "NAME", value_parser = PARTS.iter().map(|part| part.0).collect::<Vec<_>>())]
    only: Vec<String>,
    /// Run only contestants with this text in the name, where many compete. May be given several times; goals that need
    /// others are left out
    #[arg(long, value_name = "TEXT")]
    who: Vec<String>,
    /// Run tiny samples that only show that everything works; the figures are meaningless
    #[arg(long, conflicts_with = "enforce")]
    quick: bool,
    /// Write the whole report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw a chart per section into this directory
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "docs/performance")]
    charts: Option<PathBuf>,
    /// Exit with 1 if a goal is not met
    #[arg(long)]
    enforce: bool,
    /// Measure memory in this process; given by the program to its child process
    #[arg(long, hide = true, value_name = "EVENTS")]
    internal_memory: Option<usize>,
    /// Receive events in this process; given by the program to its child process
    #[arg(long, hide = true, value_name = "PATH")]
    internal_receiver: Option<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(events) = options.internal_memory {
        println!("{}", memory::bytes_per_event(events));
        return ExitCode::SUCCESS;
    }
    if let Some(path) = &options.internal_receiver {
        bridges::receive(path);
        return ExitCode::SUCCESS;
    }
    let plan = Plan::new(options.rounds.map(usize::from), options.quick, options.who.clone());
    let machine = Machine::this();
    print!("{}", machine.text());
    let mut report = Report { machine, quick: plan.quick, rounds: plan.rounds, sections: Vec::new() };
    for (name, run) in PARTS {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            let mut section = run(&plan);
            // Goals without a figure, because of --who, are left out.
            section.goals.retain(|goal| goal.figure.is_finite());
            print!("{}", section.text());
            report.sections.push(section);
        }
    }
    print!("{}", report.goals_text());
    if let Err(error) = write(&report, &options) {
        eprintln!("eventbroker-compare: {error}");
        return ExitCode::FAILURE;
    }
    let missed = options.enforce && report.goals().any(|goal| !goal.met);
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn write(report: &Report, options: &Options) -> Result<(), Box<dyn Error>> {
    if let Some(path) = &options.json {
        let written = fs::write(path, serde_json::to_string_pretty(report)? + "\n");
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    if let Some(dir) = &options.charts {
        charts::draw(&report.sections, dir).map_err(|error| format!("cannot draw into {}: {error}", dir.display()))?;
    }
    Ok(())
}
