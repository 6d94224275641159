//! A Redis server for tests, in a temporary folder, on a Unix socket there and on a free local port, with `appendonly
//! yes` and `appendfsync everysec`. It is killed when the process that started it ends, even by a kill.
//!
//! The program is `redis-server`, or the one named by `REDIS_SERVER`.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::certificate::Certificate;
use crate::{folder, port};

/// Deadline of every wait, generous for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Killed and removed on drop.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    port: u16,
    tls_port: u16,
    /// The command prefix that runs the program, if any.
    runner: Vec<String>,
    settings: Vec<String>,
    guard: Mutex<Option<Child>>,
}

impl Server {
    /// Starts a server.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server with more settings, as arguments.
    pub fn with(settings: &[&str]) -> Self {
        Self::run_by(&[], settings)
    }

    /// Starts a server through a program that executes it.
    pub fn run_by(runner: &[&str], settings: &[&str]) -> Self {
        let server = Self::prepare(runner, settings);
        server.up();
        server
    }

    /// Starts a server with an additional TLS port. Returns its self-signed certificate for `localhost` too.
    pub fn with_tls() -> (Self, Certificate) {
        let mut server = Self::prepare(&[], &[]);
        let certificate = server.certificate("server");
        let [cert, key] = [&certificate.certificate, &certificate.key].map(|path| path.display().to_string());
        let port = server.tls_port.to_string();
        let settings =
            ["--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-auth-clients", "no"];
        server.settings = settings.map(str::to_owned).to_vec();
        server.up();
        (server, certificate)
    }

    fn prepare(runner: &[&str], settings: &[&str]) -> Self {
        let folder = folder::new("redis");
        let [port, tls_port] = [(); 2].map(|()| port::free());
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Self { folder, port, tls_port, runner: owned(runner), settings: owned(settings), guard: Mutex::default() }
    }

    /// Creates a self-signed certificate.
    pub fn certificate(&self, name: &str) -> Certificate {
        Certificate::new(&self.folder, name)
    }

    /// Creates a self-signed certificate that expired yesterday.
    pub fn expired_certificate(&self, name: &str) -> Certificate {
        Certificate::expired(&self.folder, name)
    }

    /// Starts the server, and waits until it is ready.
    pub fn up(&self) {
        let program = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        // The shell's standard input closes when this process ends, even by a kill; then the shell kills the server.
        let script = r#""$@" >>log 2>&1 & server=$!; echo $server >pid; read -r _; kill -9 $server; wait $server"#;
        let mut guard = Command::new("sh");
        guard.args(["-c", script, "guard"]).args(&self.runner).arg(&program);
        guard.args(["--port", &self.port.to_string(), "--unixsocket"]).arg(self.folder.join("socket"));
        guard.args(["--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]);
        guard
            .args(["--dir", ".", "--loglevel", "warning"])
            .args(&self.settings)
            .current_dir(&self.folder)
            .stdin(Stdio::piped());
        let guard = guard.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().expect("a shell");
        *self.guard.lock().expect("no panic under the lock") = Some(guard);
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready() {
            assert!(Instant::now() < deadline, "Redis does not start; is it installed? {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the server.
    pub fn crash(&self) {
        if let Some(mut guard) = self.guard.lock().expect("no panic under the lock").take() {
            drop(guard.stdin.take());
            guard.wait().expect("it ends");
        }
        // A killed server leaves its socket behind.
        let _ = fs::remove_file(self.folder.join("socket"));
    }

    /// Sends SIGSTOP and waits until the server is stopped, or sends SIGCONT.
    ///
    /// # Panics
    /// If the server does not run.
    pub fn freeze(&self, frozen: bool) {
        let pid = fs::read_to_string(self.folder.join("pid")).expect("it runs").trim().to_owned();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
        let state = || fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        while frozen && !state().contains("State:\tT") {
            thread::yield_now();
        }
    }

    /// Whether the server answers PING.
    fn is_ready(&self) -> bool {
        use std::io::{Read as _, Write as _};
        use std::os::unix::net::UnixStream;
        let mut answer = [0; 7];
        let asked = UnixStream::connect(self.folder.join("socket")).and_then(|mut socket| {
            socket.write_all(b"PING\r\n")?;
            socket.read_exact(&mut answer)
        });
        // A server with a password answers NOAUTH.
        asked.is_ok() && (&answer == b"+PONG\r\n" || answer.starts_with(b"-NOAUTH"))
    }

    /// The URL of the Unix socket.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.folder.join("socket").display())
    }

    /// The local port of the server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The local port for TLS.
    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// The server's temporary folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A new name for a stream.
    pub fn stream(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        format!("stream{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The log of the server.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.crash();
        // On an error it stays in the temporary folder of the system.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
