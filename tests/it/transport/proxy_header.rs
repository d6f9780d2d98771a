use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Authority, Wish, closes, exchange, get, tls_keys};
use crate::harness::gate::Plan;
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

const LINE: &[u8] = b"PROXY TCP4 203.0.113.9 10.0.0.1 4660 80\r\n";
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\x0a\0\0\x01\x12\x34\0\x50";

#[tokio::test]
async fn a_trusted_proxy_says_where_a_connection_comes_from() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream).listener_extra("proxy_protocol: true, http2: true");
    let plan = plan.extra(
        "trusted_proxies: [127.0.0.0/8]\nlimits: { header_timeout: 600ms, connections_per_address: 2 }",
    );
    let mut gate = plan.start().await;
    // Only that client may.
    let token = gate.token(json!({"allowed_domains": ["203.0.113.0/24"]})).await;
    let ask = get(&token.on("/v1/free/x"));
    for header in [LINE, BINARY] {
        // At once, in pieces, and before the request.
        for pieces in [
            vec![[header, &ask].concat()],
            header.chunks(7).map(<[u8]>::to_vec).chain([ask.clone()]).collect(),
        ] {
            let mut stream = TcpStream::connect(gate.address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (last, first) = pieces.split_last().unwrap();
            for piece in first {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            for bytes in [last, &ask] {
                assert_eq!(exchange(&mut stream, bytes).await.unwrap().0, 200, "{header:?}");
            }
            drop(stream);
        }
        wait_for("the connections to end", || async { gate.metric("tollgate_connections").await == 0 }).await;
    }
    assert_eq!(upstream.count(), 8);
    assert!(upstream.seen().iter().all(|seen| seen.header("x-forwarded-for") == Some("203.0.113.9")));

    // The proxy itself, as for a health check, is not that client.
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    let own = [b"PROXY UNKNOWN\r\n".as_slice(), &ask].concat();
    assert_eq!(exchange(&mut stream, &own).await.unwrap().0, 403);

    let bad: [&[u8]; 6] = [
        &ask,
        b"PROXY TCP4 nonsense\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 4660 80\n",
        // Truncated, and nothing more comes.
        b"PROXY TCP4 203.0.113",
        &BINARY[..20],
        b"",
    ];
    for bytes in bad {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        assert!(closes(&mut stream).await, "{bytes:?}");
    }
    assert_eq!(gate.metric("tollgate_connections_refused_total{reason=\"proxy_protocol\"}").await, 6);
    assert_eq!(upstream.count(), 8);

    // Connections are counted by the client's address.
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        assert_eq!(exchange(&mut stream, &[LINE, &ask].concat()).await.unwrap().0, 200);
        kept.push(stream);
    }
    let mut third = TcpStream::connect(gate.address).await.unwrap();
    assert!(exchange(&mut third, &[LINE, &ask].concat()).await.is_err());
    let mut other = TcpStream::connect(gate.address).await.unwrap();
    let neighbour = b"PROXY TCP4 203.0.113.10 10.0.0.1 4660 80\r\n";
    assert_eq!(exchange(&mut other, &[neighbour, ask.as_slice()].concat()).await.unwrap().0, 200);
}

#[tokio::test]
async fn a_stranger_is_not_believed_and_the_header_goes_before_tls() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream).listener_extra("proxy_protocol: true");
    let gate = plan.extra("trusted_proxies: [10.0.0.0/8]").start().await;
    for bytes in [[LINE, &get("/")].concat(), get("/")] {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        let _ = stream.write_all(&bytes).await;
        assert!(closes(&mut stream).await);
    }
    assert_eq!(upstream.count(), 0);

    let authority = Authority::new();
    let pair = authority.issue("gate", "a.test");
    let plan =
        Plan::new(&upstream).listener_extra(&tls_keys(&pair, "")).listener_extra("proxy_protocol: true");
    let mut gate = plan.extra("trusted_proxies: [127.0.0.1]").start().await;
    let token = gate.token(json!({})).await;
    let mut tcp = TcpStream::connect(gate.address).await.unwrap();
    tcp.write_all(BINARY).await.unwrap();
    let mut stream = Wish::new(&authority, "a.test").over(tcp).await.expect("a connection");
    assert_eq!(exchange(&mut stream, &get(&token.on("/v1/free/x"))).await.unwrap().0, 200);
    let seen = upstream.only();
    assert_eq!(seen.header("x-forwarded-for"), Some("203.0.113.9"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
}
