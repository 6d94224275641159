//! A small disk that can run full: a tmpfs mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::folder;

/// The mounted file system. Removed on drop.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts a disk of this size. `None` where mounting is not permitted.
    pub fn new(mebibytes: u32) -> Option<Self> {
        let disk = Self(folder::new("disk"));
        disk.mount(&format!("size={mebibytes}m")).then_some(disk)
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Sets a larger size.
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
        // It may not be mounted. On an error the folder stays in the temporary folder of the system.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
        let _ = fs::remove_dir(&self.0);
    }
}
