//! Many tokens: 1,000,000 in the store, 100,000 of them in use, against one; and tokens that were never seen before.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;

use super::figures::Spread;
use super::http_upstream::Upstream;
use super::load::{Load, Order, Pace, Requests};
use super::plan::Plan;
use super::redis_server::RedisServer;
use super::seed::Template;
use super::subjects::Tollgate;

/// The body of all requests here, in bytes.
const BODY: usize = 400;
/// How long after its last request nothing of a token is in memory but its policy.
const SETTLED: Duration = Duration::from_secs(20);

/// How long a load runs before it is looked at: what the one before it leased is given back by then, and of what it leases
/// itself as much is given back as is leased.
const STEADY: Duration = Duration::from_secs(4);

/// The loads in between.
const SOME: [usize; 2] = [1_000, 10_000];

/// A load that goes evenly to so many tokens.
#[derive(Serialize)]
pub(crate) struct InUse {
    pub(crate) tokens: usize,
    /// Requests a second.
    pub(crate) rate: Spread,
    /// The same ÷ that with one token, round by round.
    pub(crate) ratio: Spread,
    /// Processor time of the proxy, and of Redis, for each request, µs.
    pub(crate) cpu: Spread,
    pub(crate) redis: Spread,
    /// Commands of Redis for each request.
    pub(crate) commands: Spread,
}

/// What many tokens cost.
#[derive(Serialize)]
pub(crate) struct Tokens {
    pub(crate) stored: usize,
    pub(crate) active: usize,
    /// Latency of the first request of a token, µs, at `cold_rate` requests a second.
    pub(crate) cold: usize,
    pub(crate) cold_rate: f64,
    pub(crate) cold_p50: f64,
    pub(crate) cold_p99: f64,
    /// Latency of a token that is known, at the same rate, µs.
    pub(crate) known_p50: f64,
    pub(crate) known_p99: f64,
    /// At full load, by how many tokens are in use: one, some, and all active ones.
    pub(crate) rows: Vec<InUse>,
    /// Memory before and after all active tokens were seen, KiB, and the difference for each, bytes.
    pub(crate) memory_before: f64,
    pub(crate) memory_after: f64,
    pub(crate) bytes_per_policy: f64,
}

/// One window.
struct Run {
    rate: f64,
    cpu: f64,
    redis: f64,
    commands: f64,
}

pub(crate) fn measure(plan: &Plan, upstream: &Upstream) -> anyhow::Result<Tokens> {
    let redis = RedisServer::start(&plan.place("redis-tokens")?)?;
    let node = Tollgate::start(plan, "tollgate-tokens", &redis.url(), upstream.address())?;
    let made = node.admin().make_token()?;
    let mut connection = redis.connect()?;
    println!("bench: writing {} tokens to Redis", plan.stored);
    let template = Template::read(&mut connection, &made)?;
    let active = Arc::new(template.copy(&mut connection, 0..plan.active)?);
    let cold = Arc::new(template.copy(&mut connection, plan.active..plan.active + plan.cold)?);
    template.copy(&mut connection, plan.active + plan.cold..plan.stored)?;
    let one = Arc::new(vec![made.token]);

    println!("bench: {} tokens in use", plan.active);
    let load = |pace| Load { address: node.address, connections: plan.connections, pace };
    let random = |tokens: &Arc<Vec<String>>| Requests::new(BODY, tokens.clone(), Order::Random);
    let once = |tokens: &Arc<Vec<String>>| Requests::new(BODY, tokens.clone(), Order::Once);
    let times = (plan.warm, plan.window);
    // What any load makes it allocate shall not be counted for policies.
    load(Pace::Full).run(random(&one), times, || Ok(()))?;
    let cold_rate = 500.0;
    let (known, (), ()) = load(Pace::PerSecond(cold_rate)).run(random(&one), times, || Ok(()))?;
    let first = load(Pace::PerSecond(cold_rate)).run_out(once(&cold))?;
    ensure!(first.refused == 0 && known.refused == 0, "{} of the new tokens were refused", first.refused);
    let memory_before = node.process.memory()?;
    let seen = load(Pace::Full).run_out(once(&active))?;
    ensure!(seen.refused == 0 && seen.requests == plan.active, "{} tokens were refused", seen.refused);
    // What is in use only while requests come (purses, leases, the journal's cells) is no part of a policy's keep.
    println!("bench: waiting until what the tokens leased is settled and forgotten");
    thread::sleep(SETTLED);
    let memory_after = node.process.memory()?;

    let mut loads = vec![one];
    let some = SOME.into_iter().filter(|some| *some < plan.active);
    loads.extend(some.map(|some| Arc::new(active.iter().take(some).cloned().collect())));
    loads.push(active);
    let mut runs: Vec<Vec<Run>> = loads.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.rounds {
        for (tokens, runs) in loads.iter().zip(&mut runs) {
            let mut connection = redis.connect()?;
            let times = (plan.warm.max(STEADY), plan.window);
            let (sample, before, after) = load(Pace::Full).run(random(tokens), times, || {
                let commands = RedisServer::commands(&mut connection)?;
                Ok((node.process.cpu()?, commands, redis.process.cpu()?))
            })?;
            ensure!(sample.refused == 0, "{} requests were refused", sample.refused);
            let requests = sample.requests as f64;
            runs.push(Run {
                rate: sample.per_second(),
                cpu: after.0.since(&before.0).as_secs_f64() * 1e6 / requests,
                redis: after.2.since(&before.2).as_secs_f64() * 1e6 / requests,
                commands: (after.1.all - before.1.all).saturating_sub(1) as f64 / requests,
            });
        }
    }
    let of = |runs: &[Run], figure: fn(&Run) -> f64| Spread::of(runs.iter().map(figure));
    let alone = of(runs.first().map_or(&[][..], Vec::as_slice), |run| run.rate);
    let row = |(tokens, runs): (&Arc<Vec<String>>, &Vec<Run>)| {
        let rate = of(runs, |run| run.rate);
        InUse {
            tokens: tokens.len(),
            ratio: rate.over(&alone),
            rate,
            cpu: of(runs, |run| run.cpu),
            redis: of(runs, |run| run.redis),
            commands: of(runs, |run| run.commands),
        }
    };
    let rows = loads.iter().zip(&runs).map(row).collect();
    Ok(Tokens {
        stored: plan.stored,
        active: plan.active,
        cold: plan.cold,
        cold_rate,
        cold_p50: first.percentile(0.5),
        cold_p99: first.percentile(0.99),
        known_p50: known.percentile(0.5),
        known_p99: known.percentile(0.99),
        rows,
        memory_before,
        memory_after,
        bytes_per_policy: (memory_after - memory_before) * 1024.0 / plan.active as f64,
    })
}
