//! A Redis server for tests: in a temporary folder, on a Unix socket there and on a free port of this machine, every write on the disk before
//! it is answered. It ends with the process that has started it, however that ends.
//!
//! The program is `redis-server`, or what `REDIS_SERVER` names.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::certificate::Certificate;
use crate::folder;

/// Nothing takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Dropped, it is killed and removed.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    port: u16,
    tls_port: u16,
    /// What runs the program, if it is not run as it is.
    runner: Vec<String>,
    settings: Vec<String>,
    guard: Mutex<Option<Child>>,
}

impl Server {
    /// Starts one.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with more settings, as arguments.
    pub fn with(settings: &[&str]) -> Self {
        Self::run_by(&[], settings)
    }

    /// Starts one through another program, which becomes it.
    pub fn run_by(runner: &[&str], settings: &[&str]) -> Self {
        let server = Self::prepare(runner, settings);
        server.up();
        server
    }

    /// Starts one that speaks TLS too, with a certificate of its own for the name `localhost`. Returns that.
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
        // Free now; nobody on this machine asks for just these.
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [port, tls_port] = listeners.map(|it| it.local_addr().expect("its address").port());
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Self { folder, port, tls_port, runner: owned(runner), settings: owned(settings), guard: Mutex::default() }
    }

    /// A new certificate that nobody else has signed.
    pub fn certificate(&self, name: &str) -> Certificate {
        Certificate::new(&self.folder, name)
    }

    /// One that was good until yesterday.
    pub fn expired_certificate(&self, name: &str) -> Certificate {
        Certificate::expired(&self.folder, name)
    }

    /// Starts the server after it was stopped; waits until it can be used.
    pub fn up(&self) {
        let program = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        // The shell's input ends with this process, also if that is killed; then so does the server.
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

    /// Kills it.
    pub fn crash(&self) {
        if let Some(mut guard) = self.guard.lock().expect("no panic under the lock").take() {
            drop(guard.stdin.take());
            guard.wait().expect("it ends");
        }
        // It may have been left behind.
        let _ = fs::remove_file(self.folder.join("socket"));
    }

    /// Stops it where it is, and waits until it stands still; or has it go on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn freeze(&self, frozen: bool) {
        let pid = fs::read_to_string(self.folder.join("pid")).expect("it runs").trim().to_owned();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
        let state = || fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        while frozen && !state().contains("State:\tT") {
            thread::yield_now();
        }
    }

    /// Whether it answers.
    fn is_ready(&self) -> bool {
        use std::io::{Read as _, Write as _};
        use std::os::unix::net::UnixStream;
        let mut answer = [0; 7];
        let asked = UnixStream::connect(self.folder.join("socket")).and_then(|mut socket| {
            socket.write_all(b"PING\r\n")?;
            socket.read_exact(&mut answer)
        });
        // Who has to log in first is told so.
        asked.is_ok() && (&answer == b"+PONG\r\n" || answer.starts_with(b"-NOAUTH"))
    }

    /// The address of the Unix socket.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.folder.join("socket").display())
    }

    /// Where it listens on this machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens on this machine, by TLS.
    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A name of a stream that nobody has used.
    pub fn stream(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        format!("stream{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// What the server has written down.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.crash();
        // It is in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
