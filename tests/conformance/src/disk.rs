//! A small disk that can be full: a file system in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::folder;

/// Removed when it is dropped.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// One of so many MiB. Nothing where that is not permitted.
    pub fn new(mebibytes: u32) -> Option<Self> {
        let disk = Self(folder::new("disk"));
        disk.mount(&format!("size={mebibytes}m")).then_some(disk)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it larger.
    pub fn grow(&self, mebibytes: u32) {
        assert!(self.mount(&format!("remount,size={mebibytes}m")));
    }

    fn mount(&self, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(&self.0);
        mount.output().is_ok_and(|it| it.status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may not be mounted; what can't be removed now goes some day.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
        let _ = fs::remove_dir(&self.0);
    }
}
