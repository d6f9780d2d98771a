//! How soon an edit is in force: three nodes on one Redis, each asked without pause, edits made through the first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::json;

use super::connection::Connection;
use super::figures::percentile;
use super::http_upstream::Upstream;
use super::load::Requests;
use super::plan::Plan;
use super::redis_server::RedisServer;
use super::subjects::Tollgate;

const NODES: usize = 3;
/// How long an edit may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two requests to one node; part of each figure.
const PAUSE: Duration = Duration::from_micros(200);

/// How soon edits were in force, µs.
#[derive(Serialize)]
pub(crate) struct Propagation {
    pub(crate) nodes: usize,
    pub(crate) edits: usize,
    /// On the last of the nodes, from the moment the call was made.
    pub(crate) all_p50: f64,
    pub(crate) all_p99: f64,
    pub(crate) all_max: f64,
    /// The same from the moment the call was answered; 0 where it was in force before that.
    pub(crate) answered_p50: f64,
    pub(crate) answered_p99: f64,
    /// How long the call itself took.
    pub(crate) call_p50: f64,
    pub(crate) call_p99: f64,
}

/// What the threads that ask look for.
struct Wanted {
    /// The number of the edit; even: the token is active.
    edit: AtomicU64,
    done: AtomicBool,
}

pub(crate) fn measure(plan: &Plan, upstream: &Upstream) -> anyhow::Result<Propagation> {
    println!("bench: {} edits on {NODES} nodes", plan.edits);
    let redis = RedisServer::start(&plan.place("redis-nodes")?)?;
    let start = |at| Tollgate::start(plan, &format!("tollgate-node-{at}"), &redis.url(), upstream.address());
    let nodes = (1..=NODES).map(start).collect::<anyhow::Result<Vec<_>>>()?;
    let admin = nodes.first().context("no node")?.admin();
    let made = admin.make_token()?;
    let wanted = Arc::new(Wanted { edit: AtomicU64::new(0), done: AtomicBool::new(false) });
    let (seen, sightings) = mpsc::channel();
    let watchers: Vec<_> = nodes
        .iter()
        .map(|node| {
            let (address, wanted, seen) = (node.address, wanted.clone(), seen.clone());
            let request = Requests::one(400, &made.token).first();
            thread::spawn(move || watch(address, &request, &wanted, &seen))
        })
        .collect();
    drop(seen);
    let outcome = (1..=plan.edits as u64).map(|edit| {
        let status = if edit.is_multiple_of(2) { "active" } else { "disabled" };
        wanted.edit.store(edit, Ordering::SeqCst);
        let started = Instant::now();
        admin.edit(&made.id, &json!({ "status": status }))?;
        let answered = started.elapsed();
        let mut last = Duration::ZERO;
        for _ in 0..NODES {
            let (of, at) = sightings.recv_timeout(PATIENCE).context("an edit never came into force")?;
            ensure!(of == edit, "a node told of edit {of} when {edit} was made");
            last = last.max(at.duration_since(started));
        }
        // Edits shall not fall into step with anything that runs by a clock.
        thread::sleep(Duration::from_micros(edit * 7919 % 20_000));
        Ok((last, answered))
    });
    let outcome: anyhow::Result<Vec<(Duration, Duration)>> = outcome.collect();
    wanted.done.store(true, Ordering::SeqCst);
    for watcher in watchers {
        watcher.join().map_err(|_| anyhow::anyhow!("a watcher ended by itself"))??;
    }
    Ok(figures(&outcome?))
}

/// Asks a node without pause, and tells when its verdict is the one that is wanted.
fn watch(
    address: SocketAddr,
    request: &[u8],
    wanted: &Wanted,
    seen: &mpsc::Sender<(u64, Instant)>,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(address)?;
    let mut told = 0;
    while !wanted.done.load(Ordering::SeqCst) {
        let edit = wanted.edit.load(Ordering::SeqCst);
        let passes = connection.ask(request)? == 200;
        let in_force = passes == edit.is_multiple_of(2);
        // The answer tells of the edit that was wanted before it was asked for.
        if in_force && told != edit {
            told = edit;
            seen.send((edit, Instant::now()))?;
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn figures(outcome: &[(Duration, Duration)]) -> Propagation {
    let sorted = |figure: &dyn Fn(&(Duration, Duration)) -> Duration| {
        let mut all: Vec<Duration> = outcome.iter().map(figure).collect();
        all.sort_unstable();
        all
    };
    let all = sorted(&|edit| edit.0);
    let after = sorted(&|edit| edit.0.saturating_sub(edit.1));
    let calls = sorted(&|edit| edit.1);
    Propagation {
        nodes: NODES,
        edits: outcome.len(),
        all_p50: percentile(&all, 0.5),
        all_p99: percentile(&all, 0.99),
        all_max: percentile(&all, 1.0),
        answered_p50: percentile(&after, 0.5),
        answered_p99: percentile(&after, 0.99),
        call_p50: percentile(&calls, 0.5),
        call_p99: percentile(&calls, 0.99),
    }
}
