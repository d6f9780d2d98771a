//! Allowed domains while they are typed: which entries are valid, and whether a page would be let in.

use axum::Json;
use axum::extract::RawQuery;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::console::form::Form;
use crate::console::layout::Failure;
use crate::console::session::Visitor;
use crate::policy::domain::{DomainRule, DomainRules, Page};

/// What is wrong with one entry.
#[derive(Debug, Serialize)]
struct Wrong {
    entry: String,
    why: String,
}

/// What the tester says.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) admitted: bool,
    pub(super) text: String,
}

#[derive(Debug, Serialize)]
struct Checked {
    wrong: Vec<Wrong>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
}

/// `GET /console/tokens/check-domains?rules=…&page=…`, asked by the page's script.
pub(crate) async fn check(_: Visitor, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let query = Form::parse(query.unwrap_or_default().as_bytes());
    let rules = query.text("rules");
    let wrong = rules.split_whitespace().filter_map(|entry| {
        let why = DomainRule::parse(entry).err()?.to_string();
        Some(Wrong { entry: entry.to_owned(), why })
    });
    let verdict = query.get("page").map(|page| judge(rules, page));
    Ok(Json(Checked { wrong: wrong.collect(), verdict }).into_response())
}

/// Would a request from this page be let in? As the gate judges it: the page's origin as `Origin`, all of it as `Referer`.
pub(super) fn judge(rules: &str, page: &str) -> Verdict {
    let no = |text: String| Verdict { admitted: false, text };
    let rules = match DomainRules::parse_list(rules) {
        Ok(rules) => rules,
        Err((at, problem)) => {
            let entry = rules.split_whitespace().nth(at).unwrap_or_default();
            return no(format!("First mend {entry}: {problem}"));
        }
    };
    let Ok(url) = url::Url::parse(page) else {
        return no("Type a page's whole address, like https://www.example.com/app".to_owned());
    };
    let origin = url.origin().ascii_serialization();
    let page = Page::read(&[origin.as_bytes()], &[page.as_bytes()]);
    if rules.is_empty() {
        return Verdict { admitted: true, text: "Yes: without a rule every page is let in.".to_owned() };
    }
    match rules.admit(&page, None) {
        Ok(()) => Verdict { admitted: true, text: format!("Yes: requests from {url} would be let in.") },
        Err(refusal) => no(format!("No: {} ({url}).", refusal.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_the_gate_would() {
        let table = [
            ("", "https://any.test/", true, "without a rule"),
            ("www.example.com", "https://www.example.com/app?x=1", true, "would be let in"),
            ("www.example.com", "https://www.example.com.evil.test/", false, "no rule admits"),
            ("www.example.com/app", "https://www.example.com/app/x", true, "would be let in"),
            ("www.example.com/app", "https://www.example.com/other", false, "no rule admits"),
            ("*.com", "https://a.com/", false, "First mend *.com"),
            ("a.test", "a.test", false, "whole address"),
            ("a.test b.test", "http://b.test:8000/", true, "would be let in"),
        ];
        for (rules, page, admitted, text) in table {
            let verdict = judge(rules, page);
            assert_eq!(verdict.admitted, admitted, "{rules} {page}: {verdict:?}");
            assert!(verdict.text.contains(text), "{rules} {page}: {verdict:?}");
        }
    }
}
