//! Not here yet.

use crate::exit::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(_options: &Options, _json: bool) -> Result<Exit, Failure> {
    Err(Failure::usage("not here yet"))
}
