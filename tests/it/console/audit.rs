//! What the audit shows.

use serde_json::json;

use super::MAX_PAGE;
use super::visitor::{Visitor, link};
use crate::harness::gate::Plan;
use crate::harness::redis_server::RedisServer;
use crate::harness::upstream::Upstream;

#[tokio::test]
async fn the_audit_tells_who_changed_what_from_what_to_what() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    for plan in
        [Plan::new(&upstream), Plan::new(&upstream).store(&format!("url: \"{}\", timeout: 10s", redis.url()))]
    {
        let mut gate = plan.start().await;
        let token = gate.token(json!({"nickname": "Web shop"})).await;
        gate.edit(
            &token,
            json!({"core_access": false, "credit_limit": {"core": {"credits": 5000, "period": "day"}}}),
        )
        .await;
        let admin = Visitor::join(&gate, "Ada <Lovelace>", "admin").await;
        admin
            .post_and_follow(&format!("/console/tokens/{}/status", token.id), &[("status", "disabled")])
            .await;
        let viewer = Visitor::join(&gate, "Grace", "viewer").await;
        let page = viewer.get("/console/audit").await.text();
        for told in [
            "core access:</span> <del>on</del> → <ins>off</ins>",
            "credit limit, core:</span> nothing → <ins>5,000 a day</ins>",
            "status:</span> <del>active</del> → <ins>disabled</ins>",
            "Ada &#60;Lovelace&#62;</a>",
            "Invited <a href=\"/console/people#mem_",
            "role:</span> viewer",
            &format!("Created <a href=\"/console/tokens/{}\">Web shop</a>", token.id),
            "from 127.0.0.1",
        ] {
            assert!(page.contains(told), "{told} is not in {page}");
        }
        let disabled = page.find("<ins>disabled</ins>").unwrap();
        assert!(disabled < page.find("<ins>off</ins>").unwrap(), "the newest comes first");

        let page = viewer.get(&format!("/console/audit?target={}", token.id)).await.text();
        assert_eq!((page.matches("<tr>").count(), page.contains("Invited")), (4, false), "{page}");
        let page = viewer.get("/console/audit?actor=Ada%20%3CLovelace%3E").await.text();
        assert!(page.contains("<ins>disabled</ins>") && !page.contains("<ins>off</ins>"), "{page}");
    }
}

#[tokio::test]
async fn older_entries_are_a_page_further() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).start().await;
    let token = gate.token(json!({"nickname": "change 0"})).await;
    let domains: Vec<_> = (0..100).map(|n| format!("host-{n}.a-rather-long-name.example.com")).collect();
    for n in 1..=40 {
        let rules = if n % 2 == 0 { json!([]) } else { json!(domains) };
        gate.edit(&token, json!({"nickname": format!("change {n}"), "allowed_domains": rules})).await;
    }
    let visitor = Visitor::with_token(&gate).await;
    let first = visitor.get(&format!("/console/audit?target={}", token.id)).await;
    assert!(first.body.len() < MAX_PAGE, "{} bytes", first.body.len());
    let first = first.text();
    assert!(
        first.contains("change 40<")
            && !first.contains("<ins>change 10</ins>")
            && link(&first, "Newest").is_none(),
        "{first}"
    );
    assert!(first.contains("more characters"), "long values are cut");
    let second = visitor.get(&link(&first, "Older").unwrap()).await.text();
    assert!(second.contains("<ins>change 10</ins>") && second.contains("Created"), "{second}");
    assert_eq!(link(&second, "Older"), None, "{second}");
    let again = visitor.get(&link(&second, "Newest").unwrap()).await.text();
    assert!(again.contains("<ins>change 40</ins>"), "{again}");
}
