//! HTTP/2 as bytes (RFC 9113): frames, fields and a client that sends whatever it is told, also what no library would.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW: u8 = 8;
pub(crate) const MORE: u8 = 9;

/// Flags: the stream ends, the head ends, there is padding.
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;

pub(crate) const PROTOCOL: u32 = 1;
pub(crate) const FLOW: u32 = 3;
pub(crate) const CLOSED: u32 = 5;
pub(crate) const SIZE: u32 = 6;
pub(crate) const COMPRESSION: u32 = 9;
pub(crate) const CALM: u32 = 11;

/// The longest payload that may be sent without asking.
const LONGEST: usize = 16_384;

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// One field as a literal that nobody keeps (RFC 7541, 6.2.2), whatever stands in it.
pub(crate) fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0], length(name).as_slice(), name, &length(value), value].concat()
}

/// The length of a text that is not in Huffman's code (RFC 7541, 5.1).
fn length(text: &[u8]) -> Vec<u8> {
    let Some(mut rest) = text.len().checked_sub(0x7f) else {
        return vec![u8::try_from(text.len()).expect("a short text")];
    };
    let mut bytes = vec![0x7f];
    while rest >= 0x80 {
        bytes.push(0x80 | u8::try_from(rest & 0x7f).expect("seven bits"));
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).expect("seven bits"));
    bytes
}

/// A whole head, in as many frames as it needs.
pub(crate) fn head(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    let mut pieces = block.chunks(LONGEST).peekable();
    let mut bytes = Vec::new();
    let (mut kind, mut flags) = (HEADERS, flags & !END_HEADERS);
    while let Some(piece) = pieces.next() {
        let end = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        bytes.extend(frame(kind, flags | end, stream, piece));
        (kind, flags) = (MORE, 0);
    }
    bytes
}

/// What a gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// A head on this stream, with this status; 0: it has none, so it is trailers.
    Status(u32, u16),
    /// This stream is reset, with this code.
    Reset(u32, u32),
    /// The connection is ended, with this code.
    Goaway(u32),
    /// It is closed.
    Closed,
    /// Anything else.
    Other,
}

/// A connection on which HTTP/2 is spoken, byte by byte.
pub(crate) struct Client {
    stream: TcpStream,
}

impl Client {
    /// Connects and says hello. The gate is told to keep no table of fields, so that a status is plain to read.
    pub(crate) async fn connect(gate: SocketAddr) -> Self {
        let mut client = Self { stream: TcpStream::connect(gate).await.expect("a connection") };
        client.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0])].concat()).await;
        client
    }

    /// Sends bytes; the gate may have closed before all are written.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next thing that is said.
    pub(crate) async fn next(&mut self) -> Told {
        let mut head = [0; 9];
        if self.stream.read_exact(&mut head).await.is_err() {
            return Told::Closed;
        }
        let [_, high, low, kind, _, number @ ..] = head;
        let mut payload = vec![0; usize::from(high) << 8 | usize::from(low)];
        if self.stream.read_exact(&mut payload).await.is_err() {
            return Told::Closed;
        }
        let stream = u32::from_be_bytes(number);
        let code = |from: usize| {
            payload
                .get(from..from + 4)
                .map_or(0, |code| u32::from_be_bytes(code.try_into().expect("four bytes")))
        };
        match kind {
            HEADERS => Told::Status(stream, status(&payload)),
            RESET => Told::Reset(stream, code(0)),
            // Without an error it says that no more is taken; what is under way goes on.
            GOAWAY if code(4) != 0 => Told::Goaway(code(4)),
            _ => Told::Other,
        }
    }
}

/// The status of a response's head. It comes first, from the static table, or as a literal of three digits.
fn status(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // A change of the table's size may stand in front.
    let start = block.iter().position(|byte| byte & 0xe0 != 0x20).unwrap_or(0);
    match block[start..] {
        [first @ 0x88..=0x8e, ..] => INDEXED[usize::from(first - 0x88)],
        // A literal with the name `:status`: kept, not kept, or never to be kept.
        [0x48 | 0x08 | 0x18, length, ref rest @ ..] => {
            let text = &rest[..usize::from(length & 0x7f)];
            let found = (100..600).find(|status: &u16| {
                let digits = status.to_string();
                if length & 0x80 == 0 { digits.as_bytes() == text } else { huffman(&digits) == text }
            });
            found.unwrap_or(0)
        }
        _ => 0,
    }
}

/// Digits in Huffman's code (RFC 7541, appendix B): those up to 2 have five bits, the others six.
fn huffman(digits: &str) -> Vec<u8> {
    let digits = digits.bytes().map(|digit| digit - b'0');
    let mut bits: String = digits
        .map(|digit| if digit < 3 { format!("{digit:05b}") } else { format!("{:06b}", 0x19 + digit - 3) })
        .collect();
    while !bits.len().is_multiple_of(8) {
        bits.push('1');
    }
    let octets = bits.as_bytes().chunks(8).map(|octet| std::str::from_utf8(octet).expect("bits"));
    octets.map(|octet| u8::from_str_radix(octet, 2).expect("bits")).collect()
}

#[test]
fn statuses_are_read_in_each_form_they_have() {
    for (block, expected) in [
        (&[0x88][..], 200),
        (&[0x8d, 0x40], 404),
        (&[0x20, 0x8c], 400),
        (&[0x08, 3, b'4', b'0', b'3'], 403),
        // 403, 431 in Huffman's code: 011010 00000 011001, 011010 011001 00001.
        (&[0x48, 0x83, 0x68, 0x0c, 0xff], 403),
        (&[0x48, 0x83, 0x69, 0x90, 0xff], 431),
        (&[0x00, 1, b'a', 1, b'b'], 0),
    ] {
        assert_eq!(status(block), expected, "{block:x?}");
    }
    assert_eq!(field(b"a", &[b'x'; 300])[..6], [0, 1, b'a', 0x7f, 0xad, 0x01]);
}
