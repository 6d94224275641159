//! `admin`: what is done to a back end while no broker uses it.

use serde_json::json;

use crate::back_end::{Target, unopened};
use crate::config::print_json;
use crate::exit::{Exit, Failure};
use crate::print;

/// What `admin` can be told.
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  eventbroker admin repartition --partitions 8 --url redis://localhost
  eventbroker admin repartition --partitions 8 --url nats://localhost")]
pub(crate) struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Divide a stream into so many partitions, each of which is handled in order by one instance; 0 is one stream for all. Every
    /// instance must have stopped, and everything must be handled
    Repartition(Repartition),
}

#[derive(Debug, clap::Args)]
struct Repartition {
    #[command(flatten)]
    target: Target,
    /// How many
    #[arg(long, value_name = "NUMBER")]
    partitions: u32,
}

pub(crate) fn run(options: &Options, json: bool) -> Result<Exit, Failure> {
    let Verb::Repartition(Repartition { target, partitions }) = &options.verb;
    let config = target.configuration()?;
    eventbroker_providers::repartition(&config, *partitions).map_err(unopened)?;
    if json {
        return print_json(&json!({ "partitions": partitions }));
    }
    print(format!("the stream has {partitions} partitions\n").as_bytes())
}
