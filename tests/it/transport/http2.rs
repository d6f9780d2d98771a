use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, StatusCode};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{Authority, PATIENCE, Wish, exchange, get, tls_keys};
use crate::harness::gate::{Plan, limited};
use crate::harness::secure::Http2Upstream;
use crate::harness::upstream::Upstream;

/// A connection on which HTTP/2 is spoken.
async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> SendRequest<Bytes> {
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(async move {
        let _ = connection.await;
    });
    sender.ready().await.expect("HTTP/2")
}

/// Status, fields and body of the answer.
async fn ask(
    sender: &SendRequest<Bytes>,
    request: http::request::Builder,
    body: &[u8],
) -> (u16, HeaderMap, String) {
    let request: Request<()> = request.body(()).expect("a request");
    let mut sender = sender.clone().ready().await.expect("HTTP/2");
    let (response, mut upload) = sender.send_request(request, body.is_empty()).expect("HTTP/2");
    if !body.is_empty() {
        upload.send_data(Bytes::copy_from_slice(body), true).expect("a body");
    }
    let answered = async {
        let response = response.await.unwrap_or_else(|error| panic!("no answer: {error}"));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let (mut body, mut stream) = (Vec::new(), response.into_body());
        while let Some(Ok(piece)) = stream.data().await {
            let _ = stream.flow_control().release_capacity(piece.len());
            body.extend_from_slice(&piece);
        }
        (status, headers, String::from_utf8_lossy(&body).into_owned())
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("an answer")
}

#[tokio::test]
async fn requests_over_http2_are_judged_charged_and_refused_as_all_others() {
    let authority = Authority::new();
    let pair = authority.issue("gate", "a.test");
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).listener_extra(&tls_keys(&pair, "")).start().await;
    let token = gate.token(json!({"allowed_domains": ["www.example.com"]})).await;
    let wish = Wish { alpn: &[b"h2", b"http/1.1"], ..Wish::new(&authority, "a.test") };
    let stream = wish.open(gate.address).await.expect("a connection");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let h2 = speak(stream).await;

    let good = |target: &str| {
        Request::get(format!("https://a.test{target}")).header("origin", "https://www.example.com")
    };
    let request = good(&token.on("/v1/data/CORE/QUOTES/a")).header("cookie", "a=1").header("cookie", "b=2");
    let (status, headers, body) = ask(&h2, request, b"").await;
    assert_eq!((status, body.as_str()), (200, "{\"ok\":true}"), "{headers:?}");
    assert_eq!(headers["access-control-allow-origin"], "https://www.example.com");
    assert_eq!(headers["x-credits-used"], "1");
    let seen = upstream.only();
    assert_eq!((seen.target.as_str(), seen.header("host")), ("/v1/data/CORE/QUOTES/a", Some("a.test")));
    assert_eq!(seen.header("cookie"), Some("a=1; b=2"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-host"), Some("a.test"));
    assert!(!format!("{seen:?}").contains(&token.value));

    let posted = Request::post("https://a.test/v1/free/x")
        .header("origin", "https://www.example.com")
        .header("authorization", format!("Bearer {}", token.value))
        .header("x-test", "echo");
    // Core access is to read.
    assert_eq!(ask(&h2, posted, b"body").await.0, 403);

    let refusals = [
        (good("/v1/data/CORE/QUOTES/a"), 401, "token_missing"),
        (good(&token.on("/elsewhere")), 404, "no_route"),
        (good(&token.on("/v1/data/CORE/%2e%2e/a")), 400, "bad_target"),
        (good("/v1/free/x?token=pk_00000000000000000000000000000000"), 403, "token_invalid"),
        (
            Request::get(format!("https://a.test{}", token.on("/v1/free/x")))
                .header("origin", "https://evil.test"),
            403,
            "domain_denied",
        ),
    ];
    for (request, status, code) in refusals {
        let (told, headers, body) = ask(&h2, request, b"").await;
        assert_eq!(told, status, "{code}: {body}");
        assert_eq!(headers["content-type"], "application/problem+json");
        assert!(body.contains(code), "{code}: {body}");
    }
    let preflight = Request::builder()
        .method("OPTIONS")
        .uri("https://a.test/v1/free/x")
        .header("origin", "https://www.example.com")
        .header("access-control-request-method", "GET");
    let (status, headers, _) = ask(&h2, preflight, b"").await;
    assert_eq!((status, headers.contains_key("access-control-allow-methods")), (204, true));
    assert_eq!(upstream.count(), 1, "nothing that was refused went on");
    gate.wait_used(&token, 1).await;
}

#[tokio::test]
async fn many_streams_on_one_connection_get_exactly_the_limit() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).listener_extra("http2: true").start().await;
    let token = gate.token(limited(50)).await;
    let h2 = speak(TcpStream::connect(gate.address).await.unwrap()).await;
    // Fewer at a time than the gate takes, which refuses the stream that is one too many.
    let room = std::sync::Arc::new(tokio::sync::Semaphore::new(60));
    let asking = (0..200).map(|_| {
        let room = room.clone();
        let (h2, target) = (h2.clone(), token.on("/v1/data/CORE/QUOTES/a"));
        tokio::spawn(async move {
            let _place = room.acquire_owned().await;
            ask(&h2, Request::get(format!("http://a.test{target}")), b"").await.0
        })
    });
    let asking: Vec<_> = asking.collect();
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    for asked in asking {
        *statuses.entry(asked.await.unwrap()).or_default() += 1;
    }
    assert_eq!(statuses, [(200, 50), (402, 150)].into());
    assert_eq!(upstream.count(), 50);
    gate.wait_used(&token, 50).await;
    assert!(upstream.seen().iter().all(|seen| seen.header("x-forwarded-proto") == Some("http")));

    // The same listener speaks HTTP/1.1 with who does not know.
    let mut plain = TcpStream::connect(gate.address).await.unwrap();
    for _ in 0..2 {
        assert_eq!(exchange(&mut plain, &get(&token.on("/v1/free/x"))).await.unwrap().0, 200);
    }
    // In pieces, too.
    let mut plain = TcpStream::connect(gate.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"P").await.unwrap();
    let rest = b"OST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(exchange(&mut plain, rest).await.unwrap().0, 404);
}

#[tokio::test]
async fn heads_and_bodies_keep_to_the_limits_over_http2() {
    let upstream = Upstream::start().await;
    let limits = "limits: { request_header_size: 4KiB, request_headers: 20, uri_length: 256B, request_body: 10KB, http2_streams: 4 }";
    let mut gate = Plan::new(&upstream).listener_extra("http2: true").extra(limits).start().await;
    let token = gate.token(json!({"datasets": [{"dataset": "MY/CARS", "operations": ["write"]}]})).await;
    let h2 = speak(TcpStream::connect(gate.address).await.unwrap()).await;
    let target = format!("http://a.test{}", token.on("/v1/free/x"));
    let many =
        (0..30).fold(Request::get(&target), |request, number| request.header(format!("x-{number}"), "1"));
    let post = || Request::post(format!("http://a.test{}", token.on("/v1/data/MY/CARS/x")));
    let table = [
        ("many fields", many, 0, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        (
            "a long field",
            Request::get(&target).header("x-long", "a".repeat(5000)),
            0,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        ),
        (
            "a long target",
            Request::get(format!("{target}&x={}", "a".repeat(300))),
            0,
            StatusCode::URI_TOO_LONG,
        ),
        (
            "an announced body",
            post().header("content-length", "20000"),
            20_000,
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
        ("a long body", post(), 20_000, StatusCode::PAYLOAD_TOO_LARGE),
        ("what fits", post(), 9_000, StatusCode::OK),
    ];
    for (what, request, body, status) in table {
        let (told, _, text) = ask(&h2, request, &vec![b'x'; body]).await;
        assert_eq!(told, status.as_u16(), "{what}: {text}");
    }
    assert_eq!(upstream.count(), 1);
    assert_eq!(gate.metric("tollgate_bad_requests_total{reason=\"uri_too_long\"}").await, 1);
}

#[tokio::test]
async fn a_body_that_stops_over_http2_is_waited_for_no_longer_than_over_http1() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream).listener_extra("http2: true").upstream_extra("read_timeout: 1h");
    let mut gate = plan.extra("limits: { body_timeout: 400ms }").start().await;
    let token = gate.token(json!({"datasets": [{"dataset": "MY/CARS", "operations": ["write"]}]})).await;
    let h2 = speak(TcpStream::connect(gate.address).await.unwrap()).await;
    let target = format!("http://a.test{}", token.on("/v1/data/MY/CARS/x"));
    let post = |length: Option<&str>| {
        let request = Request::post(&target);
        length.map_or(request, |length| Request::post(&target).header("content-length", length))
    };
    let stops: [(&str, Option<&str>, &[&str]); 4] = [
        ("nothing of it comes", None, &[]),
        ("nothing of what was announced comes", Some("5"), &[]),
        ("a part of it comes", Some("100"), &["begin"]),
        ("nothing comes, again and again", None, &["", "", ""]),
    ];
    for (what, length, pieces) in stops {
        let mut sender = h2.clone().ready().await.expect("HTTP/2");
        let request = post(length).body(()).expect("a request");
        let (response, mut upload) = sender.send_request(request, false).expect("HTTP/2");
        for piece in pieces {
            upload.send_data(Bytes::from_static(piece.as_bytes()), false).expect("a piece");
        }
        let response = tokio::time::timeout(PATIENCE, response).await.expect("an answer");
        let mut response = response.unwrap_or_else(|error| panic!("{what}: {error}"));
        let told = response.body_mut().data().await.expect("a body").expect("a body");
        let told = String::from_utf8_lossy(&told).into_owned();
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT, "{what}: {told}");
        assert!(told.contains("request_timeout"), "{what}: {told}");
        // The others on the connection are none the worse.
        let plain = Request::get(format!("http://a.test{}", token.on("/v1/free/x")));
        assert_eq!(ask(&h2, plain, b"").await.0, 200, "after {what}");
    }
    assert_eq!(upstream.count(), stops.len(), "no request went on whose body did not come");

    // One that is long under way, but does not stop, is let through.
    let mut sender = h2.clone().ready().await.expect("HTTP/2");
    let request = post(None).body(()).expect("a request");
    let (response, mut upload) = sender.send_request(request, false).expect("HTTP/2");
    for _ in 0..10 {
        upload.send_data(Bytes::from(vec![b'x'; 2048]), false).expect("a piece");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    upload.send_data(Bytes::new(), true).expect("an end");
    assert_eq!(response.await.expect("an answer").status(), StatusCode::OK);
    assert_eq!(upstream.count(), stops.len() + 1);
    gate.wait_used(&token, 1).await;
}

#[tokio::test]
async fn requests_go_on_over_http2_as_well_and_one_whose_body_stops_ends() {
    let (plain, upstream) = (Upstream::start().await, Http2Upstream::start(None).await);
    let plan = Plan::new(&plain).servers(&[upstream.address]).listener_extra("http2: true");
    let plan = plan.upstream_extra("http2: true, read_timeout: 1h").extra("limits: { body_timeout: 400ms }");
    let mut gate = plan.start().await;
    let token = gate.token(json!({"datasets": [{"dataset": "MY/CARS", "operations": ["write"]}]})).await;
    let h2 = speak(TcpStream::connect(gate.address).await.unwrap()).await;
    let plain = Request::get(format!("http://a.test{}", token.on("/v1/free/x")));
    let (status, _, body) = ask(&h2, plain, b"").await;
    assert_eq!(status, 200, "{body}");
    let target = format!("http://a.test{}", token.on("/v1/data/MY/CARS/x"));
    assert_eq!(ask(&h2, Request::post(&target).header("te", "trailers"), b"hello").await.0, 200);
    let seen = upstream.seen();
    let [bare, seen] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(bare.uri().to_string(), "http://a.test/v1/free/x");
    assert_eq!((seen.method().as_str(), *seen.body()), ("POST", 5));
    assert_eq!(seen.uri().to_string(), "http://a.test/v1/data/MY/CARS/x");
    assert!(!seen.headers().contains_key("host") && !format!("{seen:?}").contains(&token.value));

    let mut sender = h2.clone().ready().await.expect("HTTP/2");
    let request = Request::post(&target).body(()).expect("a request");
    let (response, _upload) = sender.send_request(request, false).expect("HTTP/2");
    let response = tokio::time::timeout(PATIENCE, response).await.expect("an answer").expect("an answer");
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    assert_eq!(upstream.seen().len(), 2);
    gate.wait_used(&token, 1).await;
}
