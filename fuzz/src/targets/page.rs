//! Any bytes as `Origin` and `Referer`: what a rule admits has the rule's host, by the URL standard.

use percent_encoding::percent_decode_str;
use crate::policy::domain::{DomainRules, Page};
use url::Url;

const RULES: &str =
    "www.example.com https://*.example.org:8443 host.test/app/stock localhost:3000 203.0.113.0/24";

/// Checks one input.
pub fn check(data: &[u8]) {
    // Lines are values; the first is Origin's, the others Referer's.
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let (origins, referers) = lines.split_at(1);
    let rules = DomainRules::parse_list(RULES).expect("the rules are valid");
    for page in [Page::read(origins, &[]), Page::read(&[], referers), Page::read(origins, referers)] {
        let _ = format!("{page:?}");
        if let Some(origin) = page.origin() {
            assert!(origin.bytes().all(|byte| byte.is_ascii_graphic() && byte != b','));
            assert_eq!(
                origin.split_once("://").map(|(_, rest)| rest.contains(['/', '?', '#', '@', '\\'])),
                Some(false)
            );
        }
    }
    for (page, value) in
        [(Page::read(origins, &[]), origins.first()), (Page::read(&[], referers), referers.first())]
    {
        if rules.admit(&page, None).is_ok() {
            let url = value
                .and_then(|value| std::str::from_utf8(value).ok())
                .and_then(|text| Url::parse(text).ok());
            assert_admitted(&url.expect("an admitted page is a URL"));
        }
    }
    // Look-alikes: what the input adds before or behind a host that a rule admits.
    if let Some(text) = origins.first().and_then(|value| std::str::from_utf8(value).ok()) {
        for look_alike in
            [format!("https://{text}example.org:8443"), format!("https://www.example.com{text}")]
        {
            let page = Page::read(&[look_alike.as_bytes()], &[]);
            if rules.admit(&page, None).is_ok() {
                assert_admitted(&Url::parse(&look_alike).expect("an admitted page is a URL"));
            }
        }
    }
    // Both together never open what either alone does not.
    if rules.admit(&Page::read(origins, referers), None).is_ok()
        && referers.iter().any(|value| !value.is_empty())
    {
        assert!(rules.admit(&Page::read(&[], referers), None).is_ok());
    }
}

fn assert_admitted(url: &Url) {
    assert!(url.username().is_empty() && url.password().is_none());
    assert!(matches!(url.scheme(), "http" | "https"));
    let host = url.host_str().expect("an admitted page has a host").trim_end_matches('.');
    let port = url.port_or_known_default();
    let fits = match host {
        "www.example.com" => true,
        "localhost" => port == Some(3000),
        "host.test" => percent_decode_str(url.path()).collect::<Vec<u8>>().starts_with(b"/app/stock"),
        _ if host.ends_with(".example.org") => url.scheme() == "https" && port == Some(8443),
        _ => host.starts_with("203.0.113.") || host.contains("cb00:71"),
    };
    assert!(fits, "{url}");
}
