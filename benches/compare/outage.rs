//! What an outage costs those who ask: the store is frozen under load, then let go on.
//!
//! Most answers of a long outage are refusals (credits in hand are about one second of spending), so what counts is that
//! each comes soon, and that a token nobody knows is not made to wait.

use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;

use super::http_upstream::Upstream;
use super::load::{Load, Order, Pace, Requests};
use super::plan::Plan;
use super::redis_server::RedisServer;
use super::subjects::Tollgate;

const BODY: usize = 400;
/// Requests a second with tokens that do not exist.
const UNKNOWN: f64 = 50.0;

/// Latencies before and in an outage, µs.
#[derive(Serialize)]
pub(crate) struct Outage {
    pub(crate) seconds: f64,
    pub(crate) rate: f64,
    /// Of a known token while all is well.
    pub(crate) normal_p50: f64,
    pub(crate) normal_p99: f64,
    /// Of the same token while the store is frozen.
    pub(crate) frozen_p50: f64,
    pub(crate) frozen_p99: f64,
    /// How many of those were served from credits in hand, and how many were told 503.
    pub(crate) served: usize,
    pub(crate) told: usize,
    /// Answers that are neither.
    pub(crate) others: usize,
    /// Of tokens that nobody knows.
    pub(crate) unknown_p99: f64,
    pub(crate) unknown_most: f64,
}

pub(crate) fn measure(plan: &Plan, upstream: &Upstream) -> anyhow::Result<Outage> {
    let window = plan.outage;
    println!("bench: the store stands still for {} s", window.as_secs_f64());
    let redis = RedisServer::start(&plan.place("redis-outage")?)?;
    let node = Tollgate::start(plan, "tollgate-outage", &redis.url(), upstream.address())?;
    let made = node.admin().make_token()?;
    let load = |connections, rate| Load { address: node.address, connections, pace: Pace::PerSecond(rate) };
    let known = || Requests::one(BODY, &made.token);
    let made_up = (0..10_000_u32).map(|number| format!("pk_{number:032x}")).collect();
    let unknown = Requests::new(BODY, Arc::new(made_up), Order::Random);

    let (normal, (), ()) = load(plan.connections, plan.rate).run(known(), (plan.warm, window), || Ok(()))?;
    ensure!(normal.refused == 0, "{} requests were refused before the outage", normal.refused);
    let frozen = Frozen::new(redis.process.id())?;
    let (known, unknown) = thread::scope(|scope| {
        let unknown = scope.spawn(|| load(4, UNKNOWN).run(unknown, (Duration::ZERO, window), || Ok(())));
        let known = load(plan.connections, plan.rate).run(known(), (Duration::ZERO, window), || Ok(()));
        (known, unknown.join())
    });
    drop(frozen);
    let (known, (), ()) = known?;
    let (unknown, (), ()) = unknown.map_err(|_| anyhow::anyhow!("the load ended by itself"))??;
    let told = known.refused - known.others;
    Ok(Outage {
        seconds: window.as_secs_f64(),
        rate: plan.rate,
        normal_p50: normal.percentile(0.5),
        normal_p99: normal.percentile(0.99),
        frozen_p50: known.percentile(0.5),
        frozen_p99: known.percentile(0.99),
        served: known.requests - known.refused,
        told,
        others: known.others + unknown.others,
        unknown_p99: unknown.percentile(0.99),
        unknown_most: unknown.percentile(1.0),
    })
}

/// A process that stands still, until this is dropped.
struct Frozen(u32);

impl Frozen {
    fn new(process: u32) -> anyhow::Result<Self> {
        signal(process, "STOP")?;
        Ok(Self(process))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = signal(self.0, "CONT");
    }
}

fn signal(process: u32, name: &str) -> anyhow::Result<()> {
    let status = Command::new("kill").args(["-s", name, &process.to_string()]).status().context("kill")?;
    ensure!(status.success(), "kill -s {name} {process} failed");
    Ok(())
}
