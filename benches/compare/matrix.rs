//! The main table: every subject with every body size, in rounds that go through all of them.
//!
//! For each cell, twice a window: at full load, where processor time for each request is read, and at a fixed rate
//! that is below what the slowest subject can do, where latency is.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::figures::Spread;
use super::http_upstream::Upstream;
use super::load::{Load, Pace, Sample};
use super::plan::Plan;
use super::process::Cpu;
use super::redis_server::{Commands, RedisServer};
use super::subjects::{Kind, Subject};

/// The main table.
#[derive(Serialize)]
pub(crate) struct Matrix {
    pub(crate) rows: Vec<Row>,
    /// Calls of Redis by name for one subject, over the whole table.
    pub(crate) store_calls: BTreeMap<&'static str, BTreeMap<String, u64>>,
}

/// One subject with one body size, over all rounds.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) subject: &'static str,
    pub(crate) body: usize,
    /// Processor time for each request at full load, µs.
    pub(crate) cpu: Spread,
    /// The same of its Redis.
    pub(crate) redis_cpu: Option<Spread>,
    /// The two together.
    pub(crate) total_cpu: Spread,
    /// Requests a second at full load. The load shares the cores, so it says little by itself.
    pub(crate) per_second: Spread,
    /// Commands of Redis for each request, those that scripts call too.
    pub(crate) store_commands: Option<Spread>,
    /// Reads of Redis from its clients for each request: at most so many round trips.
    pub(crate) store_reads: Option<Spread>,
    /// The fixed rate.
    pub(crate) rate: Spread,
    /// Processor time for each request there, µs.
    pub(crate) rate_cpu: Spread,
    pub(crate) rate_redis_cpu: Option<Spread>,
    /// Latency there, µs.
    pub(crate) p50: Spread,
    pub(crate) p99: Spread,
    /// Memory of the proxy, KiB (PSS).
    pub(crate) memory: Spread,
}

/// One subject with one body size, once.
struct Cell {
    full: Window,
    fixed: Window,
    memory: f64,
}

struct Window {
    sample: Sample,
    cpu: Duration,
    redis_cpu: Option<Duration>,
    commands: Option<(u64, u64)>,
}

pub(crate) fn measure(plan: &Plan, upstream: &Upstream) -> anyhow::Result<Matrix> {
    let subjects: anyhow::Result<Vec<_>> = Kind::ALL.iter().map(|kind| kind.start(plan, upstream)).collect();
    let subjects = subjects?;
    let mut cells: BTreeMap<(usize, usize), Vec<Cell>> = BTreeMap::new();
    for round in 0..plan.rounds {
        for (size, body) in plan.bodies.iter().enumerate() {
            println!("bench: round {} of {}, bodies of {body} bytes", round + 1, plan.rounds);
            measure_round(plan, &subjects, *body, |at, cell| {
                cells.entry((size, at)).or_default().push(cell);
            })?;
        }
    }
    let rows = cells.iter().filter_map(|((size, at), cells)| {
        Some(row(subjects.get(*at)?.kind.name(), *plan.bodies.get(*size)?, cells))
    });
    let rows = rows.collect();
    let mut store_calls = BTreeMap::new();
    for subject in &subjects {
        if let Some(redis) = &subject.redis {
            store_calls.insert(subject.kind.name(), RedisServer::calls_by_name(&mut redis.connect()?)?);
        }
    }
    Ok(Matrix { rows, store_calls })
}

/// One round: all subjects at full load, then all at the rate that the slowest of them allows.
fn measure_round(
    plan: &Plan,
    subjects: &[Subject],
    body: usize,
    mut keep: impl FnMut(usize, Cell),
) -> anyhow::Result<()> {
    let mut full = Vec::new();
    for subject in subjects {
        full.push(measure_window(plan, subject, body, Pace::Full)?);
    }
    let slowest = full.iter().map(|window| window.sample.per_second()).fold(f64::MAX, f64::min);
    let rate = (slowest * 0.6).min(plan.rate).max(10.0);
    for (at, (subject, full)) in subjects.iter().zip(full).enumerate() {
        let fixed = measure_window(plan, subject, body, Pace::PerSecond(rate))?;
        keep(at, Cell { full, fixed, memory: subject.process.memory()? });
    }
    Ok(())
}

fn measure_window(plan: &Plan, subject: &Subject, body: usize, pace: Pace) -> anyhow::Result<Window> {
    struct Reading {
        cpu: Cpu,
        redis: Option<(Cpu, Commands)>,
    }
    let mut connection = subject.redis.as_ref().map(RedisServer::connect).transpose()?;
    let load = Load { address: subject.address, connections: plan.connections, pace };
    let (sample, before, after) = load.run(subject.requests(body), (plan.warm, plan.window), || {
        let redis = match (&subject.redis, &mut connection) {
            (Some(redis), Some(connection)) => {
                Some((redis.process.cpu()?, RedisServer::commands(connection)?))
            }
            _ => None,
        };
        Ok(Reading { cpu: subject.process.cpu()?, redis })
    })?;
    anyhow::ensure!(sample.requests > 0, "{} answered nothing", subject.kind.name());
    anyhow::ensure!(sample.refused == 0, "{} refused {} requests", subject.kind.name(), sample.refused);
    let redis = before.redis.zip(after.redis);
    Ok(Window {
        sample,
        cpu: after.cpu.since(&before.cpu),
        redis_cpu: redis.as_ref().map(|(before, after)| after.0.since(&before.0)),
        // The reading at the start of the window is itself counted at its end.
        commands: redis.map(|(before, after)| {
            let past = |now: u64, then: u64| now.saturating_sub(then).saturating_sub(1);
            (past(after.1.all, before.1.all), past(after.1.reads, before.1.reads))
        }),
    })
}

impl Window {
    fn cpu(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.sample.requests as f64
    }

    fn redis_cpu(&self) -> Option<f64> {
        Some(self.redis_cpu?.as_secs_f64() * 1e6 / self.sample.requests as f64)
    }

    fn commands(&self) -> Option<(f64, f64)> {
        let requests = self.sample.requests as f64;
        self.commands.map(|(all, reads)| (all as f64 / requests, reads as f64 / requests))
    }
}

fn row(subject: &'static str, body: usize, cells: &[Cell]) -> Row {
    let full = |figure: &dyn Fn(&Window) -> f64| Spread::of(cells.iter().map(|cell| figure(&cell.full)));
    let fixed = |figure: &dyn Fn(&Window) -> f64| Spread::of(cells.iter().map(|cell| figure(&cell.fixed)));
    let has_redis = cells.iter().any(|cell| cell.full.redis_cpu.is_some());
    let with_redis = |spread| has_redis.then_some(spread);
    Row {
        subject,
        body,
        cpu: full(&Window::cpu),
        redis_cpu: with_redis(full(&|window| window.redis_cpu().unwrap_or_default())),
        total_cpu: full(&|window| window.cpu() + window.redis_cpu().unwrap_or_default()),
        per_second: full(&|window| window.sample.per_second()),
        store_commands: with_redis(full(&|window| window.commands().unwrap_or_default().0)),
        store_reads: with_redis(full(&|window| window.commands().unwrap_or_default().1)),
        rate: fixed(&|window| window.sample.per_second()),
        rate_cpu: fixed(&Window::cpu),
        rate_redis_cpu: with_redis(fixed(&|window| window.redis_cpu().unwrap_or_default())),
        p50: fixed(&|window| window.sample.percentile(0.5)),
        p99: fixed(&|window| window.sample.percentile(0.99)),
        memory: Spread::of(cells.iter().map(|cell| cell.memory)),
    }
}
