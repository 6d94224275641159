//! Processes of a test program that starts itself again as a member, with what they write down.

use std::env;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// Nothing takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Lines that survive whoever writes them, as long as the machine does.
pub(crate) struct Ledger(Mutex<File>);

impl Ledger {
    pub(crate) fn open(path: &Path) -> Self {
        Self(Mutex::new(OpenOptions::new().append(true).create(true).open(path).expect("a file to write down in")))
    }

    pub(crate) fn write(&self, line: &str) {
        let line = format!("{line}\n");
        self.0.lock().expect("no panic under the lock").write_all(line.as_bytes()).expect("a line is written");
    }
}

pub(crate) fn lines(path: &Path) -> Vec<String> {
    let mut text = String::new();
    if let Ok(mut file) = File::open(path) {
        file.read_to_string(&mut text).expect("a text");
    }
    text.lines().map(str::to_owned).collect()
}

/// Reproducible numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A process of this program in another role, which is killed when it is dropped.
pub(crate) struct Member(Child);

impl Member {
    pub(crate) fn start(role: &str, place: impl AsRef<OsStr>, ledger: &Path) -> Self {
        let me = env::current_exe().expect("this program");
        let mut command = Command::new(me);
        command.env("MEMBER", role).env("FILE", place).env("LEDGER", ledger).stdin(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("a process"))
    }

    pub(crate) fn kill(&mut self) {
        // Killed before, or ended: both will do.
        let _ = self.0.kill();
        self.0.wait().expect("it ends");
    }

    /// Stops its threads where they are, or has them go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("its state").is_some()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it did not come to pass: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn sleep_for_ever() -> ! {
    loop {
        thread::park();
    }
}

pub(crate) fn kills(few: u64) -> u64 {
    env::var("KILLS").map_or(few, |kills| kills.parse().expect("KILLS is a number"))
}
