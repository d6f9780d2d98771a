//! Bodies of signed requests: held back until they are right, then sent on as they came.

use std::fmt::Write as _;

use serde_json::json;

use super::signer::{Signer, date};
use super::{SECRET, assert_refused, plan, signed_token};
use crate::harness::client::Connection;
use crate::harness::gate::{Gate, Token};
use crate::harness::upstream::Upstream;
use crate::harness::{evidence, wait_for};

const WRITE: &str = "/v1/data/MY/CARS";

/// A gate, and a token that may write where a signature is asked for.
async fn gate(extra: &str) -> (Upstream, Gate, Token) {
    let upstream = Upstream::start().await;
    let mut gate = plan(&upstream).extra(extra).start().await;
    let fields = json!({"datasets": [{"dataset": "MY/*", "operations": ["read", "write"]}]});
    let token = signed_token(&mut gate, fields).await;
    (upstream, gate, token)
}

/// A secret token may write to every route.
async fn secret_token(gate: &mut Gate) -> Token {
    gate.token(json!({"type": "secret"})).await
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}

/// The body in chunks of growing size.
fn chunked(body: &[u8]) -> Vec<u8> {
    let (mut wire, mut rest, mut size) = (Vec::new(), body, 1);
    while !rest.is_empty() {
        let (piece, left) = rest.split_at(size.min(rest.len()));
        wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        wire.extend_from_slice(piece);
        wire.extend_from_slice(b"\r\n");
        (rest, size) = (left, size * 3 + 1);
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

#[tokio::test]
async fn a_right_body_is_sent_on_unchanged_whatever_its_length_and_framing() {
    let (upstream, mut gate, token) = gate("").await;
    let mut kept = Connection::open(gate.address).await;
    let mut sent = 0;
    for length in [1, 4_000, 65_535, 65_536, 65_537, 200_000, 1 << 20] {
        let body = noise(length);
        for in_chunks in [false, true] {
            let what = format!("{length} bytes, in chunks: {in_chunks}");
            let target = token.on(&format!("{WRITE}?n={sent}"));
            let signed = Signer::post(&target, &token.value, SECRET, &body);
            let wire = if in_chunks {
                [signed.head("Transfer-Encoding: chunked\r\n"), chunked(&body)].concat()
            } else {
                [signed.head(&format!("Content-Length: {length}\r\n")), body.clone()].concat()
            };
            kept.write(&wire).await.unwrap();
            let answer = kept.read(false).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
            assert!(answer.body == body, "{what}: another body came through");
            sent += 1;
            let seen = upstream.seen().pop().unwrap();
            assert_eq!(upstream.count(), sent, "{what}");
            assert_eq!(seen.body_length, length, "{what}");
            assert_eq!(seen.header("transfer-encoding").is_some(), in_chunks, "{what}");
            // The same connection goes on with what needs no signature and has no body.
            let repeated = [signed.head("Content-Length: 0\r\n")].concat();
            kept.write(&repeated).await.unwrap();
            assert_refused(&kept.read(false).await.unwrap(), 403, "signature_invalid", &what);
        }
    }
    gate.wait_used(&token, sent as u64).await;
    let lines = gate.access_log();
    let counted = lines.iter().filter(|line| line["bytes_in"] == (1 << 20) && line["status"] == 200).count();
    assert_eq!(counted, 2, "{lines:?}");
    gate.stop();
}

#[tokio::test]
async fn an_empty_body_may_be_announced_or_chunked() {
    let (upstream, gate, token) = gate("").await;
    for (n, (head, body)) in
        [("", ""), ("Content-Length: 0\r\n", ""), ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n")]
            .into_iter()
            .enumerate()
    {
        let signed = Signer::post(&token.on(&format!("{WRITE}?n={n}")), &token.value, SECRET, b"");
        let mut connection = Connection::open(gate.address).await;
        connection.write(&[signed.head(head), body.into()].concat()).await.unwrap();
        let answer = connection.read(false).await.unwrap();
        assert_eq!(answer.status, 200, "{head}: {}", answer.text());
    }
    assert!(upstream.seen().iter().all(|seen| seen.body_length == 0));
    assert_eq!(upstream.count(), 3);
}

#[tokio::test]
async fn a_wrong_body_reaches_no_upstream_costs_nothing_and_uses_no_signature_up() {
    let (upstream, gate, token) = gate("").await;
    let mut number = 0;
    for length in [10, 100_000] {
        for in_chunks in [false, true] {
            number += 1;
            let target = token.on(&format!("{WRITE}?n={number}"));
            let right = Signer::post(&target, &token.value, SECRET, &noise(length));
            let mut body = right.body.clone();
            body[length - 1] ^= 1;
            let wire = |body: &[u8]| {
                if in_chunks {
                    [right.head("Transfer-Encoding: chunked\r\n"), chunked(body)].concat()
                } else {
                    [right.head(&format!("Content-Length: {}\r\n", body.len())), body.to_vec()].concat()
                }
            };
            for wrong in [body.as_slice(), &body[..length - 1], &[body.as_slice(), b"x"].concat(), b"y"] {
                let mut connection = Connection::open(gate.address).await;
                connection.write(&wire(wrong)).await.unwrap();
                let answer = connection.read(false).await.unwrap();
                evidence::add("error-bodies", &answer.body);
                assert_refused(&answer, 403, "signature_invalid", &format!("{length} {in_chunks}"));
            }
            assert_eq!(upstream.count(), number - 1, "{length} {in_chunks}");
            let mut connection = Connection::open(gate.address).await;
            connection.write(&wire(&right.body)).await.unwrap();
            assert_eq!(connection.read(false).await.unwrap().status, 200, "{length} {in_chunks}");
        }
    }
    gate.wait_used(&token, number as u64).await;
    // As public clients sign: the hash of the empty text. A strict route does not take it.
    let empty = Signer { signed: Vec::new(), ..Signer::post(&token.on(WRITE), &token.value, SECRET, b"[1]") };
    assert_refused(&gate.ask(empty.ask()).await, 403, "signature_invalid", "over the empty text");
}

#[tokio::test]
async fn a_lenient_route_takes_a_signature_over_the_empty_text_or_over_the_body() {
    let (upstream, mut gate, _) = gate("").await;
    let token = secret_token(&mut gate).await;
    let big = noise(2 << 20);
    let mut number = 0;
    let mut post = |signed: &[u8], body: &[u8]| {
        number += 1;
        let target = format!("/v1/lenient/a?n={number}");
        let request = Signer::post(&target, &token.value, SECRET, body);
        Signer { signed: signed.to_vec(), ..request }
            .ask()
            .header("X-API-Key", &token.value)
            .header("X-Test", "echo")
    };
    let table: [(&str, [&[u8]; 2], u16, &str); 6] = [
        ("over the empty text", [b"", b"[1]"], 200, ""),
        ("over the empty text, too long to be held", [b"", &big], 200, ""),
        ("over the body", [b"[2]", b"[2]"], 200, ""),
        ("over a longer body", [&big[..100_000], &big[..100_000]], 200, ""),
        ("over another body", [b"[3]", b"[4]"], 403, "signature_invalid"),
        ("over a body too long to be held", [&big, &big], 413, "body_too_large"),
    ];
    for (what, [signed, body], status, code) in table {
        let (request, before) = (post(signed, body), upstream.count());
        let answer = gate.ask(request.clone()).await;
        if status == 200 {
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
            assert!(answer.body == body, "{what}: another body came through");
            assert_refused(&gate.ask(request).await, 403, "signature_replayed", what);
        } else {
            assert_refused(&answer, status, code, what);
        }
        assert_eq!(upstream.count(), before + usize::from(status == 200), "{what}");
    }
    gate.wait_used(&token, 4).await;
}

#[tokio::test]
async fn a_body_too_long_to_be_held_back_is_413() {
    let (upstream, mut gate, signed) = gate("max_signed_body: 100KiB").await;
    let token = secret_token(&mut gate).await;
    let table = [
        (signed.on(WRITE), &signed, 102_400, 102_401),
        (token.on("/v1/small/a").replace(&token.on(""), ""), &token, 1024, 1025),
    ];
    for (target, token, longest, longer) in table {
        for in_chunks in [false, true] {
            for (length, expected) in [(longer, 413), (2 << 20, 413), (longest, 200)] {
                let what = format!("{target}: {length} bytes, in chunks: {in_chunks}");
                let target = format!("{target}{}n={in_chunks}", if target.contains('?') { '&' } else { '?' });
                let body = noise(length);
                let request = Signer::post(&target, &token.value, SECRET, &body);
                let framing = if in_chunks {
                    "Transfer-Encoding: chunked\r\n".to_owned()
                } else {
                    format!("Content-Length: {length}\r\n")
                };
                let head = request.head(&format!("X-API-Key: {}\r\n{framing}", token.value));
                let before = upstream.count();
                let mut connection = Connection::open(gate.address).await;
                // The whole body is sent before the answer is looked at, as simple clients do.
                let body = if in_chunks { chunked(&body) } else { body };
                connection
                    .write(&[head, body].concat())
                    .await
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                let answer = connection.read(false).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(answer.status, expected, "{what}: {}", answer.text());
                if expected == 413 {
                    assert_refused(&answer, 413, "body_too_large", &what);
                    assert!(answer.text().contains(&longest.to_string()), "{what}: {}", answer.text());
                }
                assert_eq!(upstream.count(), before + usize::from(expected == 200), "{what}");
            }
        }
    }
    gate.wait_used(&signed, 2).await;
    gate.wait_used(&token, 2).await;
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_to_send_its_body_is_told() {
    let (upstream, gate, token) = gate("").await;
    for length in [10, 100_000] {
        let body = noise(length);
        let request = Signer::post(&token.on(&format!("{WRITE}?n={length}")), &token.value, SECRET, &body);
        let mut connection = Connection::open(gate.address).await;
        let head = format!("Expect: 100-continue\r\nContent-Length: {length}\r\n");
        connection.write(&request.head(&head)).await.unwrap();
        assert_eq!(connection.read_head().await.unwrap().status, 100);
        connection.write(&body).await.unwrap();
        let answer = connection.read(false).await.unwrap();
        assert!(answer.status == 200 && answer.body == body, "{length}: {}", answer.status);
    }
    // One that is refused without its body need not send it.
    let refused = Signer::post(&token.on(WRITE), &token.value, SECRET, &noise(2 << 20));
    let mut connection = Connection::open(gate.address).await;
    let head = format!("Expect: 100-continue\r\nContent-Length: {}\r\n", 2 << 20);
    connection.write(&refused.head(&head)).await.unwrap();
    assert_eq!(connection.read(false).await.unwrap().status, 413);
    assert!(upstream.seen().iter().all(|seen| seen.header("expect").is_none()), "{:?}", upstream.seen());
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn an_edit_is_in_force_for_a_request_whose_body_still_comes() {
    let (upstream, gate, token) = gate("").await;
    let body = noise(1000);
    let mut begun = Vec::new();
    for n in 0..2 {
        let request = Signer::post(&token.on(&format!("{WRITE}?n={n}")), &token.value, SECRET, &body);
        let mut connection = Connection::open(gate.address).await;
        connection.write(&request.head("Content-Length: 1000\r\n")).await.unwrap();
        connection.write(&body[..500]).await.unwrap();
        begun.push(connection);
    }
    begun[0].write(&body[500..]).await.unwrap();
    assert_eq!(begun[0].read(false).await.unwrap().status, 200);
    let revoked = gate.admin("DELETE", &format!("/v1/tokens/{}?wait=5s", token.id), None).await;
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    begun[1].write(&body[500..]).await.unwrap();
    let answer = begun[1].read(false).await.unwrap();
    assert_refused(&answer, 403, "token_revoked", "revoked meanwhile");
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn a_signature_may_grow_old_while_its_body_comes() {
    let (upstream, gate, token) = gate("signature_max_skew: 2s").await;
    let body = noise(1000);
    let request = Signer::post(&token.on(WRITE), &token.value, SECRET, &body);
    let mut connection = Connection::open(gate.address).await;
    connection.write(&request.head("Content-Length: 1000\r\n")).await.unwrap();
    connection.write(&body[..500]).await.unwrap();
    let other = Signer {
        date: request.date.clone(),
        ..Signer::get(&token.on("/v1/data/MY/CARS"), &token.value, SECRET)
    };
    wait_for("the signature to be old", || async {
        let answer = gate.ask(other.ask()).await;
        answer.status == 403 && answer.code() == "signature_stale"
    })
    .await;
    connection.write(&body[500..]).await.unwrap();
    let answer = connection.read(false).await.unwrap();
    assert_refused(&answer, 403, "signature_stale", "old by now");
    assert!(upstream.seen().iter().all(|seen| seen.method == "GET"));
    assert_ne!(request.date, date(0));
}

#[tokio::test]
async fn a_client_that_leaves_before_its_body_has_come_costs_nothing() {
    let (upstream, gate, token) = gate("").await;
    for (framing, rest) in [("Content-Length: 1000\r\n", ""), ("Transfer-Encoding: chunked\r\n", "3e8\r\n")] {
        let request = Signer::post(&token.on(WRITE), &token.value, SECRET, &noise(1000));
        let mut connection = Connection::open(gate.address).await;
        connection.write(&[request.head(framing), rest.into(), noise(500)].concat()).await.unwrap();
    }
    wait_for("both to be logged", || async { gate.access_log().len() == 2 }).await;
    // What is no chunk is told so.
    let request = Signer::post(&token.on(WRITE), &token.value, SECRET, b"");
    let mut connection = Connection::open(gate.address).await;
    let wire = [request.head("Transfer-Encoding: chunked\r\n"), b"hello\r\n".to_vec()].concat();
    connection.write(&wire).await.unwrap();
    assert_eq!(connection.read(false).await.unwrap().status, 400);
    assert_eq!((upstream.count(), gate.used(&token).await), (0, 0));
    let mut told = String::new();
    for line in gate.access_log() {
        let _ = writeln!(told, "{line}");
    }
    assert!(!told.contains("\"status\":200"), "{told}");
}

#[tokio::test]
async fn what_is_sent_ahead_of_the_next_request_is_not_taken_for_a_part_of_this_one() {
    let (upstream, gate, token) = gate("").await;
    for in_chunks in [false, true] {
        let body = noise(100_000);
        let target = token.on(&format!("{WRITE}?chunks={in_chunks}"));
        let request = Signer::post(&target, &token.value, SECRET, &body);
        let (framing, body) = if in_chunks {
            ("Transfer-Encoding: chunked\r\n", chunked(&body))
        } else {
            ("Content-Length: 100000\r\n", body)
        };
        let next = Signer::get(&token.on(&format!("{WRITE}?next={in_chunks}")), &token.value, SECRET);
        let mut connection = Connection::open(gate.address).await;
        connection.write(&[request.head(framing), body, next.head("")].concat()).await.unwrap();
        // That the next one comes too early is Pingora's to judge, as it is without signatures: it breaks this one off,
        // closes the connection after it or answers both. Nothing else may come of it.
        while let Ok(answer) = connection.read(false).await {
            assert!(matches!(answer.status, 200 | 400), "{}", answer.text());
        }
    }
    for seen in upstream.seen() {
        let expected = if seen.target.starts_with(&format!("{WRITE}?chunks=")) { 100_000 } else { 0 };
        assert_eq!(seen.body_length, expected, "{}", seen.target);
        assert!(expected > 0 || seen.target.starts_with(&format!("{WRITE}?next=")), "{}", seen.target);
    }
}

#[tokio::test]
async fn a_held_body_goes_to_the_next_server_where_one_cannot_be_reached() {
    let upstream = Upstream::start().await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut gate = plan(&upstream).servers(&[dead, upstream.address()]).start().await;
    let token = secret_token(&mut gate).await;
    for (n, length) in [10, 100_000, 10, 100_000, 300_000, 300_000].into_iter().enumerate() {
        let body = noise(length);
        let request = Signer::post(&format!("/v1/signed/a?n={n}"), &token.value, SECRET, &body);
        let ask = request.ask().header("X-API-Key", &token.value).header("X-Test", "echo");
        let answer = gate.ask(ask).await;
        assert!(answer.status == 200 && answer.body == body, "{n}: {} {}", answer.status, answer.body.len());
    }
    gate.wait_used(&token, 6).await;
}

#[tokio::test]
async fn a_body_that_the_gate_reads_itself_is_signed_like_any_other() {
    let (upstream, mut gate, _) = gate("dialect: iex").await;
    let token = gate.token(json!({"type": "secret", "signed_requests": true})).await;
    let path = "/v1/account/payasyougo";
    let body = json!({"token": token.value, "allow": true}).to_string();
    let right = Signer::post(path, &token.value, SECRET, body.as_bytes());
    let wrong = Signer { body: body.replace("true", "false").into_bytes(), ..right.clone() };
    for (what, ask, expected) in
        [("wrong", wrong.ask(), 403), ("right", right.ask(), 200), ("again", right.ask(), 403)]
    {
        let answer = gate.ask(ask).await;
        assert_eq!(answer.status, expected, "{what}: {}", answer.text());
    }
    assert_eq!(upstream.count(), 0);
}
