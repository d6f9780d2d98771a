//! What holds for every call: health, unknown paths, methods, types, sizes, syntax, parameters.

use serde_json::{Value, json};

use super::desk::{Desk, FIRST_ID, SECRET};
use super::moody_store::Mood;

#[test]
fn health_readiness_and_metrics_are_open() {
    let desk = Desk::start();
    let health = desk.raw("GET", "/healthz", &[], b"").expect(200);
    assert_eq!(health.json(), json!({"status": "ok", "version": "1.2.3-test"}));
    let ready = desk.raw("GET", "/readyz", &[], b"").expect(200);
    assert_eq!(ready.json()["status"], "ready");
    let metrics = desk.raw("GET", "/metrics", &[], b"").expect(200);
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    assert!(metrics.text.contains("tollgate_up 1"));
    desk.raw("HEAD", "/healthz", &[], b"").expect(200);
}

#[test]
fn a_node_without_its_store_is_alive_but_not_ready() {
    let desk = Desk::start();
    for mood in [Mood::Down, Mood::Silent] {
        desk.mood(mood.clone());
        let started = std::time::Instant::now();
        let answer = desk.raw("GET", "/readyz", &[], b"").expect(503);
        assert_eq!(answer.code(), "store_unavailable", "{mood:?}");
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{mood:?}");
        assert!(!answer.text.contains("10.1.2.3"), "{}", answer.text);
        desk.raw("GET", "/healthz", &[], b"").expect(200);
        desk.raw("GET", "/metrics", &[], b"").expect(200);
        desk.raw("GET", "/readyz?store=required", &[], b"").expect(503);
        // A balancer that may not take away every node at once asks so.
        let degraded = desk.raw("GET", "/readyz?store=optional", &[], b"").expect(200);
        assert_eq!(degraded.json()["status"], "degraded", "{mood:?}");
    }
    desk.mood(Mood::Well);
    desk.raw("GET", "/readyz", &[], b"").expect(200);
    let ready = desk.raw("GET", "/readyz?store=optional", &[], b"").expect(200);
    assert_eq!(ready.json()["status"], "ready");
    for nonsense in ["/readyz?store=no", "/readyz?shop=optional"] {
        assert_eq!(desk.raw("GET", nonsense, &[], b"").expect(400).code(), "bad_request");
    }
}

#[test]
fn unknown_paths_are_404_and_wrong_methods_405_with_allow() {
    let desk = Desk::start();
    // (method, path, status, the methods that Allow names)
    let table: [(&str, &str, u16, &[&str]); 9] = [
        ("GET", "/nothing", 404, &[]),
        ("GET", "/v1", 404, &[]),
        ("GET", "/v2/tokens", 404, &[]),
        ("GET", "/v1/tokens/", 404, &[]),
        ("GET", "/v1/tokens/x/y", 404, &[]),
        ("PUT", "/v1/tokens", 405, &["GET", "HEAD", "PATCH", "POST"]),
        ("POST", "/v1/tokens/tok_00000000010000000000000001", 405, &["GET", "HEAD", "PATCH", "DELETE"]),
        ("GET", "/v1/explain", 405, &["POST"]),
        ("DELETE", "/healthz", 405, &["GET", "HEAD"]),
    ];
    for (method, path, status, allow) in table {
        let answer = desk.call(method, path, Value::Null);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {path}");
        let allowed = answer.header("allow");
        let mut allowed: Vec<_> = allowed.split(',').map(str::trim).filter(|m| !m.is_empty()).collect();
        let mut allow = allow.to_vec();
        allowed.sort_unstable();
        allow.sort_unstable();
        assert_eq!(allowed, allow, "{method} {path}");
    }
}

#[test]
fn ids_that_are_none_are_nobodys_and_are_not_repeated() {
    let desk = Desk::start();
    for id in [
        SECRET,
        "tok_1",
        "tok_00000000020000000000000001",
        "..%2f..",
        "%ff",
        "tok_0000000001000000000000000i",
    ] {
        for (method, suffix) in
            [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/reveal")]
        {
            let answer = desk.call(method, &format!("/v1/tokens/{id}{suffix}"), Value::Null).expect(404);
            assert_eq!(answer.code(), "token_not_found", "{method} {id}{suffix}");
            assert!(!answer.text.contains(SECRET));
        }
    }
}

#[test]
fn bodies_must_be_whole_json_of_a_bearable_size() {
    let desk = Desk::start();
    let bearer = format!("Bearer {SECRET}");
    let large = format!("{{\"nickname\": \"{}\"}}", "x".repeat(256 * 1024));
    // (content type, body, status, code, what the detail says)
    let table: [(&str, &str, u16, &str, &str); 10] = [
        ("application/json", "{\"nickname\": }", 400, "malformed_json", "line 1, column 14"),
        ("application/json", "{\n \"a\": 1,\n}", 400, "malformed_json", "line 3, column 1"),
        ("application/json", "{} {}", 400, "malformed_json", "line 1"),
        ("application/json", "nickname=x", 400, "malformed_json", "line 1"),
        ("application/json", &large, 413, "body_too_large", "262144"),
        ("text/plain", "{}", 415, "unsupported_media_type", "application/json"),
        (
            "application/x-www-form-urlencoded",
            "nickname=x",
            415,
            "unsupported_media_type",
            "application/json",
        ),
        ("", "{}", 415, "unsupported_media_type", "application/json"),
        ("application/merge-patch+json", "{}", 415, "unsupported_media_type", "application/json"),
        ("application/jsonx", "{}", 415, "unsupported_media_type", "application/json"),
    ];
    for (content_type, body, status, code, says) in table {
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", content_type)];
        let headers = if content_type.is_empty() { &headers[..1] } else { &headers[..] };
        let answer = desk.raw("POST", "/v1/tokens", headers, body.as_bytes());
        let shown: String = body.chars().take(40).collect();
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{content_type} {shown}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(says), "{}", answer.text);
    }
    for content_type in
        ["application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json"]
    {
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", content_type)];
        desk.raw("PATCH", &format!("/v1/tokens/{FIRST_ID}"), &headers, b"{}").expect(200);
    }
    let tokens = desk.call("GET", "/v1/tokens", Value::Null).json();
    assert_eq!(tokens["tokens"].as_array().unwrap().len(), 1, "a refused body made a token");
}

#[test]
fn parameters_that_are_unknown_doubled_or_wrong_are_named() {
    let desk = Desk::start();
    let token = format!("/v1/tokens/{FIRST_ID}");
    // (method, target, the parameters at fault)
    let table: [(&str, String, &[&str]); 18] = [
        ("GET", "/v1/tokens?limit=0".into(), &["limit"]),
        ("GET", "/v1/tokens?limit=501".into(), &["limit"]),
        ("GET", "/v1/tokens?limit=ten".into(), &["limit"]),
        ("GET", "/v1/tokens?limit=".into(), &["limit"]),
        ("GET", "/v1/tokens?limit=1&limit=2".into(), &["limit"]),
        ("GET", "/v1/tokens?cursor=zz".into(), &["cursor"]),
        ("GET", "/v1/tokens?cursor=746f6b".into(), &["cursor"]),
        ("GET", "/v1/tokens?limt=5&limit=-1".into(), &["limt", "limit"]),
        ("GET", "/v1/account?x=1".into(), &["x"]),
        ("GET", format!("{token}?wait=2s"), &["wait"]),
        ("POST", "/v1/tokens?wait=soon".into(), &["wait"]),
        ("GET", "/v1/nodes?x=1".into(), &["x"]),
        ("PATCH", format!("{token}?wait=2"), &["wait"]),
        ("PATCH", format!("{token}?wait=forever"), &["wait"]),
        ("PATCH", format!("{token}?wait=61s"), &["wait"]),
        ("DELETE", format!("{token}?wiat=2s"), &["wiat"]),
        ("POST", format!("{token}/rotate?grace=24h"), &["grace"]),
        ("POST", format!("{token}/reveal?x"), &["x"]),
    ];
    for (method, target, at_fault) in table {
        let answer = desk.call(method, &target, Value::Null).expect(400);
        assert_eq!(answer.code(), "invalid_parameters", "{target}");
        assert_eq!(answer.pointers(), at_fault, "{target}");
    }
    assert_eq!(desk.read(FIRST_ID)["version"], 1, "a refused call changed the token");
    desk.call("PATCH", &format!("{token}?wait=20ms"), json!({"nickname": "x"})).expect(200);
}

#[test]
fn a_stop_ends_the_server_though_a_client_keeps_its_connection_open() {
    use std::io::{Read, Write};

    let desk = Desk::start();
    let mut idle = std::net::TcpStream::connect(desk.url.trim_start_matches("http://")).unwrap();
    idle.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut first = [0; 1];
    idle.read_exact(&mut first).unwrap();
    desk.stop();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
    assert!(rest.starts_with(b"TTP/1.1 200"));
}

#[test]
fn a_stop_does_not_wait_for_a_request_that_never_ends() {
    use std::io::Write;

    let desk = Desk::start();
    desk.mood(Mood::Silent);
    let mut stuck = std::net::TcpStream::connect(desk.url.trim_start_matches("http://")).unwrap();
    let request = format!("GET /v1/account HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}\r\n\r\n");
    stuck.write_all(request.as_bytes()).unwrap();
    let started = std::time::Instant::now();
    while desk.store.kept_waiting() == 0 {
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "the request never arrived");
        std::thread::yield_now();
    }
    desk.stop();
    assert!(started.elapsed() < std::time::Duration::from_secs(30));
}
