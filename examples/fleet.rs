//! A fleet on paper: what leases cost and hold, with up to 1,000 nodes and 100,000 tokens.
//!
//! A simulation with Tollgate's own purse and lease steps (`src/ledger`). It takes about a minute and writes
//! `benches/fleet.md` and `benches/fleet.svg`:
//!
//! ```sh
//! cargo run --release --example fleet
//! ```
//!
//! The traffic is in this file, the machine in `fleet/world.rs`, what is written in `fleet/report.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    unreachable_pub,
    reason = "a program for the desk: it says what it does, and stops where something is not as it must be"
)]

#[path = "fleet/dice.rs"]
mod dice;
#[path = "fleet/plan.rs"]
mod plan;
#[path = "fleet/plot.rs"]
mod plot;
#[path = "fleet/report.rs"]
mod report;
#[path = "fleet/world.rs"]
mod world;

use std::path::Path;

use plan::{Findings, Plan};
use report::Report;
use world::World;

/// The fleets that are simulated.
const FLEETS: [u32; 3] = [10, 100, 1_000];
const TOKENS: u32 = 100_000;
/// Of the whole fleet.
const REQUESTS_PER_SECOND: u32 = 40_000;
const SECONDS: u64 = 20;
const WARM_UP: u64 = 5_000_000;
/// More than anybody spends.
const PLENTY: u64 = 1_000_000_000_000;
/// The limit of the one token that is used up.
const LAST: u64 = 50_000;

fn main() {
    let mut report = Report::default();
    for nodes in FLEETS {
        report.skewed.push((nodes, skewed(nodes)));
        println!("{nodes} nodes, {TOKENS} tokens");
    }
    for rate in [1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000] {
        report.steady.push((rate, steady(rate)));
        println!("one token at {rate} requests/s on each node");
    }
    for nodes in [3, 10, 100, 1_000] {
        report.used_up.push((nodes, used_up(nodes)));
        println!("{nodes} nodes use up one limit");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    std::fs::write(folder.join("fleet.md"), report.markdown()).unwrap();
    std::fs::write(folder.join("fleet.svg"), plot::draw(&report)).unwrap();
    println!("written: benches/fleet.md, benches/fleet.svg");
}

/// All tokens, by Zipf's law. Every tenth token has a limit of half of what will be asked of it.
fn skewed(nodes: u32) -> Findings {
    let shares = dice::zipf(TOKENS);
    let requests = u64::from(REQUESTS_PER_SECOND) * SECONDS;
    let mut before = 0.0;
    let limit = |(at, upto): (usize, &f64)| {
        let half = (upto - before) * requests as f64 / 2.0;
        before = *upto;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
        let half = half as u64;
        if at % 10 == 3 { half.max(3) } else { PLENTY }
    };
    let limits = shares.iter().enumerate().map(limit).collect();
    let requests_per_second = f64::from(REQUESTS_PER_SECOND);
    let plan =
        Plan { nodes, limits, shares, requests_per_second, seconds: SECONDS, warm_up: WARM_UP, seed: 1 };
    World::new(&plan).run()
}

/// One token without an end, at an even rate on each of three nodes.
fn steady(rate_of_a_node: u32) -> Findings {
    let (nodes, seconds) = (3, if rate_of_a_node < 1_000 { 60 } else { 20 });
    let requests_per_second = f64::from(rate_of_a_node * nodes);
    let (limits, shares) = (vec![PLENTY], vec![1.0]);
    World::new(&Plan { nodes, limits, shares, requests_per_second, seconds, warm_up: WARM_UP, seed: 2 }).run()
}

/// One token, whose limit is used up in about ten seconds.
fn used_up(nodes: u32) -> Findings {
    let (limits, shares) = (vec![LAST], vec![1.0]);
    let requests_per_second = 5_000.0;
    World::new(&Plan { nodes, limits, shares, requests_per_second, seconds: 13, warm_up: 0, seed: 3 }).run()
}
