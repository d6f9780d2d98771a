//! An upstream that says more, or other, than one answer: what is too much never becomes the answer to somebody else.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::client::Ask;
use crate::harness::gate::Plan;
use crate::harness::upstream::Upstream;

/// Method, what the upstream says in one go, and what the client must not be told of it.
#[rustfmt::skip]
const LIES: &[(&str, &str, &str)] = &[
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", "a second answer behind it"),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokpoison", "bytes behind it"),
    ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", "behind chunks"),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", "both framings"),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 8\r\n\r\nokpoison", "two lengths"),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\npoison", "a length below nothing"),
    ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 49\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", "a body to HEAD"),
    ("GET", "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", "a body to 204"),
    ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison", "a length on 204"),
    ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison", "a body to 304"),
    ("GET", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", "interim, then two"),
    ("GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: poison\r\nConnection: Upgrade\r\n\r\npoison", "an upgrade nobody asked for"),
    ("GET", "HTTP/1.1 200 OK\r\nX: y\rContent-Length: 2\r\nContent-Length: 6\r\n\r\npoison", "a bare CR"),
    ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\npoison", "a chunk of more than 64 bits"),
    ("GET", "poison\r\n\r\n", "no HTTP"),
];

async fn serve(mut stream: TcpStream) {
    let mut buffer = Vec::new();
    loop {
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            if stream.read_buf(&mut buffer).await.map_or(true, |read| read == 0) {
                return;
            }
            continue;
        };
        let head: Vec<u8> = buffer.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let which = head.split("lie=").nth(1).and_then(|rest| rest.split([' ', '&']).next());
        let lie = which.and_then(|which| which.parse().ok()).and_then(|which: usize| LIES.get(which));
        let answer =
            lie.map_or("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhonest", |(_, answer, _)| answer);
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn what_an_upstream_says_too_much_is_nobodys_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    let unused = Upstream::start().await;
    let mut gate = Plan::new(&unused).servers(&[address]).start().await;
    let token = gate.token(json!({})).await;
    for (which, (method, _, what)) in LIES.iter().enumerate() {
        let mut stream = TcpStream::connect(gate.address).await.expect("a connection");
        let ask = format!(
            "{method} {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            token.on(&format!("/v1/free/x?lie={which}"))
        );
        stream.write_all(ask.as_bytes()).await.expect("to send");
        let mut answer = Vec::new();
        // A body that the upstream leaves open ends with the client.
        let reading = async { while stream.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {} };
        let _ = tokio::time::timeout(Duration::from_millis(1500), reading).await;
        drop(stream);
        let told = String::from_utf8_lossy(&answer);
        assert!(told.matches("HTTP/1.1 200").count() <= 1, "{what}: {told}");
        for _ in 0..2 {
            let answer = gate.ask(Ask::get(&token.on("/v1/free/x"))).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "honest"), "after {what}");
        }
    }
}
