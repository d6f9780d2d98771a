//! What the page of nodes shows.

use crate::harness::gate::Plan;
use crate::harness::redis_server::RedisServer;
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

use super::visitor::Visitor;

#[tokio::test]
async fn each_node_is_shown_with_its_policies_and_whether_it_lives() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let secret = format!("sk_{}", "5ec2e7".repeat(6).get(..32).unwrap());
    let node = || {
        Plan::new(&upstream).store(&format!("url: \"{}\", timeout: 10s", redis.url())).secret(&secret).start()
    };
    let first = node().await;
    let _second = node().await;
    let visitor = Visitor::with_token(&first).await;
    wait_for("both nodes to be in step", || async {
        let page = visitor.get("/console/nodes").await.text();
        page.contains("All 2 nodes that are live act by the newest policies.")
    })
    .await;
    let page = visitor.get("/console/nodes").await.text();
    assert_eq!((page.matches(">Live<").count(), page.matches(">In step<").count()), (2, 2), "{page}");
    assert!(page.contains("None are stranded") && page.contains(">Refresh</a>"), "{page}");
    assert!(!page.contains("http-equiv"), "it reloads only when asked");
}
