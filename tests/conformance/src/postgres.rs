//! A PostgreSQL server for tests: a cluster in a temporary folder, on a Unix socket there and on a free local port. It
//! is stopped when the process that started it ends, even by a kill.
//!
//! The programs are taken from `PG_BIN`, or from `/usr/lib/postgresql` (Debian). PostgreSQL refuses to run as root, so
//! a test that runs as root starts it as the user `postgres` or `nobody`.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::certificate::Certificate;
use crate::{folder, port};

/// The password of the role `postgres`. Required on TCP connections, not on the Unix socket.
pub const PASSWORD: &str = "s3cret-of-the-server";
/// Deadline of every wait, generous for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Stopped and removed on drop.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    port: u16,
    owner: Option<(u32, u32)>,
    guard: Child,
}

impl Server {
    /// Creates a cluster and starts the server. `fsync` is off: commits survive the death of the server, not that of the machine, and
    /// tests do not wait for each other's syncs.
    pub fn start() -> Self {
        Self::with("fsync = off\n")
    }

    /// The same with `fsync` on, for measurements.
    pub fn durable() -> Self {
        Self::with("")
    }

    fn with(settings: &str) -> Self {
        let server = Self::empty();
        let password = server.folder.join("password");
        fs::write(&password, PASSWORD).expect("a file");
        let mut init = server.command("initdb");
        init.args(["--no-sync", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--auth-local=trust"]);
        init.args(["--auth-host=scram-sha-256", "--pwfile"]).arg(&password).arg("-D").arg(server.folder.join("data"));
        run(&mut init);
        server.set(&format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nmax_connections = 200\n\
             shared_buffers = 64MB\nlog_min_messages = warning\n{settings}",
            server.port,
            server.folder.display()
        ));
        server.up();
        server
    }

    /// Copies this server, and starts the copy as a hot standby that follows this one.
    pub fn standby(&self) -> Self {
        let standby = Self::empty();
        let mut copy = standby.command("pg_basebackup");
        copy.args(["--no-sync", "--checkpoint=fast", "--write-recovery-conf", "-U", "postgres", "-h"]);
        copy.arg(&self.folder).args(["-p", &self.port.to_string(), "-D"]).arg(standby.folder.join("data"));
        run(&mut copy);
        let folder = standby.folder.display();
        standby.set(&format!("port = {}\nunix_socket_directories = '{folder}'\n", standby.port));
        standby.up();
        standby
    }

    /// Makes a standby a primary. It can be written to when this returns.
    pub fn promote(&self) {
        run(self.ctl("promote").arg("-w"));
    }

    /// Adds lines to the server's settings. A server that runs has to be told to [`reload`](Self::reload) them.
    pub fn set(&self, settings: &str) {
        let file = self.folder.join("data/postgresql.auto.conf");
        let before = fs::read_to_string(&file).unwrap_or_default();
        fs::write(&file, before + settings).expect("the settings");
    }

    /// Reads the settings again.
    pub fn reload(&self) {
        run(&mut self.ctl("reload"));
    }

    /// A folder and a port for a server, with a guard that stops it.
    fn empty() -> Self {
        let folder = folder::new("pg");
        let owner = owner();
        if let Some((user, group)) = owner {
            chown(&folder, Some(user), Some(group)).expect("a folder for the server's user");
        }
        let port = port::free();
        // The shell's standard input closes when this process ends, even by a kill; then the shell stops the server.
        let script = r#"read -r _; "$1" -D "$2/data" -m immediate stop; rm -rf "$2""#;
        let mut guard = command("sh", owner);
        guard.args(["-c", script, "guard"]).arg(program("pg_ctl")).arg(&folder).stdin(Stdio::piped());
        let guard = guard.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().expect("a shell");
        Self { folder, port, owner, guard }
    }

    /// Starts the server, and waits until it is ready.
    pub fn up(&self) {
        // The first start after a crash may fail while processes of the old server still exit.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut start = self.ctl("start");
            start.arg("-w").arg("-l").arg(self.folder.join("log"));
            if start.status().expect("pg_ctl runs").success() {
                return;
            }
            assert!(Instant::now() < deadline, "PostgreSQL does not start: {}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the server as a crash does, without a checkpoint.
    pub fn crash(&self) {
        run(self.ctl("stop").args(["-m", "immediate"]));
    }

    /// Sends SIGSTOP or SIGCONT to all processes of the server.
    ///
    /// # Panics
    /// If the server does not run.
    pub fn freeze(&self, frozen: bool) {
        let first = fs::read_to_string(self.folder.join("data/postmaster.pid")).expect("it runs");
        let first = first.lines().next().expect("its number").to_owned();
        let send = |pid: &str| {
            let signal = if frozen { "-STOP" } else { "-CONT" };
            // A session may have ended since the listing.
            let _ = Command::new("kill").args([signal, pid]).stderr(Stdio::null()).status().expect("kill runs");
        };
        let parent = |pid: &str| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit(')').next()?.split_whitespace().nth(1).map(str::to_owned)
        };
        // The postmaster first, so that it starts no more sessions.
        send(&first);
        let processes = fs::read_dir("/proc").expect("processes").flatten();
        let processes = processes.filter_map(|it| it.file_name().into_string().ok());
        processes.filter(|it| parent(it).as_ref() == Some(&first)).for_each(|it| send(&it));
    }

    /// Creates an empty database. Returns its URL on the Unix socket.
    pub fn database(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut create = self.command("createdb");
        create.args([
            "-h",
            self.folder.to_str().expect("a path"),
            "-p",
            &self.port.to_string(),
            "-U",
            "postgres",
            &name,
        ]);
        run(&mut create);
        self.url(&name)
    }

    /// The URL of a database on the Unix socket.
    pub fn url(&self, database: &str) -> String {
        let folder = self.folder.to_str().expect("a path").replace('/', "%2F");
        format!("postgres://postgres@{folder}:{}/{database}", self.port)
    }

    /// The URL of the same database by TCP, with a password.
    pub fn tcp(&self, url: &str, password: &str) -> String {
        let database = url.rsplit('/').next().expect("a database");
        format!("postgres://postgres:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// The folder of the server's Unix socket.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The local port of the server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Enables TLS with a self-signed certificate for `localhost`. Returns the file of the certificate.
    pub fn speak_tls(&self) -> PathBuf {
        let Certificate { certificate, key } = self.certificate("server");
        let settings =
            format!("ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\n", certificate.display(), key.display());
        self.set(&settings);
        self.reload();
        certificate
    }

    /// Creates a self-signed certificate for `localhost`, and its key, which the server's user alone reads.
    pub fn certificate(&self, name: &str) -> Certificate {
        let certificate = Certificate::new(&self.folder, name);
        fs::set_permissions(&certificate.key, Permissions::from_mode(0o600)).expect("the mode of the key");
        if let Some((user, group)) = self.owner {
            chown(&certificate.key, Some(user), Some(group)).expect("the owner of the key");
        }
        certificate
    }

    /// The log of the server.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn ctl(&self, verb: &str) -> Command {
        let mut command = self.command("pg_ctl");
        command.arg("-D").arg(self.folder.join("data")).arg("-s").arg(verb);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn command(&self, name: &str) -> Command {
        let mut command = command(&program(name), self.owner);
        command.current_dir(&self.folder).stdin(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // The guard stops the server and removes the folder. An error of the guard is ignored.
        let _ = self.guard.wait();
    }
}

/// The user and group that the server runs as, if this process is root.
pub(crate) fn owner() -> Option<(u32, u32)> {
    let me = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_root = me.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = |name: &str| {
        let fields: Vec<&str> =
            users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|it| it[0] == name)?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    is_root.then(|| user("postgres").or_else(|| user("nobody")).expect("a user for PostgreSQL"))
}

fn command(program: &str, owner: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    command
}

/// The path of a PostgreSQL program, of the newest version installed.
fn program(name: &str) -> String {
    if let Ok(folder) = env::var("PG_BIN") {
        return format!("{folder}/{name}");
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest =
        versions.map(|it| it.path()).filter(|path| path.join("bin").join(name).exists()).max_by_key(|it| version(it));
    newest.map_or_else(|| name.to_owned(), |path| path.join("bin").join(name).display().to_string())
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; is PostgreSQL installed?"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
