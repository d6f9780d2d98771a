//! Reads the fields of a token from a body, as a merge patch (RFC 7396) over the policy that is stored: absent keeps,
//! `null` sets the default. Everything wrong is found at once; a wrong body changes nothing.

use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;

use crate::admin::fields::{Field, Object, Problems};
use crate::admin::limits::{Merged, member, merge_limits};
use crate::admin::problem::{Problem, quote};
use crate::policy::cost::MAX_RATE;
use crate::policy::domain::{DomainRule, DomainRules};
use crate::policy::record::MAX_NICKNAME;
use crate::policy::token::contains_token;
use crate::policy::{DomainMode, Grant, Operation, Policy, RateLimit, Status, TokenKind};

/// The longest list of domain rules.
const MAX_DOMAINS: usize = 100;
/// The longest list of grants.
const MAX_GRANTS: usize = 1000;

/// The fields a client may set.
pub(in crate::admin) const SETTABLE: [&str; 13] = [
    "type",
    "nickname",
    "status",
    "expires_at",
    "signed_requests",
    "replay_protection",
    "core_access",
    "premium_access",
    "datasets",
    "allowed_domains",
    "domain_mode",
    "credit_limit",
    "rate_limit",
];

/// The fields of a token that are not a client's to set.
const OTHERS: [&str; 7] = ["id", "token", "created_at", "seen_in_browser_at", "version", "usage", "receipt"];

/// Reads the type of a token to be made. What is wrong with it, [`merge`] says with all else.
pub(super) fn read_kind(body: &Value) -> TokenKind {
    body.get("type").and_then(Value::as_str).and_then(TokenKind::parse).unwrap_or(TokenKind::Publishable)
}

/// Applies a body to a policy.
pub(super) fn merge(body: &Value, stored: &Policy, now: Timestamp) -> Result<Policy, Problem> {
    let mut problems = Problems::default();
    let mut policy = stored.clone();
    let known: Vec<&str> = SETTABLE.into_iter().chain(OTHERS).collect();
    if let Some(object) = Field::root(body).object(&known, &mut problems) {
        for name in OTHERS.into_iter().filter(|name| object.field(name).is_some()) {
            problems.add(object.pointer_to(name), "is not a client's to set; leave it out");
        }
        merge_identity(&object, &mut policy, now, &mut problems);
        merge_access(&object, &mut policy, &mut problems);
        merge_limits(object.field("credit_limit"), &mut policy.credit_limit, &mut problems);
        set(object.field("rate_limit"), &mut policy.rate_limit, None, |field| {
            merge_rate(field, stored.rate_limit, &mut problems).map(Some)
        });
    }
    if problems.count() > 0 {
        return Err(Problem::fields(problems.into_errors()));
    }
    if stored.status == Status::Revoked && policy.status != Status::Revoked {
        let detail = "A revoked token cannot come back. Create a new one.";
        return Err(Problem::new(StatusCode::CONFLICT, "token_revoked", detail));
    }
    Ok(policy)
}

/// Sets `place` by a field: absent keeps, `null` sets the default, what cannot be read is left to the problems.
fn set<T>(field: Option<Field<'_>>, place: &mut T, default: T, read: impl FnOnce(&Field<'_>) -> Option<T>) {
    let Some(field) = field else { return };
    match field.unless_null() {
        None => *place = default,
        Some(field) => {
            if let Some(value) = read(&field) {
                *place = value;
            }
        }
    }
}

fn merge_identity(object: &Object<'_>, policy: &mut Policy, now: Timestamp, problems: &mut Problems) {
    if let Some(field) = object.field("type").and_then(Field::unless_null) {
        let kind = field.choice("publishable or secret", TokenKind::parse, problems);
        if kind.is_some_and(|kind| kind != policy.kind) {
            problems.add(field.pointer(), "a token stays what it is; create another one");
        }
    }
    set(object.field("nickname"), &mut policy.nickname, String::new(), |field| {
        read_nickname(field, problems)
    });
    let before = policy.status;
    set(object.field("status"), &mut policy.status, Status::Active, |field| {
        let status = field.choice("active or disabled (DELETE revokes)", Status::parse, problems)?;
        if status == Status::Revoked && before != Status::Revoked {
            problems.add(field.pointer(), "set active or disabled here; to revoke a token, DELETE it");
            return None;
        }
        Some(status)
    });
    let expiry = policy.expires_at;
    set(object.field("expires_at"), &mut policy.expires_at, None, |field| {
        let expected = "a time with its offset, like 2026-11-24T06:00:00Z";
        let at = field.choice(expected, |text| text.parse::<Timestamp>().ok(), problems)?;
        if at <= now && expiry != Some(at) {
            problems.add(field.pointer(), "lies in the past; to stop a token now, disable or revoke it");
            return None;
        }
        Some(Some(at))
    });
}

fn read_nickname(field: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let text = field.text("a text", problems)?;
    let why = if text.chars().count() > MAX_NICKNAME {
        format!("is longer than {MAX_NICKNAME} characters")
    } else if text.chars().any(char::is_control) {
        "holds a control character".to_owned()
    } else if contains_token(text.as_bytes()) {
        "holds a token; a nickname is shown and logged".to_owned()
    } else {
        return Some(text.to_owned());
    };
    problems.add(field.pointer(), why);
    None
}

fn merge_access(object: &Object<'_>, policy: &mut Policy, problems: &mut Problems) {
    let flags = [
        ("signed_requests", &mut policy.signed_requests, false),
        ("replay_protection", &mut policy.replay_protection, true),
        ("core_access", &mut policy.core_access, true),
        ("premium_access", &mut policy.premium_access, false),
    ];
    for (name, flag, default) in flags {
        set(object.field(name), flag, default, |field| field.boolean(problems));
    }
    set(object.field("datasets"), &mut policy.grants, Vec::new(), |field| read_grants(field, problems));
    set(object.field("allowed_domains"), &mut policy.allowed_domains, DomainRules::default(), |field| {
        read_domains(field, problems)
    });
    set(object.field("domain_mode"), &mut policy.domain_mode, DomainMode::default(), |field| {
        field.choice("enforce or report", DomainMode::parse, problems)
    });
}

fn read_grants(field: &Field<'_>, problems: &mut Problems) -> Option<Vec<Grant>> {
    let expected = "a list of {\"dataset\": …, \"operations\": […]}";
    let entries = field.list(expected, MAX_GRANTS, problems)?;
    let grants: Vec<_> = entries.iter().map(|entry| read_grant(entry, problems)).collect();
    grants.into_iter().collect()
}

fn read_grant(entry: &Field<'_>, problems: &mut Problems) -> Option<Grant> {
    let operations_are = "a list of read, write and delete";
    let object = entry.object(&["dataset", "operations"], problems)?;
    let before = problems.count();
    let dataset = object.required("dataset", "WORKSPACE/DATASET or WORKSPACE/*", problems);
    let name = dataset.as_ref().and_then(|field| field.text("WORKSPACE/DATASET or WORKSPACE/*", problems));
    let operations = object.required("operations", operations_are, problems);
    let list =
        operations.as_ref().and_then(|field| field.list(operations_are, Operation::ALL.len(), problems));
    let mut names = Vec::new();
    for field in list.iter().flatten() {
        names.extend(field.choice("read, write or delete", Operation::parse, problems));
    }
    // Whether the name is one is the grant's to say, also when something else is wrong: then with an operation that is.
    let tried = Grant::new(name?, ["read"]);
    if let (Err(why), Some(field)) = (&tried, &dataset) {
        problems.add(field.pointer(), why.to_string());
    }
    if problems.count() > before || list.is_none() {
        return None;
    }
    match Grant::new(name?, names.iter().map(|operation| operation.as_str())) {
        Ok(grant) => Some(grant),
        Err(why) => {
            problems.add(object.pointer_to("operations"), why.to_string());
            None
        }
    }
}

fn read_domains(field: &Field<'_>, problems: &mut Problems) -> Option<DomainRules> {
    let before = problems.count();
    let mut rules: Vec<&str> = Vec::new();
    let mut check = |pointer: &str, rule, problems: &mut Problems| match DomainRule::parse(rule) {
        Ok(_) => rules.push(rule),
        Err(why) => problems.add(pointer, format!("`{}`: {why}", quote(rule))),
    };
    if let Some(text) = field.value().as_str() {
        let list: Vec<_> = text.split_whitespace().collect();
        if list.len() > MAX_DOMAINS {
            problems.add(field.pointer(), format!("at most {MAX_DOMAINS} rules are possible"));
            return None;
        }
        for rule in list {
            check(field.pointer(), rule, problems);
        }
    } else {
        let expected = "a list of rules like www.example.com, or a text with spaces between them";
        for entry in field.list(expected, MAX_DOMAINS, problems)? {
            if let Some(rule) = entry.text("a rule like www.example.com", problems) {
                check(entry.pointer(), rule, problems);
            }
        }
    }
    if problems.count() > before {
        return None;
    }
    DomainRules::parse(rules).ok()
}

fn merge_rate(field: &Field<'_>, stored: Option<RateLimit>, problems: &mut Problems) -> Option<RateLimit> {
    let object = field.object(&["requests_per_second", "burst"], problems)?;
    let most = u64::from(MAX_RATE);
    let expected = "a whole number of requests";
    let known = stored.map(|rate| rate.requests_per_second);
    let rate = member(&object, "requests_per_second", expected, known, problems);
    let rate = rate.and_then(|merged| match merged {
        Merged::Stored(rate) => Some(rate),
        Merged::Given(field) => field.whole(1, most, problems).and_then(|n| u32::try_from(n).ok()),
    });
    let burst = match object.field("burst") {
        // Nobody said: what is stored, or the rate.
        None => stored.map(|rate| rate.burst).or(rate),
        Some(field) => match field.unless_null() {
            None => rate,
            Some(field) => field.whole(1, most, problems).and_then(|n| u32::try_from(n).ok()),
        },
    };
    Some(RateLimit { requests_per_second: rate?, burst: burst? })
}
