//! The console in a real browser: the story of the original's page, line by line (`access-and-security.md`), and what an
//! ops team relies on besides. Things are found by role and name, as people find them who hear a page read aloud.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::browser::Browser;
use crate::harness::browser::desk::Desk;
use crate::harness::client::{Answer, Ask};
use crate::harness::gate::{Gate, Plan};
use crate::harness::redis_server::RedisServer;
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

mod look;

const SECRET: &str = "sk_5ec2e7000000000000000000000005e7";
const CORE: &str = "/v1/data/CORE/QUOTE/AAPL";
const CARS: &str = "/v1/data/MY/CARS/all";
const ROUTES: &str = r#"
  - {path: "/{version}/data/CORE/{dataset}/**", upstream: datasets, access: core, dataset: "CORE/{dataset}"}
  - {path: "/{version}/data/PREMIUM/{dataset}/**", upstream: datasets, access: premium, dataset: "PREMIUM/{dataset}"}
  - {path: "/{version}/data/{workspace}/{dataset}/**", upstream: datasets, access: dataset, dataset: "{workspace}/{dataset}"}
"#;

async fn ask(gate: &Gate, token: &str, path: &str, page: Option<&str>) -> Answer {
    let ask = Ask::get(&format!("{path}?token={token}"));
    let ask = match page {
        Some(page) => ask.header("Referer", page),
        None => ask,
    };
    ask.send(gate.address).await
}

/// The value of the newest token, as the list shows it.
async fn newest(desk: &Desk<'_>) -> (String, String) {
    let script = "const row = [...document.querySelectorAll('tbody tr')].pop(); \
                  return [row.id, row.querySelector('a.mono').textContent]";
    let found = desk.run(script, Vec::new()).await;
    let text = |at: usize| found[at].as_str().expect("a text").to_owned();
    (text(0), text(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_story_of_a_publishable_token_from_the_first_click_to_two_nodes() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let store = format!("url: \"{}\", timeout: 10s", redis.url());
    let node = || Plan::new(&upstream).store(&store).routes(ROUTES).secret(SECRET).start();
    let (first, browser) = tokio::join!(node(), Browser::start());
    let second = node().await;
    let desk = Desk::at(&browser, first.admin);

    // "Navigate to Access & Security → API Tokens. The page appears, listing your tokens in order, oldest to newest."
    desk.open("/").await;
    desk.reads("Sign in").await;
    desk.fill_hidden("token", SECRET).await;
    desk.click("button", "Sign in with token").await;
    desk.find("heading", "API Tokens").await;
    desk.reads("Secret").await;

    // "Click Create new token. A dialog asks if you are sure you want to add a publishable token."
    desk.click("button", "Create new token").await;
    desk.find("dialog", "Create new token").await;
    desk.reads("Are you sure you want to add a publishable token?").await;

    // "Click Add publishable token. A new publishable token is added to the bottom of the token list."
    desk.click("button", "Add publishable token").await;
    desk.reads("Successfully created a new publishable token").await;
    desk.reads("In force now, on all 2 nodes.").await;
    let (id, token) = newest(&desk).await;
    assert!(token.starts_with("pk_") && token.len() == 35, "{token}");
    for gate in [&first, &second] {
        assert_eq!(ask(gate, &token, CORE, None).await.status, 200, "core data may be read by default");
        assert_eq!(ask(gate, &token, CARS, None).await.code(), "dataset_denied");
    }

    // "Clicking on its gear icon or on its token ID": the form appears. "Define the token."
    desk.click("link", &token).await;
    desk.reads("Dataset permissions").await;
    desk.open("/console/tokens").await;
    desk.click("link", &format!("Edit token {id}")).await;
    desk.fill("Nickname", "Customer XYZ").await;
    desk.click("switch", "Premium Data Access").await;
    desk.fill_combo("Dataset", "MY/CARS").await;
    desk.click("button", "Add permission").await;
    desk.reads("MY/CARS - read").await;
    assert_eq!(desk.value("Nickname").await, "Customer XYZ", "what was typed stays");
    desk.fill("Allowed Domain(s)", "www.example.com *.example.org").await;
    // Two were used already.
    desk.fill("Core Credit Usage Limit", "5").await;

    // "When you're done specifying the token, click Done." No couple of minutes: within a second, on both nodes.
    desk.click("button", "Done").await;
    let done = Instant::now();
    desk.reads("Saved Customer XYZ. In force now, on all 2 nodes.").await;
    let page = Some("https://www.example.com/app");
    for gate in [&first, &second] {
        assert_eq!(ask(gate, &token, CORE, Some("https://evil.test/")).await.code(), "domain_denied");
        assert_eq!(ask(gate, &token, CARS, page).await.status, 200, "a granted data set");
    }
    assert_eq!(
        ask(&first, &token, "/v1/data/PREMIUM/X/1", page).await.status,
        200,
        "premium draws on its own pool"
    );
    assert_eq!(ask(&second, &token, CORE, page).await.status, 200);
    assert_eq!(ask(&second, &token, CORE, page).await.code(), "credits_exhausted", "five credits, two nodes");
    assert!(done.elapsed() < Duration::from_secs(10), "asked at once");

    // The list tells what was used.
    let used = || async {
        desk.open("/console/tokens").await;
        desk.text().await.contains("5 of 5 this month")
    };
    wait_for("the list to tell what was used", used).await;
    desk.find("meter", "Core credits used by Customer XYZ").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn domains_are_checked_as_one_types_and_a_page_can_be_tried() {
    let upstream = Upstream::start().await;
    let (mut gate, browser) = tokio::join!(Plan::new(&upstream).routes(ROUTES).start(), Browser::start());
    let token = gate.token(json!({"nickname": "App"})).await;
    let desk = Desk::at(&browser, gate.admin);
    desk.sign_in(&gate.secret()).await;
    desk.open(&format!("/console/tokens/{}", token.id)).await;

    desk.fill("Allowed Domain(s)", "www.example.com *.com").await;
    desk.reads("*.com:").await;
    desk.waits_enabled("button", "Update domain", false).await;
    desk.fill("Allowed Domain(s)", "www.example.com *.example.org").await;
    desk.waits_enabled("button", "Update domain", true).await;
    desk.fill("Would this page be let in?", "https://www.example.com.evil.test/").await;
    desk.reads("No: no rule admits the page").await;
    desk.fill("Would this page be let in?", "https://dev.example.org/x").await;
    desk.reads("Yes: requests from https://dev.example.org/x would be let in.").await;
    desk.click("button", "Update domain").await;
    desk.reads("Updated the allowed domains. In force now, on the one node there is.").await;
    assert_eq!(ask(&gate, &token.value, CORE, Some("https://dev.example.org/x")).await.status, 200);
    assert_eq!(ask(&gate, &token.value, CORE, Some("https://other.test/")).await.code(), "domain_denied");

    // Without script the server says the same, and nothing of what was typed is lost or half saved.
    let form = format!(
        "allowed_domains=*.com&domain_mode=enforce&nickname=Typed&action=domains&csrf={}",
        csrf(&desk).await
    );
    let ask = Ask::new("POST", &format!("/console/tokens/{}", token.id));
    let answer = signed_in(ask, &desk).await.body(form).send(gate.admin).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    for text in ["*.com", "Typed", "public suffix"] {
        assert!(answer.text().contains(text), "{text}: {}", answer.text());
    }
    let stored = gate.admin("GET", &format!("/v1/tokens/{}", token.id), None).await.json();
    assert_eq!((&stored["nickname"], stored["version"].as_u64()), (&json!("App"), Some(2)));
}

/// What stands in the forms of the page that is open.
async fn csrf(desk: &Desk<'_>) -> String {
    let found = desk.run("return document.querySelector('[name=csrf]').value", Vec::new()).await;
    found.as_str().expect("a text").to_owned()
}

/// A form of whoever is signed in at the desk.
async fn signed_in(ask: Ask, desk: &Desk<'_>) -> Ask {
    ask.header("Cookie", &format!("tollgate_session={}", desk.cookie().await))
        .header("Content-Type", "application/x-www-form-urlencoded")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_revealed_rotated_disabled_and_revoked() {
    let upstream = Upstream::start().await;
    let (mut gate, browser) = tokio::join!(Plan::new(&upstream).routes(ROUTES).start(), Browser::start());
    let secret = gate.token(json!({"type": "secret", "nickname": "Batch job"})).await;
    let desk = Desk::at(&browser, gate.admin);
    desk.sign_in(&gate.secret()).await;
    assert!(!desk.text().await.contains(&secret.value), "the list shows no secret");
    desk.click("button", "Reveal secret token Batch job").await;
    desk.reads(&secret.value).await;
    let audit = gate.admin("GET", "/v1/audit", None).await.text();
    assert!(audit.contains("token.reveal") && !audit.contains(&secret.value), "{audit}");

    desk.open(&format!("/console/tokens/{}", secret.id)).await;
    desk.choose("The old value works on for", "no time").await;
    desk.click("button", "Rotate").await;
    desk.reads("The token has a new value. In force now").await;
    let new = desk.run("return document.querySelector('output.secret').textContent", Vec::new()).await;
    let new = new.as_str().expect("a value").trim().to_owned();
    assert!(new.starts_with("sk_") && new != secret.value);
    assert_eq!(ask(&gate, &secret.value, CORE, None).await.code(), "token_invalid");
    assert_eq!(ask(&gate, &new, CORE, None).await.status, 200);

    desk.click("link", "Edit the token").await;
    desk.click("button", "Disable").await;
    desk.reads("Disabled Batch job. In force now").await;
    assert_eq!(ask(&gate, &new, CORE, None).await.code(), "token_disabled");
    desk.click("button", "Enable").await;
    desk.reads("Enabled Batch job. In force now").await;
    assert_eq!(ask(&gate, &new, CORE, None).await.status, 200);

    // The confirmation names the token.
    desk.click("button", "Revoke").await;
    desk.reads("Revoke Batch job").await;
    desk.click("button", "Revoke Batch job").await;
    desk.reads("Revoked Batch job. In force now").await;
    assert_eq!(ask(&gate, &new, CORE, None).await.code(), "token_revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_forms_and_sessions_are_refused_and_signing_out_ends_the_session_everywhere() {
    let upstream = Upstream::start().await;
    let (gate, browser) = tokio::join!(Plan::new(&upstream).start(), Browser::start());
    let desk = Desk::at(&browser, gate.admin);
    desk.sign_in(&gate.secret()).await;
    let (cookie, csrf) = (desk.cookie().await, csrf(&desk).await);
    let post = |cookie: &str, form: &str| {
        Ask::new("POST", "/console/tokens")
            .header("Cookie", &format!("tollgate_session={cookie}"))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form.to_owned())
    };
    let count =
        || async { gate.admin("GET", "/v1/tokens", None).await.json()["tokens"].as_array().map(Vec::len) };
    let (good, host) = (format!("type=publishable&csrf={csrf}"), gate.admin.to_string());
    let forged = "0".repeat(cookie.len());
    let table = [
        ("no CSRF token", post(&cookie, "type=publishable"), 403),
        ("another's CSRF token", post(&cookie, &format!("type=publishable&csrf={forged}")), 403),
        ("from another site", post(&cookie, &good).header("Origin", "https://evil.test"), 403),
        (
            "from another site, as browsers say",
            post(&cookie, &good).header("Sec-Fetch-Site", "cross-site"),
            403,
        ),
        ("from another port", post(&cookie, &good).header("Origin", "http://127.0.0.1:1"), 403),
        ("a forged session", post(&forged, &good), 401),
        ("no session", post("", &good), 401),
    ];
    for (what, ask, status) in table {
        let answer = ask.send(gate.admin).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert_eq!(count().await, Some(1), "{what}");
    }
    let answer = post(&cookie, &good).header("Origin", &format!("http://{host}")).send(gate.admin).await;
    assert_eq!((answer.status, count().await), (303, Some(2)), "the page's own form");

    desk.click("button", "Sign out").await;
    desk.reads("With a secret token").await;
    assert_eq!(
        post(&cookie, &good).send(gate.admin).await.status,
        401,
        "a copy of the cookie is good for nothing"
    );
    let answer = Ask::get("/console/tokens").header("Cookie", &format!("tollgate_session={cookie}"));
    let answer = answer.send(gate.admin).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some("/console/sign-in?next=%2Fconsole%2Ftokens"))
    );
    desk.open("/console/tokens").await;
    desk.reads("With a secret token").await;
}
