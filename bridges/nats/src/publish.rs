//! The way out: events are published into the stream.

mod mirror;

pub(crate) use mirror::{MAX_DELAY, NatsMirror, Publisher};
