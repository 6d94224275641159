//! The members: processes of the test's own program, the work of each role, and how the parent kills and freezes them.

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

/// The instance name that a member of the role `named` holds.
pub(super) const NAME: &str = "shop-1";

/// The retry delay of the role `flaky`, ±10 %.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(300);

/// A process of this program in a role. Killed on drop.
#[derive(Debug)]
pub struct Member(Child);

impl Member {
    /// Starts a member.
    pub fn start(role: &str, address: &str, ledger: &Path) -> Self {
        Self::spawn(Self::command(role, address, ledger))
    }

    /// Starts a member whose wall clock is off by the seconds in the file `offset`. Its monotonic clock is right.
    pub fn with_clock(role: &str, address: &str, ledger: &Path, offset: &Path) -> Self {
        remove_clocks_of_the_dead();
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

    /// Kills the process, and waits until it has ended.
    pub fn kill(&mut self) {
        // The process may have ended before.
        let _ = self.0.kill();
        self.0.wait().expect("it ends");
    }

    /// Sends SIGSTOP and waits until all threads are stopped, or sends SIGCONT.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
        while frozen && !self.tasks().all(|status| status.contains("State:\tT")) {
            thread::yield_now();
        }
    }

    /// The `status` file of each thread.
    fn tasks(&self) -> impl Iterator<Item = String> + use<> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0.id())).expect("the threads of the member");
        // A thread may have ended since the listing.
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("its state").is_some()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Its memory, descriptors and threads.
    ///
    /// # Panics
    /// If the process does not run.
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

    /// Waits until the process ends by itself. Returns whether its exit code is 0.
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

/// The resources of a process.
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

/// The libfaketime library, which is preloaded to change the wall clock.
fn faketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let library = |folder: fs::DirEntry| folder.path().join("faketime/libfaketimeMT.so.1");
    folders.map(library).find(|it| it.exists()).expect("libfaketime; is the package faketime installed?")
}

/// Removes the semaphores and the shared memory that libfaketime created in processes that have ended since. A killed process leaves
/// them, and a later process with the same id cannot create its own.
fn remove_clocks_of_the_dead() {
    for file in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        let name = file.file_name();
        let name = name.to_str().unwrap_or_default();
        let process = name.strip_prefix("sem.faketime_sem_").or_else(|| name.strip_prefix("faketime_shm_"));
        if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            // Another test may have removed it.
            let _ = fs::remove_file(file.path());
        }
    }
}

/// A temporary folder, removed on drop.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Creates the folder.
    ///
    /// # Panics
    /// If it cannot be created.
    #[allow(clippy::new_without_default, reason = "it writes to the disk")]
    pub fn new() -> Self {
        Self(folder::new("processes"))
    }

    /// The path of a file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // On an error it stays in the temporary folder of the system.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether this process is a member.
pub fn is_member() -> bool {
    env::var_os("MEMBER").is_some()
}

/// Runs a member in a role until it is killed.
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

/// Starts a broker with the instance name of the role `named`.
pub(super) fn take_name(site: &dyn Site, address: &str) -> Result<Broker, StartError> {
    let provider = site.open(address, site.name_stays().max(LEASE));
    Broker::builder().instance_id(NAME).worker_count(1).provider(provider).start()
}

fn sleep_for_ever() -> ! {
    loop {
        thread::park();
    }
}

/// Handles each event and logs its id.
fn consume(broker: &Broker, ledger: Ledger) {
    broker
        .subscribe_with(work(), move |delivery| {
            // Calls take a millisecond, so that a kill hits running ones.
            thread::sleep(Duration::from_millis(1));
            ledger.write(&delivery.event().id().to_string());
        })
        .expect("a subscription");
    sleep_for_ever()
}

/// Fails the first attempt of each event, and logs the delay of the second in milliseconds by the monotonic clock.
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

/// Handles each event as `consume` does, but without a pause.
fn stay_idle(broker: &Broker, ledger: Ledger) {
    broker
        .subscribe_with(work(), move |delivery| ledger.write(&delivery.event().id().to_string()))
        .expect("a subscription");
    sleep_for_ever()
}

/// Handles each event as `consume` does, but aborts the process at an event of type `work.kill`.
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

/// Publishes from four threads, and logs the accepted events.
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
