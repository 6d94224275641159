//! The members: processes of the test's own program, what each role does, and how the parent kills and freezes them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use crate::folder;

use eventbroker::error::StartError;
use eventbroker::{Broker, Event, HandlerError, RetryPolicy, Source};

use super::ledger::Ledger;
use super::{LEASE, Site, work};

/// The name that a member of the role `named` holds, under a lease that is longer than anybody waits.
pub(super) const NAME: &str = "shop-1";

/// How long the retries of the role `flaky` wait, within a tenth.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(300);

/// A process of this program in another role, which is killed when it is dropped.
#[derive(Debug)]
pub struct Member(Child);

impl Member {
    /// Starts one.
    pub fn start(role: &str, address: &str, ledger: &Path) -> Self {
        Self::spawn(Self::command(role, address, ledger))
    }

    /// Starts one whose wall clock is as far off as the file says, in seconds. Its monotonic clock is right.
    pub fn with_clock(role: &str, address: &str, ledger: &Path, offset: &Path) -> Self {
        let mut command = Self::command(role, address, ledger);
        command.env("LD_PRELOAD", faketime()).env("FAKETIME_TIMESTAMP_FILE", offset);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Self::spawn(command)
    }

    fn command(role: &str, address: &str, ledger: &Path) -> Command {
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.env("MEMBER", role).env("ADDRESS", address).env("LEDGER", ledger);
        command
    }

    fn spawn(mut command: Command) -> Self {
        Self(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process"))
    }

    /// Kills it, and waits until it has ended.
    pub fn kill(&mut self) {
        // Killed before, or ended: both will do.
        let _ = self.0.kill();
        self.0.wait().expect("it ends");
    }

    /// Stops its threads where they are, and waits until they stand still; or has them go on.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
        while frozen && !self.tasks().all(|status| status.contains("State:\tT")) {
            thread::yield_now();
        }
    }

    /// What the kernel tells of each of its threads.
    fn tasks(&self) -> impl Iterator<Item = String> + use<> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0.id())).expect("the threads of the member");
        // One may have ended meanwhile.
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("its state").is_some()
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// What it holds of the machine.
    ///
    /// # Panics
    /// If it does not run.
    pub fn resources(&self) -> Resources {
        let folder = PathBuf::from(format!("/proc/{}", self.0.id()));
        let status = fs::read_to_string(folder.join("status")).expect("it runs");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            line.split_whitespace().next().and_then(|it| it.parse().ok()).expect("a number")
        };
        let descriptors = fs::read_dir(folder.join("fd")).expect("it runs").count();
        Resources { resident_kib: number("VmRSS:"), descriptors: descriptors as u64, threads: number("Threads:") }
    }

    /// Waits until it ends by itself. Returns whether it says that it succeeded.
    pub fn join(&mut self) -> bool {
        self.0.wait().expect("it ends").success()
    }

    /// Voluntary context switches of all its threads so far.
    pub fn wake_ups(&self) -> u64 {
        let switches = |status: String| {
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:")).expect("a count");
            line.split_whitespace().nth(1).expect("a count").parse::<u64>().expect("a number")
        };
        self.tasks().map(switches).sum()
    }
}

/// What a process holds of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Resources {
    /// Resident memory, in KiB.
    pub resident_kib: u64,
    /// Open file descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The library that stands between a process and its wall clock.
fn faketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let library = |folder: fs::DirEntry| folder.path().join("faketime/libfaketimeMT.so.1");
    folders.map(library).find(|it| it.exists()).expect("libfaketime; is the package faketime installed?")
}

/// A new folder for temporary files, removed at the end of the case.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it.
    ///
    /// # Panics
    /// If there is no room for it.
    #[allow(clippy::new_without_default, reason = "it does something to the disk")]
    pub fn new() -> Self {
        Self(folder::new("processes"))
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It is in the folder for temporary files: what can't be removed now goes some day.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether this process is a member.
pub fn is_member() -> bool {
    env::var_os("MEMBER").is_some()
}

/// Does the work of a member, until it is killed.
pub(super) fn work_as(site: &dyn Site, role: &str, address: &str, ledger: Ledger) {
    let start = |lease| {
        let provider = site.open(address, lease);
        Broker::builder().worker_count(4).provider(provider).start().expect("it starts")
    };
    match role {
        "consumer" => consume(&start(LEASE), ledger),
        "victim" => consume_until_killed(&start(LEASE), ledger),
        "steady" => consume(&start(Duration::from_secs(30)), ledger),
        "flaky" => fail_once(&start(LEASE), ledger),
        "idle" => stay_idle(&start(Duration::from_secs(30)), ledger),
        "named" => {
            let _broker = take_name(site, address).expect("the name is free");
            ledger.write("named");
            sleep_for_ever();
        }
        _ => publish(&start(LEASE), &ledger),
    }
}

pub(super) fn work_of_environment(site: &dyn Site) {
    let setting = |name| env::var(name).expect("the parent gives it");
    let ledger = Ledger::open(&PathBuf::from(setting("LEDGER")));
    work_as(site, &setting("MEMBER"), &setting("ADDRESS"), ledger);
}

/// A broker with the name of `named`.
pub(super) fn take_name(site: &dyn Site, address: &str) -> Result<Broker, StartError> {
    let provider = site.open(address, site.name_stays().max(LEASE));
    Broker::builder().instance_id(NAME).worker_count(1).provider(provider).start()
}

fn sleep_for_ever() -> ! {
    loop {
        thread::park();
    }
}

/// Handles each event and writes its id down.
fn consume(broker: &Broker, ledger: Ledger) {
    broker
        .subscribe_with(work(), move |delivery| {
            // So that a kill finds something begun.
            thread::sleep(Duration::from_millis(1));
            ledger.write(&delivery.event().id().to_string());
        })
        .expect("a subscription");
    sleep_for_ever()
}

/// Fails the first attempt on each event, and writes down after how many milliseconds the second began, by the monotonic clock.
fn fail_once(broker: &Broker, ledger: Ledger) {
    let failed = Mutex::new(HashMap::new());
    broker
        .subscribe_with(work().retry(RetryPolicy::fixed(3, RETRY_AFTER)), move |delivery| {
            let id = delivery.event().id();
            let mut failed = failed.lock().expect("no panic under the lock");
            match failed.get(id).map(Instant::elapsed) {
                None => {
                    failed.insert(id.clone(), Instant::now());
                    Err(HandlerError::retry("not yet"))
                }
                Some(waited) => {
                    ledger.write(&format!("{id} {}", waited.as_millis()));
                    Ok(())
                }
            }
        })
        .expect("a subscription");
    sleep_for_ever()
}

/// The same with the settings of every day, and without a pause.
fn stay_idle(broker: &Broker, ledger: Ledger) {
    broker
        .subscribe_with(work(), move |delivery| ledger.write(&delivery.event().id().to_string()))
        .expect("a subscription");
    sleep_for_ever()
}

/// The same, but one event kills the process.
fn consume_until_killed(broker: &Broker, ledger: Ledger) {
    broker
        .subscribe_with(work(), move |delivery| {
            let event = delivery.event();
            if event.event_type().as_str() == "work.kill" {
                process::abort();
            }
            ledger.write(&event.id().to_string());
        })
        .expect("a subscription");
    sleep_for_ever()
}

/// Publishes from four threads, and writes down what was accepted.
fn publish(broker: &Broker, ledger: &Ledger) {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let event = Event::builder(Source::System, "work.it").payload(&0).build().expect("a valid event");
                    let accepted = broker.publish(event).expect("it is accepted");
                    ledger.write(&accepted.id.to_string());
                }
            });
        }
    });
}
