//! The gate in a foreign proxy: `examples/embed.rs` as a process, and two gates in one process.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::Plugin;
use tollgate::gate::check::{Charge, Checked, Question};

use crate::harness::client::{Answer, Ask};
use crate::harness::evidence;
use crate::harness::gate::limited;
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

const DATA: &str = "/v1/data/CORE/QUOTE/AAPL";
const SECRET: &str = "sk_5ec2e7000000000000000000000005e7";
const DEADLINE: Duration = Duration::from_mins(1);
const ROUTES: &str = r#"
routes:
  - {path: "/v1/data/CORE/{dataset}/**", upstream: mine, access: core, dataset: "CORE/{dataset}"}
  - {path: "/v1/dear/**", upstream: mine, access: core, credits: 7}
"#;

/// The example, running.
struct Balancer {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    directory: TempDir,
}

impl Balancer {
    /// A free port may be somebody else's by the time it is asked for; then it is tried with others.
    async fn start(servers: &[SocketAddr]) -> Self {
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            let (address, admin) = (free_address(), free_address());
            let directory = tempfile::tempdir().expect("a folder");
            let (gate, log) = (directory.path().join("gate.yaml"), directory.path().join("log"));
            let yaml = format!(
                "state_dir: state\naccess_log: file:access\nadmin: {{ address: \"{admin}\" }}\n{ROUTES}"
            );
            fs::write(&gate, yaml).expect("a file");
            let binaries = Path::new(env!("CARGO_BIN_EXE_tollgate")).parent().expect("a folder");
            let log = fs::File::create(log).expect("a log");
            let child = Command::new(binaries.join("examples/embed"))
                .args(["--listen", &address.to_string(), "--gate"])
                .arg(gate)
                .args(servers.iter().map(ToString::to_string))
                .env("TOLLGATE_SECRET_TOKEN", SECRET)
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a log"))
                .stderr(log)
                .spawn()
                .expect("the example");
            let mut balancer = Self { child, address, admin, directory };
            if balancer.is_ready().await {
                return balancer;
            }
        }
        panic!("the example does not start");
    }

    async fn is_ready(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < DEADLINE && self.child.try_wait().expect("a child").is_none() {
            if TcpStream::connect(self.address).is_ok()
                && TcpStream::connect(self.admin).is_ok()
                && Ask::get("/readyz").send(self.admin).await.status == 200
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        eprintln!("{}", self.read("log"));
        false
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }

    async fn ask(&self, ask: Ask) -> Answer {
        let answer = ask.send(self.address).await;
        evidence::assert_sealed("the example's answer", format!("{answer:?}").as_bytes());
        answer
    }

    async fn token(&self, fields: Value) -> (String, String) {
        token(self.admin, SECRET, fields).await
    }

    async fn wait_used(&self, id: &str, expected: u64) {
        let target = format!("/v1/tokens/{id}");
        wait_for(&format!("used to be {expected}"), || async {
            let told = admin(self.admin, SECRET, "GET", &target, None).await;
            told.json()["usage"]["core"]["used"].as_u64() == Some(expected)
        })
        .await;
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for name in ["log", "access"] {
            evidence::assert_sealed("what the example wrote", self.read(name).as_bytes());
        }
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its number")
}

async fn admin(address: SocketAddr, secret: &str, method: &str, target: &str, body: Option<Value>) -> Answer {
    let mut ask = Ask::new(method, target).header("Authorization", &format!("Bearer {secret}"));
    if let Some(body) = body {
        ask = ask.header("Content-Type", "application/json").body(body.to_string());
    }
    ask.send(address).await
}

/// Makes a token: its id and its value.
async fn token(address: SocketAddr, secret: &str, fields: Value) -> (String, String) {
    let made = admin(address, secret, "POST", "/v1/tokens?wait=5s", Some(fields)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let text = |name: &str| made.json()[name].as_str().expect("a text").to_owned();
    (text("id"), text("token"))
}

#[tokio::test]
async fn a_caching_balancer_gains_the_gate() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let balancer = Balancer::start(&[first.address(), second.address()]).await;
    let count = || first.count() + second.count();
    let (id, value) = balancer.token(limited(100)).await;
    let (_, poor) = balancer.token(limited(1)).await;

    // Refused, and no server sees it.
    let refused = balancer.ask(Ask::get(DATA)).await;
    assert_eq!((refused.status, refused.code().as_str(), count()), (401, "token_missing", 0));

    // Passed: judged target, no token, charged.
    let get = |token: &str, path: &str| Ask::get(&format!("{path}?token={token}&a=1"));
    let passed = balancer.ask(get(&value, DATA)).await;
    assert_eq!(
        (passed.status, passed.header("x-cache"), count()),
        (200, Some("miss"), 1),
        "{}",
        passed.text()
    );
    let seen = [first.seen(), second.seen()].concat();
    assert_eq!(seen[0].target, format!("{DATA}?a=1"));
    assert_eq!(
        (seen[0].header("x-tollgate-token-id"), seen[0].header("via")),
        (Some(id.as_str()), Some("1.1 balancer"))
    );
    evidence::assert_sealed("what the servers saw", format!("{seen:?}").as_bytes());

    // From the cache: charged like any other, judged like any other, whoever filled it.
    for used in 2..=4_u64 {
        let hit = balancer.ask(get(&value, DATA)).await;
        assert_eq!((hit.status, hit.header("x-cache"), count()), (200, Some("hit"), 1));
        assert_eq!(hit.header("x-credits-used"), Some(used.to_string().as_str()), "{hit:?}");
    }
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let answer = balancer.ask(get(&poor, DATA)).await;
        statuses.push((answer.status, answer.header("x-cache").map(str::to_owned)));
    }
    assert_eq!(statuses, [(200, Some("hit".to_owned())), (402, None), (402, None)]);
    let missing = balancer.ask(Ask::get(&format!("{DATA}?a=1"))).await;
    assert_eq!((missing.status, count()), (401, 1));

    // What fails is given back.
    let failed = balancer.ask(get(&value, "/v1/dear/x").header("X-Test", "status=500")).await;
    assert_eq!(failed.status, 500);
    let cut = balancer.ask(get(&value, "/v1/dear/y").header("X-Test", "cut")).await;
    assert_eq!((cut.status, cut.code().as_str()), (502, "upstream_unavailable"));
    assert_eq!(balancer.ask(get(&value, "/v1/dear/z")).await.status, 200);
    balancer.wait_used(&id, 11).await;
}

#[test]
fn the_gate_takes_less_than_fifteen_lines() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/embed.rs");
    let text = fs::read_to_string(path).expect("the example");
    let lines: Vec<_> = text.lines().filter(|line| line.contains("gate") || line.contains("Visit")).collect();
    let marked = lines.iter().filter(|line| line.trim_end().ends_with("// gate")).count();
    assert!((10..15).contains(&marked), "{marked}");
    // And all that has to do with the gate is marked, but for words and the argument's name.
    let words = |line: &str| {
        line.trim_start().starts_with("//!") || line.contains("--gate") || line.contains("mut gate")
    };
    let unmarked: Vec<_> =
        lines.into_iter().filter(|line| !line.trim_end().ends_with("// gate") && !words(line)).collect();
    assert!(unmarked.is_empty(), "{unmarked:?}");
}

async fn status(gate: &Plugin, target: &str) -> u16 {
    let question = Question {
        method: Method::GET,
        target: target.as_bytes().to_vec(),
        headers: HeaderMap::new(),
        has_body: false,
        charge: Charge::AtOnce,
        as_is: false,
    };
    match gate.check(question).await {
        Checked::Forward(answer, _) | Checked::Answer(answer) => answer.status().as_u16(),
    }
}

/// A plugin, with the folder it lives in and the secret token of its account.
async fn open(extra: &str) -> (TempDir, Plugin, String) {
    let directory = tempfile::tempdir().expect("a folder");
    let path = directory.path().join("gate.yaml");
    let yaml =
        format!("state_dir: state\naccess_log: off\nadmin: {{ address: \"127.0.0.1:0\" }}\n{extra}{ROUTES}");
    fs::write(&path, yaml).expect("a file");
    let opened = tokio::task::spawn_blocking(move || Plugin::open(path)).await.expect("no panic");
    let plugin = opened.expect("a plugin");
    wait_for("the store", || async { plugin.is_ready() }).await;
    let secret = fs::read_to_string(directory.path().join("state/secret-token")).expect("a secret token");
    (directory, plugin, secret.trim().to_owned())
}

/// Opens a plugin again where one was; what that left running may keep its files for a moment.
async fn reopen(home: &TempDir) -> Plugin {
    let started = Instant::now();
    loop {
        let path = home.path().join("gate.yaml");
        match tokio::task::spawn_blocking(move || Plugin::open(path)).await.expect("no panic") {
            Ok(plugin) => return plugin,
            Err(error) => assert!(started.elapsed() < DEADLINE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gates_in_one_process_know_nothing_of_each_other() {
    let (one_home, one, one_secret) = open("").await;
    let (_other_home, other, other_secret) = open("dialect: iex\n").await;
    assert_ne!(one_secret, other_secret);
    let address = |plugin: &Plugin| plugin.admin_address().expect("an address");
    let (id, value) = token(address(&one), &one_secret, limited(3)).await;
    let (_, others) = token(address(&other), &other_secret, json!({})).await;
    // Each account's secret opens its own door alone.
    assert_eq!(admin(address(&other), &one_secret, "GET", "/v1/tokens", None).await.status, 401);

    let on = |value: &str| format!("{DATA}?token={value}");
    for expected in [204, 204, 204, 402, 402] {
        assert_eq!(status(&one, &on(&value)).await, expected);
        assert_eq!(status(&other, &on(&others)).await, 204);
    }
    assert_eq!((status(&one, &on(&others)).await, status(&other, &on(&value)).await), (403, 403));

    // Metrics are apart.
    let charged = |plugin: &Plugin| {
        let metrics = plugin.metrics();
        let line = metrics
            .lines()
            .find(|line| line.starts_with(r#"tollgate_credits_total{outcome="charged",pool="core"}"#));
        line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    };
    assert_eq!((charged(&one).as_deref(), charged(&other).as_deref()), (Some("3"), Some("5")));

    // One stops and gives back; the other goes on.
    assert_eq!(one.stop().await, 0);
    drop(one);
    assert_eq!(status(&other, &on(&others)).await, 204);
    let again = reopen(&one_home).await;
    wait_for("the store", || async { again.is_ready() }).await;
    let told = admin(address(&again), &one_secret, "GET", &format!("/v1/tokens/{id}"), None).await;
    assert_eq!(told.json()["usage"]["core"]["used"], 3);
}
