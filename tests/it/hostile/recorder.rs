//! An upstream that reads as strictly as any server does and keeps what it read. Whatever is not in the one clean form
//! (RFC 9112 without its leniences) is dirt; a request that never ends is kept as incomplete.
//!
//! It answers 200 at once, but for: a target with `early` is answered before its body is read; one with `ws` and
//! version 13 becomes a tunnel (101) whose bytes are kept and echoed, with another version it is answered 426.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One request as it stood on the wire.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// It came to its end.
    pub(crate) complete: bool,
    /// What was not clean about it.
    pub(crate) dirt: Option<String>,
    /// Bytes of a tunnel that it became.
    pub(crate) tunnel: Vec<u8>,
}

impl Heard {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn count(&self, name: &str) -> usize {
        self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).count()
    }
}

#[derive(Clone)]
pub(crate) struct Recorder {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Recorder {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let recorder = Self { address: listener.local_addr().expect("an address"), heard: Arc::default() };
        let shared = recorder.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move { shared.serve(stream).await });
            }
        });
        recorder
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far, in the order in which they began.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().clone()
    }

    async fn serve(&self, stream: TcpStream) {
        let mut wire = Wire { stream, buffer: Vec::new() };
        // The request before, on the same connection.
        let mut before = String::new();
        loop {
            let Some(head) = wire.head().await else {
                // Bytes that never became a request are a request that somebody meant.
                if !wire.buffer.is_empty() {
                    let text = String::from_utf8_lossy(&wire.buffer).into_owned();
                    self.heard
                        .lock()
                        .push(Heard { dirt: Some(format!("left over: {text:?}")), ..Heard::default() });
                }
                return;
            };
            let mut heard = read_head(&head);
            heard.dirt = heard.dirt.map(|dirt| format!("{dirt}, behind {before:?}"));
            before.clone_from(&heard.target);
            let at = {
                let mut all = self.heard.lock();
                all.push(heard.clone());
                all.len() - 1
            };
            let keep = |change: &dyn Fn(&mut Heard)| change(&mut self.heard.lock()[at]);
            if heard.dirt.is_some() {
                return;
            }
            if heard.header("upgrade") == Some("websocket") {
                if heard.header("sec-websocket-version") != Some("13") {
                    keep(&|kept| kept.complete = true);
                    wire.say("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n").await;
                    continue;
                }
                keep(&|kept| kept.complete = true);
                wire.say(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
                )
                .await;
                loop {
                    let bytes = std::mem::take(&mut wire.buffer);
                    let _ = wire.stream.write_all(&bytes).await;
                    keep(&|kept| kept.tunnel.extend_from_slice(&bytes));
                    if wire.fill().await.is_none() {
                        return;
                    }
                }
            }
            let early = heard.target.contains("early");
            if early {
                wire.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly").await;
            } else if heard.header("expect").is_some() {
                wire.say("HTTP/1.1 100 Continue\r\n\r\n").await;
            }
            let body = wire.body(&heard).await;
            match body {
                None => return,
                Some(Err(dirt)) => return keep(&|kept| kept.dirt = Some(dirt.clone())),
                Some(Ok(body)) => keep(&|kept| {
                    kept.complete = true;
                    kept.body.clone_from(&body);
                }),
            }
            if !early {
                wire.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    }
}

struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    async fn fill(&mut self) -> Option<()> {
        (self.stream.read_buf(&mut self.buffer).await.ok()? > 0).then_some(())
    }

    async fn say(&mut self, text: &str) {
        let _ = self.stream.write_all(text.as_bytes()).await;
    }

    async fn upto(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                let piece = self.buffer.drain(..at + end.len()).take(at).collect();
                return Some(piece);
            }
            self.fill().await?;
        }
    }

    async fn head(&mut self) -> Option<Vec<u8>> {
        self.upto(b"\r\n\r\n").await
    }

    async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill().await?;
        }
        Some(self.buffer.drain(..length).collect())
    }

    /// `None`: it never ended.
    async fn body(&mut self, heard: &Heard) -> Option<Result<Vec<u8>, String>> {
        if let Some(length) = heard.header("content-length") {
            return Some(Ok(self.take(length.parse().expect("checked digits")).await?));
        }
        if heard.header("transfer-encoding").is_none() {
            return Some(Ok(Vec::new()));
        }
        let mut body = Vec::new();
        loop {
            let line = self.upto(b"\r\n").await?;
            let text = String::from_utf8_lossy(&line).into_owned();
            let clean = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let Some(size) = usize::from_str_radix(&text, 16).ok().filter(|_| clean) else {
                return Some(Err(format!("chunk size {text:?}")));
            };
            body.extend_from_slice(&self.take(size).await?);
            if self.take(2).await? != b"\r\n" {
                return Some(Err("a chunk, or the body, does not end in CRLF".to_owned()));
            }
            if size == 0 {
                return Some(Ok(body));
            }
        }
    }
}

fn read_head(head: &[u8]) -> Heard {
    let mut heard = Heard::default();
    if let Err(dirt) = try_read_head(head, &mut heard) {
        heard.dirt = Some(format!("{dirt} in {:?}", String::from_utf8_lossy(head)));
    }
    heard
}

fn try_read_head(head: &[u8], heard: &mut Heard) -> Result<(), String> {
    let text = String::from_utf8_lossy(head).into_owned();
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let [method, target, "HTTP/1.1"] = first.split(' ').collect::<Vec<_>>()[..] else {
        return Err(format!("request line {first:?}"));
    };
    (heard.method, heard.target) = (method.to_owned(), target.to_owned());
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(format!("header line {line:?}"))?;
        let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_tchar) {
            return Err(format!("header name {name:?}"));
        }
        heard.headers.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
    if text.chars().any(|c| c == '\0' || c == '\u{7f}') || text.replace("\r\n", "").contains(['\r', '\n']) {
        return Err("a control character".to_owned());
    }
    for name in ["te", "trailer", "keep-alive", "proxy-connection", "http2-settings"] {
        if heard.count(name) > 0 {
            return Err(format!("{name} is for one hop"));
        }
    }
    // Servers that turn names into variables read these as the true ones.
    let alike = |name: &str| {
        let same = name.to_ascii_lowercase().replace('_', "-");
        name.contains('_') && ["content-length", "transfer-encoding", "x-tollgate-token-id"].contains(&&*same)
    };
    if let Some((name, _)) = heard.headers.iter().find(|(name, _)| alike(name)) {
        return Err(format!("look-alike {name}"));
    }
    for name in ["host", "content-length", "transfer-encoding", "connection", "upgrade", "expect"] {
        if heard.count(name) > 1 {
            return Err(format!("{name} twice"));
        }
    }
    let length = heard.header("content-length");
    let canonical = |text: &str| text.parse::<u64>().is_ok_and(|number| number.to_string() == text);
    if heard.header("host").is_none_or(str::is_empty) {
        return Err("no Host".to_owned());
    }
    if length.is_some_and(|length| !canonical(length)) {
        return Err("Content-Length is no plain number".to_owned());
    }
    if heard.header("transfer-encoding").is_some_and(|coding| coding != "chunked") {
        return Err("another coding than chunked".to_owned());
    }
    if length.is_some() && heard.header("transfer-encoding").is_some() {
        return Err("both framings".to_owned());
    }
    if heard.header("expect").is_some_and(|expect| !expect.eq_ignore_ascii_case("100-continue")) {
        return Err("another expectation".to_owned());
    }
    let upgrade = (heard.header("connection"), heard.header("upgrade"));
    if !matches!(upgrade, (None | Some("keep-alive"), None) | (Some("Upgrade"), Some("websocket"))) {
        return Err(format!("{upgrade:?}"));
    }
    Ok(())
}

#[test]
fn the_recorder_knows_dirt() {
    const CLEAN: &str = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5";
    assert!(read_head(CLEAN.as_bytes()).dirt.is_none());
    for (from, to) in [
        ("POST /x", "POST  /x"),
        ("1.1", "1.0"),
        ("Host: a", "Host: a\nX: b"),
        ("Host: a", "X: a"),
        ("Host: a", "Host : a"),
        ("Host: a", "Host: a\r\nHost: a"),
        ("h: 5", "h: 05"),
        ("h: 5", "h: 5, 5"),
        ("h: 5", "h: 5\r\nTransfer-Encoding: chunked"),
        ("Content-Length: 5", "Transfer-Encoding: gzip, chunked"),
        ("Content-Length", "Content_Length"),
        ("Host: a", "Host: a\r\nTE: trailers"),
        ("Host: a", "Host: a\r\nUpgrade: h2c\r\nConnection: Upgrade"),
        ("Host: a", "Host: a\r\n b"),
    ] {
        assert!(read_head(CLEAN.replace(from, to).as_bytes()).dirt.is_some(), "{to}");
    }
}
