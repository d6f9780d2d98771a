//! What one request costs in counts that no other program on the machine can disturb: instructions and system calls.
//!
//! Off unless asked for (`BENCH_CALLGRIND=1`, `BENCH_STRACE=1`), as both slow a subject down many times over.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;

use super::connection::Connection;
use super::http_upstream::Upstream;
use super::load::Requests;
use super::plan::Plan;
use super::process::Process;
use super::redis_server::RedisServer;
use super::subjects::{Kind, Tollgate, bare_pingora};

/// Two runs of these lengths; their difference is what the requests cost, without start and stop.
const FEW: usize = 300;
const MANY: usize = 1300;
/// Requests while system calls are counted.
const TRACED: usize = 2000;
/// Bodies, in bytes.
const BODY: usize = 400;

/// What one request of one subject costs.
#[derive(Serialize)]
pub(crate) struct Counted {
    pub(crate) subject: &'static str,
    /// Instructions in user mode for each request, one connection, one worker thread.
    pub(crate) instructions: Option<f64>,
    /// System calls for each request, one connection: all, and by name.
    pub(crate) calls: Option<f64>,
    pub(crate) calls_by_name: BTreeMap<String, f64>,
}

pub(crate) fn measure(plan: &Plan, upstream: &Upstream) -> anyhow::Result<Vec<Counted>> {
    let mut all = Vec::new();
    for kind in [Kind::BarePingora, Kind::TollgateRedis, Kind::TollgateEmbedded] {
        println!("bench: counting what {} does", kind.name());
        let instructions = if plan.callgrind { Some(instructions(plan, kind, upstream)?) } else { None };
        let calls = if plan.strace { system_calls(plan, kind, upstream)? } else { BTreeMap::new() };
        let sum: f64 = calls.values().sum();
        all.push(Counted {
            subject: kind.name(),
            instructions,
            calls: plan.strace.then_some(sum),
            calls_by_name: calls,
        });
    }
    Ok(all)
}

/// A subject with one worker thread, and what it needs beside it.
struct Alone {
    process: Process,
    address: SocketAddr,
    token: String,
    _redis: Option<RedisServer>,
}

impl Alone {
    fn start(wrapper: &[String], plan: &Plan, kind: Kind, upstream: &Upstream) -> anyhow::Result<Self> {
        let to = upstream.address();
        if kind == Kind::BarePingora {
            let (process, address) = bare_pingora(wrapper, to, 1)?;
            return Ok(Self { process, address, token: format!("pk_{}", "5".repeat(32)), _redis: None });
        }
        let (redis, url) = if kind == Kind::TollgateRedis {
            let redis = RedisServer::start(&plan.place("redis-counted")?)?;
            let url = redis.url();
            (Some(redis), url)
        } else {
            (None, "embedded:".to_owned())
        };
        let node = Tollgate::start_below(wrapper, plan, "tollgate-counted", &url, (to, 1))?;
        let token = node.admin().make_token()?.token;
        Ok(Self { process: node.process, address: node.address, token, _redis: redis })
    }

    fn ask(&self, times: usize) -> anyhow::Result<()> {
        let request = Requests::one(BODY, &self.token).first();
        let mut connection = Connection::open(self.address)?;
        for _ in 0..times {
            let status = connection.ask(&request)?;
            ensure!(status == 200, "answered {status}");
        }
        Ok(())
    }
}

fn instructions(plan: &Plan, kind: Kind, upstream: &Upstream) -> anyhow::Result<f64> {
    let mut totals = [0.0; 2];
    for (requests, total) in [FEW, MANY].into_iter().zip(&mut totals) {
        let out = plan.directory.join(format!("run/callgrind-{}.out", kind.name().replace(' ', "-")));
        let _ = fs::remove_file(&out);
        let wrapper = ["valgrind", "--tool=callgrind", "-q"].map(str::to_owned);
        let wrapper = [&wrapper[..], &[format!("--callgrind-out-file={}", out.display())]].concat();
        let mut alone = Alone::start(&wrapper, plan, kind, upstream)?;
        alone.ask(requests).context(kind.name())?;
        // What is left to do after the last request belongs to it.
        thread::sleep(Duration::from_millis(1500));
        alone.process.stop("INT")?;
        *total = read_total(&out)?;
    }
    let [few, many] = totals;
    Ok((many - few) / (MANY - FEW) as f64)
}

fn read_total(out: &Path) -> anyhow::Result<f64> {
    let text = fs::read_to_string(out).with_context(|| format!("callgrind wrote no {}", out.display()))?;
    let totals = text.lines().filter_map(|line| line.strip_prefix("totals: ")?.trim().parse::<f64>().ok());
    let sum: f64 = totals.sum();
    ensure!(sum > 0.0, "{} has no totals", out.display());
    Ok(sum)
}

fn system_calls(plan: &Plan, kind: Kind, upstream: &Upstream) -> anyhow::Result<BTreeMap<String, f64>> {
    let alone = Alone::start(&[], plan, kind, upstream)?;
    alone.ask(100)?;
    let out = plan.directory.join("run/strace.out");
    let _ = fs::remove_file(&out);
    let mut command = Command::new("strace");
    command
        .args(["-f", "-c", "-U", "calls,name", "-o"])
        .arg(&out)
        .arg("-p")
        .arg(alone.process.id().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut strace = Process::start("strace", &mut command)?;
    let traced = format!("/proc/{}/status", alone.process.id());
    strace.await_with(|| {
        let status = fs::read_to_string(&traced).ok()?;
        (!status.contains("TracerPid:\t0\n")).then_some(())
    })?;
    // Its other threads are taken one after the other.
    thread::sleep(Duration::from_millis(500));
    alone.ask(TRACED)?;
    strace.stop("INT")?;
    let text = fs::read_to_string(&out).context("strace wrote nothing")?;
    let read = |line: &str| {
        let mut columns = line.split_whitespace();
        let calls: f64 = columns.next()?.parse().ok()?;
        let name = columns.next().filter(|name| *name != "total")?;
        Some((name.to_owned(), calls / TRACED as f64))
    };
    Ok(text.lines().filter_map(read).filter(|(_, calls)| *calls >= 0.005).collect())
}
