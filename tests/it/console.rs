//! The console's pages over HTTP: what they show and to whom, what they refuse, and that no secret is in them. How they
//! look and feel in a browser is told elsewhere.

use serde_json::json;

use crate::harness::evidence::find_token;
use crate::harness::gate::Plan;
use crate::harness::upstream::Upstream;

mod audit;
mod explain;
mod nodes;
mod people;
mod usage;
mod visitor;

use visitor::Visitor;

/// All pages but those of tokens.
const PAGES: [&str; 9] = [
    "/console/usage",
    "/console/usage?last=24h",
    "/console/usage?last=year&by=dataset",
    "/console/usage?by=operation&pool=premium",
    "/console/usage?by=token",
    "/console/nodes",
    "/console/explain",
    "/console/audit",
    "/console/people",
];
/// A page is smaller than this, in bytes.
const MAX_PAGE: usize = 50 * 1024;

#[tokio::test]
async fn every_page_opens_for_admins_and_viewers_and_holds_no_secret() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).start().await;
    gate.token(json!({"nickname": "Customer <XYZ>", "type": "publishable"})).await;
    gate.token(json!({"type": "secret"})).await;
    let holder = Visitor::with_token(&gate).await;
    let (admin, viewer) =
        (Visitor::join(&gate, "Ada", "admin").await, Visitor::join(&gate, "Grace", "viewer").await);
    for (who, visitor) in [("holder", &holder), ("admin", &admin), ("viewer", &viewer)] {
        for path in PAGES {
            let page = visitor.get(path).await;
            let text = page.text();
            assert_eq!(page.status, 200, "{who} {path}: {text}");
            assert_eq!(find_token(&page.body), None, "{who} {path} holds a token");
            assert!(page.body.len() < MAX_PAGE, "{who} {path}: {} bytes", page.body.len());
            let policy = page.header("content-security-policy").unwrap();
            assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
            assert_eq!(page.header("cache-control"), Some("no-store"), "{path}");
            // The policy allows neither, so a page with one would look broken.
            assert!(
                !text.contains(" style=") && !text.contains("<style") && !text.contains("<script>"),
                "{path}"
            );
            assert!(!text.contains("<XYZ>"), "{path} does not escape");
            assert_eq!(text.matches("<h1").count(), 1, "{path} has one heading");
        }
    }
}

#[tokio::test]
async fn nobody_sees_a_page_who_is_not_signed_in() {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    let nobody = Visitor::nobody(&gate);
    for path in PAGES.into_iter().chain(["/console/usage.csv", "/console/usage.json"]) {
        let answer = nobody.get(path).await;
        let to = answer.header("location").unwrap_or_default();
        assert!(
            answer.status == 303 && to.starts_with("/console/sign-in?next="),
            "{path}: {} {to}",
            answer.status
        );
    }
    for path in ["/console/usage/budget", "/console/explain", "/console/people"] {
        assert_eq!(nobody.post(path, &[("csrf", "")]).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn a_viewer_changes_nothing_and_a_forged_form_neither() {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    let admin = Visitor::with_token(&gate).await;
    let viewer = Visitor::join(&gate, "Grace", "viewer").await;
    let members = gate.admin("GET", "/v1/members", None).await.json();
    let member = members["members"][0]["id"].as_str().unwrap().to_owned();
    let of = |what: &str| format!("/console/people/{member}/{what}");
    let writes: [(String, Vec<(&str, &str)>); 5] = [
        (
            "/console/usage/budget".to_owned(),
            vec![("action", "set-core"), ("core-credits", "5"), ("core-period", "day")],
        ),
        ("/console/people".to_owned(), vec![("name", "Mallory"), ("role", "admin")]),
        (of("role"), vec![("role", "admin")]),
        (of("invite"), vec![]),
        (of("remove"), vec![]),
    ];
    for (path, fields) in &writes {
        let refused = viewer.post_form(path, fields).await;
        assert_eq!(refused.status, 403, "{path}: {}", refused.text());
        let forged: Vec<_> = fields.iter().copied().chain([("csrf", "0000")]).collect();
        assert_eq!(admin.post(path, &forged).await.status, 403, "{path}");
        let elsewhere = admin.post_from(path, fields, "https://evil.test").await;
        assert_eq!(elsewhere.status, 403, "{path}");
    }
    assert_eq!(gate.admin("GET", "/v1/members", None).await.json(), members);
    assert_eq!(gate.admin("GET", "/v1/account", None).await.json()["budget"]["core"], json!(null));
    for (path, button) in [("/console/usage", "Set core budget"), ("/console/people", "Invite")] {
        assert!(admin.get(path).await.text().contains(button), "{path}");
        assert!(!viewer.get(path).await.text().contains(&format!(">{button}")), "{path}");
    }
}

#[tokio::test]
async fn what_cannot_be_taken_is_told_and_never_an_error_of_the_server() {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    let visitor = Visitor::with_token(&gate).await;
    let secret = format!("sk_{}", "0123456789abcdef".repeat(2));
    let nobody = "tok_00000000010000000000000009";
    let table = [
        ("/console/usage?by=week".to_owned(), 400, "must be hour, day, month"),
        ("/console/usage?from=yesterday&pool=gold".to_owned(), 400, "must be core or premium"),
        ("/console/usage?from=2026-11-24&to=2026-11-01".to_owned(), 400, "must not be after the last one"),
        ("/console/usage?last=30d&by=hour".to_owned(), 400, "at most 14 days"),
        ("/console/usage?page=99999999999999999999".to_owned(), 200, "<h1>Usage</h1>"),
        (format!("/console/usage?token={secret}"), 400, "a token&#39;s id"),
        (format!("/console/usage?token={nobody}"), 400, "no token with that id"),
        ("/console/usage.csv?by=week".to_owned(), 400, "must be hour, day, month"),
        (format!("/console/usage.json?token={nobody}"), 404, "no token with that id"),
        ("/console/audit?cursor=nonsense".to_owned(), 400, "next_cursor"),
        (format!("/console/audit?target={secret}"), 400, "the token&#39;s id"),
        (format!("/console/audit?actor={}", "x".repeat(300)), 400, "longer than 200"),
        ("/console/audit?actor=Nobody%20Known".to_owned(), 200, "Nothing like that was done"),
        ("/console/people/mem_1/remove".to_owned(), 404, "member"),
        ("/console/people/..%2F..%2Fhealthz/remove".to_owned(), 404, "member"),
    ];
    for (path, status, told) in table {
        let page = visitor.get(&path).await;
        assert_eq!(page.status, status, "{path}: {}", page.text());
        assert!(page.text().contains(told), "{path}: {}", page.text());
        assert_eq!(find_token(&page.body), None, "{path}");
    }
}
