//! `admin`: changes to a back end while no broker uses it.

use serde_json::json;

use crate::back_end::{Target, unopened};
use crate::config::print_json;
use crate::exit::{Exit, Failure};
use crate::print;

/// Options of `admin`.
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
    /// Change the number of partitions of a stream. Each partition is handled in order by one instance. Stop every
    /// instance first, with all events handled
    Repartition(Repartition),
}

#[derive(Debug, clap::Args)]
struct Repartition {
    #[command(flatten)]
    target: Target,
    /// Number of partitions; 0 for one stream without partitions
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
