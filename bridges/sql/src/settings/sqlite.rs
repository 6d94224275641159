//! The settings of a provider on an SQLite file.

use std::path::{Path, PathBuf};

use crate::settings::Settings;

/// The settings of a provider on an SQLite file.
///
/// The file must be on a local disk, because network file systems break SQLite's locks. A process that is stopped (not ended) in the
/// middle of a write holds SQLite's lock until it goes on or ends. Until then no other process can write, and publishes wait.
#[derive(Debug, Clone)]
#[must_use]
#[non_exhaustive]
pub struct Sqlite {
    pub(crate) path: PathBuf,
    /// The settings that PostgreSQL has too.
    pub shared: Settings,
}

impl Sqlite {
    /// The file at `path`, with every default. Opening makes the file if it does not exist.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), shared: Settings::default() }
    }
}
