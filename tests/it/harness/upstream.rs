//! An upstream that records what reaches it, byte for byte, and behaves as a request's `X-Test` header says:
//! `status=500`, `header=Name:Value`, `bytes=N` (a body of N bytes), `cut` (close without an answer), `cut-body`
//! (close in the middle of the body), `hang` (never answer), `echo` (send the body back), `raw=BYTES` and `raw-end=BYTES` (these bytes, then
//! the next request or the end), `slow=BYTES` (one at a time).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod bodies;

/// One request as it reached the upstream.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body_length: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// The upstream.
#[derive(Clone)]
pub(crate) struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
    mood: Arc<Mutex<Option<String>>>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let upstream =
            Self { address, seen: Arc::default(), connections: Arc::default(), mood: Arc::default() };
        let shared = upstream.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *shared.connections.lock() += 1;
                let shared = shared.clone();
                tokio::spawn(async move { shared.serve(stream).await });
            }
        });
        upstream
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it does with every request from now on, whatever that wishes.
    pub(crate) fn behave(&self, mood: Option<&str>) {
        *self.mood.lock() = mood.map(str::to_owned);
    }

    /// Requests so far that are no health checks.
    pub(crate) fn asked(&self) -> usize {
        self.seen().iter().filter(|seen| seen.header("user-agent") != Some("tollgate-health")).count()
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().len()
    }

    /// The one request so far.
    pub(crate) fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }

    /// How many connections were opened to it.
    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock()
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        while let Some(seen) = read_request(&mut stream, &mut buffer).await {
            let wish = seen.0.header("x-test").unwrap_or_default().to_owned();
            let wish = self.mood.lock().clone().unwrap_or(wish);
            self.seen.lock().push(seen.0);
            if answer(&mut stream, &wish, &seen.1).await.is_none() {
                return;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(Seen, Vec<u8>)> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(length) = parsed.parse(buffer).ok()? {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let mut seen = Seen {
                method: parsed.method?.to_owned(),
                target: parsed.path?.to_owned(),
                headers: parsed.headers.iter().map(|h| (h.name.to_owned(), text(h.value))).collect(),
                body_length: 0,
            };
            buffer.drain(..length);
            let keep = seen.header("x-test") == Some("echo");
            let mut body = Vec::new();
            seen.body_length = read_body(stream, buffer, &seen, keep.then_some(&mut body)).await?;
            return Some((seen, body));
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

async fn read_body(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    seen: &Seen,
    mut keep: Option<&mut Vec<u8>>,
) -> Option<usize> {
    if let Some(length) = seen.header("content-length") {
        let length: usize = length.parse().ok()?;
        let mut left = length;
        loop {
            let taken = left.min(buffer.len());
            if let Some(body) = keep.as_deref_mut() {
                body.extend_from_slice(&buffer[..taken]);
            }
            buffer.drain(..taken);
            left -= taken;
            if left == 0 {
                return Some(length);
            }
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
    }
    if seen.header("transfer-encoding").is_none() {
        return Some(0);
    }
    let mut total = 0;
    loop {
        while !buffer.windows(2).any(|pair| pair == b"\r\n") {
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
        let end = buffer.windows(2).position(|pair| pair == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&buffer[..end]).ok()?, 16).ok()?;
        while buffer.len() < end + 2 + size + 2 {
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
        if let Some(body) = keep.as_deref_mut() {
            body.extend_from_slice(&buffer[end + 2..end + 2 + size]);
        }
        buffer.drain(..end + 2 + size + 2);
        total += size;
        if size == 0 {
            return Some(total);
        }
    }
}

/// Answers as wished; `None` closes the connection.
async fn answer(stream: &mut TcpStream, wish: &str, body: &[u8]) -> Option<()> {
    let (name, value) = wish.split_once('=').unwrap_or((wish, ""));
    if let Some(done) = bodies::answer(stream, name, value).await {
        return done;
    }
    let mut extra = String::new();
    let mut status = "200 OK".to_owned();
    match name {
        "cut" => return None,
        // These bytes and no others; `raw-end` closes behind them.
        "raw" | "raw-end" => {
            stream.write_all(value.as_bytes()).await.ok()?;
            return (name == "raw").then_some(());
        }
        // The same, a byte at a time.
        "slow" => {
            for byte in value.as_bytes() {
                stream.write_all(&[*byte]).await.ok()?;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            return Some(());
        }
        "hang" => {
            // Until the gate gives up and closes.
            let mut nothing = [0; 1];
            let _ = stream.read(&mut nothing).await;
            return None;
        }
        "cut-body" => {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it";
            stream.write_all(head).await.ok()?;
            return None;
        }
        "bytes" => {
            let total: u64 = value.parse().ok()?;
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n").as_bytes())
                .await
                .ok()?;
            let piece = vec![b'x'; 65_536];
            let mut left = total;
            while left > 0 {
                let now = usize::try_from(left.min(65_536)).ok()?;
                stream.write_all(&piece[..now]).await.ok()?;
                left -= now as u64;
            }
            return Some(());
        }
        "drip" => {
            // Begins to answer and then waits for the client to leave.
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegin").await.ok()?;
            let piece = vec![b'x'; 1000];
            for _ in 0..500 {
                stream.write_all(&piece).await.ok()?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            return None;
        }
        "status" => status = format!("{value} Wished"),
        "header" => {
            let (name, value) = value.split_once(':')?;
            extra = format!("{name}: {value}\r\n");
        }
        _ => {}
    }
    let body: &[u8] = if name == "echo" { body } else { b"{\"ok\":true}" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json; charset=utf-8\r\n{extra}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await.ok()
}
