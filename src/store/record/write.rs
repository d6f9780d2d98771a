//! From policy to raw fields.

use jiff::Timestamp;
use serde_json::json;

use super::{Fields, Former, Kept, TokenRecord};
use crate::policy::domain::DomainRule;
use crate::policy::record::{Account, PayAsYouGo};
use crate::policy::{Grant, Limit, Operation, Policy};

fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// What is kept of pay-as-you-go: nothing while it is off.
fn quota(kept: PayAsYouGo) -> String {
    match kept {
        PayAsYouGo::Off => String::new(),
        PayAsYouGo::On { quota } => quota.map_or_else(|| "none".to_owned(), |quota| quota.to_string()),
    }
}

fn fields<const N: usize>(list: [(&str, String); N]) -> Fields {
    list.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The fields of a policy: all of a token's record but what is about its value.
pub(in crate::store) fn policy_fields(policy: &Policy) -> Fields {
    let dataset = |grant: &Grant| {
        let operations: Vec<_> = grant.operations().iter().map(Operation::as_str).collect();
        json!({ "dataset": grant.dataset(), "operations": operations })
    };
    let datasets: Vec<_> = policy.grants.iter().map(dataset).collect();
    let domains: Vec<_> = policy.allowed_domains.iter().map(DomainRule::as_str).collect();
    fields([
        ("id", policy.id.to_string()),
        ("account", policy.account.to_string()),
        ("type", policy.kind.as_str().to_owned()),
        ("nickname", policy.nickname.clone()),
        ("status", policy.status.as_str().to_owned()),
        ("created_at", policy.created_at.to_string()),
        ("expires_at", text(policy.expires_at)),
        ("signed_requests", policy.signed_requests.to_string()),
        ("replay_protection", policy.replay_protection.to_string()),
        ("core_access", policy.core_access.to_string()),
        ("premium_access", policy.premium_access.to_string()),
        ("datasets", json!(datasets).to_string()),
        ("allowed_domains", json!(domains).to_string()),
        ("domain_mode", policy.domain_mode.as_str().to_owned()),
        ("core_limit", text::<Limit>(policy.credit_limit.core)),
        ("premium_limit", text::<Limit>(policy.credit_limit.premium)),
        ("rate", text(policy.rate_limit.map(|rate| rate.requests_per_second))),
        ("burst", text(policy.rate_limit.map(|rate| rate.burst))),
        ("version", policy.version.to_string()),
        ("seen_in_browser_at", text::<Timestamp>(policy.seen_in_browser_at)),
    ])
}

/// The fields of a token's record that are about its value.
pub(in crate::store) fn value_fields(record: &TokenRecord) -> Fields {
    let (token, sealed) = match &record.kept {
        Kept::Clear(token) => (token.expose().to_owned(), String::new()),
        Kept::Sealed(sealed) => (String::new(), sealed.clone()),
        Kept::Nothing => (String::new(), String::new()),
    };
    let entry = |former: &Former| {
        let (digest, until) = (former.digest.to_hex(), former.until.as_microsecond());
        match &former.sealed {
            Some(sealed) => json!({ "digest": digest, "until": until, "sealed": sealed }),
            None => json!({ "digest": digest, "until": until }),
        }
    };
    let former: Vec<_> = record.former.iter().map(entry).collect();
    fields([
        ("digest", record.digest.to_hex()),
        ("token", token),
        ("sealed", sealed),
        ("former", json!(former).to_string()),
    ])
}

impl TokenRecord {
    /// The raw form.
    pub(in crate::store) fn to_fields(&self) -> Fields {
        let mut all = policy_fields(&self.policy);
        all.extend(value_fields(self));
        all.insert("signing".to_owned(), self.signing.clone().unwrap_or_default());
        all
    }
}

/// The raw form of an account.
pub(in crate::store) fn account_fields(account: &Account) -> Fields {
    fields([
        ("id", account.id.to_string()),
        ("created_at", account.created_at.to_string()),
        ("core_budget", text(account.budget.core)),
        ("premium_budget", text(account.budget.premium)),
        ("core_quota", quota(account.pay_as_you_go)),
        ("version", account.version.to_string()),
    ])
}
