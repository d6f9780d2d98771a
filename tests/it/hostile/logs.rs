//! Log injection: whatever bytes a stranger sends, a line of a log stays one line and says only what the gate wrote.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::client::Ask;
use crate::harness::gate::{Gate, Plan};
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

/// What terminals, log collectors and browsers that show logs have been attacked with.
const NASTY: &[&[u8]] = &[
    b"\",\"verdict\":\"pass\",\"x\":\"",
    b"\\\",\\\"verdict\\\":\\\"pass",
    b"\\n{\"verdict\":\"forged\"}",
    b"\x1b[31mred\x1b[0m",
    b"\x1b]0;title\x07",
    b"\x9b31m",
    b"\xff\xfe\xc0\xaf",
    b"\xed\xa0\x80",
    "\u{2028}{\"verdict\":\"forged\"}\u{2029}".as_bytes(),
    "\u{202e}\u{feff}\u{85}".as_bytes(),
    b"${jndi:ldap://forged}",
    b"%0d%0a{\"verdict\":\"forged\"}",
    b"%1b%5b31m",
    b"<script>alert('forged')</script>",
    b"\tforged\t",
];

async fn send_raw(address: std::net::SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let reading = async { while stream.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(std::time::Duration::from_secs(30), reading).await.expect("an end");
}

fn request(target: &[u8], headers: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"].concat();
    for (name, value) in headers {
        bytes.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

fn assert_clean(name: &str, text: &str) {
    for line in text.split('\n') {
        let bad = line
            .chars()
            .find(|c| c.is_control() && *c != '\t' || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202e}'));
        assert_eq!(bad, None, "{name}: {line:?}");
        assert!(!line.contains("forged"), "{name}: {line:?}");
    }
}

#[tokio::test]
async fn no_byte_of_a_stranger_makes_a_line_of_a_log_or_a_word_in_it() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).extra("publishable_outside_browser: report").start().await;
    let token = gate.token(json!({"allowed_domains": ["www.example.com"], "domain_mode": "report"})).await;
    let good = format!("/v1/data/CORE/QUOTE?token={}", token.value);
    let names = [
        "User-Agent",
        "Referer",
        "Origin",
        "X-Forwarded-For",
        "X-Request-Id",
        "Cookie",
        "traceparent",
        "Authorization",
        "X-API-Key",
        "X-Any",
    ];
    for nasty in NASTY {
        let all: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, *nasty)).collect();
        send_raw(gate.address, &request(good.as_bytes(), &all[..7])).await;
        send_raw(gate.address, &request(b"/v1/data/CORE/QUOTE", &all)).await;
        send_raw(gate.address, &request(&[b"/v1/data/CORE/", *nasty, good.as_bytes()].concat(), &[])).await;
        send_raw(gate.address, &request(&[good.as_bytes(), b"&x=", nasty].concat(), &[])).await;
        send_raw(gate.address, &request(&[b"/nowhere/", *nasty].concat(), &[])).await;
        send_raw(
            gate.address,
            &[nasty, b" /v1/data HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".as_slice()].concat(),
        )
        .await;
        send_raw(gate.admin, &request(&[b"/v1/", *nasty].concat(), &all)).await;
        send_raw(gate.admin, &request(&[b"/sign-in?next=", *nasty].concat(), &all)).await;
    }
    gate.ask(Ask::get(&token.on("/v1/data/CORE/LAST"))).await;
    let gate = &gate;
    wait_for("the last line", || async move {
        gate.access_log().last().is_some_and(|line| line["datasets"][0] == "CORE/LAST")
    })
    .await;
    // `access_log` reads each line as JSON.
    let log = gate.access_log();
    assert!(log.len() > NASTY.len() * 2, "{} lines", log.len());
    let known = [
        "pass",
        "token_missing",
        "token_invalid",
        "token_ambiguous",
        "bad_target",
        "bad_framing",
        "no_route",
        "method_not_allowed",
        "dataset_denied",
    ];
    for line in &log {
        assert!(known.contains(&line["verdict"].as_str().expect("a verdict")), "{line}");
        assert_clean("the access log", &serde_json::to_string(line).expect("JSON"));
    }
    assert_clean("the event log", &gate.events());
    assert_clean_metrics(gate).await;
}

async fn assert_clean_metrics(gate: &Gate) {
    let metrics = gate.metrics().await;
    assert!(metrics.contains("tollgate_requests"), "{metrics}");
    assert_clean("the metrics", &metrics);
}
