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
    /// Requests a second at full load, all with one token; and evenly with all active tokens.
    pub(crate) one: Spread,
    pub(crate) many: Spread,
    /// Processor time of the proxy for each request there, µs.
    pub(crate) one_cpu: Spread,
    pub(crate) many_cpu: Spread,
    /// The same of Redis, µs.
    pub(crate) one_redis: Spread,
    pub(crate) many_redis: Spread,
    /// Commands of Redis for each request there.
    pub(crate) one_commands: Spread,
    pub(crate) many_commands: Spread,
    /// `many` ÷ `one`, round by round.
    pub(crate) ratio: Spread,
    /// Memory before and after all active tokens were seen, KiB, and the difference for each, bytes.
    pub(crate) memory_before: f64,
    pub(crate) memory_after: f64,
    pub(crate) bytes_per_policy: f64,
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

    let mut runs = [Vec::new(), Vec::new()];
    for _ in 0..plan.rounds {
        for (tokens, runs) in [&one, &active].into_iter().zip(&mut runs) {
            let mut connection = redis.connect()?;
            let times = (plan.warm.max(STEADY), plan.window);
            let (sample, before, after) = load(Pace::Full).run(random(tokens), times, || {
                let commands = RedisServer::commands(&mut connection)?;
                Ok((node.process.cpu()?, commands, redis.process.cpu()?))
            })?;
            ensure!(sample.refused == 0, "{} requests were refused", sample.refused);
            let requests = sample.requests as f64;
            let cpu = after.0.since(&before.0).as_secs_f64() * 1e6 / requests;
            let commands = (after.1.all - before.1.all).saturating_sub(1) as f64 / requests;
            let redis_cpu = after.2.since(&before.2).as_secs_f64() * 1e6 / requests;
            runs.push((sample.per_second(), cpu, commands, redis_cpu));
        }
    }
    let [of_one, of_many] = runs;
    let (one, many) =
        (Spread::of(of_one.iter().map(|run| run.0)), Spread::of(of_many.iter().map(|run| run.0)));
    let ratio = many.over(&one);
    Ok(Tokens {
        stored: plan.stored,
        active: plan.active,
        cold: plan.cold,
        cold_rate,
        cold_p50: first.percentile(0.5),
        cold_p99: first.percentile(0.99),
        known_p50: known.percentile(0.5),
        known_p99: known.percentile(0.99),
        one,
        many,
        one_cpu: Spread::of(of_one.iter().map(|run| run.1)),
        many_cpu: Spread::of(of_many.iter().map(|run| run.1)),
        one_redis: Spread::of(of_one.iter().map(|run| run.3)),
        many_redis: Spread::of(of_many.iter().map(|run| run.3)),
        one_commands: Spread::of(of_one.iter().map(|run| run.2)),
        many_commands: Spread::of(of_many.iter().map(|run| run.2)),
        ratio,
        memory_before,
        memory_after,
        bytes_per_policy: (memory_after - memory_before) * 1024.0 / plan.active as f64,
    })
}
