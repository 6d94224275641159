//! Patterns of event types: what they match, and the subscriptions that an event reaches.

mod delivery;
mod matching;
