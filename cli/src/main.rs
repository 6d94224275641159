//! The command `eventbroker`: parses the arguments and returns the exit code. Each subcommand has a file of its name.
//!
//! Data goes to standard output, everything else to standard error.

mod admin;
mod back_end;
mod bench;
mod cloudevents;
mod config;
mod demo;
mod exit;
mod failed;
mod list;
mod pipe;
mod publish;
mod replay;
mod signals;
mod sql;
mod stats;
mod tail;
mod times;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use exit::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  eventbroker demo --seconds 10
  eventbroker pipe --pattern 'shop.orders.*' < events.ndjson > orders.ndjson
  eventbroker bench --publishers 2 --workers 2 --seconds 5
  eventbroker publish shop.orders.create --payload '{\"id\": 7}' --url sqlite:events.db
  eventbroker failed list --url sqlite:events.db --json";

/// Demonstrate, pipe through and benchmark an event broker, and operate its durable back ends
#[derive(Debug, Parser)]
#[command(name = "eventbroker", version, before_help = EXAMPLES, after_help = exit::HELP)]
struct Arguments {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run transactions on a SQLite shop, publish their changes as events, and reconcile the two at the end
    Demo(demo::Options),
    /// Send events from standard input through a broker, and write each delivery to standard output
    Pipe(pipe::Options),
    /// Measure throughput, and latency from publish to handled
    Bench(bench::Options),
    /// Publish one event to a back end, or many from standard input
    Publish(publish::Options),
    /// Follow the events of a back end as they are stored
    Tail(tail::Options),
    /// List the events of a back end
    List(list::Options),
    /// Show one event of a back end with its status
    Show(list::ShowOptions),
    /// Count the events of a back end by status, and the backlog of each subscription
    Stats(stats::Options),
    /// List, show, retry and purge dead letters
    Failed(failed::Options),
    /// Redeliver stored events to one subscription
    Replay(replay::Options),
    /// Reconfigure a back end while no broker uses it
    Admin(admin::Options),
    /// Create, print, inspect and purge the tables of a database
    Sql(sql::Options),
    /// Write, check and show the configuration of a broker
    Config(config::Options),
    /// Print a completion script for a shell
    #[command(before_help = "\
Examples:
  eventbroker completions bash > /usr/share/bash-completion/completions/eventbroker
  eventbroker completions zsh > ~/.zfunc/_eventbroker
  eventbroker completions fish > ~/.config/fish/completions/eventbroker.fish")]
    Completions {
        /// Shell to complete for
        shell: Shell,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json;
    match run(arguments) {
        Ok(code) => code,
        Err(Failure { exit, message }) => {
            if json {
                complain(&serde_json::json!({ "error": message }).to_string());
            } else {
                complain(&format!("eventbroker: {message}"));
            }
            exit.into()
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    signals::listen().map_err(|error| Failure::new(format_args!("cannot install the signal handlers: {error}")))?;
    let json = arguments.json;
    match arguments.command {
        Command::Demo(options) => demo::run(&options, json),
        Command::Pipe(options) => pipe::run(&options, json).map(ExitCode::from),
        Command::Publish(options) => publish::run(&options, json).map(ExitCode::from),
        Command::Tail(options) => tail::run(&options, json).map(ExitCode::from),
        Command::List(options) => list::run(&options, json).map(ExitCode::from),
        Command::Show(options) => list::show(&options, json).map(ExitCode::from),
        Command::Stats(options) => stats::run(&options, json).map(ExitCode::from),
        Command::Failed(options) => failed::run(&options, json).map(ExitCode::from),
        Command::Replay(options) => replay::run(&options, json).map(ExitCode::from),
        Command::Admin(options) => admin::run(&options, json).map(ExitCode::from),
        Command::Sql(options) => sql::run(&options, json).map(ExitCode::from),
        Command::Config(options) => config::run(&options, json).map(ExitCode::from),
        Command::Bench(options) => bench::run(&options, json).map(ExitCode::from),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "eventbroker", &mut script);
            print(&script).map(ExitCode::from)
        }
    }
}

/// Writes a complete result to standard output. A closed pipe (`EPIPE`) is not an error.
fn print(bytes: &[u8]) -> Result<Exit, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format_args!("cannot write to standard output: {error}")))
        }
        _ => Ok(Exit::Ok),
    }
}

/// Writes one line to standard error in a single write. A write error is ignored: no other channel is left.
fn complain(line: &str) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}
