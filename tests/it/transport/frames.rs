//! The violations of HTTP/2 (RFC 9113) that h2spec looks for and that matter most, frame by frame: the gate ends the stream
//! or the connection with the right error, and goes on serving others.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{PATIENCE, exchange, get};
use crate::harness::gate::Plan;
use crate::harness::upstream::Upstream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW: u8 = 8;
const MORE: u8 = 9;
const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;
const CLOSED: u32 = 5;
const SIZE: u32 = 6;
const COMPRESSION: u32 = 9;
const CALM: u32 = 11;
const ANSWERED: u32 = 0;
/// `:method: GET`, `:path: /`, `:scheme: http`, `:authority: a`.
const HEAD: &[u8] = &[0x82, 0x84, 0x86, 0x01, 1, b'a'];
const END: u8 = 0x5;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

/// A request without an end of its body, so that its stream stays open.
fn open() -> Vec<u8> {
    let head = [0x83, 0x84, 0x86, 0x01, 1, b'a'];
    frame(HEADERS, 0x4, 1, &head)
}

fn headers(fields: &[u8]) -> Vec<u8> {
    frame(HEADERS, END, 1, &[HEAD, fields].concat())
}

/// How the gate answers: the error code of a `GOAWAY` or `RST_STREAM`, or a status of 400, or nothing before it closes.
#[derive(Debug, PartialEq)]
enum Told {
    Goaway(u32),
    Reset(u32),
    Headers,
    Closed,
}

async fn say(gate: std::net::SocketAddr, bytes: &[u8]) -> Told {
    let mut stream = TcpStream::connect(gate).await.unwrap();
    // The gate may close before all is written.
    let _ = stream.write_all(bytes).await;
    let reading = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return Told::Closed;
            }
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            if stream.read_exact(&mut payload).await.is_err() {
                return Told::Closed;
            }
            let code = |from: usize| {
                payload.get(from..from + 4).map_or(0, |code| u32::from_be_bytes(code.try_into().unwrap()))
            };
            match head[3] {
                GOAWAY if code(4) != 0 => return Told::Goaway(code(4)),
                RESET => return Told::Reset(code(0)),
                HEADERS => return Told::Headers,
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer")
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn table() -> Vec<(&'static str, Vec<u8>, Vec<u32>)> {
    let two = |a: Vec<u8>, b: Vec<u8>| [a, b].concat();
    vec![
        ("DATA on stream 0", frame(DATA, 0, 0, b"x"), vec![PROTOCOL]),
        ("DATA on an idle stream", frame(DATA, 0, 5, b"x"), vec![PROTOCOL]),
        ("HEADERS on stream 0", frame(HEADERS, END, 0, HEAD), vec![PROTOCOL]),
        ("HEADERS on an even stream", frame(HEADERS, END, 2, HEAD), vec![PROTOCOL]),
        (
            "HEADERS on an earlier stream",
            two(frame(HEADERS, 0x4, 5, HEAD), frame(HEADERS, END, 3, HEAD)),
            vec![PROTOCOL, CLOSED],
        ),
        ("HEADERS with too much padding", frame(HEADERS, END | 0x8, 1, &[200, 0x82]), vec![PROTOCOL]),
        (
            "a stream that depends on itself",
            frame(HEADERS, END | 0x20, 1, &[&[0, 0, 0, 1, 16], HEAD].concat()),
            vec![PROTOCOL],
        ),
        ("RST_STREAM on stream 0", frame(RESET, 0, 0, &[0; 4]), vec![PROTOCOL]),
        ("RST_STREAM on an idle stream", frame(RESET, 0, 1, &[0; 4]), vec![PROTOCOL]),
        ("RST_STREAM of a wrong size", two(open(), frame(RESET, 0, 1, &[0; 3])), vec![SIZE]),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), vec![PROTOCOL]),
        ("SETTINGS of a wrong size", frame(SETTINGS, 0, 0, &[0; 5]), vec![SIZE]),
        ("SETTINGS acknowledged with a payload", frame(SETTINGS, 1, 0, &[0; 6]), vec![SIZE]),
        ("ENABLE_PUSH of 2", frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]), vec![PROTOCOL]),
        ("a window of 2^31", frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]), vec![FLOW]),
        ("frames of 16,383 bytes", frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff]), vec![PROTOCOL]),
        ("PUSH_PROMISE", frame(PUSH, 0x4, 1, &[&[0, 0, 0, 2], HEAD].concat()), vec![PROTOCOL]),
        ("PING on a stream", frame(PING, 0, 1, &[0; 8]), vec![PROTOCOL]),
        ("PING of a wrong size", frame(PING, 0, 0, &[0; 6]), vec![SIZE]),
        ("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), vec![PROTOCOL]),
        ("WINDOW_UPDATE by 0", frame(WINDOW, 0, 0, &[0; 4]), vec![PROTOCOL]),
        ("WINDOW_UPDATE beyond 2^31", frame(WINDOW, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), vec![FLOW]),
        ("WINDOW_UPDATE of a wrong size", frame(WINDOW, 0, 0, &[0; 3]), vec![SIZE]),
        ("WINDOW_UPDATE on an idle stream", frame(WINDOW, 0, 1, &[0, 0, 0, 1]), vec![PROTOCOL]),
        ("a frame longer than was agreed", frame(DATA, 0, 1, &vec![0; 16_385]), vec![SIZE]),
        ("CONTINUATION of nothing", frame(MORE, 0x4, 1, HEAD), vec![PROTOCOL]),
        ("DATA amid a head", two(frame(HEADERS, 0, 1, HEAD), frame(DATA, 0, 1, b"x")), vec![PROTOCOL]),
        (
            "PRIORITY amid a head",
            two(frame(HEADERS, 0, 1, HEAD), frame(PRIORITY, 0, 1, &[0; 5])),
            vec![PROTOCOL],
        ),
        (
            "CONTINUATION of another stream",
            two(frame(HEADERS, 0, 1, HEAD), frame(MORE, 0x4, 3, &[])),
            vec![PROTOCOL],
        ),
        ("an index that is none", frame(HEADERS, END, 1, &[0xff, 0xff, 0x7f]), vec![COMPRESSION]),
        ("a field in capitals", headers(&field("X-Big", "1")), vec![PROTOCOL]),
        ("a field of HTTP/1", headers(&field("connection", "close")), vec![PROTOCOL]),
        ("transfer-encoding", headers(&field("transfer-encoding", "chunked")), vec![PROTOCOL]),
        ("TE that is not trailers", headers(&field("te", "gzip")), vec![PROTOCOL]),
        ("a pseudo field that is none", headers(&field(":made-up", "1")), vec![PROTOCOL]),
        ("a pseudo field of responses", headers(&field(":status", "200")), vec![PROTOCOL]),
        (
            "a pseudo field after others",
            frame(HEADERS, END, 1, &[&[0x82, 0x86][..], &field("a", "b"), &[0x84]].concat()),
            vec![PROTOCOL],
        ),
        ("a pseudo field twice", frame(HEADERS, END, 1, &[HEAD, &[0x84]].concat()), vec![PROTOCOL]),
        ("no :method", frame(HEADERS, END, 1, &[0x84, 0x86]), vec![PROTOCOL]),
        ("no :scheme", frame(HEADERS, END, 1, &[0x82, 0x84]), vec![PROTOCOL]),
        ("no :path", frame(HEADERS, END, 1, &[0x82, 0x86]), vec![PROTOCOL, ANSWERED]),
        (
            "an empty :path",
            frame(HEADERS, END, 1, &[&[0x82, 0x86][..], &field(":path", "")].concat()),
            vec![PROTOCOL],
        ),
        (
            "a body shorter than announced",
            two(
                frame(
                    HEADERS,
                    0x4,
                    1,
                    &[&[0x83, 0x84, 0x86, 0x01, 1, b'a'][..], &field("content-length", "9")].concat(),
                ),
                frame(DATA, 1, 1, b"x"),
            ),
            vec![PROTOCOL],
        ),
        ("a second preface", PREFACE.to_vec(), vec![SIZE, PROTOCOL]),
        (
            "a head without end",
            [frame(HEADERS, 0, 1, HEAD), frame(MORE, 0, 1, &[]).repeat(2000)].concat(),
            vec![CALM, PROTOCOL],
        ),
        (
            "a head that fills memory",
            [
                frame(HEADERS, 0, 1, HEAD),
                frame(MORE, 0, 1, &field("x", &"a".repeat(120)).repeat(100)).repeat(100),
            ]
            .concat(),
            vec![CALM, PROTOCOL, COMPRESSION],
        ),
        (
            "streams that are reset at once",
            (0..3000_u32)
                .flat_map(|number| {
                    let stream = 1 + 2 * number;
                    two(frame(HEADERS, 0x4, stream, HEAD), frame(RESET, 0, stream, &[0, 0, 0, 8]))
                })
                .collect(),
            vec![CALM],
        ),
    ]
}

#[tokio::test]
async fn violations_of_http2_end_in_the_right_error_and_others_are_served() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).listener_extra("http2: true").start().await;
    let token = gate.token(json!({})).await;
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let mut wrong = Vec::new();
    for (what, bytes, codes) in table() {
        let told = say(gate.address, &[hello.as_slice(), &bytes].concat()).await;
        let fits = match &told {
            // h2 says PROTOCOL_ERROR also where there is a code that says more.
            Told::Goaway(code) | Told::Reset(code) => codes.contains(code) || *code == PROTOCOL,
            // A connection may be closed without a word (RFC 9113, 5.4.1).
            Told::Closed => true,
            // Refused by the gate, with a status.
            Told::Headers => codes.contains(&ANSWERED),
        };
        if !fits {
            wrong.push(format!("{what}: {told:?}, expected one of {codes:?}"));
        }
        let mut other = TcpStream::connect(gate.address).await.unwrap();
        let answer = exchange(&mut other, &get(&token.on("/v1/free/x"))).await;
        assert_eq!(answer.map_or(0, |answer| answer.0), 200, "after {what}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(upstream.count(), table().len(), "nothing of it went on");
}

#[tokio::test]
async fn an_idle_or_endless_head_over_http2_is_let_go_of() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream).listener_extra("http2: true");
    let gate = plan.extra("limits: { keepalive_timeout: 300ms, header_timeout: 300ms }").start().await;
    for begin in [
        [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat(),
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 0, 1, HEAD)].concat(),
        PREFACE[..10].to_vec(),
    ] {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        stream.write_all(&begin).await.unwrap();
        let mut all = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(40), stream.read_to_end(&mut all)).await;
        assert!(end.is_ok(), "{begin:?}");
    }
}
