//! What stands in the fields of the token form, and what of it is to be changed.

use serde_json::{Map, Value, json};

use crate::console::api::FieldError;
use crate::console::form::Form;
use crate::console::shape::{Grant, Limit, Token, number};

/// What a button saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// "Done": all fields.
    Everything,
    /// "Update domain"
    Domains,
    /// "Test": nothing.
    TestPage,
    /// "Add permission"
    AddGrant,
    /// A chip's button.
    RemoveGrant,
    /// "Set core limit"
    SetCore,
    /// "Remove core limit"
    RemoveCore,
    /// "Set premium limit"
    SetPremium,
    /// "Remove premium limit"
    RemovePremium,
    /// "Set rate limit"
    SetRate,
    /// "Remove rate limit"
    RemoveRate,
    /// "Set expiry"
    SetExpiry,
    /// "Remove expiry"
    RemoveExpiry,
}

impl Part {
    const NAMED: [(&'static str, Self); 11] = [
        ("domains", Self::Domains),
        ("test-page", Self::TestPage),
        ("add-grant", Self::AddGrant),
        ("set-core", Self::SetCore),
        ("remove-core", Self::RemoveCore),
        ("set-premium", Self::SetPremium),
        ("remove-premium", Self::RemovePremium),
        ("set-rate", Self::SetRate),
        ("remove-rate", Self::RemoveRate),
        ("set-expiry", Self::SetExpiry),
        ("remove-expiry", Self::RemoveExpiry),
    ];

    /// The button that was pressed; the Enter key counts as "Done".
    pub(super) fn pressed(form: &Form) -> Self {
        if form.has("remove-grant") {
            return Self::RemoveGrant;
        }
        let name = form.text("action");
        Self::NAMED.iter().find(|(known, _)| *known == name).map_or(Self::Everything, |(_, part)| *part)
    }

    /// What is said once it is saved.
    pub(super) fn done(self) -> &'static str {
        match self {
            Self::Everything | Self::TestPage => "Saved.",
            Self::Domains => "Updated the allowed domains.",
            Self::AddGrant => "Added the permission.",
            Self::RemoveGrant => "Removed the permission.",
            Self::SetCore | Self::SetPremium => "Set the credit limit.",
            Self::RemoveCore | Self::RemovePremium => "Removed the credit limit.",
            Self::SetRate => "Set the rate limit.",
            Self::RemoveRate => "Removed the rate limit.",
            Self::SetExpiry => "Set the expiry.",
            Self::RemoveExpiry => "Removed the expiry.",
        }
    }
}

/// Credits and their period, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LimitEntry {
    pub(super) credits: String,
    pub(super) period: String,
}

impl LimitEntry {
    fn of(limit: Option<&Limit>) -> Self {
        limit.map_or_else(
            || Self { credits: String::new(), period: "month".to_owned() },
            |limit| Self { credits: limit.credits.to_string(), period: limit.period.clone() },
        )
    }

    fn value(&self) -> Value {
        if self.credits.is_empty() {
            return Value::Null;
        }
        json!({ "credits": number(&self.credits), "period": self.period })
    }
}

/// What stands in the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own on the page")]
pub(super) struct Entries {
    pub(super) version: Option<u64>,
    pub(super) nickname: String,
    pub(super) signed_requests: bool,
    pub(super) replay_protection: bool,
    pub(super) core_access: bool,
    pub(super) premium_access: bool,
    pub(super) datasets: Vec<Grant>,
    pub(super) new_dataset: String,
    pub(super) new_operations: Vec<String>,
    /// One rule a line, or several with blanks between.
    pub(super) domains: String,
    pub(super) domain_mode: String,
    /// The page of the tester.
    pub(super) page: String,
    pub(super) core: LimitEntry,
    pub(super) premium: LimitEntry,
    pub(super) rate: String,
    pub(super) burst: String,
    /// Date and time in UTC, as browsers send them.
    pub(super) expires: String,
}

impl Entries {
    /// The fields as the token has them.
    pub(super) fn of(token: &Token) -> Self {
        let text = |number: u32| number.to_string();
        Self {
            version: Some(token.version),
            nickname: token.nickname.clone(),
            signed_requests: token.signed_requests,
            replay_protection: token.replay_protection,
            core_access: token.core_access,
            premium_access: token.premium_access,
            datasets: token.datasets.clone(),
            new_dataset: String::new(),
            new_operations: vec!["read".to_owned()],
            domains: token.allowed_domains.join("\n"),
            domain_mode: token.domain_mode.clone(),
            page: String::new(),
            core: LimitEntry::of(token.credit_limit.core.as_ref()),
            premium: LimitEntry::of(token.credit_limit.premium.as_ref()),
            rate: token.rate_limit.as_ref().map(|rate| text(rate.requests_per_second)).unwrap_or_default(),
            burst: token.rate_limit.as_ref().map(|rate| text(rate.burst)).unwrap_or_default(),
            expires: token.expires_at.as_deref().map(local_time).unwrap_or_default(),
        }
    }

    /// Whether this operation is ticked for the permission to be added.
    pub(super) fn may(&self, operation: &str) -> bool {
        self.new_operations.iter().any(|ticked| ticked == operation)
    }

    /// How tall the box of domains is.
    pub(super) fn domain_rows(&self) -> usize {
        self.domains.lines().count().clamp(2, 12)
    }

    /// The limits in their order: pool, its name, what is typed, whether the token has one.
    pub(super) fn limits(&self, token: &Token) -> [(&'static str, &'static str, &LimitEntry, bool); 2] {
        [
            ("core", "Core", &self.core, token.credit_limit.core.is_some()),
            ("premium", "Premium", &self.premium, token.credit_limit.premium.is_some()),
        ]
    }

    /// The fields as they were posted.
    pub(super) fn read(form: &Form) -> Self {
        let text = |name: &str| form.text(name).to_owned();
        let limit = |name: &str| LimitEntry {
            credits: text(&format!("{name}-credits")),
            period: text(&format!("{name}-period")),
        };
        let grant = |text: &str| {
            let (dataset, operations) = text.split_once(' ').unwrap_or((text, ""));
            let operations = operations.split(',').filter(|operation| !operation.is_empty());
            Grant { dataset: dataset.to_owned(), operations: operations.map(str::to_owned).collect() }
        };
        Self {
            version: form.version(),
            nickname: text("nickname"),
            signed_requests: form.has("signed_requests"),
            replay_protection: form.has("replay_protection"),
            core_access: form.has("core_access"),
            premium_access: form.has("premium_access"),
            datasets: form.all("grant").map(grant).collect(),
            new_dataset: text("new-dataset"),
            new_operations: form.all("new-operation").map(str::to_owned).collect(),
            domains: text("allowed_domains"),
            domain_mode: text("domain_mode"),
            page: text("page"),
            core: limit("core"),
            premium: limit("premium"),
            rate: text("rate"),
            burst: text("burst"),
            expires: text("expires"),
        }
    }

    /// Takes in what a button means beyond the fields; says what stands in its way.
    pub(super) fn apply_button(&mut self, form: &Form, part: Part) -> Vec<FieldError> {
        let missing = |pointer: &str, detail: &str| {
            vec![FieldError { pointer: pointer.to_owned(), detail: detail.to_owned() }]
        };
        match part {
            // "Done" takes a permission along that was typed and not yet added.
            Part::AddGrant | Part::Everything if !self.new_dataset.is_empty() => {
                if self.new_operations.is_empty() {
                    return missing("/datasets", "tick what may be done: read, write or delete");
                }
                let dataset = std::mem::take(&mut self.new_dataset);
                let operations = std::mem::replace(&mut self.new_operations, vec!["read".to_owned()]);
                self.datasets.retain(|grant| !grant.dataset.eq_ignore_ascii_case(&dataset));
                self.datasets.push(Grant { dataset, operations });
            }
            Part::AddGrant => {
                return missing("/datasets", "type which data set: WORKSPACE/DATASET or WORKSPACE/*");
            }
            Part::RemoveGrant => {
                let gone = form.text("remove-grant");
                self.datasets.retain(|grant| grant.dataset != gone);
            }
            Part::SetCore if self.core.credits.is_empty() => {
                return missing("/credit_limit/core", "type how many credits");
            }
            Part::SetPremium if self.premium.credits.is_empty() => {
                return missing("/credit_limit/premium", "type how many credits");
            }
            Part::SetRate if self.rate.is_empty() => {
                return missing("/rate_limit", "type how many requests a second");
            }
            Part::SetExpiry if self.expires.is_empty() => {
                return missing("/expires_at", "choose a date and a time");
            }
            Part::RemoveCore => self.core.credits.clear(),
            Part::RemovePremium => self.premium.credits.clear(),
            Part::RemoveRate => {
                self.rate.clear();
                self.burst.clear();
            }
            Part::RemoveExpiry => self.expires.clear(),
            _ => {}
        }
        Vec::new()
    }

    /// The merge patch (RFC 7396) that makes the token what stands in this part of the form: only what differs.
    pub(super) fn patch(&self, token: &Token, part: Part) -> Value {
        let before = Self::of(token);
        let mut patch = Map::new();
        let mut set = |of: &[Part], differs: bool, name: &str, value: Value| {
            if differs && (part == Part::Everything || of.contains(&part)) {
                patch.insert(name.to_owned(), value);
            }
        };
        set(&[], self.nickname != before.nickname, "nickname", json!(self.nickname));
        for (name, now, was) in [
            ("signed_requests", self.signed_requests, before.signed_requests),
            ("replay_protection", self.replay_protection, before.replay_protection),
            ("core_access", self.core_access, before.core_access),
            ("premium_access", self.premium_access, before.premium_access),
        ] {
            set(&[], now != was, name, json!(now));
        }
        let grants = |grant: &Grant| json!({ "dataset": grant.dataset, "operations": grant.operations });
        let datasets = self.datasets.iter().map(grants).collect();
        set(&[Part::AddGrant, Part::RemoveGrant], self.datasets != before.datasets, "datasets", datasets);
        let domains: Vec<_> = self.domains.split_whitespace().collect();
        let differ = domains != before.domains.split_whitespace().collect::<Vec<_>>();
        set(&[Part::Domains], differ, "allowed_domains", json!(domains));
        set(&[Part::Domains], self.domain_mode != before.domain_mode, "domain_mode", json!(self.domain_mode));
        let mut limits = Map::new();
        let everything = part == Part::Everything;
        for (pool, own, now, was) in [
            ("core", [Part::SetCore, Part::RemoveCore], &self.core, &before.core),
            ("premium", [Part::SetPremium, Part::RemovePremium], &self.premium, &before.premium),
        ] {
            if (everything || own.contains(&part)) && now.value() != was.value() {
                limits.insert(pool.to_owned(), now.value());
            }
        }
        if !limits.is_empty() {
            patch.insert("credit_limit".to_owned(), Value::Object(limits));
        }
        let mut set = |of: &[Part], differs: bool, name: &str, value: Value| {
            if differs && (everything || of.contains(&part)) {
                patch.insert(name.to_owned(), value);
            }
        };
        let differ = (&self.rate, &self.burst) != (&before.rate, &before.burst);
        set(&[Part::SetRate, Part::RemoveRate], differ, "rate_limit", self.rate_value());
        let expires = if self.expires.is_empty() { Value::Null } else { json!(timestamp(&self.expires)) };
        set(&[Part::SetExpiry, Part::RemoveExpiry], self.expires != before.expires, "expires_at", expires);
        Value::Object(patch)
    }

    fn rate_value(&self) -> Value {
        if self.rate.is_empty() && self.burst.is_empty() {
            return Value::Null;
        }
        let mut rate = Map::new();
        rate.insert("requests_per_second".to_owned(), number(&self.rate));
        if !self.burst.is_empty() {
            rate.insert("burst".to_owned(), number(&self.burst));
        }
        Value::Object(rate)
    }

    /// After a part was saved: that part as it is stored, all else as it was typed.
    pub(super) fn take_saved(&mut self, token: &Token, part: Part) {
        let saved = Self::of(token);
        self.version = saved.version;
        match part {
            Part::Everything | Part::TestPage => {}
            Part::Domains => {
                self.domains = saved.domains;
                self.domain_mode = saved.domain_mode;
            }
            Part::AddGrant | Part::RemoveGrant => self.datasets = saved.datasets,
            Part::SetCore | Part::RemoveCore => self.core = saved.core,
            Part::SetPremium | Part::RemovePremium => self.premium = saved.premium,
            Part::SetRate | Part::RemoveRate => {
                self.rate = saved.rate;
                self.burst = saved.burst;
            }
            Part::SetExpiry | Part::RemoveExpiry => self.expires = saved.expires,
        }
    }
}

/// A timestamp of the API as `<input type="datetime-local">` has it; to the second, so that nothing is lost.
fn local_time(at: &str) -> String {
    at.parse::<jiff::Timestamp>()
        .map_or_else(|_| String::new(), |at| at.strftime("%Y-%m-%dT%H:%M:%S").to_string())
}

/// What `<input type="datetime-local">` sends, as a timestamp; what is none goes as it is, and the API says what it expects.
fn timestamp(text: &str) -> String {
    let colons = text.matches(':').count();
    match colons {
        _ if text.ends_with('Z') => text.to_owned(),
        1 => format!("{text}:00Z"),
        2 => format!("{text}Z"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
