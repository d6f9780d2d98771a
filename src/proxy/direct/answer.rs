//! An upstream's answer on the direct way, head first, then piece by piece.
//!
//! The plainest of answers are read here: HTTP/1.1, a status that has a body, one length, no coding, and the head in the first
//! piece that comes. Everything else, and all that is odd, is put back and read by Pingora's client session, so what
//! is strange about HTTP/1 is its business alone.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Version};
use pingora::http::{IntoCaseHeaderName, ResponseHeader};
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::{Error, ErrorType, Result, RetryType};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::rewound::Rewound;

/// What is read at once before anything is known: the head and a body of usual length.
const FIRST: usize = 32 << 10;
/// What is read at once of a body.
const PIECE: u64 = 64 << 10;
/// More fields than this are not plain.
const FIELDS: usize = 64;

thread_local! {
    /// Where a first piece is read, so that nobody holds memory who only waits for one.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; FIRST].into());
}

/// An answer that is being read.
pub(super) struct Answer {
    state: State,
    /// How long to wait for a piece.
    patience: Option<Duration>,
}

enum State {
    /// Nothing of it is read.
    Unread(Stream),
    Plain(Plain),
    /// Pingora reads it.
    Long(Box<HttpSession>),
    /// It broke off.
    Broken,
}

/// The rest of a plain answer.
struct Plain {
    stream: Stream,
    /// Read already.
    read: Bytes,
    /// Bytes of the body that are still to be handed on.
    left: u64,
}

impl Answer {
    /// The answer that comes on a connection.
    pub(super) fn new(stream: Stream, patience: Option<Duration>) -> Self {
        Self { state: State::Unread(stream), patience }
    }

    /// Waits no longer than this for the next piece, if it is bound.
    pub(super) fn hurry(&mut self, patience: Option<Duration>) {
        if let Some(patience) = patience {
            self.patience = self.patience.map(|before| before.min(patience));
        }
    }

    /// Reads the next head: those that come before the response's own, and then that.
    pub(super) async fn read_head(&mut self) -> Result<Box<ResponseHeader>> {
        if let State::Unread(stream) = &mut self.state {
            let first = in_time(self.patience, read_first(stream)).await?;
            let State::Unread(stream) = std::mem::replace(&mut self.state, State::Broken) else {
                return Err(out_of_turn());
            };
            if let Some((head, read, left)) = parse(&first) {
                self.state = State::Plain(Plain { stream, read, left });
                return Ok(head);
            }
            let session = HttpSession::new(Box::new(Rewound::new(first, stream)));
            self.state = State::Long(Box::new(session));
        }
        let State::Long(session) = &mut self.state else { return Err(out_of_turn()) };
        session.read_timeout = self.patience;
        session.read_response().await?;
        session.resp_header().map(|head| Box::new(head.clone())).ok_or_else(out_of_turn)
    }

    /// Whether nothing more of the body comes.
    pub(super) fn is_ended(&mut self) -> bool {
        match &mut self.state {
            State::Plain(plain) => plain.left == 0,
            State::Long(session) => session.is_body_done(),
            State::Unread(_) | State::Broken => false,
        }
    }

    /// Reads a piece of the body.
    pub(super) async fn read_piece(&mut self) -> Result<Option<Bytes>> {
        match &mut self.state {
            State::Plain(plain) => in_time(self.patience, plain.read_piece()).await.map(Some),
            State::Long(session) => {
                session.read_timeout = self.patience;
                session.read_body_bytes().await
            }
            State::Unread(_) | State::Broken => Err(out_of_turn()),
        }
    }

    /// The connection, if another request may be sent on it.
    pub(super) async fn into_stream(self) -> Option<Stream> {
        match self.state {
            State::Plain(plain) => (plain.left == 0).then_some(plain.stream),
            State::Long(mut session) => {
                session.respect_keepalive();
                session.reuse().await.and_then(Rewound::unwrap)
            }
            State::Unread(_) | State::Broken => None,
        }
    }
}

impl Plain {
    async fn read_piece(&mut self) -> Result<Bytes> {
        let mut piece = std::mem::take(&mut self.read);
        if piece.is_empty() {
            let most = self.left.min(PIECE);
            let mut buffer = BytesMut::with_capacity(usize::try_from(most).unwrap_or_default());
            // Not a byte more than the body has: it would be lost.
            match (&mut self.stream).take(most).read_buf(&mut buffer).await {
                Ok(0) => return Err(Error::explain(ErrorType::ConnectionClosed, "a body broke off")),
                Ok(_) => piece = buffer.freeze(),
                Err(error) => return Err(Error::because(ErrorType::ReadError, "reading a body", error)),
            }
        }
        self.left -= piece.len() as u64;
        Ok(piece)
    }
}

async fn in_time<T>(patience: Option<Duration>, read: impl Future<Output = Result<T>>) -> Result<T> {
    match patience {
        Some(patience) => match pingora::prelude::timeout(patience, read).await {
            Ok(read) => read,
            Err(_) => Err(Error::explain(ErrorType::ReadTimedout, "waiting for an answer")),
        },
        None => read.await,
    }
}

/// Reads the first piece. An error says that a connection that was used before may have been closed meanwhile.
async fn read_first(stream: &mut Stream) -> Result<Bytes> {
    let read = poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
            Poll::Ready(Ok::<_, io::Error>(Bytes::copy_from_slice(buffer.filled())))
        })
    });
    match read.await {
        Ok(first) if first.is_empty() => {
            let mut error = Error::explain(ErrorType::ConnectionClosed, "closed before an answer");
            error.retry = RetryType::ReusedOnly;
            Err(error)
        }
        Ok(first) => Ok(first),
        Err(error) => {
            // What the system says, and not TLS.
            let by_system = error.raw_os_error().is_some();
            let mut error = Error::because(ErrorType::ReadError, "waiting for an answer", error);
            if by_system {
                error.retry = RetryType::ReusedOnly;
            }
            Err(error)
        }
    }
}

/// A plain answer's head, what came of its body, and how long that is; `None`: it is not plain, or not all of the head is
/// here.
fn parse(first: &Bytes) -> Option<(Box<ResponseHeader>, Bytes, u64)> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = parsed.parse(first).ok()? else { return None };
    let status = parsed.code.filter(|status| (200..600).contains(status) && !matches!(status, 204 | 304))?;
    if parsed.version != Some(1) {
        return None;
    }
    let mut head = ResponseHeader::build(status, Some(parsed.headers.len())).ok()?;
    head.set_version(Version::HTTP_11);
    head.set_reason_phrase(parsed.reason).ok()?;
    let mut body = None;
    for field in &*parsed.headers {
        match field.name.len() {
            14 if field.name.eq_ignore_ascii_case("content-length")
                && body.replace(parse_length(field.value)?).is_some() =>
            {
                return None;
            }
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => return None,
            10 if field.name.eq_ignore_ascii_case("connection")
                && !field.value.eq_ignore_ascii_case(b"keep-alive") =>
            {
                return None;
            }
            _ => {}
        }
        let name = first.slice_ref(field.name.as_bytes()).into_case_header_name();
        let value = HeaderValue::from_maybe_shared(first.slice_ref(field.value)).ok()?;
        head.append_header(name, value).ok()?;
    }
    let (body, read) = (body?, first.slice(length..));
    (read.len() as u64 <= body).then(|| (Box::new(head), read, body))
}

/// A length as it must be written: digits, and not too many.
fn parse_length(value: &[u8]) -> Option<u64> {
    let fits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    fits.then(|| value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

#[cold]
#[expect(clippy::unnecessary_box_returns, reason = "Pingora's errors are boxed")]
fn out_of_turn() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "an answer was read out of turn")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    /// The status, how many bytes of the body are here, and how many there are.
    type Read = (u16, usize, u64);

    fn plain(text: &str) -> Option<Read> {
        let parsed = parse(&Bytes::copy_from_slice(text.as_bytes()));
        parsed.map(|(head, read, body)| (head.status.as_u16(), read.len(), body))
    }

    #[test]
    fn only_what_leaves_no_doubt_is_plain() {
        // The text, and how it is read.
        let table: &[(&str, Option<Read>)] = &[
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Some((200, 2, 2))),
            ("HTTP/1.1 404 Not\r\ncontent-length: 0\r\n\r\n", Some((404, 0, 0))),
            ("HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 9\r\n\r\nok", Some((200, 2, 9))),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", None),
            ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok", None),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", None),
            ("HTTP/1.1 200 OK\r\nConnection: keep-alive, x\r\nContent-Length: 2\r\n\r\nok", None),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", None),
            ("HTTP/1.1 200 OK\r\n\r\nok", None),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", None),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", None),
            ("HTTP/1.1 101 Switching\r\nContent-Length: 0\r\n\r\n", None),
            ("HTTP/1.1 103 Hints\r\nContent-Length: 0\r\n\r\n", None),
            ("HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", None),
            ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", None),
            ("no", None),
        ];
        for (text, expected) in table {
            assert_eq!(plain(text), *expected, "{text}");
        }
        let many = "X: 1\r\n".repeat(FIELDS);
        assert_eq!(plain(&format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 2\r\n\r\nok")), None);
    }

    #[test]
    fn names_keep_their_spelling_and_values_their_bytes() {
        let text = b"HTTP/1.1 299 Mine\r\nx-MiXeD: caf\xe9 \r\nX-Mixed:2\r\nContent-Length: 0\r\n\r\n";
        let (head, ..) = parse(&Bytes::from_static(text)).unwrap();
        let mut wire = Vec::new();
        head.header_to_h1_wire(&mut wire);
        assert_eq!(head.get_reason_phrase(), Some("Mine"));
        assert_eq!(wire, b"x-MiXeD: caf\xe9\r\nX-Mixed: 2\r\nContent-Length: 0\r\n");
    }

    /// What Pingora reads of the same bytes: the head as it would go on, the body, and whether the connection may be used again.
    async fn read_by_pingora(text: &[u8]) -> Option<(Vec<u8>, Vec<u8>, bool)> {
        let (ours, mut theirs) = duplex(1 << 16);
        theirs.write_all(text).await.unwrap();
        let mut session = HttpSession::new(Box::new(ours));
        session.read_timeout = Some(Duration::from_millis(50));
        session.read_response().await.ok()?;
        let head = session.resp_header()?.clone();
        let mut body = Vec::new();
        while let Some(piece) = session.read_body_bytes().await.ok()? {
            body.extend_from_slice(&piece);
        }
        session.respect_keepalive();
        Some((wire(&head), body, session.reuse().await.is_some()))
    }

    fn wire(head: &ResponseHeader) -> Vec<u8> {
        let mut wire = format!("{} {:?}\n", head.status.as_u16(), head.get_reason_phrase()).into_bytes();
        head.header_to_h1_wire(&mut wire);
        wire
    }

    fn field() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            4 => "[A-Za-z-]{1,12}",
            2 => Just("Content-Length".to_owned()),
            1 => Just("content-length".to_owned()),
            1 => Just("Connection".to_owned()),
            1 => Just("Transfer-Encoding".to_owned()),
            1 => "[ -~]{1,6}",
        ];
        let value = prop_oneof![
            4 => "[ -~]{0,12}",
            3 => "[0-9]{1,2}",
            1 => Just("keep-alive".to_owned()),
            1 => Just("close".to_owned()),
            1 => Just("chunked".to_owned()),
            1 => "[\\x00-\\x1f\u{80}-\u{ff}]{1,3}",
        ];
        (name, prop_oneof![4 => Just(": "), 1 => Just(":"), 1 => Just(" :")], value)
            .prop_map(|(name, colon, value)| format!("{name}{colon}{value}\r\n"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn what_is_plain_reads_the_same_through_pingora(
            version in prop_oneof![6 => Just("HTTP/1.1"), 1 => Just("HTTP/1.0"), 1 => Just("HTTP/2")],
            status in prop_oneof![4 => Just("200 OK".to_owned()), 2 => "[1-6][0-9]{2} [A-Za-z]{0,5}", 1 => "[0-9]{1,4}"],
            fields in prop::collection::vec(field(), 0..5),
            length in prop_oneof![4 => (0usize..6).prop_map(Some), 1 => Just(None)],
            body in "[ -~]{0,6}",
        ) {
            let length = length.map_or_else(String::new, |length| format!("Content-Length: {length}\r\n"));
            let text = format!("{version} {status}\r\n{}{length}\r\n{body}", fields.concat());
            if let Some((head, read, whole)) = parse(&Bytes::from(text.clone())) {
                // What is still to come does come.
                let rest = "x".repeat(usize::try_from(whole).unwrap() - read.len());
                let all = [text.as_bytes(), rest.as_bytes()].concat();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let same = runtime.block_on(read_by_pingora(&all));
                let body = [&read, rest.as_bytes()].concat();
                prop_assert_eq!(same, Some((wire(&head), body, true)), "{:?}", text);
            }
        }
    }
}
