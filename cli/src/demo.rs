//! `eventbroker demo`. A stub.

use std::process::ExitCode;

use crate::exit::Failure;

/// What the demonstration can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}

/// Runs the demonstration.
pub(crate) fn run(_options: &Options, _json: bool) -> Result<ExitCode, Failure> {
    Err(Failure::new("the demonstration is not written yet"))
}
