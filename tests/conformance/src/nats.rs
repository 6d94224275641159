//! A NATS server with JetStream for tests: in a temporary folder, on a free port of this machine, its streams in files. It ends with the
//! process that has started it, however that ends.
//!
//! The program is `nats-server`, or what `NATS_SERVER` names. Several of them that are one are a [`Cluster`].

mod cluster;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::certificate::Certificate;
use crate::folder;

pub use cluster::Cluster;

/// Nothing takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Dropped, it is killed and removed.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    host: String,
    port: u16,
    /// What runs the program, if it is not run as it is.
    runner: Vec<String>,
    guard: Mutex<Option<Child>>,
}

impl Server {
    /// Starts one.
    pub fn start() -> Self {
        Self::with("")
    }

    /// Starts one with more settings, as lines of its configuration.
    pub fn with(settings: &str) -> Self {
        let server = Self::prepare("127.0.0.1", &[]);
        server.configure(settings);
        server.up();
        server
    }

    /// Starts one at another address, through a program that becomes it.
    pub fn run_by(runner: &[&str], host: &str) -> Self {
        let server = Self::prepare(host, runner);
        server.configure("");
        server.up();
        server
    }

    /// Starts one whose streams are in a folder that is there.
    pub fn in_store(store: &Path) -> Self {
        let server = Self::prepare("127.0.0.1", &[]);
        symlink(store, server.folder.join("store")).expect("a link");
        server.configure("");
        server.up();
        server
    }

    fn prepare(host: &str, runner: &[&str]) -> Self {
        let folder = folder::new("nats");
        let port = free_port();
        let runner = runner.iter().map(|&text| text.to_owned()).collect();
        Self { folder, host: host.to_owned(), port, runner, guard: Mutex::default() }
    }

    /// Starts one that speaks nothing but TLS, with a certificate of its own for the name `localhost`. Returns that.
    pub fn with_tls() -> (Self, Certificate) {
        let server = Self::prepare("127.0.0.1", &[]);
        let certificate = server.certificate("server");
        let [cert, key] = [&certificate.certificate, &certificate.key].map(|path| path.display().to_string());
        server.configure(&format!("tls {{ cert_file: \"{cert}\", key_file: \"{key}\" }}"));
        server.up();
        (server, certificate)
    }

    /// A new certificate that nobody else has signed.
    pub fn certificate(&self, name: &str) -> Certificate {
        Certificate::new(&self.folder, name)
    }

    /// One that was good until yesterday.
    pub fn expired_certificate(&self, name: &str) -> Certificate {
        Certificate::expired(&self.folder, name)
    }

    /// Other settings than those that it was started with; they count from the next start on.
    pub fn configure(&self, settings: &str) {
        let store = self.folder.join("store").display().to_string();
        let config =
            format!("listen: \"{}:{}\"\njetstream {{ store_dir: \"{store}\" }}\n{settings}\n", self.host, self.port);
        fs::write(self.folder.join("config"), config).expect("a file");
    }

    /// Starts the server after it was stopped; waits until it can be used.
    pub fn up(&self) {
        self.launch();
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready() {
            assert!(Instant::now() < deadline, "NATS does not start; is it installed? {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts its program.
    fn launch(&self) {
        let program = env::var("NATS_SERVER").unwrap_or_else(|_| "nats-server".to_owned());
        // The shell's input ends with this process, also if that is killed; then so does the server.
        let script = r#""$@" >>log 2>&1 & server=$!; echo $server >pid; read -r _; kill -9 $server; wait $server"#;
        let mut guard = Command::new("sh");
        guard.args(["-c", script, "guard"]).args(&self.runner).args([&program, "-c", "config"]);
        guard.current_dir(&self.folder).stdin(Stdio::piped());
        let guard = guard.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().expect("a shell");
        *self.guard.lock().expect("no panic under the lock") = Some(guard);
    }

    /// Kills it.
    pub fn crash(&self) {
        if let Some(mut guard) = self.guard.lock().expect("no panic under the lock").take() {
            drop(guard.stdin.take());
            guard.wait().expect("it ends");
        }
    }

    /// Kills it and starts it again.
    pub fn restart(&self) {
        self.crash();
        self.up();
    }

    /// Stops it where it is, and waits until it stands still; or has it go on.
    pub fn freeze(&self, frozen: bool) {
        let pid = fs::read_to_string(self.folder.join("pid")).expect("its number").trim().to_owned();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
        let state = || fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        while frozen && !state().contains("State:\tT") {
            thread::yield_now();
        }
    }

    /// Whether it answers: it has said who it is, and JetStream is there. Who has to log in first is told so, which is an answer too.
    fn is_ready(&self) -> bool {
        let Ok(mut socket) = TcpStream::connect((self.host.as_str(), self.port)) else { return false };
        if fs::read_to_string(self.folder.join("config")).is_ok_and(|it| it.contains("\ntls {")) {
            // It has said who it is when it can be asked; to ask takes more than this.
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

    /// Its address.
    pub fn url(&self) -> String {
        format!("nats://{}:{}", self.host, self.port)
    }

    /// Where it listens on this machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A folder for files beside those of the server, which goes with it.
    pub fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    /// A name that nobody has used for a stream or its subjects.
    pub fn fresh_name(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        format!("stream{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// What the server has written down.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// Free now; nobody on this machine asks for just this one.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.crash();
        // It is in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
