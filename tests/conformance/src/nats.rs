//! A NATS server with JetStream for tests, in a temporary folder, on a free local port, with file streams. It is killed
//! when the process that started it ends, even by a kill.
//!
//! The program is the one that `scripts/nats-server` downloads, or the one named by `NATS_SERVER`. Three servers form a
//! [`Cluster`].

mod cluster;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::certificate::Certificate;
use crate::{folder, port};

pub use cluster::Cluster;

/// Deadline of every wait, generous for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Killed and removed on drop.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    host: String,
    port: u16,
    /// The command prefix that runs the program, if any.
    runner: Vec<String>,
    guard: Mutex<Option<Child>>,
}

impl Server {
    /// Starts a server.
    pub fn start() -> Self {
        Self::with("")
    }

    /// Starts a server with more settings, as lines of its configuration.
    pub fn with(settings: &str) -> Self {
        let server = Self::prepare("127.0.0.1", &[]);
        server.configure(settings);
        server.up();
        server
    }

    /// Starts a server on another host, through a program that executes it.
    pub fn run_by(runner: &[&str], host: &str) -> Self {
        let server = Self::prepare(host, runner);
        server.configure("");
        server.up();
        server
    }

    /// Starts a server whose streams are in an existing folder.
    pub fn in_store(store: &Path) -> Self {
        let server = Self::prepare("127.0.0.1", &[]);
        symlink(store, server.folder.join("store")).expect("a link");
        server.configure("");
        server.up();
        server
    }

    fn prepare(host: &str, runner: &[&str]) -> Self {
        let folder = folder::new("nats");
        let port = port::free();
        let runner = runner.iter().map(|&text| text.to_owned()).collect();
        Self { folder, host: host.to_owned(), port, runner, guard: Mutex::default() }
    }

    /// Starts a server that requires TLS. Returns its self-signed certificate for `localhost` too.
    pub fn with_tls() -> (Self, Certificate) {
        let server = Self::prepare("127.0.0.1", &[]);
        let certificate = server.certificate("server");
        let [cert, key] = [&certificate.certificate, &certificate.key].map(|path| path.display().to_string());
        server.configure(&format!("tls {{ cert_file: \"{cert}\", key_file: \"{key}\" }}"));
        server.up();
        (server, certificate)
    }

    /// Creates a self-signed certificate.
    pub fn certificate(&self, name: &str) -> Certificate {
        Certificate::new(&self.folder, name)
    }

    /// Creates a self-signed certificate that expired yesterday.
    pub fn expired_certificate(&self, name: &str) -> Certificate {
        Certificate::expired(&self.folder, name)
    }

    /// Replaces the additional settings, from the next start on.
    pub fn configure(&self, settings: &str) {
        let store = self.folder.join("store").display().to_string();
        let config =
            format!("listen: \"{}:{}\"\njetstream {{ store_dir: \"{store}\" }}\n{settings}\n", self.host, self.port);
        fs::write(self.folder.join("config"), config).expect("a file");
    }

    /// Starts the server, and waits until it is ready.
    pub fn up(&self) {
        self.launch();
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready() {
            assert!(Instant::now() < deadline, "NATS does not start; is it installed? {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts the program without waiting.
    fn launch(&self) {
        // The shell's standard input closes when this process ends, even by a kill; then the shell kills the server.
        let script = r#""$@" >>log 2>&1 & server=$!; echo $server >pid; read -r _; kill -9 $server; wait $server"#;
        let mut guard = Command::new("sh");
        guard.args(["-c", script, "guard"]).args(&self.runner).arg(program()).args(["-c", "config"]);
        guard.current_dir(&self.folder).stdin(Stdio::piped());
        let guard = guard.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().expect("a shell");
        *self.guard.lock().expect("no panic under the lock") = Some(guard);
    }

    /// Kills the server.
    pub fn crash(&self) {
        if let Some(mut guard) = self.guard.lock().expect("no panic under the lock").take() {
            drop(guard.stdin.take());
            guard.wait().expect("it ends");
        }
    }

    /// Kills the server and starts it again.
    pub fn restart(&self) {
        self.crash();
        self.up();
    }

    /// Sends SIGSTOP and waits until the server is stopped, or sends SIGCONT.
    pub fn freeze(&self, frozen: bool) {
        let pid = fs::read_to_string(self.folder.join("pid")).expect("its number").trim().to_owned();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
        let state = || fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        while frozen && !state().contains("State:\tT") {
            thread::yield_now();
        }
    }

    /// Whether the server answers: INFO was sent, and JetStream replies or an authorization error arrives.
    fn is_ready(&self) -> bool {
        let Ok(mut socket) = TcpStream::connect((self.host.as_str(), self.port)) else { return false };
        if fs::read_to_string(self.folder.join("config")).is_ok_and(|it| it.contains("\ntls {")) {
            // INFO arrives before the TLS handshake, which this check leaves out.
            let mut line = String::new();
            let read = socket.set_read_timeout(Some(Duration::from_secs(1)));
            return read.and_then(|()| BufReader::new(socket).read_line(&mut line)).is_ok()
                && line.starts_with("INFO ");
        }
        let asked = socket.set_read_timeout(Some(Duration::from_secs(1))).and_then(|()| {
            let ask = "CONNECT {\"verbose\":false}\r\nSUB ready 1\r\nPUB $JS.API.INFO ready 0\r\n\r\nPING\r\n";
            socket.write_all(ask.as_bytes())
        });
        if asked.is_err() {
            return false;
        }
        let lines = BufReader::new(socket).lines().map_while(Result::ok);
        lines.take(4).any(|line| line.starts_with("MSG ready") || line.starts_with("-ERR 'Authorization"))
    }

    /// The URL of the server.
    pub fn url(&self) -> String {
        format!("nats://{}:{}", self.host, self.port)
    }

    /// The local port of the server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's temporary folder, for other files too.
    pub fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    /// A new name for a stream and its subjects.
    pub fn fresh_name(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        format!("stream{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The log of the server.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// The program of the server.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(program) = env::var_os("NATS_SERVER") {
            return program.into();
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/nats-server");
        let output = Command::new(script).output().expect("a shell");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a path").trim_end().into()
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        self.crash();
        // On an error it stays in the temporary folder of the system.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
