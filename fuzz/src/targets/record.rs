//! Any fields as a token's and an account's record: what can be read is written back as it was read.

use crate::policy::{AccountId, TokenId};
use crate::store::{RawFields, account_record, token_record};

const TOKEN: &[(&str, &str)] = &[
    ("id", "tok_01ARZ3NDEKTSV4RRFFQ69G5FAV"),
    ("account", "default"),
    ("type", "publishable"),
    ("nickname", ""),
    ("status", "active"),
    ("created_at", "2026-11-24T06:00:00Z"),
    ("expires_at", ""),
    ("signed_requests", "false"),
    ("replay_protection", "true"),
    ("core_access", "true"),
    ("premium_access", "false"),
    ("datasets", r#"[{"dataset":"MY/CARS","operations":["read"]}]"#),
    ("allowed_domains", r#"["www.example.com"]"#),
    ("domain_mode", "enforce"),
    ("core_limit", "100000/month"),
    ("premium_limit", ""),
    ("rate", "50"),
    ("burst", "100"),
    ("version", "1"),
    ("seen_in_browser_at", ""),
    ("digest", "0000000000000000000000000000000000000000000000000000000000000000"),
    ("token", ""),
    ("sealed", ""),
    ("former", "[]"),
    ("signing", ""),
    // An account's besides.
    ("core_budget", ""),
    ("premium_budget", "7/day"),
    ("core_quota", ""),
];
const ACCOUNT: &[&str] = &["id", "created_at", "core_budget", "premium_budget", "core_quota", "version"];

/// Checks one input: lines `field=text` that replace those of a good record; `field` alone takes it out.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut fields: RawFields =
        TOKEN.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    fields.insert("type".to_owned(), "secret".to_owned());
    for line in text.split('\n') {
        match line.split_once('=') {
            Some((name, text)) => drop(fields.insert(name.to_owned(), text.to_owned())),
            None => drop(fields.remove(line)),
        }
    }
    let account = AccountId::default_account();
    let of_account: RawFields = fields
        .iter()
        .filter(|(name, _)| ACCOUNT.contains(&name.as_str()))
        .map(|(name, text)| (name.clone(), if name == "id" { "default".to_owned() } else { text.clone() }))
        .collect();
    if let Some(written) = account_record(&of_account, &account) {
        assert_eq!(account_record(&written, &account).as_ref(), Some(&written));
    }
    for name in ["core_budget", "premium_budget", "core_quota"] {
        fields.remove(name);
    }
    let id = TokenId::parse(TOKEN[0].1).expect("an id");
    if let Some((written, policy)) = token_record(&fields, &account, &id) {
        assert_eq!(policy.id, id);
        let again = token_record(&written, &account, &id).expect("what was written can be read");
        assert_eq!(again.0, written);
        assert_eq!(again.1, policy);
    }
}
