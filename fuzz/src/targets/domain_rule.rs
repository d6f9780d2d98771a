//! Any text as a rule: what is accepted keeps its text, admits only its own hosts, and never a stranger's page.

use crate::policy::domain::{DomainRule, DomainRules, Page};

/// Checks one input.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(rule) = DomainRule::parse(text) else { return };
    assert_eq!(rule.as_str(), text);
    assert_eq!(DomainRule::parse(rule.as_str()).as_ref(), Ok(&rule));
    let rules = DomainRules::parse([text]).expect("read once already");

    // No rule is about this site unless it names it.
    let strange = [&b"https://stranger.fuzz.test"[..], b"http://stranger.fuzz.test:8080"];
    for origin in strange {
        let admitted = rules.admit(&Page::read(&[origin], &[]), None).is_ok();
        assert!(!admitted || text.to_ascii_lowercase().contains("fuzz") || !text.is_ascii(), "{text}");
    }
    assert!(rules.admit(&Page::read(&[b"null"], &[]), None).is_err());
    assert!(rules.admit(&Page::read(&[], &[]), None).is_err());

    // A wildcard over a single label would be over a top-level name.
    if let Some(rest) = text.strip_prefix("*.") {
        let host = rest.split(['/', ':']).next().unwrap_or_default().trim_end_matches('.');
        assert!(host.contains('.') || !host.is_ascii(), "{text}");
        let bare = format!("https://{host}");
        assert!(rules.admit(&Page::read(&[bare.as_bytes()], &[]), None).is_err(), "{text}");
    }
}
