//! Signed requests beside unsigned ones: what the latter notice of them, and what the former cost.
//!
//! A steady trickle of unsigned requests is watched, first alone, then beside many unsigned ones, then beside as many
//! signed ones, each with a signature of its own. Signing costs the load processor time too, on the same cores, so the
//! middle case is what the last is to be compared with.

use std::thread;

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::json;

use super::figures::Spread;
use super::http_upstream::Upstream;
use super::load::{Load, Pace, Requests, Sample};
use super::plan::Plan;
use super::redis_server::RedisServer;
use super::subjects::Tollgate;

/// The body of all requests here, in bytes.
const BODY: usize = 400;
/// Unsigned requests a second that are watched, and on how many connections.
const WATCHED: (f64, usize) = (500.0, 8);

/// What signed requests cost, and whom.
#[derive(Serialize)]
pub(crate) struct Signed {
    /// Requests a second beside, as wished.
    pub(crate) wished: f64,
    pub(crate) rows: Vec<Row>,
    /// Latency of the watched beside signed ones ÷ beside as many unsigned, round by round.
    pub(crate) p50: Spread,
    pub(crate) p99: Spread,
}

/// The watched requests beside some others.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) beside: &'static str,
    /// Latency of the watched, µs.
    pub(crate) p50: Spread,
    pub(crate) p99: Spread,
    /// Of those beside: answered a second, and their latency, µs.
    pub(crate) per_second: Spread,
    pub(crate) beside_p50: Spread,
    pub(crate) beside_p99: Spread,
    /// Processor time of the proxy for each request of both kinds, µs.
    pub(crate) cpu: Spread,
    /// Reads of Redis for each request of both kinds: at most so many round trips.
    pub(crate) store_reads: Spread,
}

#[derive(Clone, Copy)]
enum Beside {
    Nothing,
    Unsigned,
    Signed,
}

struct Cell {
    watched: Sample,
    beside: Option<Sample>,
    cpu: f64,
    reads: f64,
}

pub(crate) fn measure(plan: &Plan, upstream: &Upstream) -> anyhow::Result<Signed> {
    println!("bench: {} signed requests a second beside unsigned ones", plan.signed_rate);
    let redis = RedisServer::start(&plan.place("redis-signed")?)?;
    let node = Tollgate::start(plan, "tollgate-signed", &redis.url(), upstream.address())?;
    let admin = node.admin();
    let (plain, signed) = (admin.make_token()?.token, admin.make_token()?);
    admin.edit(&signed.id, &json!({"signed_requests": true}))?;
    let kinds = [Beside::Nothing, Beside::Unsigned, Beside::Signed];
    let mut cells = [Vec::new(), Vec::new(), Vec::new()];
    // As many as one run asks for.
    let millis = (plan.warm + plan.window).as_millis();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate, and never negative")]
    let ready = plan.signed_rate as usize * usize::try_from(millis)? * 11 / 10_000;
    for round in 0..plan.rounds {
        for (kind, cells) in kinds.into_iter().zip(&mut cells) {
            let requests = match kind {
                Beside::Nothing => None,
                Beside::Unsigned => Some(Requests::one(BODY, &plain)),
                Beside::Signed => Some(Requests::signed(BODY, &signed.token, round, ready)?),
            };
            cells.push(measure_one(plan, &redis, &node, Requests::one(BODY, &plain), requests)?);
        }
    }
    let [alone, unsigned, signed] = cells;
    let rows = vec![row("nothing", &alone), row("unsigned", &unsigned), row("signed", &signed)];
    let over = |figure: &dyn Fn(&Row) -> Spread| match rows.as_slice() {
        [_, unsigned, signed] => figure(signed).over(&figure(unsigned)),
        _ => Spread::of([]),
    };
    let (p50, p99) = (over(&|row| row.p50.clone()), over(&|row| row.p99.clone()));
    Ok(Signed { wished: plan.signed_rate, rows, p50, p99 })
}

fn measure_one(
    plan: &Plan,
    redis: &RedisServer,
    node: &Tollgate,
    watched: Requests,
    beside: Option<Requests>,
) -> anyhow::Result<Cell> {
    let times = (plan.warm, plan.window);
    let (rate, connections) = WATCHED;
    let watching = Load { address: node.address, connections, pace: Pace::PerSecond(rate) };
    let pressing = Load {
        address: node.address,
        connections: plan.connections,
        pace: Pace::PerSecond(plan.signed_rate),
    };
    let mut connection = redis.connect()?;
    let (sample, pressed, before, after) = thread::scope(|scope| {
        let pressed = beside.map(|requests| scope.spawn(|| pressing.run(requests, times, || Ok(()))));
        let (sample, before, after) = watching
            .run(watched, times, || Ok((node.process.cpu()?, RedisServer::commands(&mut connection)?)))?;
        let pressed = pressed.map(thread::ScopedJoinHandle::join).transpose();
        let pressed = pressed.map_err(|_| anyhow::anyhow!("a load ended by itself"))?.transpose()?;
        anyhow::Ok((sample, pressed.map(|run| run.0), before, after))
    })
    .context("unsigned requests beside others")?;
    for sample in [Some(&sample), pressed.as_ref()].into_iter().flatten() {
        ensure!(sample.requests > 0, "nothing was answered");
        ensure!(sample.refused == 0, "{} requests were refused", sample.refused);
    }
    let requests = (sample.requests + pressed.as_ref().map_or(0, |sample| sample.requests)) as f64;
    let cpu = after.0.since(&before.0).as_secs_f64() * 1e6 / requests;
    let reads = after.1.reads.saturating_sub(before.1.reads).saturating_sub(1) as f64 / requests;
    Ok(Cell { watched: sample, beside: pressed, cpu, reads })
}

fn row(beside: &'static str, cells: &[Cell]) -> Row {
    let all = |figure: &dyn Fn(&Cell) -> f64| Spread::of(cells.iter().map(figure));
    let pressed = |figure: &dyn Fn(&Sample) -> f64| {
        Spread::of(cells.iter().map(|cell| cell.beside.as_ref().map_or(0.0, figure)))
    };
    Row {
        beside,
        p50: all(&|cell| cell.watched.percentile(0.5)),
        p99: all(&|cell| cell.watched.percentile(0.99)),
        per_second: pressed(&Sample::per_second),
        beside_p50: pressed(&|sample| sample.percentile(0.5)),
        beside_p99: pressed(&|sample| sample.percentile(0.99)),
        cpu: all(&|cell| cell.cpu),
        store_reads: all(&|cell| cell.reads),
    }
}
