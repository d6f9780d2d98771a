//! A kept HTTP/1.1 connection that sends prepared bytes and reads whole answers. Blocking: one thread each.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take before the run is given up.
const PATIENCE: Duration = Duration::from_mins(1);

/// A kept connection.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
    body: Vec<u8>,
}

/// An answer, its body read to the end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) bytes: usize,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { address, stream: connect(address)?, buffer: vec![0; 65_536], body: Vec::new() })
    }

    /// Sends a request and reads its answer; the status. A connection that was closed meanwhile is opened again, once.
    pub(crate) fn ask(&mut self, request: &[u8]) -> io::Result<u16> {
        match self.exchange(request) {
            Err(error) if is_closed(&error) => {
                self.stream = connect(self.address)?;
                self.exchange(request).map(|seen| seen.0)
            }
            done => done.map(|seen| seen.0),
        }
    }

    /// The same, and the answer's head and length.
    pub(crate) fn ask_all(&mut self, request: &[u8]) -> io::Result<Answer> {
        let (status, head, bytes) = self.exchange(request)?;
        let head = String::from_utf8_lossy(self.body.get(..head).unwrap_or_default()).into_owned();
        Ok(Answer { status, head, bytes })
    }

    /// The status, the length of the head (kept in `body`'s beginning) and of the body.
    fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, usize, usize)> {
        self.stream.write_all(request)?;
        self.body.clear();
        let end = loop {
            let piece = read(&mut self.stream, &mut self.buffer)?;
            self.body.extend_from_slice(piece);
            if let Some(end) = find(&self.body, b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = self.body.get(..end).unwrap_or_default();
        let status = head.get(9..12).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        let status = status.ok_or_else(|| bad("no status"))?;
        let length = content_length(head).ok_or_else(|| bad("no Content-Length"))?;
        let mut had = self.body.len() - end;
        while had < length {
            had += read(&mut self.stream, &mut self.buffer)?.len();
        }
        if had > length {
            return Err(bad("more than the body"));
        }
        Ok((status, end, length))
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn read<'b>(stream: &mut TcpStream, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    match stream.read(buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => Ok(buffer.get(..read).unwrap_or_default()),
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer has {what}"))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let lines = head.split(|byte| *byte == b'\n');
    let is_it = |line: &&[u8]| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME));
    let value = lines.skip(1).find(is_it)?.get(NAME.len()..)?;
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}
