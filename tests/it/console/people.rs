//! Who may come in: invited, made admin or viewer, given a new link, removed.

use super::visitor::{Visitor, field};
use crate::harness::gate::{Gate, Plan};
use crate::harness::upstream::Upstream;

/// The link on the page that answers an invitation.
fn link(page: &str) -> String {
    let rest = page.split_once("/console/join/").expect("a link").1;
    format!("/console/join/{}", rest.split_once('<').expect("its end").0)
}

async fn id_of(gate: &Gate, name: &str) -> String {
    let members = gate.admin("GET", "/v1/members", None).await.json();
    let mut members = members["members"].as_array().unwrap().iter();
    members.find(|member| member["name"] == name).unwrap()["id"].as_str().unwrap().to_owned()
}

async fn invite(visitor: &Visitor, name: &str, role: &str) -> String {
    let answer = visitor.post_form("/console/people", &[("name", name), ("role", role)]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.text()
}

#[tokio::test]
async fn a_link_is_shown_once_and_makes_a_member() {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    let holder = Visitor::with_token(&gate).await;
    let page = invite(&holder, "Grace <Hopper>", "viewer").await;
    let path = link(&page);
    assert!(page.contains(&format!("http://{}{path}", gate.admin)) && page.contains("data-copy="), "{page}");
    assert!(page.contains("Grace &#60;Hopper&#62;") && !page.contains("<Hopper>"), "{page}");
    let list = holder.get("/console/people").await.text();
    assert!(list.contains("Invited, until") && !list.contains("/console/join/"), "{list}");
    let viewer = Visitor::follow(&gate, &path).await;
    let list = viewer.get("/console/people").await.text();
    assert!(list.contains(">Member<") && list.contains("(you)"), "{list}");
    assert!(!list.contains("<form method=\"post\" action=\"/console/people"), "a viewer sees the list only");
}

#[tokio::test]
async fn a_name_that_cannot_be_taken_is_told_and_kept() {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    let holder = Visitor::with_token(&gate).await;
    invite(&holder, "Ada", "admin").await;
    for (name, status, told) in [("ADA", 409, "name"), ("", 422, "is empty")] {
        let answer = holder.post_form("/console/people", &[("name", name), ("role", "admin")]).await;
        let page = answer.text();
        assert!(
            answer.status == status && page.contains(told) && page.contains("Nobody was invited"),
            "{page}"
        );
        assert!(
            page.contains("aria-invalid=\"true\"") && page.contains("value=\"admin\" selected"),
            "{page}"
        );
        assert_eq!(field(&page, "name"), name);
    }
}

#[tokio::test]
async fn admin_status_is_given_and_taken_and_holds_at_once() {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    let admin = Visitor::join(&gate, "Ada", "admin").await;
    let grace = Visitor::join(&gate, "Grace", "viewer").await;
    let id = id_of(&gate, "Grace").await;
    let role = format!("/console/people/{id}/role");
    let page = admin.post_and_follow(&role, &[("role", "admin")]).await;
    assert!(page.contains("Grace is an admin now."), "{page}");
    assert!(page.contains("Take admin status from Grace"), "{page}");
    drop(grace);
    let page = admin.post_and_follow(&role, &[("role", "viewer")]).await;
    assert!(page.contains("Grace is a viewer now"), "{page}");
    let page = admin.post_and_follow(&role, &[("role", "admin"), ("version", "1")]).await;
    assert!(page.contains("Somebody else changed this member"), "{page}");

    let own = format!("/console/people/{}/role", id_of(&gate, "Ada").await);
    let list = admin.get("/console/people").await.text();
    assert!(!list.contains("from Ada") && list.contains("Another admin can change your role."), "{list}");
    let page = admin.post_and_follow(&own, &[("role", "viewer")]).await;
    assert!(page.contains("role=\"alert\""), "nobody takes their own role away: {page}");
}

#[tokio::test]
async fn who_is_removed_or_gets_a_new_link_is_out_at_once() {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    let holder = Visitor::with_token(&gate).await;
    let grace = Visitor::join(&gate, "Grace", "viewer").await;
    let id = id_of(&gate, "Grace").await;
    let answer = holder.post_form(&format!("/console/people/{id}/invite"), &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let path = link(&answer.text());
    assert_eq!(grace.get("/console/people").await.status, 303, "the session of before is over");
    let grace = Visitor::follow(&gate, &path).await;
    assert_eq!(grace.get("/console/people").await.status, 200);

    let page = holder.get(&format!("/console/people/{id}/remove")).await.text();
    assert!(page.contains("role=\"alertdialog\"") && page.contains(">Remove Grace</button>"), "{page}");
    let version = field(&page, "version");
    let page =
        holder.post_and_follow(&format!("/console/people/{id}/remove"), &[("version", &version)]).await;
    assert!(page.contains("Removed Grace.") && !page.contains(&id), "{page}");
    assert_eq!(grace.get("/console/people").await.status, 303);
    let gone = holder.post_form(&format!("/console/people/{id}/remove"), &[]).await;
    assert_eq!(gone.status, 404, "{}", gone.text());
}
