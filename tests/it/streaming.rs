//! Bodies flow through the gate untouched, and without being held.

use serde_json::json;

use crate::harness::client::{Ask, Connection};
use crate::harness::gate::{Gate, Plan};
use crate::harness::upstream::Upstream;

/// Resident memory of a process, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a figure");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_of_1_gib_holds_no_more_than_a_few_mib() {
    const SIZE: u64 = 1 << 30;
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).start().await;
    let token = gate.token(json!({})).await;
    // What a first long body needs once (code read in, buffers, the allocator's first blocks) is no part of what a body holds.
    most_resident_while_reading(&gate, &token.on("/v1/free/x"), SIZE >> 4).await;
    let before = resident_kib(gate.pid());
    let most = most_resident_while_reading(&gate, &token.on("/v1/free/x"), SIZE).await;
    assert!(most < before + 8 * 1024, "grew from {before} to {most} KiB");
}

/// Downloads `size` bytes, and tells the most KiB the gate held meanwhile.
async fn most_resident_while_reading(gate: &Gate, target: &str, size: u64) -> u64 {
    let mut connection = Connection::open(gate.address).await;
    let line = format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-Test: bytes={size}\r\n\r\n");
    connection.write(line.as_bytes()).await.expect("sent");
    let head = connection.read_head().await.expect("a head");
    assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
    let (mut received, mut most, mut asked) = (0, 0, 0);
    while received < size {
        let some = connection.read_some().await.expect("more");
        assert!(some > 0, "cut off after {received} bytes");
        received += some as u64;
        if received >> 24 > asked {
            asked = received >> 24;
            most = most.max(resident_kib(gate.pid()));
        }
    }
    assert_eq!(received, size);
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_is_passed_on_as_it_comes_and_as_it_is() {
    const PIECES: usize = 2048;
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    let bearer = format!("Bearer {}", gate.secret());
    let mut connection = Connection::open(gate.address).await;
    let head = format!(
        "POST /v1/free/x HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\nContent-Length: {}\r\n\r\n",
        PIECES * 65_536
    );
    connection.write(head.as_bytes()).await.expect("sent");
    let piece = vec![b'y'; 65_536];
    let (mut before, mut most) = (0, 0);
    for at in 0..PIECES {
        connection.write(&piece).await.expect("sent");
        // The first 16 MiB bring what a first long body needs once.
        match at {
            256 => before = resident_kib(gate.pid()),
            _ if at > 256 && at % 64 == 0 => most = most.max(resident_kib(gate.pid())),
            _ => {}
        }
    }
    assert_eq!(connection.read(false).await.expect("an answer").status, 200);
    assert_eq!(upstream.only().body_length, PIECES * 65_536);
    assert!(most > 0 && most < before + 8 * 1024, "grew from {before} to {most} KiB");

    let body: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let ask = Ask::new("POST", "/v1/free/x").header("Authorization", &bearer).header("X-Test", "echo");
    let answer = gate.ask(ask.body(body.clone())).await;
    assert!(answer.body == body, "the body came back changed");
}

#[tokio::test]
async fn a_chunked_upload_is_passed_on() {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    let mut connection = Connection::open(gate.address).await;
    let head = format!(
        "POST /v1/free/x HTTP/1.1\r\nHost: x\r\nX-Test: echo\r\nAuthorization: Bearer {}\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        gate.secret()
    );
    connection.write(head.as_bytes()).await.expect("sent");
    for piece in ["5\r\nhello\r\n", "7\r\n, world\r\n", "0\r\n\r\n"] {
        connection.write(piece.as_bytes()).await.expect("sent");
    }
    assert_eq!(connection.read(false).await.expect("an answer").text(), "hello, world");
}
