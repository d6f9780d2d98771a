//! Tables and properties of allowed domains.

use proptest::prelude::*;

use super::*;
use crate::policy::tables::{optional, rows, several, slices, text};

fn page(origins: &str, referers: &str) -> Page {
    Page::read(&slices(&several(origins)), &slices(&several(referers)))
}

/// The name of an error's variant.
fn variant(problem: &impl std::fmt::Debug) -> String {
    let text = format!("{problem:?}");
    text.split(['(', ' ']).next().unwrap().to_owned()
}

#[test]
fn every_rule_is_taken_or_refused_with_its_reason() {
    for [rule, expected] in rows(include_str!("../tables/rule.txt")) {
        let outcome = DomainRule::parse(&text(rule));
        let found = outcome.as_ref().map_or_else(variant, |_| "ok".to_owned());
        assert_eq!(found, expected, "{rule}: {outcome:?}");
        if let Ok(read) = outcome {
            assert_eq!((read.as_str(), read.to_string()), (text(rule).as_str(), text(rule)));
        }
    }
}

#[test]
fn a_refused_rule_says_what_to_write_instead() {
    let table = [
        (
            "*.co.uk",
            "`*.co.uk` would admit the sites of strangers, for `co.uk` is a public suffix; name a domain below it, as in `*.example.co.uk`",
        ),
        ("0x7f.1", "`0x7f.1` is an odd form of an address; if you mean 127.0.0.1, write that"),
        ("2001:db8::1", "an IPv6 address needs brackets; write `[2001:db8::1]`"),
        (
            "203.0.113.9/24",
            "203.0.113.9 has bits beyond its prefix; write `203.0.113.0/24` for the block, or leave `/24` out for the one address",
        ),
        ("203.0.113.0/33", "`/33` is not the prefix of a block at 203.0.113.0; write `/0` to `/32`"),
        ("a.test:0", "`0` is not a port; write a number from 1 to 65535"),
        (
            "ws://a.test",
            "`ws` is not a scheme a page comes by; write `http://` or `https://`, or none for both",
        ),
        ("*", "`*` would admit every page; to allow that, leave the list of rules empty"),
    ];
    for (rule, expected) in table {
        assert_eq!(DomainRule::parse(rule).unwrap_err().to_string(), expected);
    }
}

#[test]
fn refuses_rules_without_bound() {
    let rule = format!("a.test/{}", "x".repeat(MAX_RULE));
    assert_eq!(DomainRule::parse(&rule), Err(BadDomainRule::TooLong));
    let name = ["a".repeat(60).as_str(); 5].join(".");
    assert!(matches!(DomainRule::parse(&name), Err(BadDomainRule::Name(_))));
}

#[test]
fn origin_and_referer_name_one_page_or_say_why_not() {
    for [origins, referers, expected] in rows(include_str!("../tables/page.txt")) {
        let page = page(origins, referers);
        let found = match page.seen() {
            Ok(None) => "absent".to_owned(),
            Ok(Some(_)) => format!("clear {}", page.origin().unwrap_or("-")),
            Err(unclear) => format!("{unclear:?}"),
        };
        assert_eq!(found, expected, "{origins} · {referers}");
        assert_eq!(page.is_absent(), expected == "absent");
        assert_eq!(page.origin().is_some(), expected.starts_with("clear ") && expected != "clear -");
    }
}

#[test]
fn rules_admit_as_the_spec_and_the_hostile_table_say() {
    let tables = [include_str!("../tables/domain_spec.txt"), include_str!("../tables/domain.txt")];
    for [rules, origins, referers, client, expected] in tables.into_iter().flat_map(rows) {
        let rules =
            DomainRules::parse_list(&text(rules)).unwrap_or_else(|problem| panic!("{rules}: {problem:?}"));
        let client = optional(client).map(|client| client.parse().unwrap());
        let verdict = rules.admit(&page(origins, referers), client);
        let found = verdict.map_or_else(DomainRefusal::as_str, |()| "allow");
        assert_eq!(found, expected, "{rules:?} · {origins} · {referers} · {client:?}");
    }
}

#[test]
fn a_list_names_the_rule_that_is_wrong() {
    let problem = DomainRules::parse_list("www.example.com  \n *.com ftp://x").unwrap_err();
    assert_eq!(problem, (1, BadDomainRule::PublicSuffix("com".to_owned())));
    assert_eq!(DomainRules::parse(["a.test", ""]), Err((1, BadDomainRule::Empty)));
    assert!(DomainRules::parse_list(" \n").unwrap().is_empty());
    let rules = DomainRules::parse_list("A.test *.b.test").unwrap();
    assert_eq!(rules.iter().map(DomainRule::as_str).collect::<Vec<_>>(), ["A.test", "*.b.test"]);
}

#[test]
fn debug_shows_nothing_of_the_page() {
    let page = page("-", "https://www.example.com/?token={pk}");
    assert_eq!(format!("{page:?}"), "Page(…)");
}

fn admits(rule: &str, origin: &str) -> bool {
    let rules = DomainRules::parse([rule]).unwrap();
    rules.admit(&Page::read(&[origin.as_bytes()], &[]), None).is_ok()
}

/// A label, and names of some labels.
const LABEL: &str = "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?";

fn names() -> impl Strategy<Value = String> {
    proptest::collection::vec(LABEL, 1..4).prop_map(|labels| format!("{}.example.com", labels.join(".")))
}

proptest! {
    #[test]
    fn a_name_admits_itself_and_no_look_alike(
        name in names(), label in LABEL, letter in "[a-z0-9]", at in any::<proptest::sample::Index>()
    ) {
        // Two hyphens in third place mark punycode, which most random labels are not.
        prop_assume!(!name.contains("--") && !label.contains("--"));
        assert!(admits(&name, &format!("https://{name}")));
        assert!(admits(&name.to_uppercase(), &format!("https://{name}.:8443")));
        let mut swapped = name.clone();
        let at = at.index(name.len());
        swapped.replace_range(at..=at, &letter);
        let look_alikes = [
            format!("{name}.{label}.test"), format!("{label}.{name}"), format!("{label}{name}"), format!("{name}{letter}"),
            format!("{name}-{label}.test"), format!("{label}-{name}"), name[1..].to_owned(), swapped,
            format!("{label}.test/{name}"), format!("{label}.test?{name}"), format!("{label}.test#{name}"),
            format!("{label}.test\\{name}"), format!("{label}.test\\.{name}"),
            format!("{name}@{label}.test"), format!("{label}@{name}"), format!("{name}:443@{label}.test"),
        ];
        for look_alike in look_alikes.iter().filter(|other| **other != name) {
            assert!(!admits(&name, &format!("https://{look_alike}")), "{look_alike}");
        }
    }

    #[test]
    fn a_wildcard_never_admits_a_host_outside(
        labels in proptest::collection::vec(LABEL, 1..4), host in prop_oneof![names(), "[a-z0-9.@:/\\\\%*_-]{0,12}(example\\.com)?[a-z.]{0,6}"]
    ) {
        let parent = format!("{}.example.com", labels.join("."));
        prop_assume!(!parent.contains("--"));
        let rule = format!("*.{parent}");
        assert!(!admits(&rule, &format!("https://{parent}")));
        assert!(admits(&rule, &format!("https://a.b.{parent}")));
        if admits(&rule, &format!("https://{host}")) {
            let url = url::Url::parse(&format!("https://{host}")).unwrap();
            let inside = url.host_str().unwrap().trim_end_matches('.').ends_with(&format!(".{parent}"));
            assert!(inside, "{host}");
        }
    }

    #[test]
    fn any_text_gives_an_outcome(rule in any::<String>(), hostile in "[a-z0-9.*:/@\\[\\]%_-]{0,24}") {
        let _ = DomainRule::parse(&rule);
        if let Ok(read) = DomainRule::parse(&hostile) {
            assert_eq!(read.as_str(), hostile.as_str());
        }
    }

    #[test]
    fn any_bytes_give_a_page(origin in proptest::collection::vec(any::<u8>(), 0..40), referer in "\\PC{0,40}") {
        let page = Page::read(&[&origin], &[referer.as_bytes()]);
        assert!(page.origin().is_none_or(|origin| origin.bytes().all(|byte| byte.is_ascii_graphic())));
    }

    #[test]
    fn a_path_rule_admits_only_below_itself(path in "(/[a-zA-Z0-9%.;_|-]{1,6}){1,3}", page in "(/[a-zA-Z0-9%.;_|-]{0,6}){0,4}") {
        let Ok(rules) = DomainRules::parse([format!("www.example.com{path}").as_str()]) else { return Ok(()) };
        let url = format!("https://www.example.com{page}");
        if rules.admit(&Page::read(&[], &[url.as_bytes()]), None).is_ok() {
            let decoded = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
            let (page, rule) = (decoded(url::Url::parse(&url).unwrap().path()), decoded(&path));
            assert!(page.starts_with(&rule));
            assert!(page.len() == rule.len() || page[rule.len()] == b'/');
        }
    }
}
