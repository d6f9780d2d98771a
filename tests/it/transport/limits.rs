use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{closes, exchange, get};
use crate::harness::gate::Plan;
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

const LIMITS: &str = "limits: { request_header_size: 2KiB, request_headers: 20, uri_length: 256B, request_body: 10KB, \
                      header_timeout: 400ms, body_timeout: 400ms, keepalive_timeout: 400ms, keepalive_requests: 3 }";

#[tokio::test]
async fn what_is_too_large_or_no_http_is_refused_with_its_status_and_the_connection_closes() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).extra(LIMITS).start().await;
    let token = gate.token(json!({"datasets": [{"dataset": "MY/CARS", "operations": ["write"]}]})).await;
    let target = token.on("/v1/data/MY/CARS/x");
    let start = format!("POST {target} HTTP/1.1\r\nHost: a\r\n");
    let chunks = format!("1000\r\n{}\r\n", "x".repeat(4096)).repeat(4) + "0\r\n\r\n";
    let table: Vec<(&str, String, u16)> = vec![
        ("a long field", format!("{start}X: {}\r\n\r\n", "a".repeat(3000)), 431),
        ("a field without end", format!("{start}X: {}", "a".repeat(100_000)), 431),
        ("many fields", format!("{start}{}\r\n", "X: 1\r\n".repeat(25)), 431),
        ("a flood of fields", format!("{start}{}\r\n", "X: 1\r\n".repeat(100_000)), 431),
        ("a long target", format!("GET {target}&x={} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(300)), 414),
        ("a target without end", format!("GET /{}", "a".repeat(100_000)), 414),
        ("HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("HTTP/3", "GET / HTTP/3\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("no HTTP", "\u{16}\u{3}\u{1}\0\0\r\n\r\n".to_owned(), 400),
        ("a space in a name", format!("{start}X Y: 1\r\n\r\n"), 400),
        ("two lengths", format!("{start}Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), 400),
        (
            "chunks in HTTP/1.0",
            start.replace("1.1", "1.0") + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("an announced body", format!("{start}Content-Length: 10001\r\n\r\n{}", "x".repeat(10_001)), 413),
        ("a body in chunks", format!("{start}Transfer-Encoding: chunked\r\n\r\n{chunks}"), 413),
    ];
    for (what, bytes, status) in table {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        let (told, head, _) =
            exchange(&mut stream, bytes.as_bytes()).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(told, status, "{what}: {head}");
        assert!(closes(&mut stream).await, "{what}");
    }
    assert_eq!(upstream.count(), 0, "nothing of it went on");
    let fits = format!("{start}Content-Length: 10000\r\n\r\n{}", "x".repeat(10_000));
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    assert_eq!(exchange(&mut stream, fits.as_bytes()).await.unwrap().0, 200);
    gate.wait_used(&token, 1).await;
    assert_eq!(gate.metric("tollgate_bad_requests_total{reason=\"headers_too_large\"}").await, 2);
}

#[tokio::test]
async fn slow_clients_are_let_go_of_and_others_are_served_meanwhile() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).extra(LIMITS).start().await;
    let token = gate.token(json!({"datasets": [{"dataset": "MY/CARS", "operations": ["write"]}]})).await;
    // Silence is answered by silence.
    let mut silent = TcpStream::connect(gate.address).await.unwrap();
    assert!(closes(&mut silent).await);

    // A head that drips, byte by byte, for ever.
    let slow = TcpStream::connect(gate.address).await.unwrap();
    let (mut read, mut write) = slow.into_split();
    let dripping = tokio::spawn(async move {
        let _ = write.write_all(b"GET / HTTP/1.1\r\nX: ").await;
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut told = Vec::new();
    let end = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut told);
    let _ = tokio::time::timeout(super::PATIENCE, end).await.expect("an end");
    assert!(String::from_utf8_lossy(&told).starts_with("HTTP/1.1 408 "), "{told:?}");
    dripping.abort();

    // A body that stops.
    let target = token.on("/v1/data/MY/CARS/x");
    let stops = format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nbegin");
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    let (status, head, _) = exchange(&mut stream, stops.as_bytes()).await.unwrap();
    assert_eq!(status, 408, "{head}");
    assert!(closes(&mut stream).await);

    // A kept connection that lies idle.
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    assert_eq!(exchange(&mut stream, &get(&token.on("/v1/free/x"))).await.unwrap().0, 200);
    assert!(closes(&mut stream).await);
    assert_eq!(upstream.count(), 1);
    gate.wait_used(&token, 0).await;
}

#[tokio::test]
async fn connections_are_kept_and_closed_as_http_says() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).extra("limits: { keepalive_requests: 3 }").start().await;
    let token = gate.token(json!({"datasets": [{"dataset": "MY/CARS", "operations": ["write"]}]})).await;
    let target = token.on("/v1/free/x");
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    for (number, connection) in [(1, "keep-alive"), (2, "keep-alive"), (3, "close")] {
        let (status, head, _) = exchange(&mut stream, &get(&target)).await.unwrap();
        assert_eq!(status, 200);
        assert!(head.contains(&format!("connection: {connection}")), "request {number}: {head}");
    }
    assert!(closes(&mut stream).await);
    let closing = [
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!("GET {target} HTTP/1.0\r\nHost: a\r\n\r\n"),
    ];
    for bytes in closing {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        let (status, head, _) = exchange(&mut stream, bytes.as_bytes()).await.unwrap();
        assert_eq!(status, 200, "{bytes}");
        assert!(head.contains("connection: close"), "{bytes}: {head}");
        assert!(closes(&mut stream).await, "{bytes}");
    }
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    let kept = format!("GET {target} HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    for _ in 0..2 {
        assert_eq!(exchange(&mut stream, kept.as_bytes()).await.unwrap().0, 200);
    }
    // Who waits for leave to send a body gets it, or is told why not.
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    let expects = |target: &str| {
        format!("POST {target} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    };
    let (status, head, _) = exchange(&mut stream, expects("/v1/data/MY/CARS/x").as_bytes()).await.unwrap();
    assert_eq!(status, 401, "{head}");
    let before = upstream.count();
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(expects(&token.on("/v1/data/MY/CARS/x")).as_bytes()).await.unwrap();
    // The sample upstream says nothing before it has the body, so it is sent without leave.
    let (status, _, _) = exchange(&mut stream, b"body").await.unwrap();
    assert!(matches!(status, 100 | 200), "{status}");
    wait_for("the body to arrive", || async { upstream.count() == before + 1 }).await;
}

#[tokio::test]
async fn one_client_cannot_take_all_connections() {
    let upstream = Upstream::start().await;
    let limits = "limits: { connections: 6, connections_per_address: 3 }";
    let mut gate = Plan::new(&upstream).extra(limits).start().await;
    let token = gate.token(json!({})).await;
    let ask = get(&token.on("/v1/free/x"));
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        assert_eq!(exchange(&mut stream, &ask).await.unwrap().0, 200);
        kept.push(stream);
    }
    for _ in 0..50 {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        assert!(exchange(&mut stream, &ask).await.is_err(), "one too many");
    }
    assert_eq!(
        gate.metric("tollgate_connections_refused_total{reason=\"connections_per_address\"}").await,
        50
    );
    assert_eq!(gate.metric("tollgate_connections").await, 3);
    // Those that stand go on, and one that leaves makes room.
    assert_eq!(exchange(&mut kept[0], &ask).await.unwrap().0, 200);
    kept.pop();
    wait_for("room for one more", || async {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        exchange(&mut stream, &ask).await.is_ok_and(|answer| answer.0 == 200)
    })
    .await;
}
