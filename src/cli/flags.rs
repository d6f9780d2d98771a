//! The flags that say what a token may do, named as the fields are, and the body they make.

use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::Misuse;
use crate::config::units;
use crate::policy::{Grant, Limit, Operation, RateLimit};

/// What `create` and `edit` both take.
#[derive(Debug, Args)]
pub(super) struct PolicyFlags {
    /// A name for people
    #[arg(long)]
    nickname: Option<String>,
    /// After how long the token ends, like 90d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "expires_at")]
    expires_in: Option<Duration>,
    /// When the token ends, like 2026-11-24T06:00:00Z
    #[arg(long, value_name = "TIME")]
    expires_at: Option<Timestamp>,
    /// Ask for a signature with each request
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    signed_requests: Option<bool>,
    /// Whether a signature is good only once; new tokens have it on
    #[arg(long, value_name = "on|off", value_parser = parse_switch)]
    replay_protection: Option<bool>,
    /// Leave to read core data; new tokens have it
    #[arg(long, value_name = "BOOL")]
    core_access: Option<bool>,
    /// Leave to read premium data
    #[arg(long, value_name = "BOOL")]
    premium_access: Option<bool>,
    /// Leave for a data set, like MY/CARS:read,write or MY/*; repeatable, replaces all there were
    #[arg(long, value_name = "DATASET:OPERATIONS", value_parser = Grant::parse)]
    dataset: Vec<Grant>,
    /// A page that may use the token, like www.example.com; repeatable, replaces all there were
    #[arg(long, value_name = "RULE")]
    allowed_domain: Vec<String>,
    /// What happens to requests from other pages
    #[arg(long, value_name = "MODE")]
    domain_mode: Option<Mode>,
    /// Core credits the token may use, like 100000/month
    #[arg(long, value_name = "CREDITS/PERIOD", value_parser = parse_limit)]
    core_credit_limit: Option<Limit>,
    /// Premium credits the token may use
    #[arg(long, value_name = "CREDITS/PERIOD", value_parser = parse_limit)]
    premium_credit_limit: Option<Limit>,
    /// Requests the token may make, like 50/s
    #[arg(long, value_name = "N/s", value_parser = RateLimit::parse)]
    rate_limit: Option<RateLimit>,
    /// Requests that may come at once; as many as per second unless said otherwise
    #[arg(long, value_name = "N")]
    burst: Option<u32>,
}

/// What only `edit` takes.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
pub(super) struct EditFlags {
    /// Switch the token off and on
    #[arg(long)]
    status: Option<Switch>,
    /// Never end
    #[arg(long, conflicts_with_all = ["expires_in", "expires_at"])]
    no_expiry: bool,
    /// No leave for single data sets
    #[arg(long, conflicts_with = "dataset")]
    clear_datasets: bool,
    /// Let all pages use the token
    #[arg(long, conflicts_with = "allowed_domain")]
    clear_allowed_domains: bool,
    /// As many core credits as the account has
    #[arg(long, conflicts_with = "core_credit_limit")]
    no_core_credit_limit: bool,
    /// As many premium credits as the account has
    #[arg(long, conflicts_with = "premium_credit_limit")]
    no_premium_credit_limit: bool,
    /// Any number of requests
    #[arg(long, conflicts_with_all = ["rate_limit", "burst"])]
    no_rate_limit: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    /// They are refused
    Enforce,
    /// They pass, and are counted
    Report,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Switch {
    /// On
    Active,
    /// Off
    Disabled,
}

/// Reads a duration with its unit.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    units::parse_duration(text).map_err(|why| why.to_string())
}

/// Reads `on` or `off`; `true` and `false` as the other flags take them.
fn parse_switch(text: &str) -> Result<bool, &'static str> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err("write on or off"),
    }
}

/// Reads `100000/month`.
pub(super) fn parse_limit(text: &str) -> Result<Limit, String> {
    Limit::parse(text).map_err(|why| why.to_string())
}

/// A limit as the API takes it.
pub(super) fn limit_json(limit: Limit) -> Value {
    json!({"credits": limit.credits.0, "period": limit.period.as_str()})
}

impl PolicyFlags {
    /// The body that makes a token. `now` is what `--expires-in` counts from.
    pub(super) fn create(&self, now: Timestamp) -> Result<Map<String, Value>, Misuse> {
        if self.burst.is_some() && self.rate_limit.is_none() {
            return Err(Misuse("--burst needs --rate-limit".into()));
        }
        self.fields(now)
    }

    /// The body that edits a token.
    pub(super) fn edit(&self, edit: &EditFlags, now: Timestamp) -> Result<Map<String, Value>, Misuse> {
        let mut body = self.fields(now)?;
        let mut put = |name: &str, value: Value| drop(body.insert(name.to_owned(), value));
        match edit.status {
            Some(Switch::Active) => put("status", json!("active")),
            Some(Switch::Disabled) => put("status", json!("disabled")),
            None => {}
        }
        let clear = [
            (edit.no_expiry, "expires_at"),
            (edit.clear_datasets, "datasets"),
            (edit.clear_allowed_domains, "allowed_domains"),
            (edit.no_rate_limit, "rate_limit"),
        ];
        for (_, name) in clear.into_iter().filter(|(clear, _)| *clear) {
            put(name, Value::Null);
        }
        let pools = [(edit.no_core_credit_limit, "core"), (edit.no_premium_credit_limit, "premium")];
        for (_, pool) in pools.into_iter().filter(|(clear, _)| *clear) {
            let limits = body.entry("credit_limit").or_insert_with(|| json!({}));
            if let Some(limits) = limits.as_object_mut() {
                limits.insert(pool.to_owned(), Value::Null);
            }
        }
        if body.is_empty() {
            return Err(Misuse("nothing to change; give at least one flag (see --help)".into()));
        }
        Ok(body)
    }

    fn fields(&self, now: Timestamp) -> Result<Map<String, Value>, Misuse> {
        let mut body = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(name.to_owned(), value);
            }
        };
        put("nickname", self.nickname.as_ref().map(|name| json!(name)));
        put("expires_at", self.expiry(now)?.map(|at| json!(at.to_string())));
        put("signed_requests", self.signed_requests.map(Value::Bool));
        put("replay_protection", self.replay_protection.map(Value::Bool));
        put("core_access", self.core_access.map(Value::Bool));
        put("premium_access", self.premium_access.map(Value::Bool));
        let grants = self.dataset.iter().map(|grant| {
            let operations: Vec<_> = grant.operations().iter().map(Operation::as_str).collect();
            json!({"dataset": grant.dataset(), "operations": operations})
        });
        put("datasets", (!self.dataset.is_empty()).then(|| grants.collect()));
        let domains = self.allowed_domain.iter().flat_map(|text| text.split_whitespace());
        put("allowed_domains", (!self.allowed_domain.is_empty()).then(|| domains.collect()));
        let mode = self.domain_mode.map(|mode| match mode {
            Mode::Enforce => json!("enforce"),
            Mode::Report => json!("report"),
        });
        put("domain_mode", mode);
        let limits: Map<_, _> = [("core", self.core_credit_limit), ("premium", self.premium_credit_limit)]
            .into_iter()
            .filter_map(|(pool, limit)| Some((pool.to_owned(), limit_json(limit?))))
            .collect();
        put("credit_limit", (!limits.is_empty()).then_some(Value::Object(limits)));
        put("rate_limit", self.rate());
        Ok(body)
    }

    fn expiry(&self, now: Timestamp) -> Result<Option<Timestamp>, Misuse> {
        let Some(after) = self.expires_in else { return Ok(self.expires_at) };
        let at = SignedDuration::try_from(after).ok().and_then(|after| now.checked_add(after).ok());
        let at = at.and_then(|at| Timestamp::from_second(at.as_second()).ok());
        at.map(Some).ok_or_else(|| Misuse("--expires-in is too far away".into()))
    }

    fn rate(&self) -> Option<Value> {
        match (self.rate_limit, self.burst) {
            (None, None) => None,
            (None, Some(burst)) => Some(json!({"burst": burst})),
            (Some(rate), burst) => Some(json!({
                "requests_per_second": rate.requests_per_second, "burst": burst.unwrap_or(rate.burst),
            })),
        }
    }
}
