//! The five subjects: how each is started, what it is given to check, and that it does check.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use tollgate::policy::Token;

use super::admin::{Admin, SECRET};
use super::connection::Connection;
use super::http_upstream::Upstream;
use super::load::{Order, Requests};
use super::plan::Plan;
use super::process::{Process, free_address};
use super::redis_server::RedisServer;

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    BarePingora,
    TollgateRedis,
    TollgateEmbedded,
    Nginx,
    NginxLua,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::BarePingora, Self::TollgateRedis, Self::TollgateEmbedded, Self::Nginx, Self::NginxLua];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BarePingora => "bare Pingora",
            Self::TollgateRedis => "Tollgate on Redis",
            Self::TollgateEmbedded => "Tollgate embedded",
            Self::Nginx => "nginx",
            Self::NginxLua => "nginx + Lua + Redis",
        }
    }

    fn checks(self) -> bool {
        !matches!(self, Self::BarePingora | Self::Nginx)
    }

    pub(crate) fn start(self, plan: &Plan, upstream: &Upstream) -> anyhow::Result<Subject> {
        let (threads, to) = (plan.threads, upstream.address());
        let subject = match self {
            Self::BarePingora => {
                let (process, address) = bare_pingora(&[], to, threads)?;
                Subject { kind: self, address, process, redis: None, token: any_token() }
            }
            Self::TollgateRedis => {
                let redis = RedisServer::start(&plan.place("redis-tollgate")?)?;
                let node = Tollgate::start(plan, "tollgate-redis", &redis.url(), to)?;
                let token = node.admin().make_token()?.token;
                Subject {
                    kind: self,
                    address: node.address,
                    process: node.process,
                    redis: Some(redis),
                    token,
                }
            }
            Self::TollgateEmbedded => {
                let node = Tollgate::start(plan, "tollgate-embedded", "embedded:", to)?;
                let token = node.admin().make_token()?.token;
                Subject { kind: self, address: node.address, process: node.process, redis: None, token }
            }
            Self::Nginx => {
                let (process, address) = nginx(plan, "nginx", to, None)?;
                Subject { kind: self, address, process, redis: None, token: any_token() }
            }
            Self::NginxLua => {
                let redis = RedisServer::start(&plan.place("redis-nginx")?)?;
                let (process, address) = nginx(plan, "nginx_lua", to, Some(&redis))?;
                let token = keep_for_lua(&redis)?;
                Subject { kind: self, address, process, redis: Some(redis), token }
            }
        };
        subject.check(upstream).with_context(|| format!("{} does not do what it should", self.name()))?;
        Ok(subject)
    }
}

/// A running subject.
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    pub(crate) redis: Option<RedisServer>,
    pub(crate) token: String,
}

impl Subject {
    /// That it serves, and that a subject which checks does so: who asks for the wrong thing is refused, and the
    /// upstream neither sees a refused request nor a token.
    fn check(&self, upstream: &Upstream) -> anyhow::Result<()> {
        let good = String::from_utf8(Requests::one(400, &self.token).first())?;
        let mut connection = Connection::open(self.address)?;
        upstream.watch(true);
        let answer = connection.ask_all(good.as_bytes())?;
        ensure!(answer.status == 200 && answer.bytes == 400, "it answered {}", answer.head);
        ensure!(!upstream.last().is_empty(), "the upstream saw nothing");
        if self.kind.checks() {
            let (seen, head) = (upstream.last(), answer.head.to_ascii_lowercase());
            ensure!(!seen.contains(&self.token), "the upstream saw the token: {seen}");
            ensure!(seen.to_ascii_lowercase().contains("x-tollgate-token-id: "), "no id went up: {seen}");
            for name in
                ["x-credits-used", "x-credits-remaining", "x-request-id", "access-control-allow-origin"]
            {
                ensure!(head.contains(&format!("\n{name}: ")), "no {name} came down: {head}");
            }
            let unknown = any_token();
            let refused = [
                ("another page", good.replace("www.example.com", "www.example.com.evil.test")),
                ("a page that hides", good.replace("Referer: https://www.", "Referer: https://evil.")),
                ("another data set", good.replace("MY/CARS", "MY/BOATS")),
                ("another operation", good.replace("GET /", "DELETE /")),
                ("an unknown token", good.replace(&self.token, &unknown)),
                ("no token", good.replace("?token=", "?nothing=")),
            ];
            for (what, request) in refused {
                upstream.watch(true);
                let status = Connection::open(self.address)?.ask(request.as_bytes())?;
                ensure!((400..500).contains(&status), "{what} was answered {status}");
                ensure!(upstream.last().is_empty(), "{what} reached the upstream");
            }
        }
        upstream.watch(false);
        Ok(())
    }

    /// The load it gets, with its one token.
    pub(crate) fn requests(&self, bytes: usize) -> Requests {
        Requests::new(bytes, Arc::new(vec![self.token.clone()]), Order::Random)
    }
}

/// A token that nobody has. Subjects without checks get the same bytes to read as the others.
fn any_token() -> String {
    format!("pk_{}", "0123456789abcdef".repeat(2))
}

/// Bare Pingora, below `wrapper` (valgrind and its like) if there is one.
pub(crate) fn bare_pingora(
    wrapper: &[String],
    upstream: SocketAddr,
    threads: usize,
) -> anyhow::Result<(Process, SocketAddr)> {
    let address = free_address()?;
    let mut command = wrapped(wrapper, &std::env::current_exe()?);
    command.arg("bare-pingora").arg(address.to_string()).arg(upstream.to_string()).arg(threads.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = Process::start("bare Pingora", &mut command)?;
    process.await_port(address)?;
    Ok((process, address))
}

fn wrapped(wrapper: &[String], program: &Path) -> Command {
    match wrapper.split_first() {
        None => Command::new(program),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    }
}

/// A running Tollgate node.
pub(crate) struct Tollgate {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
}

impl Tollgate {
    pub(crate) fn start(plan: &Plan, name: &str, store: &str, upstream: SocketAddr) -> anyhow::Result<Self> {
        Self::start_below(&[], plan, name, store, (upstream, plan.threads))
    }

    /// With more routes, on the embedded store.
    pub(crate) fn start_with(
        plan: &Plan,
        name: &str,
        upstream: SocketAddr,
        routes: &str,
    ) -> anyhow::Result<Self> {
        let configuration = configuration("embedded:", upstream, plan.threads) + routes;
        Self::start_configured(&[], plan, name, &configuration)
    }

    /// The same below a wrapper.
    pub(crate) fn start_below(
        wrapper: &[String],
        plan: &Plan,
        name: &str,
        store: &str,
        (upstream, threads): (SocketAddr, usize),
    ) -> anyhow::Result<Self> {
        Self::start_configured(wrapper, plan, name, &configuration(store, upstream, threads))
    }

    fn start_configured(
        wrapper: &[String],
        plan: &Plan,
        name: &str,
        configuration: &str,
    ) -> anyhow::Result<Self> {
        let place = plan.place(name)?;
        fs::write(place.join("proxy.yaml"), configuration)?;
        let events = place.join("events.log");
        let mut command = wrapped(wrapper, &plan.tollgate);
        command.args(["serve", "--config"]).arg(place.join("proxy.yaml")).stdin(Stdio::null());
        command.stdout(File::create(place.join("stdout.log"))?).stderr(File::create(&events)?);
        command.env("TOLLGATE_SECRET_TOKEN", SECRET).env("TOLLGATE_MASTER_KEY", "b".repeat(64));
        let mut process = Process::start(name, &mut command)?;
        let find = |what: &str| -> Option<SocketAddr> {
            let text = fs::read_to_string(&events).ok()?;
            let line = text.lines().find(|line| line.contains(what))?;
            line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok()
        };
        let address = process.await_with(|| find("listening for requests"));
        let address = address.with_context(|| fs::read_to_string(&events).unwrap_or_default())?;
        let admin = process.await_with(|| find("listening for the admin API"))?;
        process.await_with(|| Admin::new(admin).is_ready().then_some(()))?;
        Ok(Self { process, address, admin })
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin::new(self.admin)
    }
}

/// What Tollgate is told: the routes of the shipped file, everything on, the access log in a file.
fn configuration(store: &str, upstream: SocketAddr, threads: usize) -> String {
    format!(
        r#"state_dir: ./state
threads: {threads}
listeners:
  - address: 127.0.0.1:0
admin: {{ address: 127.0.0.1:0 }}
store: {{ url: "{store}" }}
master_key: ${{TOLLGATE_MASTER_KEY}}
access_log: file:access.log
upstreams:
  datasets: {{ servers: ["{upstream}"] }}
routes:
  - {{path: "/{{version}}/data/CORE/{{dataset}}/**", upstream: datasets, access: core, dataset: "CORE/{{dataset}}", batch_separator_param: batchSeparator, methods: [GET, HEAD]}}
  - {{path: "/{{version}}/data/{{workspace}}/{{dataset}}/**", upstream: datasets, access: dataset, dataset: "{{workspace}}/{{dataset}}", batch_separator_param: batchSeparator}}
  - {{path: "/{{version}}/record/{{workspace}}/{{dataset}}", upstream: datasets, access: dataset, dataset: "{{workspace}}/{{dataset}}", methods: [POST]}}
  - {{path: "/{{version}}/stock/{{symbol}}/quote", upstream: datasets, access: core, dataset: CORE/QUOTE, methods: [GET, HEAD]}}
"#
    )
}

/// nginx; with a Redis: the one that checks.
fn nginx(
    plan: &Plan,
    name: &str,
    upstream: SocketAddr,
    redis: Option<&RedisServer>,
) -> anyhow::Result<(Process, SocketAddr)> {
    let place = plan.place(name)?;
    let peers = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
    let template = peers.join(format!("{name}.conf"));
    let template = fs::read_to_string(&template).with_context(|| template.display().to_string())?;
    let address = free_address()?;
    let filled = template
        .replace("@WORKERS@", &plan.threads.to_string())
        .replace("@PLACE@", &place.display().to_string())
        .replace("@PEERS@", &peers.display().to_string())
        .replace("@UPSTREAM@", &upstream.to_string())
        .replace("@LISTEN@", &address.to_string())
        .replace("@REDIS@", &redis.map_or(0, |redis| redis.port).to_string());
    let configuration = place.join("nginx.conf");
    fs::write(&configuration, filled)?;
    let program = if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
    let mut command = Command::new(program);
    command.arg("-c").arg(&configuration).arg("-p").arg(&place).arg("-e").arg(place.join("error.log"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = Process::start(name, &mut command)?;
    let up = process.await_port(address);
    up.with_context(|| fs::read_to_string(place.join("error.log")).unwrap_or_default())?;
    Ok((process, address))
}

/// The same token for `check.lua`, in its own form.
fn keep_for_lua(redis: &RedisServer) -> anyhow::Result<String> {
    let text = "pk_".to_owned() + &"5".repeat(32);
    let Some(token) = Token::parse(text.as_bytes()) else { bail!("{text} is no token") };
    let key = format!("gate:{}", token.digest().to_hex());
    let fields = [
        ("id", "tok_01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        ("account", "default"),
        ("status", "active"),
        ("expires", ""),
        ("limit", "1000000000000"),
        ("domains", "1"),
        ("domain:www.example.com", "1"),
        ("grant:MY/CARS:read", "1"),
    ];
    redis::cmd("HSET").arg(key).arg(&fields[..]).query::<()>(&mut redis.connect()?)?;
    Ok(text)
}
