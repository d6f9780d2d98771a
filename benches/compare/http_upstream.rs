//! The upstream behind all subjects: fixed bodies, as cheap as can be, one thread for each connection.
//!
//! The last number in the path is how many bytes the body has: `/v1/data/MY/CARS/16384`. It can show the head of the
//! last request it got, which is how the run checks that a subject does what it claims. Below `/events` it answers with one
//! server-sent event and no end.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
                      13\r\ndata: {\"price\":1}\n\n\r\n";

/// A running upstream; it ends with the process.
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    answers: Mutex<BTreeMap<usize, Arc<Vec<u8>>>>,
    streams: Mutex<Vec<TcpStream>>,
    watched: std::sync::atomic::AtomicBool,
    last: Mutex<Vec<u8>>,
}

impl Upstream {
    pub(crate) fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            answers: Mutex::default(),
            streams: Mutex::default(),
            watched: std::sync::atomic::AtomicBool::new(false),
            last: Mutex::default(),
        });
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = serving.clone();
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Ok(Self { address, shared })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts or stops keeping the last request.
    pub(crate) fn watch(&self, watched: bool) {
        self.shared.watched.store(watched, std::sync::atomic::Ordering::SeqCst);
        self.shared.last.lock().clear();
    }

    /// Ends all streams.
    pub(crate) fn end_streams(&self) {
        self.shared.streams.lock().clear();
    }

    /// The last request while it was watched; empty: none.
    pub(crate) fn last(&self) -> String {
        String::from_utf8_lossy(&self.shared.last.lock()).into_owned()
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut buffer = vec![0; 16_384];
    let mut held = 0;
    let mut known: BTreeMap<usize, Arc<Vec<u8>>> = BTreeMap::new();
    loop {
        let read = stream.read(buffer.get_mut(held..)?).ok().filter(|read| *read > 0)?;
        held += read;
        let head = buffer.get(..held)?;
        // No pipelining here: each proxy sends its next request when it has the answer to the last.
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        if shared.watched.load(std::sync::atomic::Ordering::Relaxed) {
            *shared.last.lock() = head.to_vec();
        }
        if head.starts_with(b"GET /events/") {
            stream.write_all(STREAM.as_bytes()).ok()?;
            // Open, but without a thread.
            shared.streams.lock().push(stream);
            return None;
        }
        let size = body_size(head);
        let answer = known.entry(size).or_insert_with(|| shared.answer(size));
        stream.write_all(answer).ok()?;
        held = 0;
    }
}

impl Shared {
    fn answer(&self, size: usize) -> Arc<Vec<u8>> {
        let make = || {
            let mut answer = format!(
                "HTTP/1.1 200 OK\r\nServer: data\r\nDate: Tue, 24 Nov 2026 06:00:00 GMT\r\n\
                 Content-Type: application/json; charset=utf-8\r\nCache-Control: max-age=5\r\nContent-Length: {size}\r\n\r\n"
            )
            .into_bytes();
            answer.extend(records(size));
            Arc::new(answer)
        };
        self.answers.lock().entry(size).or_insert_with(make).clone()
    }
}

/// A JSON array of records, filled up with spaces to so many bytes.
fn records(size: usize) -> Vec<u8> {
    let record = br#"{"make":"audi","model":"a2","year":2008,"price":7250},"#;
    let whole = size.saturating_sub(2) / record.len() * record.len();
    let mut body = Vec::with_capacity(size);
    body.extend(b"[".iter().take(size));
    body.extend(record.iter().cycle().take(whole.saturating_sub(1)));
    body.resize(size.saturating_sub(1).max(body.len()), b' ');
    body.extend(b"]".iter().take(size - body.len()));
    body
}

/// The number at the end of the path.
fn body_size(head: &[u8]) -> usize {
    let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    let digits = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(2)
}
