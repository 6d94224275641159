//! A temporary folder for one test.

use std::fs;
use std::path::{Path, PathBuf};

use eventbroker_conformance::folder;

/// A new folder, removed on drop.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(folder::new("sql"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The system cleans up its temporary directory if the removal fails.
        let _ = fs::remove_dir_all(&self.0);
    }
}
