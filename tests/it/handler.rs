//! Handlers: results, panics, deadlines.

mod deadline;
mod outcomes;
mod panics;
