use bytes::Bytes;
use pingora::protocols::http::ServerSession;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::policy::signature::BodyDigest;

const LONGEST: Duration = Duration::from_mins(10);

/// Numbers that look random, and are the same at each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }
}

/// Sends these bytes, in pieces, and then keeps the connection.
fn client(wire: Vec<u8>, mut dice: Dice) -> DuplexStream {
    let (mut near, far) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move {
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            let (piece, left) = rest.split_at((1 + dice.below(40_000)).min(rest.len()));
            near.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
            rest = left;
        }
        // Until the other end is gone.
        let _ = near.read(&mut [0; 1]).await;
    });
    far
}

fn chunked(body: &[u8], dice: &mut Dice) -> Vec<u8> {
    let (mut wire, mut rest) = (Vec::new(), body);
    while !rest.is_empty() {
        let (piece, left) = rest.split_at((1 + dice.below(70_000)).min(rest.len()));
        wire.extend_from_slice(format!("{:X};x=y\r\n", piece.len()).as_bytes());
        wire.extend_from_slice(piece);
        wire.extend_from_slice(b"\r\n");
        rest = left;
    }
    wire.extend_from_slice(if dice.below(2) == 0 { b"0\r\nx-trailer: 1\r\n\r\n" } else { b"0\r\n\r\n" });
    wire
}

async fn open(wire: Vec<u8>, dice: Dice) -> Session {
    let mut session = Session::new_h1(Box::new(client(wire, dice)));
    assert!(session.as_downstream_mut().read_request().await.unwrap());
    session
}

/// What a proxy would send on: Pingora begins with the buffer for retries, and reads the rest.
async fn sent_on(session: &mut ServerSession) -> Vec<u8> {
    let mut body = session.get_retry_buffer().unwrap_or_default().to_vec();
    while let Some(piece) = session.read_request_body().await.unwrap() {
        body.extend_from_slice(&piece);
    }
    body
}

#[tokio::test]
async fn a_held_body_is_sent_on_as_it_came_and_so_is_what_comes_after_it() {
    let room = Room::new();
    let edges = [1, 65_535, 65_536, 65_537, 131_072];
    for round in 0..120_u64 {
        let mut dice = Dice(round);
        let at = usize::try_from(round).unwrap();
        let length = edges.get(at).copied().unwrap_or_else(|| 1 + dice.below(300_000));
        let (in_chunks, closes) = (dice.below(2) == 0, dice.below(4) == 0);
        let what = format!("round {round}: {length} bytes, in chunks: {in_chunks}, closes: {closes}");
        let body = dice.bytes(length);
        let framing = if in_chunks {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("content-LENGTH: {length}")
        };
        let more = if closes { "Connection: close\r\n" } else { "" };
        let head = format!("POST /a?b=%7e HTTP/1.1\r\nHost: h\r\nX-One: 1\r\n{framing}\r\n{more}\r\n");
        let sent = if in_chunks { chunked(&body, &mut dice) } else { body.clone() };
        let next = b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n";
        let mut session = open([head.as_bytes(), &sent, next].concat(), dice).await;
        let ServerSession::H1(http1) = session.as_downstream_mut() else { unreachable!() };
        http1.set_pipelining_enabled(true);
        session.req_header_mut().insert_header("X-Changed", "by a module").unwrap();
        let before = session.req_header().clone();

        let Held { digest, place } = room.hold(&mut session, 1 << 20, LONGEST).await.unwrap().unwrap();
        assert_eq!(room.free.available_permits(), ROOM / KIB - length.div_ceil(KIB), "{what}");
        drop(place);
        assert_eq!(room.free.available_permits(), ROOM / KIB, "{what}");
        assert_eq!(digest, BodyDigest::of(&body), "{what}");
        assert_eq!(format!("{:?}", session.req_header()), format!("{before:?}"), "{what}");
        let downstream = session.as_downstream_mut();
        assert_eq!(downstream.as_http1().unwrap().get_headers_raw_bytes(), Bytes::from(head), "{what}");
        assert_eq!(downstream.as_http1().unwrap().will_keepalive(), !closes, "{what}");
        assert!(!downstream.is_body_empty(), "{what}");
        let again = sent_on(downstream).await;
        assert_eq!(Sha256::digest(&again), Sha256::digest(&body), "{what}");
        assert!(downstream.is_body_done(), "{what}");

        let reused = session.downstream_session.finish().await.unwrap();
        assert_eq!(reused.is_some(), !closes, "{what}");
        if let Some(reused) = reused {
            let (stream, ahead) = reused.into_parts();
            let mut then = pingora::protocols::http::v1::server::HttpSession::new(stream);
            if let Some(ahead) = ahead {
                then.set_pipelined_prefix(ahead);
            }
            then.read_request().await.unwrap().unwrap();
            assert_eq!(then.req_header().uri.path(), "/next", "{what}");
        }
    }
}

#[tokio::test]
async fn many_long_bodies_on_one_connection_leave_one_layer_over_it() {
    let mut dice = Dice(7);
    let body = dice.bytes(100_000);
    let one = [b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n".as_slice(), &body].concat();
    let mut stream: pingora::protocols::Stream = Box::new(client(one.repeat(20), dice));
    for _ in 0..20 {
        let mut session = Session::new_h1(stream);
        assert!(session.as_downstream_mut().read_request().await.unwrap());
        Room::new().hold(&mut session, 1 << 20, LONGEST).await.unwrap().unwrap();
        assert!(sent_on(session.as_downstream_mut()).await == body);
        let reused = session.downstream_session.finish().await.unwrap().unwrap();
        stream = reused.into_parts().0;
        let layers = format!("{stream:?}").matches("Ahead").count();
        assert_eq!(layers, 1, "{stream:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_is_not_read_to_its_end() {
    for announced in [true, false] {
        let framing = if announced { "Content-Length: 5000000" } else { "Transfer-Encoding: chunked" };
        let mut wire = format!("POST / HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n").into_bytes();
        if !announced {
            wire.extend_from_slice(b"4c4b40\r\n");
        }
        wire.resize(wire.len() + 5_000_000, b'x');
        let mut session = open(wire, Dice(1)).await;
        let refused = Room::new().hold(&mut session, 100_000, LONGEST).await.unwrap();
        assert_eq!(refused.err(), Some(Denial::BodyTooLarge { most: 100_000 }));
        assert!(session.body_bytes_read() < 300_000, "{}", session.body_bytes_read());
    }
}

#[tokio::test]
async fn all_held_bodies_share_a_room_and_none_is_waited_for_for_ever() {
    let body = Dice(3).bytes(100_000);
    let whole = [b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n".as_slice(), &body].concat();
    let room = Room { free: Arc::new(Semaphore::new(250)) };
    let mut places = Vec::new();
    for expected in [None, None, Some(Denial::HeldBodiesFull)] {
        let mut session = open(whole.clone(), Dice(2)).await;
        let held = room.hold(&mut session, 1 << 20, LONGEST).await.unwrap();
        assert_eq!(held.as_ref().err(), expected.as_ref());
        places.extend(held.ok());
    }
    places.pop();
    let mut session = open(whole.clone(), Dice(2)).await;
    assert!(room.hold(&mut session, 1 << 20, LONGEST).await.unwrap().is_ok(), "there is room again");

    let impatient = Room::new();
    let mut session = open(whole[..50_000].to_vec(), Dice(2)).await;
    let late = impatient.hold(&mut session, 1 << 20, Duration::from_millis(20)).await.unwrap();
    assert_eq!(late.err(), Some(Denial::SignatureStale));
    assert_eq!(impatient.free.available_permits(), ROOM / KIB, "what was read of it is gone");
}
