//! SQLite: each test has a file of its own.

mod conformance;
mod inserted;
mod trouble;
mod upkeep;
