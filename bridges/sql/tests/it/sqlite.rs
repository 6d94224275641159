//! SQLite: each test uses its own file.

mod claims;
mod conformance;
mod inserted;
mod trouble;
mod upkeep;
