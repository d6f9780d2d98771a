//! HTTP/2 from clients that begin and do not go on. What they may not send at all is in `hostile/smuggling_http2_rows`.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::frames::{HEADERS, PREFACE, SETTINGS, frame};
use crate::harness::gate::Plan;
use crate::harness::upstream::Upstream;

/// `:method: GET`, `:path: /`, `:scheme: http`, `:authority: a`.
const HEAD: &[u8] = &[0x82, 0x84, 0x86, 0x01, 1, b'a'];

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
