//! The figures, as Markdown.

use std::fmt::Write;

use crate::plan::Findings;
use crate::{LAST, REQUESTS_PER_SECOND, TOKENS};

/// What was simulated, and what came of it.
#[derive(Default)]
pub struct Report {
    /// By the number of nodes.
    pub skewed: Vec<(u32, Findings)>,
    /// By the requests per second on each of three nodes.
    pub steady: Vec<(u32, Findings)>,
    /// By the number of nodes.
    pub used_up: Vec<(u32, Findings)>,
}

/// Pairs of a node and a token with about the same rate, put together.
pub struct Class {
    /// Requests per second of one pair, from and below.
    pub from: f64,
    pub below: f64,
    pub requests: u64,
    pub operations: u64,
}

impl Class {
    pub fn cost(&self) -> f64 {
        self.operations as f64 / self.requests as f64
    }
}

/// Three classes to each power of ten.
pub fn classes(findings: &Findings) -> Vec<Class> {
    let bound = |at: i32| 10_f64.powf(f64::from(at) / 3.0);
    let mut classes: Vec<Class> = (-4..12)
        .map(|at| Class { from: bound(at), below: bound(at + 1), requests: 0, operations: 0 })
        .collect();
    for (requests, operations) in findings.pairs.values() {
        let rate = *requests as f64 / findings.seconds;
        if let Some(class) = classes.iter_mut().find(|class| (class.from..class.below).contains(&rate)) {
            class.requests += requests;
            class.operations += operations;
        }
    }
    classes.retain(|class| class.requests > 0);
    classes
}

pub fn cost(findings: &Findings) -> f64 {
    findings.operations as f64 / findings.requests as f64
}

/// The value that so many hundredths of all are not above.
fn part(sorted: &[u64], hundredths: usize) -> u64 {
    sorted.get(sorted.len().saturating_sub(1) * hundredths / 100).copied().unwrap_or(0)
}

/// With commas: 40,000.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn whole(number: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
    grouped(number.round() as u64)
}

impl Report {
    pub fn markdown(&self) -> String {
        let mut text = self.head();
        self.write_skewed(&mut text);
        self.write_steady(&mut text);
        self.write_used_up(&mut text);
        text
    }

    fn head(&self) -> String {
        format!(
            "# A fleet on paper\n\n\
             Made by `cargo run --release --example fleet`, which simulates a fleet with Tollgate's own purse and lease \
             steps (`src/ledger/purse.rs`, `src/ledger/lease.rs`) and writes this page. A run gives the same figures each \
             time. A call to the store takes 0.5 ms there and back, a response 5 ms on average, and each request costs one \
             credit. An *operation* is one step on one lease: a reserve (granted or not), a settle, a shrink or a renewal. \
             Nodes send up to 128 settles in one call, so there are fewer calls than operations.\n\n\
             ![Store operations per request, by the rate of a token on a node](fleet.svg)\n\n\
             Law 4 asks for at most 0.005 operations per request from 1,000 requests/s per token and node on. A pair of a \
             token and a node costs about two operations per second while it is busy (a reserve and a settle for each \
             second's lease), so the cost falls with the rate: {:.4} at 1,000 requests/s.\n",
            self.steady.iter().find(|(rate, _)| *rate == 1_000).map_or(0.0, |(_, findings)| cost(findings)),
        )
    }

    fn write_skewed(&self, text: &mut String) {
        let _ = write!(
            text,
            "\n## Many tokens\n\n\
             {} tokens by Zipf's law, {} requests/s in all, spread evenly over the nodes. Every tenth token has a limit of \
             half of what is asked of it and is used up on the way. Most tokens are seen on a node so rarely that each \
             request is a first sight: a reserve, and a settle two seconds later. More nodes make that worse, because \
             each sees less of a token: a balancer that keeps a token on few nodes saves the store most of this work.\n\n\
             | nodes | operations/s | per request | requests that waited | open leases, credits of a token: p50 | p99 | max | of all | refused | of these early |\n\
             | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
            grouped(u64::from(TOKENS)),
            grouped(u64::from(REQUESTS_PER_SECOND)),
        );
        for (nodes, findings) in &self.skewed {
            let mut open = findings.open.clone();
            open.sort_unstable();
            let _ = writeln!(
                text,
                "| {} | {} | {:.2} | {:.0} % | {} | {} | {} | {} | {} | {} |",
                grouped(u64::from(*nodes)),
                whole(findings.operations as f64 / findings.seconds),
                cost(findings),
                100.0 * findings.waited as f64 / findings.requests as f64,
                part(&open, 50),
                grouped(part(&open, 99)),
                grouped(part(&open, 100)),
                grouped(findings.open_in_all.iter().max().copied().unwrap_or(0)),
                grouped(findings.refused),
                findings.early,
            );
        }
    }

    fn write_steady(&self, text: &mut String) {
        text.push_str(
            "\n## One busy token\n\n\
             Three nodes with the same even traffic, in the steady state.\n\n\
             | requests/s on each node | operations/s of each node | per request | requests that waited | open leases: p50 | p99 | in seconds of spending (p50) |\n\
             | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        );
        for (rate, findings) in &self.steady {
            let mut open = findings.open.clone();
            open.sort_unstable();
            let _ = writeln!(
                text,
                "| {} | {:.2} | {:.5} | {} | {} | {} | {:.1} |",
                grouped(u64::from(*rate)),
                findings.operations as f64 / findings.seconds / 3.0,
                cost(findings),
                findings.waited,
                grouped(part(&open, 50)),
                grouped(part(&open, 99)),
                part(&open, 50) as f64 / f64::from(*rate) / 3.0,
            );
        }
    }

    fn write_used_up(&self, text: &mut String) {
        let _ = write!(
            text,
            "\n## The last credit\n\n\
             One limit of {} credits, 5,000 requests/s in all. Admitted is exactly the limit, and nobody is refused before \
             the last credit is taken. The first request comes after one second.\n\n\
             | nodes | admitted | refused early | last credit after | first refusal after | operations | recalls | requests that waited |\n\
             | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
            grouped(LAST),
        );
        for (nodes, findings) in &self.used_up {
            let (refused, taken) = findings.ends.get(&0).copied().unwrap_or_default();
            let seconds =
                |at: Option<u64>| at.map_or("never".to_owned(), |at| format!("{:.3} s", at as f64 / 1e6));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                grouped(u64::from(*nodes)),
                grouped(findings.drawn[0]),
                findings.early,
                seconds(taken),
                seconds(refused),
                grouped(findings.operations),
                findings.recalls,
                grouped(findings.waited),
            );
        }
    }
}
