//! The parts of an event: id, payload, trace context, JSON form, and the bounds that the builder checks.

mod id;
mod json;
mod may_exist;
mod payload;
mod payload_depth;
mod traceparent;
mod validation;
