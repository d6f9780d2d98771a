//! Responses whose price the body tells, beside ones with a flat price: what the counting and the paying cost.
//!
//! The same body, the same gate, one run; routes take turns, so that a slow moment hits all. One worker thread and few
//! connections: it is processor time for each response that is compared, not how many there are.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;

use super::figures::Spread;
use super::http_upstream::Upstream;
use super::load::{Load, Pace, Requests};
use super::plan::Plan;
use super::subjects::Tollgate;

/// The body, a JSON array of small records, in bytes.
const BODY: usize = 1_000_000;
const CONNECTIONS: usize = 4;
/// Windows of each route in each round of the plan. They are short and many: the machine has slow and fast seconds, and what is
/// compared shall fall into one of them.
const WINDOWS: usize = 12;
/// How long a load runs before each of them, and how long it is.
const TIMES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(300));

const ROUTES: &str = r#"  - {path: "/flat/**", upstream: datasets, access: core, credits: 1}
  - {path: "/kilobytes/**", upstream: datasets, access: core, credits: 1, per_kilobyte: 1}
  - {path: "/bounded/**", upstream: datasets, access: core, credits: 1, per_kilobyte: 1, max_credits: 2000}
  - {path: "/records/**", upstream: datasets, access: core, credits: 1, per_record: 1}
"#;

/// What metering costs.
#[derive(Serialize)]
pub(crate) struct Metering {
    pub(crate) body: usize,
    pub(crate) rows: Vec<Row>,
}

/// Responses on one route.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) route: &'static str,
    pub(crate) price: &'static str,
    /// Processor time of the gate for each, µs.
    pub(crate) cpu: Spread,
    /// The same ÷ that of the flat price, window by window.
    pub(crate) over_flat: Spread,
    pub(crate) per_second: Spread,
}

pub(crate) fn measure(plan: &Plan, upstream: &Upstream) -> anyhow::Result<Metering> {
    println!("bench: prices that the response tells, beside a flat one");
    let plan = &Plan { threads: 1, ..plan.clone() };
    let node = Tollgate::start_with(plan, "tollgate-metering", upstream.address(), ROUTES)?;
    let token = node.admin().make_token()?.token;
    let load = Load { address: node.address, connections: CONNECTIONS, pace: Pace::Full };
    let routes = [
        ("flat", "1 credit"),
        ("kilobytes", "1 a kilobyte"),
        ("bounded", "1 a kilobyte, at most 2,000"),
        ("records", "1 a record"),
    ];
    let mut found = vec![(Vec::new(), Vec::new()); routes.len()];
    // One window more than counts, so that the purse knows what is spent in a second.
    for window in 0..=plan.rounds * WINDOWS {
        for ((route, _), (cpu, rate)) in routes.iter().zip(&mut found) {
            let requests = Requests::on(route, BODY, &token);
            let (sample, before, after) = load
                .run(requests, TIMES, || node.process.cpu())
                .with_context(|| format!("the route {route}"))?;
            ensure!(sample.requests > 0 && sample.refused == 0, "{route}: {} refused", sample.refused);
            if window > 0 {
                cpu.push(after.since(&before).as_secs_f64() * 1e6 / sample.requests as f64);
                rate.push(sample.per_second());
            }
        }
    }
    let flat = Spread::of(found.first().map(|(cpu, _)| cpu.clone()).unwrap_or_default());
    let rows = routes.into_iter().zip(found).map(|((route, price), (cpu, rate))| {
        let cpu = Spread::of(cpu);
        Row { route, price, over_flat: cpu.over(&flat), cpu, per_second: Spread::of(rate) }
    });
    Ok(Metering { body: BODY, rows: rows.collect() })
}
