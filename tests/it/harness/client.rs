//! A small HTTP/1.1 client that sends exactly the bytes it is given.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long any single answer may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Ask {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn to_bytes(&self, address: SocketAddr) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            let _ = write!(head, "Host: {address}\r\n");
        }
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if !self.body.is_empty() {
            let _ = write!(head, "Content-Length: {}\r\n", self.body.len());
        }
        head += "\r\n";
        [head.as_bytes(), &self.body].concat()
    }

    /// Sends the request on a connection of its own.
    pub(crate) async fn send(&self, address: SocketAddr) -> Answer {
        let mut connection = Connection::open(address).await;
        connection.send(self).await.expect("an answer")
    }
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// The refusal's code.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// A connection that is kept.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::try_open(address).await.expect("a connection")
    }

    pub(crate) async fn try_open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream, buffer: Vec::new() })
    }

    /// Sends bytes as they are.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    pub(crate) async fn send(&mut self, ask: &Ask) -> std::io::Result<Answer> {
        let bytes = ask.to_bytes(self.address);
        self.write(&bytes).await?;
        self.read(ask.method == "HEAD").await
    }

    /// Reads one answer to its end.
    pub(crate) async fn read(&mut self, head_only: bool) -> std::io::Result<Answer> {
        tokio::time::timeout(PATIENCE, self.read_answer(head_only)).await.map_err(std::io::Error::other)?
    }

    /// Reads the head of an answer, and leaves its body to come.
    pub(crate) async fn read_head(&mut self) -> std::io::Result<Answer> {
        loop {
            if let Some(answer) = self.parse_head() {
                return Ok(answer);
            }
            self.fill().await?;
        }
    }

    /// Reads and drops what has come of a body; how many bytes.
    pub(crate) async fn read_some(&mut self) -> std::io::Result<usize> {
        if !self.buffer.is_empty() {
            let length = self.buffer.len();
            self.buffer.clear();
            return Ok(length);
        }
        let mut piece = vec![0; 65_536];
        self.stream.read(&mut piece).await
    }

    async fn fill(&mut self) -> std::io::Result<()> {
        let mut piece = vec![0; 16_384];
        let read = self.stream.read(&mut piece).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(&piece[..read]);
        Ok(())
    }

    fn parse_head(&mut self) -> Option<Answer> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) = parsed.parse(&self.buffer).expect("an HTTP answer") else {
            return None;
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers =
            parsed.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect();
        let answer = Answer { status: parsed.code.expect("a status"), headers, body: Vec::new() };
        self.buffer.drain(..length);
        Some(answer)
    }

    async fn read_answer(&mut self, head_only: bool) -> std::io::Result<Answer> {
        let answer = self.read_head().await?;
        self.read_rest(answer, head_only).await
    }

    /// Reads the body of an answer whose head was read.
    pub(crate) async fn read_rest(&mut self, mut answer: Answer, head_only: bool) -> std::io::Result<Answer> {
        if head_only || answer.status == 204 || answer.status == 304 {
            return Ok(answer);
        }
        if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse().expect("a length");
            while self.buffer.len() < length {
                self.fill().await?;
            }
            answer.body = self.buffer.drain(..length).collect();
        } else if answer.header("transfer-encoding").is_some() {
            answer.body = self.read_chunks().await?;
        } else {
            while self.fill().await.is_ok() {}
            answer.body = std::mem::take(&mut self.buffer);
        }
        Ok(answer)
    }

    async fn read_chunks(&mut self) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let chunk = self.read_chunk().await?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend_from_slice(&chunk);
        }
    }

    /// Reads the next chunk of a chunked body; empty: its end.
    pub(crate) async fn read_chunk(&mut self) -> std::io::Result<Vec<u8>> {
        let end = loop {
            match self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                Some(end) => break end,
                None => self.fill().await?,
            }
        };
        let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        let size =
            usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16).expect("a size");
        while self.buffer.len() < end + 2 + size + 2 {
            self.fill().await?;
        }
        let chunk = self.buffer[end + 2..end + 2 + size].to_vec();
        self.buffer.drain(..end + 2 + size + 2);
        Ok(chunk)
    }

    /// Reads what is left until the other end closes.
    pub(crate) async fn read_to_end(&mut self) -> Vec<u8> {
        let rest = async { while self.fill().await.is_ok() {} };
        tokio::time::timeout(PATIENCE, rest).await.expect("an end");
        std::mem::take(&mut self.buffer)
    }
}
