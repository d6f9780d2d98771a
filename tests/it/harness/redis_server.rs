//! A Redis server of a test's own: on a free port, in a folder of its own, gone when it is dropped.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to start.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// How a server is to be started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Keep every write on the disk before it is acknowledged, so that a restart loses nothing.
    pub durable: bool,
    /// Ask for this password.
    pub password: Option<String>,
}

/// A running (or stopped) server.
#[derive(Debug)]
pub struct RedisServer {
    options: Options,
    folder: TempDir,
    port: u16,
    process: Option<Child>,
}

impl RedisServer {
    /// Starts a server that keeps nothing and asks for no password.
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    /// Starts a server.
    pub fn start_with(options: Options) -> Self {
        let folder = tempfile::tempdir().expect("a folder for Redis");
        let mut server = Self { options, folder, port: 0, process: None };
        let deadline = Instant::now() + START_DEADLINE;
        // A free port may be somebody else's by the time the server asks for it; then it is tried with another.
        while Instant::now() < deadline {
            server.port = free_port();
            if server.try_run(deadline) {
                return server;
            }
        }
        panic!("redis-server did not start within {START_DEADLINE:?}");
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL, without a password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// How many commands it has carried out, those inside scripts too; asking is two more.
    pub fn commands(&self) -> u64 {
        self.stat("total_commands_processed:")
    }

    /// How often it has read from a client: round trips, however much was asked in one; asking is one more.
    pub fn reads(&self) -> u64 {
        self.stat("total_reads_processed:")
    }

    /// What it answers to a command of one line.
    pub fn ask(&self, line: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("Redis");
        stream.set_read_timeout(Some(START_DEADLINE)).expect("a timeout");
        stream.write_all(format!("{line}\r\nQUIT\r\n").as_bytes()).expect("a question");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn stat(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("Redis");
        stream.set_read_timeout(Some(START_DEADLINE)).expect("a timeout");
        stream.write_all(b"INFO stats\r\nQUIT\r\n").expect("a question");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let line = answer.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|count| count.trim().parse().ok()).expect("a count")
    }

    /// Ends the process at once, as a power cut would.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("Redis can be killed");
            process.wait().expect("Redis ends");
        }
    }

    /// Starts it again, on the same port and with what it kept on the disk.
    pub fn restart(&mut self) {
        self.stop();
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            if self.try_run(deadline) {
                return;
            }
        }
        panic!("redis-server did not start again within {START_DEADLINE:?}");
    }

    /// Holds the process still: it accepts connections (the system does) and answers nothing.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("Redis runs");
        let status = Command::new("kill").args([signal, &process.id().to_string()]).status();
        assert!(status.expect("kill runs").success(), "kill {signal}");
    }

    /// Starts the process and waits until it answers; `false`: it ended, so try again.
    fn try_run(&mut self, deadline: Instant) -> bool {
        let binary = std::env::var("TOLLGATE_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let mut command = Command::new(&binary);
        command.args(["--bind", "127.0.0.1", "--save", ""]).arg("--port").arg(self.port.to_string());
        command.arg("--dir").arg(self.folder.path());
        if self.options.durable {
            command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        }
        if let Some(password) = &self.options.password {
            command.arg("--requirepass").arg(password);
        }
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut process =
            started.unwrap_or_else(|error| panic!("cannot run {binary}: {error}; install redis-server"));
        while Instant::now() < deadline {
            if process.try_wait().expect("Redis can be watched").is_some() {
                return false;
            }
            if answers(self.port) {
                self.process = Some(process);
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = process.kill();
        let _ = process.wait();
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its number").port()
}

/// Whether a server answers on the port, be it with `PONG` or with a wish for a password.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<[u8; 5]> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| matches!(&answer, b"+PONG" | b"-NOAU"))
}
