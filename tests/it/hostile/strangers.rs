//! Tokens that are nobody's, in numbers: who tries them is held back, who shares the address is not, the store is asked at
//! a bounded rate and memory stays what it is.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::client::{Answer, Ask, Connection};
use crate::harness::gate::{Gate, Plan, Token};
use crate::harness::redis_server::RedisServer;
use crate::harness::upstream::Upstream;

const DATA: &str = "/v1/data/CORE/QUOTE/AAPL";

fn guess(number: u32) -> Ask {
    Ask::get(&format!("{DATA}?token=pk_{number:032x}"))
}

async fn gate(failures: u32) -> (Upstream, Gate, Token) {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream).extra(&format!("brute_force: {{failures: {failures}, window: 10m}}"));
    let mut gate = plan.extra("trusted_proxies: [127.0.0.1]").start().await;
    let token = gate.token(json!({})).await;
    (upstream, gate, token)
}

async fn ask_from(gate: &Gate, client: &str, ask: Ask) -> (u16, String) {
    let answer = gate.ask(ask.header("X-Forwarded-For", client)).await;
    let code = if answer.status == 200 { String::new() } else { answer.code() };
    assert_eq!(answer.status == 429, answer.header("retry-after").is_some());
    (answer.status, code)
}

#[tokio::test]
async fn who_tries_many_tokens_is_held_back_and_nobody_else() {
    let (upstream, mut gate, token) = gate(5).await;
    let late = gate.token(json!({})).await;
    let refused = (403, "token_invalid".to_owned());
    let held_back = (429, "too_many_invalid_tokens".to_owned());
    let known = || Ask::get(&token.on(DATA));
    assert_eq!(ask_from(&gate, "203.0.113.9", known()).await.0, 200, "met before the guessing");
    // What is no token at all counts too, and so does a preflight's.
    for ask in [
        guess(1),
        Ask::get(&format!("{DATA}?token=pk_short")),
        Ask::get(DATA).header("Authorization", "Bearer nonsense"),
        guess(1),
        Ask::new("OPTIONS", &format!("{DATA}?token=pk_{:032x}", 2))
            .header("Origin", "https://a.example")
            .header("Access-Control-Request-Method", "GET"),
    ] {
        assert_eq!(ask_from(&gate, "203.0.113.9", ask).await, refused);
    }
    for ask in [guess(1), guess(3), Ask::get(&format!("{DATA}?token=pk_short"))] {
        assert_eq!(ask_from(&gate, "203.0.113.9", ask).await, held_back);
    }
    // Who shares the address goes on with what this gate knows; a token it never met waits.
    assert_eq!(ask_from(&gate, "203.0.113.9", known()).await.0, 200);
    assert_eq!(ask_from(&gate, "203.0.113.9", Ask::get(&late.on(DATA))).await, held_back);
    assert_eq!(ask_from(&gate, "203.0.113.9", Ask::get(DATA)).await.1, "token_missing");
    // Others are others, an IPv6 network of 64 bits is one.
    assert_eq!(ask_from(&gate, "203.0.113.10", guess(4)).await, refused);
    assert_eq!(ask_from(&gate, "203.0.113.10", Ask::get(&late.on(DATA))).await.0, 200);
    for host in 1..=5 {
        assert_eq!(ask_from(&gate, &format!("2001:db8::{host}"), guess(5)).await, refused);
    }
    assert_eq!(ask_from(&gate, "2001:db8::6", guess(6)).await, held_back);
    assert_eq!(ask_from(&gate, "2001:db8:0:1::1", guess(6)).await, refused);
    // Now that it was met, also from where it waited.
    assert_eq!(ask_from(&gate, "203.0.113.9", Ask::get(&late.on(DATA))).await.0, 200);
    assert_eq!(upstream.count(), 4);
    assert!(gate.metrics().await.contains("too_many_invalid_tokens"));
}

#[tokio::test]
async fn a_client_cannot_say_it_is_somebody_else() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream).extra("brute_force: {failures: 3, window: 10m}");
    let gate = plan.start().await;
    for number in 0..3 {
        let from = format!("203.0.113.{number}");
        assert_eq!(ask_from(&gate, &from, guess(number)).await.0, 403);
    }
    assert_eq!(ask_from(&gate, "203.0.113.77", guess(9)).await.0, 429);
}

/// Kilobytes of memory that a process takes up.
fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse().ok()).expect("kilobytes")
}

#[tokio::test]
async fn a_flood_of_unknown_tokens_reaches_the_store_at_a_bounded_rate() {
    const FLOOD: u32 = 3_000;
    const CONNECTIONS: u32 = 8;
    let redis = RedisServer::start();
    let upstream = Upstream::start().await;
    // No limit for an address: as if each request came from another.
    let plan = Plan::new(&upstream).store(&format!("url: \"{}\", timeout: 10s", redis.url()));
    let mut gate = plan.extra("brute_force: {failures: 0}").start().await;
    let token = gate.token(json!({})).await;
    assert_eq!(gate.ask(Ask::get(&token.on(DATA))).await.status, 200);
    let (before, commands, began) = (resident(gate.pid()), redis.commands(), Instant::now());
    let mut floods = Vec::new();
    for part in 0..CONNECTIONS {
        let address = gate.address;
        floods.push(tokio::spawn(async move {
            let mut connection = Connection::open(address).await;
            let mut statuses = Vec::new();
            for number in 0..FLOOD / CONNECTIONS {
                let answer: Answer = connection.send(&guess(part << 24 | number)).await.expect("an answer");
                statuses.push(answer.status);
            }
            statuses
        }));
    }
    for flood in floods {
        let statuses = flood.await.expect("a flood");
        assert!(statuses.iter().all(|status| matches!(status, 403 | 503)), "{statuses:?}");
    }
    let seconds = began.elapsed().as_secs() + 1;
    // 2,000 look-ups in a second, one command each; and what the gate does besides.
    let asked = redis.commands() - commands;
    let most = seconds * (2_000 + 500) + 500;
    assert!(asked <= most, "{asked} commands in {seconds} s");
    let grown = resident(gate.pid()).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB for {FLOOD} unknown tokens");
    // Whoever is known did not notice.
    let answer = tokio::time::timeout(Duration::from_secs(10), gate.ask(Ask::get(&token.on(DATA)))).await;
    assert_eq!(answer.expect("an answer").status, 200);
}

#[tokio::test]
async fn wrong_tokens_at_the_admin_api_are_held_back_and_right_ones_never() {
    let (_upstream, mut gate, _) = gate(3).await;
    let fresh = gate.token(json!({"type": "secret"})).await;
    let ask = async |client: &str, token: &str| {
        let ask = Ask::get("/v1/account").header("Authorization", &format!("Bearer {token}"));
        let answer = ask.header("X-Forwarded-For", client).send(gate.admin).await;
        if answer.status == 429 {
            let wait: u64 = answer.header("retry-after").expect("a wait").parse().expect("seconds");
            assert!((1..=600).contains(&wait), "{wait}");
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        }
        (answer.status, if answer.status == 200 { String::new() } else { answer.code() })
    };
    let unknown = |number: u32| format!("sk_{number:032x}");
    let refused = (401, "token_invalid".to_owned());
    let held_back = (429, "too_many_invalid_tokens".to_owned());
    // What is no token at all counts too.
    for wrong in [unknown(1), unknown(2), "sk_short".to_owned()] {
        assert_eq!(ask("203.0.113.9", &wrong).await, refused);
    }
    for wrong in [unknown(1), unknown(3), "sk_short".to_owned()] {
        assert_eq!(ask("203.0.113.9", &wrong).await, held_back);
    }
    // A right one is let in, also one that this gate never met.
    for right in [&fresh.value, &gate.secret()] {
        assert_eq!(ask("203.0.113.9", right).await.0, 200);
    }
    // Others are others, an IPv6 network of 64 bits is one, and the gate's own count is another.
    assert_eq!(ask("203.0.113.10", &unknown(1)).await, refused);
    for host in 1..=3 {
        assert_eq!(ask(&format!("2001:db8::{host}"), &unknown(4)).await, refused);
    }
    assert_eq!(ask("2001:db8::4", &unknown(4)).await, held_back);
    assert_eq!(ask("2001:db8:0:1::1", &unknown(4)).await, refused);
    assert_eq!(ask_from(&gate, "203.0.113.9", guess(1)).await.0, 403);
    for (answer, count) in [("refused", 8), ("held_back", 4)] {
        let line = format!("tollgate_admin_invalid_tokens_total{{answer=\"{answer}\"}}");
        assert_eq!(gate.metric(&line).await, count, "{answer}");
    }
}
