//! What a stranger, or a broken program, sends to the admin API and to the console's forms: bounded, and refused in words.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::client::{Answer, Ask};
use crate::harness::gate::{Gate, Plan};
use crate::harness::upstream::Upstream;

async fn gate() -> Gate {
    let upstream = Upstream::start().await;
    Plan::new(&upstream).start().await
}

fn post(gate: &Gate, body: &str) -> Ask {
    let ask = Ask::new("POST", "/v1/tokens").header("Authorization", &format!("Bearer {}", gate.secret()));
    ask.header("Content-Type", "application/json").body(body)
}

fn deep(open: &str, close: &str, times: usize) -> String {
    [&open.repeat(times), "1", &close.repeat(times)].concat()
}

#[tokio::test]
async fn a_body_that_is_no_edit_is_refused_in_words_and_changes_nothing() {
    let gate = gate().await;
    let list = |text: &str, times: usize| format!("[{}]", vec![text; times].join(","));
    let mut keys = String::from("{");
    for number in 0..10_000 {
        let _ = write!(keys, "\"k{number}\":1,");
    }
    keys += "\"nickname\":\"x\"}";
    let table: Vec<(&str, String, u16, &str)> = vec![
        ("deep arrays", deep("[", "]", 20_000), 400, "malformed_json"),
        ("deep objects", deep("{\"a\":", "}", 20_000), 400, "malformed_json"),
        ("deep within a field", format!("{{\"datasets\":{}}}", deep("[", "]", 100)), 422, "invalid_fields"),
        ("a key twice", r#"{"nickname":"a","nickname":"b"}"#.to_owned(), 400, "malformed_json"),
        ("a key twice, escaped", r#"{"nickname":"a","n\u0069ckname":"b"}"#.to_owned(), 400, "malformed_json"),
        ("a key twice inside", r#"{"rate_limit":{"burst":1,"burst":2}}"#.to_owned(), 400, "malformed_json"),
        ("two values", "{} {}".to_owned(), 400, "malformed_json"),
        (
            "a huge number",
            r#"{"rate_limit":{"requests_per_second":1e400}}"#.to_owned(),
            400,
            "malformed_json",
        ),
        (
            "a large number",
            format!("{{\"credit_limit\":{{\"core\":{{\"credits\":{}}}}}}}", "9".repeat(400)),
            400,
            "malformed_json",
        ),
        (
            "a number over 64 bits",
            r#"{"credit_limit":{"core":{"credits":99999999999999999999}}}"#.to_owned(),
            422,
            "invalid_fields",
        ),
        (
            "a negative number",
            r#"{"rate_limit":{"requests_per_second":-1}}"#.to_owned(),
            422,
            "invalid_fields",
        ),
        ("a fraction", r#"{"rate_limit":{"requests_per_second":0.5}}"#.to_owned(), 422, "invalid_fields"),
        (
            "many domains",
            format!("{{\"allowed_domains\":{}}}", list("\"www.example.com\"", 10_000)),
            422,
            "invalid_fields",
        ),
        (
            "many data sets",
            format!("{{\"datasets\":{}}}", list(r#"{"dataset":"A/B","operations":["read"]}"#, 5_000)),
            422,
            "invalid_fields",
        ),
        ("many keys", keys, 422, "invalid_fields"),
        ("a long name", format!("{{\"nickname\":\"{}\"}}", "x".repeat(200_000)), 422, "invalid_fields"),
        (
            "a name with control characters",
            "{\"nickname\":\"a\\u0000\\u001b[31m\\n\"}".to_owned(),
            422,
            "invalid_fields",
        ),
        ("a lone surrogate", r#"{"nickname":"\ud800"}"#.to_owned(), 400, "malformed_json"),
        ("a raw control character", "{\"nickname\":\"a\u{1}b\"}".to_owned(), 400, "malformed_json"),
        ("a byte order mark", "\u{feff}{}".to_owned(), 400, "malformed_json"),
        ("NaN", r#"{"rate_limit":{"requests_per_second":NaN}}"#.to_owned(), 400, "malformed_json"),
        ("a comment", "{/* */}".to_owned(), 400, "malformed_json"),
        ("no object", "[]".to_owned(), 422, "invalid_fields"),
        ("too large", format!("{{\"nickname\":\"{}\"}}", "x".repeat(300_000)), 413, "body_too_large"),
    ];
    for (name, body, status, code) in &table {
        let answer = post(&gate, body).send(gate.admin).await;
        assert_eq!((answer.status, answer.code().as_str()), (*status, *code), "{name}: {}", cut(&answer));
        assert!(answer.body.len() < 64 * 1024, "{name}: an answer of {} bytes", answer.body.len());
    }
    let types =
        ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data", ""];
    for kind in types {
        let ask =
            Ask::new("POST", "/v1/tokens").header("Authorization", &format!("Bearer {}", gate.secret()));
        let answer = ask.header("Content-Type", kind).body("{}").send(gate.admin).await;
        assert_eq!((answer.status, answer.code().as_str()), (415, "unsupported_media_type"), "{kind}");
    }
    let answer = gate.admin("GET", "/v1/tokens", None).await;
    assert_eq!(answer.json()["tokens"].as_array().map(Vec::len), Some(1), "{}", cut(&answer));
    // It still makes tokens.
    assert_eq!(gate.admin("POST", "/v1/tokens", Some(json!({"nickname": "after"}))).await.status, 201);
}

fn cut(answer: &Answer) -> String {
    answer.text().chars().take(400).collect()
}

/// Sends a head that announces a lot, then zeros until the other end has had enough; what it said, and how much it took.
async fn pour(gate: &Gate, head: &str, most: usize) -> (String, usize) {
    let mut stream = TcpStream::connect(gate.admin).await.expect("a connection");
    stream.write_all(head.as_bytes()).await.expect("to send a head");
    let (mut reading, mut writing) = stream.split();
    let mut answer = Vec::new();
    let mut poured = 0;
    let pouring = async {
        let piece = vec![b'0'; 65_536];
        while poured < most && writing.write_all(&piece).await.is_ok() {
            poured += piece.len();
        }
        std::future::pending::<()>().await;
    };
    let listening = async { while reading.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {} };
    let both = async {
        tokio::select! {
            () = pouring => {}
            () = listening => {}
        }
    };
    tokio::time::timeout(Duration::from_mins(1), both).await.expect("an end");
    (String::from_utf8_lossy(&answer).into_owned(), poured)
}

#[tokio::test]
async fn a_hundred_megabytes_are_not_read() {
    let gate = gate().await;
    let head = |path: &str, more: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 104857600\r\n{more}\r\n", gate.admin)
    };
    let bearer = format!("Authorization: Bearer {}\r\nContent-Type: application/json\r\n", gate.secret());
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (what, head) in [
        ("an edit", head("/v1/tokens", &bearer)),
        ("an edit of nobody's", head("/v1/tokens", "Content-Type: application/json\r\n")),
        ("a form", head("/sign-in", form)),
        ("a form of somebody's", head("/tokens/new", form)),
        ("nothing", head("/nowhere", "")),
    ] {
        let (answer, poured) = pour(&gate, &head, 104_857_600).await;
        assert!(poured < 32 << 20, "{what}: {poured} bytes were taken: {answer}");
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 3"),
            "{what}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let gate = gate().await;
    let bearer = format!("Authorization: Bearer {}\r\nContent-Type: application/json\r\n", gate.secret());
    for (path, headers, status) in [
        ("/v1/tokens", bearer.as_str(), "HTTP/1.1 408"),
        ("/sign-in", "Content-Type: application/x-www-form-urlencoded\r\n", "HTTP/1.1 4"),
    ] {
        let mut stream = TcpStream::connect(gate.admin).await.expect("a connection");
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 10\r\n{headers}\r\n{{", gate.admin);
        stream.write_all(head.as_bytes()).await.expect("to send");
        let mut answer = Vec::new();
        let reading = async {
            while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
                if stream.read_buf(&mut answer).await.is_ok_and(|read| read == 0) {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_mins(1), reading).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(status), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_form_of_nonsense_is_refused_and_nobody_is_let_in() {
    let gate = gate().await;
    let long = |unit: &str, times: usize| unit.repeat(times);
    let forms = [
        String::from("%"),
        String::from("name=%ff%fe&passphrase=%00"),
        String::from("=&=&;&&"),
        String::from("name=a&name=b&passphrase=c&passphrase=d"),
        format!("name={}&passphrase=x", long("x", 200_000)),
        format!("name=a&passphrase={}", long("%41", 60_000)),
        long("&", 200_000),
        long("a=b&", 50_000),
        format!("token=sk_{}", long("0", 32)),
        String::from("{\"name\":\"a\"}"),
        String::from("name[]=a&name[$ne]=b&__proto__[x]=1"),
        String::from("name=<script>alert(1)</script>&passphrase=x&next=https://evil.test/"),
    ];
    for form in &forms {
        for kind in ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"] {
            let ask = Ask::new("POST", "/sign-in").header("Content-Type", kind).body(form.as_str());
            let answer = ask.send(gate.admin).await;
            let what: String = form.chars().take(60).collect();
            assert!((300..500).contains(&answer.status), "{what}: {} {}", answer.status, cut(&answer));
            assert_eq!(answer.header("set-cookie"), None, "{what}");
            assert!(!answer.text().contains("<script>alert"), "{what}");
            assert!(answer.body.len() < 64 * 1024, "{what}: {} bytes", answer.body.len());
        }
    }
}
