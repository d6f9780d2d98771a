//! A real Tollgate process with a directory, a configuration and logs of its own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Answer, Ask};
use super::upstream::Upstream;
use super::{evidence, wait_for};

/// Settings of a gate under test.
#[derive(Clone)]
pub(crate) struct Plan {
    upstreams: Vec<SocketAddr>,
    servers: Option<String>,
    store: String,
    extra: String,
    routes: String,
    secret: Option<String>,
    upstream_extra: String,
    admin_extra: String,
    listener_extra: String,
    env: Vec<(String, String)>,
    binary: Option<PathBuf>,
}

/// The routes most tests use.
const ROUTES: &str = r#"
  - {path: "/{version}/data/CORE/{dataset}/**", upstream: datasets, access: core, dataset: "CORE/{dataset}"}
  - {path: "/{version}/premium/{dataset}/**", upstream: datasets, access: premium, credits: 5}
  - {path: "/{version}/free/**", upstream: datasets, access: core, credits: 0}
  - {path: "/{version}/ten/**", upstream: datasets, access: core, credits: 10}
  - {path: "/{version}/data/{workspace}/{dataset}/**", upstream: datasets, access: dataset, dataset: "{workspace}/{dataset}", batch_separator_param: batchSeparator}
  - {path: "/{version}/keep/{dataset}/**", upstream: datasets, access: core, encoded_slash: keep}
  - {path: "/{version}/signed/**", upstream: datasets, access: core, signed: true}
  - {path: "/{version}/lenient/**", upstream: datasets, access: core, signed: true, signature_body: lenient}
  - {path: "/{version}/small/**", upstream: datasets, access: core, signed: true, max_signed_body: 1KiB}
"#;

impl Plan {
    pub(crate) fn new(upstream: &Upstream) -> Self {
        Self {
            upstreams: vec![upstream.address()],
            servers: None,
            store: "url: \"embedded:\"".to_owned(),
            extra: String::new(),
            routes: ROUTES.to_owned(),
            secret: None,
            upstream_extra: String::new(),
            admin_extra: String::new(),
            listener_extra: String::new(),
            env: Vec::new(),
            binary: None,
        }
    }

    /// More servers for the one upstream.
    pub(crate) fn servers(mut self, servers: &[SocketAddr]) -> Self {
        self.upstreams = servers.to_vec();
        self
    }

    /// The servers of the one upstream, as the inside of the list.
    pub(crate) fn servers_as(mut self, servers: &str) -> Self {
        self.servers = Some(servers.to_owned());
        self
    }

    /// Another store, as the inside of the `store` mapping.
    pub(crate) fn store(mut self, store: &str) -> Self {
        store.clone_into(&mut self.store);
        self
    }

    /// More lines at the top level of the configuration.
    pub(crate) fn extra(mut self, lines: &str) -> Self {
        let _ = writeln!(self.extra, "{lines}");
        self
    }

    /// Other routes, as the inside of the list.
    pub(crate) fn routes(mut self, routes: &str) -> Self {
        routes.clone_into(&mut self.routes);
        self
    }

    /// More keys for the upstream, as the inside of a flow mapping.
    pub(crate) fn upstream_extra(mut self, keys: &str) -> Self {
        let _ = write!(self.upstream_extra, ", {keys}");
        self
    }

    /// More keys for the admin address, as the inside of a flow mapping.
    pub(crate) fn admin_extra(mut self, keys: &str) -> Self {
        let _ = write!(self.admin_extra, ", {keys}");
        self
    }

    /// More keys for the listener, as the inside of a flow mapping.
    pub(crate) fn listener_extra(mut self, keys: &str) -> Self {
        let _ = write!(self.listener_extra, ", {keys}");
        self
    }

    /// A secret token given by the environment, so that several nodes share it.
    pub(crate) fn secret(mut self, secret: &str) -> Self {
        self.secret = Some(secret.to_owned());
        self
    }

    /// A variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another path of the program, such as a link to it.
    pub(crate) fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.to_owned());
        self
    }

    pub(crate) fn yaml(&self) -> String {
        let servers: Vec<String> = self.upstreams.iter().map(|server| format!("\"{server}\"")).collect();
        let servers = self.servers.clone().unwrap_or_else(|| servers.join(", "));
        format!(
            "state_dir: ./state\nthreads: 2\nlisteners:\n  - {{ address: \"127.0.0.1:0\"{} }}\nadmin: {{ address: 127.0.0.1:0{} }}\n\
             store: {{ {} }}\nupstreams:\n  datasets: {{ servers: [{}]{} }}\n{}routes:{}",
            self.listener_extra,
            self.admin_extra,
            self.store,
            servers,
            self.upstream_extra,
            self.extra,
            self.routes
        )
    }

    pub(crate) async fn start(self) -> Gate {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("proxy.yaml"), self.yaml()).expect("a configuration");
        Gate::spawn(self, directory).await
    }
}

/// A running gate. Dropping it kills the process and searches all it wrote for tokens (law 7).
pub(crate) struct Gate {
    plan: Plan,
    directory: tempfile::TempDir,
    child: Child,
    /// The process that has taken over from the child, if there was an upgrade.
    successor: Option<u32>,
    starts: usize,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    authz: Option<SocketAddr>,
    tokens: Vec<String>,
}

impl Gate {
    async fn spawn(plan: Plan, directory: tempfile::TempDir) -> Self {
        let child = run(&plan, directory.path(), 0);
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut gate = Self {
            plan,
            directory,
            child,
            successor: None,
            starts: 1,
            address: unknown,
            admin: unknown,
            authz: None,
            tokens: Vec::new(),
        };
        gate.wait_answering().await;
        gate
    }

    async fn wait_listening(&mut self) {
        let path = self.events_path();
        let find = |events: &str, what: &str| -> Option<SocketAddr> {
            let line = events.lines().find(|line| line.contains(what))?;
            line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok()
        };
        let started = Instant::now();
        loop {
            let events = fs::read_to_string(&path).unwrap_or_default();
            if let (Some(address), Some(admin)) =
                (find(&events, "listening for requests"), find(&events, "listening for the admin API"))
            {
                (self.address, self.admin) = (address, admin);
                self.authz = find(&events, "listening for forward-auth");
                break;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the gate ended with {status}: {events}");
            }
            assert!(started.elapsed() < Duration::from_secs(20), "the gate does not start: {events}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn wait_answering(&mut self) {
        self.wait_listening().await;
        let admin = self.admin;
        wait_for(
            "the gate to be ready",
            || async move { Ask::get("/readyz").send(admin).await.status == 200 },
        )
        .await;
    }

    /// Where other proxies ask it, if its plan says `authz`.
    pub(crate) fn authz(&self) -> SocketAddr {
        self.authz.expect("authz is configured")
    }

    fn events_path(&self) -> PathBuf {
        self.directory.path().join(format!("events-{}.log", self.starts - 1))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What all its starts wrote to standard error.
    pub(crate) fn events(&self) -> String {
        self.read_all("events")
    }

    /// The access log of all its starts, one value a line.
    pub(crate) fn access_log(&self) -> Vec<Value> {
        let text = self.read_all("access");
        // A line may be caught while it is written; it counts once it has its end.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }

    fn read_all(&self, name: &str) -> String {
        let read = |start| {
            fs::read_to_string(self.directory.path().join(format!("{name}-{start}.log"))).unwrap_or_default()
        };
        (0..self.starts).map(read).collect()
    }

    /// The secret token of its account.
    pub(crate) fn secret(&self) -> String {
        match &self.plan.secret {
            Some(secret) => secret.clone(),
            None => {
                fs::read_to_string(self.path("state/secret-token")).expect("a secret token").trim().to_owned()
            }
        }
    }

    /// Asks the admin API.
    pub(crate) async fn admin(&self, method: &str, target: &str, body: Option<Value>) -> Answer {
        let mut ask = Ask::new(method, target).header("Authorization", &format!("Bearer {}", self.secret()));
        if let Some(body) = body {
            ask = ask.header("Content-Type", "application/json").body(body.to_string());
        }
        ask.send(self.admin).await
    }

    /// Makes a token.
    pub(crate) async fn token(&mut self, fields: Value) -> Token {
        let answer = self.admin("POST", "/v1/tokens", Some(fields)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let made = answer.json();
        let value = made["token"].as_str().expect("a value").to_owned();
        self.tokens.push(value.clone());
        Token { id: made["id"].as_str().expect("an id").to_owned(), value }
    }

    pub(crate) async fn edit(&self, token: &Token, fields: Value) {
        let answer = self.admin("PATCH", &format!("/v1/tokens/{}", token.id), Some(fields)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// What the store says a token used in the core pool.
    pub(crate) async fn used(&self, token: &Token) -> u64 {
        let answer = self.admin("GET", &format!("/v1/tokens/{}", token.id), None).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["usage"]["core"]["used"].as_u64().expect("a figure")
    }

    /// Waits until the store says that so many credits were used.
    pub(crate) async fn wait_used(&self, token: &Token, expected: u64) {
        wait_for(&format!("used to be {expected}"), || async move { self.used(token).await == expected })
            .await;
    }

    /// Sends a request through the gate, and keeps the body of a refusal as evidence.
    pub(crate) async fn ask(&self, ask: Ask) -> Answer {
        let answer = ask.send(self.address).await;
        if answer.status >= 400 {
            evidence::add("error-bodies", &answer.body);
        }
        answer
    }

    /// The metrics.
    pub(crate) async fn metrics(&self) -> String {
        Ask::get("/metrics").send(self.admin).await.text()
    }

    /// The value of one counter, named with its labels.
    pub(crate) async fn metric(&self, line: &str) -> u64 {
        let metrics = self.metrics().await;
        let found = metrics.lines().find_map(|text| text.strip_prefix(line));
        found.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.successor.unwrap_or(self.child.id())
    }

    /// Asks the process to stop and waits until it has, in good order.
    pub(crate) fn stop(&mut self) {
        signal(self.pid(), "TERM");
        self.reap();
        if self.successor.is_none() {
            let status = self.child.try_wait().ok().flatten();
            assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", self.events());
        }
    }

    /// Kills the process without a warning.
    pub(crate) fn kill(&mut self) {
        signal(self.pid(), "KILL");
        self.reap();
    }

    fn reap(&mut self) {
        let pid = self.pid();
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(40) {
            if self.has_ended(pid) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the gate does not stop: {}", self.events());
    }

    /// Whether one of its processes has ended.
    pub(crate) fn has_ended(&mut self, pid: u32) -> bool {
        if pid == self.child.id() {
            return matches!(self.child.try_wait(), Ok(Some(_)));
        }
        // Nobody may have asked yet how it ended; then it is a zombie.
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
    }

    /// Sends its process a signal.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Writes another configuration, as an editor does: a new file in the place of the old one.
    pub(crate) fn configure(&mut self, plan: Plan) {
        self.write_config(&plan.yaml());
        self.plan = plan;
    }

    /// Writes any text as the configuration.
    pub(crate) fn write_config(&self, text: &str) {
        let draft = self.path("proxy.yaml.new");
        fs::write(&draft, text).expect("a configuration");
        fs::rename(&draft, self.path("proxy.yaml")).expect("a configuration");
    }

    /// The process that said, after this place in the events, that it has taken over.
    pub(crate) fn taken_over_by(&self, since: usize) -> Option<u32> {
        let events = self.events();
        let line = events.get(since..)?.lines().find(|line| line.contains("took over from the process"))?;
        line.split("pid=").nth(1)?.split_whitespace().next()?.parse().ok()
    }

    /// Upgrades it, and waits until the old process has ended.
    pub(crate) async fn upgrade(&mut self) {
        let old = self.begin_upgrade().await;
        self.wait_ended(old).await;
    }

    /// Upgrades it, and waits until the new process serves. The old process.
    pub(crate) async fn begin_upgrade(&mut self) -> u32 {
        let (old, since) = (self.pid(), self.events().len());
        self.signal("USR2");
        let started = Instant::now();
        let new = loop {
            if let Some(new) = self.taken_over_by(since) {
                break new;
            }
            assert!(started.elapsed() < Duration::from_mins(1), "no upgrade: {}", self.events());
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_ne!(new, old);
        self.successor = Some(new);
        old
    }

    pub(crate) async fn wait_ended(&mut self, pid: u32) {
        let started = Instant::now();
        while !self.has_ended(pid) {
            assert!(started.elapsed() < Duration::from_mins(1), "{pid} does not end: {}", self.events());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts the process again on the same directory, without waiting until it is ready.
    pub(crate) async fn start_again_unready(&mut self) {
        self.child = run(&self.plan, self.directory.path(), self.starts);
        self.successor = None;
        self.starts += 1;
        self.wait_listening().await;
    }

    /// Starts the process again on the same directory.
    pub(crate) async fn start_again(&mut self) {
        self.child = run(&self.plan, self.directory.path(), self.starts);
        self.successor = None;
        self.starts += 1;
        self.wait_answering().await;
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let metrics = std::net::TcpStream::connect(self.admin).ok().map(|mut stream| {
            use std::io::{Read, Write};
            let mut text = String::new();
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let _ = stream.read_to_string(&mut text);
            text
        });
        let pid = self.pid();
        signal(pid, "TERM");
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(3) && !self.has_ended(pid) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.successor.is_some() && !self.has_ended(pid) {
            signal(pid, "KILL");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let metrics = metrics.unwrap_or_default();
        for (name, text) in [
            ("events", self.read_all("events")),
            ("access-log", self.read_all("access")),
            ("metrics", metrics),
        ] {
            evidence::add(name, text.as_bytes());
            evidence::assert_sealed(name, text.as_bytes());
        }
    }
}

fn run(plan: &Plan, directory: &Path, start: usize) -> Child {
    let file = |name: &str| File::create(directory.join(format!("{name}-{start}.log"))).expect("a log");
    let binary = plan.binary.clone().unwrap_or_else(|| env!("CARGO_BIN_EXE_tollgate").into());
    let mut command = Command::new(binary);
    command.args(["serve", "--config"]).arg(directory.join("proxy.yaml")).stdin(Stdio::null());
    command.stdout(file("access")).stderr(file("events")).env_remove("TOLLGATE_SECRET_TOKEN");
    command.envs(plan.env.iter().map(|(name, value)| (name, value)));
    if let Some(secret) = &plan.secret {
        command.env("TOLLGATE_SECRET_TOKEN", secret);
    }
    command.spawn().expect("the tollgate binary")
}

fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null()).status();
}

/// A token made for a test.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) value: String,
}

impl Token {
    /// A target with this token in its query.
    pub(crate) fn on(&self, path: &str) -> String {
        let joiner = if path.contains('?') { '&' } else { '?' };
        format!("{path}{joiner}token={}", self.value)
    }
}

/// A credit limit for the core pool.
pub(crate) fn limited(credits: u64) -> Value {
    json!({"credit_limit": {"core": {"credits": credits, "period": "month"}}})
}
