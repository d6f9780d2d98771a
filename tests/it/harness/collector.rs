//! A small OpenTelemetry collector: takes OTLP over HTTP and reads what it is sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One span as it was sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpanSeen {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) state: String,
    pub(crate) name: String,
    /// 1 internal, 2 server, 3 client.
    pub(crate) kind: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// 2: failed.
    pub(crate) status: u64,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) resource: BTreeMap<String, String>,
}

impl SpanSeen {
    pub(crate) fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

#[derive(Default)]
struct Taken {
    bodies: Vec<Vec<u8>>,
    heads: Vec<String>,
    status: u16,
}

/// The collector.
#[derive(Clone)]
pub(crate) struct OtlpCollector {
    address: SocketAddr,
    taken: Arc<Mutex<Taken>>,
}

impl OtlpCollector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let collector = Self { address, taken: Arc::default() };
        collector.answer_with(200);
        let shared = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move { shared.serve(stream).await });
            }
        });
        collector
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on answers with this status, and keeps only what it answers with 200.
    pub(crate) fn answer_with(&self, status: u16) {
        self.taken.lock().status = status;
    }

    /// The bodies it took.
    pub(crate) fn bodies(&self) -> Vec<Vec<u8>> {
        self.taken.lock().bodies.clone()
    }

    /// The heads of all calls, also of those it did not take.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.taken.lock().heads.clone()
    }

    /// Everything that was exported so far.
    pub(crate) fn spans(&self) -> Vec<SpanSeen> {
        self.bodies().iter().flat_map(|body| read_spans(body)).collect()
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        loop {
            let head_end = loop {
                if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                    break at + 4;
                }
                if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                    return;
                }
            };
            let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            let length = length.expect("a length");
            while buffer.len() < head_end + length {
                if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let body = buffer[head_end..head_end + length].to_vec();
            buffer.drain(..head_end + length);
            let status = {
                let mut taken = self.taken.lock();
                taken.heads.push(head);
                if taken.status == 200 {
                    taken.bodies.push(body);
                }
                taken.status
            };
            let answer = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

enum Field<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

/// The fields of a protobuf message.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                found.push((key >> 3, Field::Number(varint(&mut bytes))));
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)).expect("a length"),
            5 => 4,
            kind => panic!("a field of kind {kind}"),
        };
        let (value, rest) = bytes.split_at(length);
        bytes = rest;
        found.push((key >> 3, Field::Bytes(value)));
    }
    found
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("a text")
}

fn attribute(pair: &[u8]) -> (String, String) {
    let (mut name, mut value) = (String::new(), String::new());
    for field in fields(pair) {
        match field {
            (1, Field::Bytes(bytes)) => name = text(bytes),
            (2, Field::Bytes(any)) => {
                for field in fields(any) {
                    value = match field {
                        (1, Field::Bytes(bytes)) => text(bytes),
                        (_, Field::Number(number)) => number.to_string(),
                        _ => panic!("an attribute of another kind"),
                    };
                }
            }
            _ => {}
        }
    }
    (name, value)
}

fn read_spans(body: &[u8]) -> Vec<SpanSeen> {
    let mut spans = Vec::new();
    for (_, of_resource) in fields(body) {
        let Field::Bytes(of_resource) = of_resource else { continue };
        let mut resource = BTreeMap::new();
        for field in fields(of_resource) {
            match field {
                (1, Field::Bytes(about)) => {
                    for (_, pair) in fields(about) {
                        if let Field::Bytes(pair) = pair {
                            resource.extend([attribute(pair)]);
                        }
                    }
                }
                (2, Field::Bytes(scope)) => {
                    for field in fields(scope) {
                        if let (2, Field::Bytes(span)) = field {
                            spans.push(SpanSeen { resource: resource.clone(), ..read_span(span) });
                        }
                    }
                }
                _ => {}
            }
        }
    }
    spans
}

fn read_span(span: &[u8]) -> SpanSeen {
    let mut seen = SpanSeen::default();
    let time = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    for field in fields(span) {
        match field {
            (1, Field::Bytes(bytes)) => seen.trace = hex::encode(bytes),
            (2, Field::Bytes(bytes)) => seen.id = hex::encode(bytes),
            (3, Field::Bytes(bytes)) => seen.state = text(bytes),
            (4, Field::Bytes(bytes)) => seen.parent = hex::encode(bytes),
            (5, Field::Bytes(bytes)) => seen.name = text(bytes),
            (6, Field::Number(kind)) => seen.kind = kind,
            (7, Field::Bytes(bytes)) => seen.start = time(bytes),
            (8, Field::Bytes(bytes)) => seen.end = time(bytes),
            (9, Field::Bytes(pair)) => seen.attributes.extend([attribute(pair)]),
            (15, Field::Bytes(status)) => {
                for field in fields(status) {
                    if let (3, Field::Number(code)) = field {
                        seen.status = code;
                    }
                }
            }
            _ => {}
        }
    }
    seen
}
