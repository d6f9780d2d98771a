//! Turns a refusal of the admin API (RFC 9457) into what a person at the command line can act on: each bad field by
//! the flag it came from.

use serde_json::Value;

/// A refusal in words.
pub(super) fn describe(status: u16, problem: &Value, token_from: &str) -> String {
    let text = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default();
    let (detail, code) = (text("detail"), text("code"));
    let mut lines = vec![match status {
        401 | 403 => format!(
            "the admin API does not accept the secret token from {token_from}: {detail} ({status} {code})"
        ),
        _ => format!("{detail} ({status} {code})"),
    }];
    for error in problem.get("errors").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| error.get(name).and_then(Value::as_str);
        let detail = text("detail").unwrap_or_default();
        let place = match (text("pointer"), text("parameter")) {
            (Some(pointer), _) => match flag(pointer) {
                Some(flag) => format!("{flag} ({pointer})"),
                None => pointer.to_owned(),
            },
            (None, Some(parameter)) => format!("--{parameter}"),
            (None, None) => "the request".to_owned(),
        };
        lines.push(format!("  {place}: {detail}"));
    }
    lines.join("\n")
}

/// The flag that a field of a body came from.
fn flag(pointer: &str) -> Option<&'static str> {
    const FLAGS: [(&str, &str); 25] = [
        ("/type", "--type"),
        ("/nickname", "--nickname"),
        ("/status", "--status"),
        ("/expires_at", "--expires-at or --expires-in"),
        ("/signed_requests", "--signed-requests"),
        ("/replay_protection", "--replay-protection"),
        ("/core_access", "--core-access"),
        ("/premium_access", "--premium-access"),
        ("/datasets", "--dataset"),
        ("/allowed_domains", "--allowed-domain"),
        ("/domain_mode", "--domain-mode"),
        ("/credit_limit/core", "--core-credit-limit"),
        ("/credit_limit/premium", "--premium-credit-limit"),
        ("/rate_limit/burst", "--burst"),
        ("/rate_limit", "--rate-limit"),
        ("/budget/core", "--core-budget"),
        ("/budget/premium", "--premium-budget"),
        ("/grace", "--grace"),
        ("/method", "--method"),
        ("/target", "URL"),
        ("/headers/Origin", "--origin"),
        ("/headers/Referer", "--referer"),
        ("/headers", "--header"),
        ("/client", "--client"),
        ("/token_id", "--token-id"),
    ];
    let within = |place: &str| {
        pointer.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    FLAGS.iter().find(|(place, _)| within(place)).map(|(_, flag)| *flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_named_by_its_flag() {
        for (pointer, expected) in [
            ("/nickname", Some("--nickname")),
            ("/allowed_domains/3", Some("--allowed-domain")),
            ("/credit_limit/core/period", Some("--core-credit-limit")),
            ("/rate_limit/burst", Some("--burst")),
            ("/rate_limit/requests_per_second", Some("--rate-limit")),
            ("/typed", None),
            ("", None),
        ] {
            assert_eq!(flag(pointer), expected, "{pointer}");
        }
    }
}
