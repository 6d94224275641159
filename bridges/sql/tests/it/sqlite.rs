//! SQLite: each test uses its own file.

mod conformance;
mod inserted;
mod trouble;
mod upkeep;
