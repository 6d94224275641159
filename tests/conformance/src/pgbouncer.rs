//! PgBouncer for tests, in front of a PostgreSQL server, with `pool_mode = transaction`. It listens on a Unix socket in a temporary folder
//! and on a free local port, and is killed when the process that started it ends, even by a kill.
//!
//! The program is `pgbouncer`, or the one named by `PGBOUNCER`. It refuses to run as root, so a test that runs as root starts it as the user
//! that PostgreSQL runs as.

use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::postgres::{self, Server};
use crate::{folder, port};

/// Deadline of every wait, generous for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running pooler. Killed and removed on drop.
#[derive(Debug)]
pub struct PgBouncer {
    folder: PathBuf,
    port: u16,
    guard: Child,
}

impl PgBouncer {
    /// Starts a pooler in front of a server.
    pub fn start(server: &Server) -> Self {
        Self::with(server, "")
    }

    /// Starts a pooler with more settings, as lines of its file.
    pub fn with(server: &Server, settings: &str) -> Self {
        Self::run(server, "postgres", settings)
    }

    /// Starts a pooler whose sessions are those of a role, whatever role a client names.
    pub fn as_role(server: &Server, role: &str) -> Self {
        Self::run(server, role, "")
    }

    fn run(server: &Server, role: &str, settings: &str) -> Self {
        let (folder, port, owner) = (folder::new("pgbouncer"), port::free(), postgres::owner());
        let text = format!(
            "[databases]\n* = host={} port={} user={role}\n[pgbouncer]\npool_mode = transaction\nauth_type = any\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir = {}\nmax_client_conn = 1000\n\
             default_pool_size = 5\nserver_idle_timeout = 1\n{settings}\n",
            server.folder().display(),
            server.port(),
            folder.display(),
        );
        fs::write(folder.join("pgbouncer.ini"), text).expect("a file");
        if let Some((user, group)) = owner {
            chown(&folder, Some(user), Some(group)).expect("a folder for the pooler's user");
        }
        let program = env::var("PGBOUNCER").unwrap_or_else(|_| {
            let found =
                ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|it| fs::exists(it).is_ok_and(|is| is));
            found.unwrap_or("pgbouncer").to_owned()
        });
        // The shell's standard input closes when this process ends, even by a kill; then the shell kills the pooler.
        let script =
            r#""$1" pgbouncer.ini >log 2>&1 & pooler=$!; read -r _; kill -9 $pooler; wait $pooler; rm -rf "$2""#;
        let mut guard = Command::new("sh");
        guard.args(["-c", script, "guard", &program]).arg(&folder).current_dir(&folder).stdin(Stdio::piped());
        if let Some((user, group)) = owner {
            guard.uid(user).gid(group);
        }
        let guard = guard.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().expect("a shell");
        let pooler = Self { folder, port, guard };
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(pooler.folder.join(format!(".s.PGSQL.{port}"))).is_err() {
            assert!(Instant::now() < deadline, "PgBouncer does not start; is it installed? {}", pooler.log());
            thread::sleep(Duration::from_millis(5));
        }
        pooler
    }

    /// The URL of a database of the server through the pooler.
    pub fn through(&self, url: &str) -> String {
        let database = url.rsplit('/').next().expect("a database");
        let folder = self.folder.to_str().expect("a path").replace('/', "%2F");
        format!("postgres://postgres@{folder}:{}/{database}", self.port)
    }

    /// The local port of the pooler.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The log of the pooler.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // The guard kills the pooler and removes the folder. An error of the guard is ignored.
        let _ = self.guard.wait();
    }
}
