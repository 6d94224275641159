//! Subscriptions: pause and unsubscribe.

mod pause;
mod unsubscribe;
mod unsubscribe_races;
