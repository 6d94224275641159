//! A disk that is full: the server refuses to write, nothing is lost, and it goes on by itself when there is room.

mod support;

use std::path::PathBuf;
use std::process::{self, Command};
use std::{env, fs};

use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;
use std::time::Duration;
use support::{load, wait_until};

/// A small file system in memory. Removed when it is dropped.
struct Disk(PathBuf);

impl Disk {
    /// Nothing where that is not permitted.
    fn new() -> Option<Self> {
        let path = env::temp_dir().join(format!("eventbroker-disk-{}", process::id()));
        fs::create_dir(&path).expect("a new folder");
        let disk = Self(path);
        disk.mount("size=5m").then_some(disk)
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

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let Some(disk) = Disk::new() else {
        println!("left out: mounting a file system is not permitted here");
        return;
    };
    let server = Server::with(&["--dir", &disk.0.display().to_string(), "--auto-aof-rewrite-percentage", "0"]);
    let broker = load::start(&Redis::new(server.url()).lease_time(Duration::from_secs(2)));
    load::run("a full disk", &broker, 20_000, |load| {
        wait_until("the disk is full", || load.last_error().contains("MISCONF"));
        wait_until("publishers give up", || load.unknown() > 0);
        assert!(disk.mount("remount,size=256m"));
    });
    drop(server);
}
