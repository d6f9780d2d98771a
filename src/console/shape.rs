//! What the admin API tells, as far as pages show it.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::{Value, json};

use super::words::{counted, grouped};

/// A token, or what there is of it where its record cannot be read.
#[derive(Debug, Clone, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of its own in the API")]
#[expect(clippy::struct_field_names, reason = "`token` is the API's name for its value")]
pub(super) struct Token {
    pub(super) id: String,
    #[serde(default)]
    pub(super) r#type: String,
    #[serde(default)]
    pub(super) token: Option<String>,
    #[serde(default)]
    pub(super) nickname: String,
    pub(super) status: String,
    #[serde(default)]
    pub(super) created_at: String,
    #[serde(default)]
    pub(super) expires_at: Option<String>,
    #[serde(default)]
    pub(super) last_used_at: Option<String>,
    #[serde(default)]
    pub(super) signed_requests: bool,
    #[serde(default)]
    pub(super) replay_protection: bool,
    #[serde(default)]
    pub(super) core_access: bool,
    #[serde(default)]
    pub(super) premium_access: bool,
    #[serde(default)]
    pub(super) datasets: Vec<Grant>,
    #[serde(default)]
    pub(super) allowed_domains: Vec<String>,
    #[serde(default)]
    pub(super) domain_mode: String,
    #[serde(default)]
    pub(super) credit_limit: Limits,
    #[serde(default)]
    pub(super) rate_limit: Option<Rate>,
    #[serde(default)]
    pub(super) seen_in_browser_at: Option<String>,
    #[serde(default)]
    pub(super) version: u64,
    #[serde(default)]
    pub(super) usage: Option<Usage>,
    #[serde(default)]
    pub(super) receipt: Option<Receipt>,
    /// Why its record cannot be read.
    #[serde(default)]
    pub(super) problem: Option<String>,
}

impl Token {
    /// What people call it: its nickname, or else its id.
    pub(super) fn name(&self) -> &str {
        if self.nickname.is_empty() { &self.id } else { &self.nickname }
    }

    pub(super) fn is_secret(&self) -> bool {
        self.r#type == "secret"
    }
}

/// Leave for a data set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Grant {
    pub(super) dataset: String,
    pub(super) operations: Vec<String>,
}

impl Grant {
    pub(super) fn operations_text(&self) -> String {
        self.operations.join(", ")
    }
}

/// A limit of each pool.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Limits {
    pub(super) core: Option<Limit>,
    pub(super) premium: Option<Limit>,
}

/// Credits in a period.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Limit {
    pub(super) credits: u64,
    pub(super) period: String,
}

/// Requests in a time.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Rate {
    pub(super) requests_per_second: u32,
    pub(super) burst: u32,
}

/// What is used of each pool.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Usage {
    pub(super) core: PoolUsage,
    pub(super) premium: PoolUsage,
}

/// What is used of a pool.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct PoolUsage {
    pub(super) used: u64,
    pub(super) leased: u64,
    #[serde(default)]
    pub(super) stranded: u64,
    #[serde(default)]
    pub(super) remaining: Option<u64>,
    pub(super) period: String,
    #[serde(default)]
    pub(super) resets_at: Option<String>,
}

/// What is used of a limit, for a bar.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    pub(super) pool: &'static str,
    pub(super) used: u64,
    pub(super) limit: Option<u64>,
    pub(super) text: String,
}

impl Bar {
    pub(super) fn new(pool: &'static str, usage: &PoolUsage, limit: Option<&Limit>) -> Self {
        let used = grouped(usage.used);
        let text = match limit {
            Some(limit) => format!("{used} of {} {}", grouped(limit.credits), in_period(&limit.period)),
            None => format!("{used} {}", in_period(&usage.period)),
        };
        Self { pool, used: usage.used, limit: limit.map(|limit| limit.credits), text }
    }

    /// From where on a bar shows that little is left.
    pub(super) fn high(&self) -> u64 {
        self.limit.map_or(0, |limit| limit / 10 * 9)
    }
}

/// A period as the end of a sentence.
pub(super) fn in_period(period: &str) -> &'static str {
    match period {
        "hour" => "this hour",
        "day" => "today",
        "month" => "this month",
        _ => "in all",
    }
}

/// A period, and what it is called.
pub(super) const PERIODS: [(&str, &str); 4] =
    [("hour", "an hour"), ("day", "a day"), ("month", "a month"), ("none", "in all, for ever")];

/// A period behind a number of credits.
pub(super) fn a_period(period: &str) -> &'static str {
    match period {
        "hour" => "an hour",
        "day" => "a day",
        "month" => "a month",
        _ => "in all",
    }
}

/// What was typed as a number; what is none goes as it is, and the API says what it expects.
pub(super) fn number(text: &str) -> Value {
    let digits: String = text.chars().filter(|c| !matches!(c, ',' | '_' | ' ' | '\u{a0}')).collect();
    digits.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number))
}

/// Whether a change is in force everywhere.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Receipt {
    in_force: bool,
    nodes: u64,
    #[serde(default)]
    missing: Vec<Missing>,
}

#[derive(Debug, Clone, Deserialize)]
struct Missing {
    name: String,
    #[serde(default)]
    silent: bool,
}

impl Receipt {
    /// The receipt of an answer as a sentence; empty: it has none.
    pub(super) fn sentence_of(answer: &Value) -> String {
        let receipt = answer.get("receipt").and_then(|receipt| Self::deserialize(receipt).ok());
        receipt.map_or_else(String::new, |receipt: Self| receipt.sentence())
    }

    /// As a sentence.
    pub(super) fn sentence(&self) -> String {
        if self.in_force {
            return match self.nodes {
                1 => "In force now, on the one node there is.".to_owned(),
                nodes => format!("In force now, on all {nodes} nodes."),
            };
        }
        if self.nodes == 0 {
            return "No node has reported yet; it acts as soon as one does.".to_owned();
        }
        let acting = self.nodes.saturating_sub(self.missing.len() as u64);
        let names = |silent: bool| {
            let missing = self.missing.iter().filter(|node| node.silent == silent);
            missing.map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let mut text = format!("In force on {acting} of {}.", counted(self.nodes, "node"));
        for (names, what) in [
            (names(false), "not yet there"),
            (names(true), "not heard of lately, and may still serve by what it knows"),
        ] {
            if !names.is_empty() {
                // Writing to a text cannot fail.
                let _ = write!(text, " {names}: {what}.");
            }
        }
        text
    }
}
