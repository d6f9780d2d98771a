//! What the page of explanations shows, and what it never shows again.

use serde_json::json;

use super::visitor::{Visitor, field};
use crate::harness::evidence::find_token;
use crate::harness::gate::Plan;
use crate::harness::upstream::Upstream;

#[tokio::test]
async fn a_request_is_explained_check_by_check() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).start().await;
    let token = gate.token(json!({"nickname": "Web shop", "allowed_domains": ["www.example.com"]})).await;
    let viewer = Visitor::join(&gate, "Grace", "viewer").await;
    let url = format!("https://gate.test{}", token.on("/v1/ten/x"));
    for (origin, told) in [
        ("https://www.example.com", "It would pass"),
        ("https://evil.test", "It would be refused: 403 <span class=\"mono\">domain_denied</span>"),
    ] {
        let fields = [("method", "GET"), ("url", url.as_str()), ("origin", origin)];
        let answer = viewer.post_form("/console/explain", &fields).await;
        let page = answer.text();
        assert!(answer.status == 200 && page.contains(told), "{page}");
        assert!(
            page.contains(">Web shop</a>") && page.matches("<li><span class=\"badge").count() > 2,
            "{page}"
        );
        assert_eq!(field(&page, "origin"), origin);
        assert!(page.contains(&token.value), "a publishable token may stay in the field");
        assert!(!page.contains("Secrets you pasted"), "{page}");
    }
    let by_id = [
        ("url", "/v1/ten/x"),
        ("token_id", token.id.as_str()),
        ("headers", "Referer: https://www.example.com/app"),
    ];
    let page = viewer.post_form("/console/explain", &by_id).await.text();
    assert!(page.contains("It would pass") && page.contains("10 credits from the core pool"), "{page}");
    assert_eq!(upstream.count(), 0, "nothing is forwarded");
}

#[tokio::test]
async fn a_secret_is_asked_with_and_never_shown_or_logged() {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    let visitor = Visitor::with_token(&gate).await;
    let secret = gate.secret();
    let (plain, bearer) =
        (format!("/v1/ten/x?token={secret}"), format!("X-A: b\nAuthorization: Bearer {secret}"));
    let hidden = plain.replace("sk_", "sk%5F");
    for fields in [
        [("url", plain.as_str()), ("headers", "")],
        [("url", "/v1/ten/x"), ("headers", &bearer)],
        [("url", &hidden), ("headers", "")],
    ] {
        let answer = visitor.post_form("/console/explain", &fields).await;
        let page = answer.text();
        assert!(answer.status == 200 && page.contains("It would pass"), "{page}");
        assert_eq!(find_token(&answer.body), None, "{page}");
        assert!(
            !page.contains(&secret[3..]) && page.contains("Secrets you pasted are not shown again"),
            "{page}"
        );
    }
    assert!(!gate.events().contains(&secret[3..]));
}

#[tokio::test]
async fn what_cannot_be_asked_is_told_below_its_field() {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    let visitor = Visitor::with_token(&gate).await;
    for (fields, told) in [
        (vec![("url", "")], "paste the address"),
        (vec![("url", "/v1/x"), ("client", "nowhere")], "an IP address"),
        (vec![("url", "/v1/x"), ("token_id", "tok_1")], "a token"),
        (vec![("url", "/v1/x"), ("method", "A B")], "method"),
        (vec![("url", "/v1/x"), ("headers", "no colon")], "line 1"),
        (vec![("url", "/v1/x"), ("headers", "na me: x")], "name of a header"),
        (vec![("url", "not a path")], "expected"),
    ] {
        let answer = visitor.post_form("/console/explain", &fields).await;
        assert_eq!(answer.status, 422, "{fields:?}: {}", answer.text());
        assert!(
            answer.text().contains("class=\"error\"") && answer.text().contains(told),
            "{fields:?}: {}",
            answer.text()
        );
    }
}
