//! What the tests share: a folder that goes away with its test.

use std::fs;
use std::path::{Path, PathBuf};

use eventbroker_conformance::folder;

/// A new folder, removed at the end of the test.
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
        // It is in the folder for temporary files: what can't be removed now goes some day.
        let _ = fs::remove_dir_all(&self.0);
    }
}
