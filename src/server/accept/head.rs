//! Where the head of an HTTP/1 request ends, and whether it keeps to the limits. Pure.
//!
//! It agrees with Pingora's parser (httparse) on where lines and heads end, and leaves everything else to it: what is
//! refused here is only what that parser would take, or would refuse with a status that says less.

use crate::config::Limits;

/// What is said of a request that is not even parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The head is longer than `request_header_size`.
    HeadTooLarge,
    /// There are more fields than `request_headers`.
    TooManyHeaders,
    /// The target is longer than `uri_length`.
    UriTooLong,
    /// A version of HTTP that is not spoken.
    Version,
    /// The head did not come in time.
    Late,
}

impl Refusal {
    pub(super) const ALL: [Self; 5] =
        [Self::HeadTooLarge, Self::TooManyHeaders, Self::UriTooLong, Self::Version, Self::Late];

    /// Status, name, title and public sentence.
    pub(super) fn wording(self) -> (u16, &'static str, &'static str, &'static str) {
        match self {
            Self::HeadTooLarge => (
                431,
                "headers_too_large",
                "Request Header Fields Too Large",
                "The request's header fields are too long.",
            ),
            Self::TooManyHeaders => (
                431,
                "too_many_headers",
                "Request Header Fields Too Large",
                "The request has too many header fields.",
            ),
            Self::UriTooLong => (414, "uri_too_long", "URI Too Long", "The request target is too long."),
            Self::Version => (
                505,
                "version_not_supported",
                "HTTP Version Not Supported",
                "This version of HTTP is not spoken here.",
            ),
            Self::Late => {
                (408, "request_timeout", "Request Timeout", "The request's head did not come in time.")
            }
        }
    }
}

/// What is known after some more bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The head goes on.
    More,
    /// The head is whole; what lies beyond it is not looked at.
    Whole,
    /// It is not to be read on.
    Refuse(Refusal),
}

/// How far a head was looked at.
#[derive(Debug, Default)]
pub(super) struct Scan {
    seen: usize,
    line: usize,
    lines: usize,
}

/// Longer than any method, and the version after the target.
const AROUND_TARGET: usize = 64;

impl Scan {
    /// Looks at what has come since. `buffer` holds all of it.
    pub(super) fn look(&mut self, buffer: &[u8], limits: &Limits) -> Step {
        loop {
            let rest = buffer.get(self.seen..).unwrap_or_default();
            let Some(at) = memchr::memchr(b'\n', rest) else { break };
            let end = self.seen + at;
            let line = buffer.get(self.line..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            (self.seen, self.line) = (end + 1, end + 1);
            if line.is_empty() {
                // Empty lines before a request are skipped (RFC 9112, 2.2).
                if self.lines == 0 {
                    continue;
                }
                let fits = self.seen <= limits.request_header_size;
                return if fits { Step::Whole } else { Step::Refuse(Refusal::HeadTooLarge) };
            }
            self.lines += 1;
            let fault = match self.lines {
                1 => fault_of_line(line, limits),
                lines if lines - 1 > limits.request_headers => Some(Refusal::TooManyHeaders),
                _ => None,
            };
            if let Some(refusal) = fault {
                return Step::Refuse(refusal);
            }
        }
        self.seen = buffer.len();
        if self.lines == 0 && buffer.len() - self.line > limits.uri_length + AROUND_TARGET {
            return Step::Refuse(Refusal::UriTooLong);
        }
        if buffer.len() > limits.request_header_size {
            return Step::Refuse(Refusal::HeadTooLarge);
        }
        Step::More
    }
}

/// A request line: `METHOD TARGET VERSION`.
fn fault_of_line(line: &[u8], limits: &Limits) -> Option<Refusal> {
    let (first, last) = (memchr::memchr(b' ', line)?, memchr::memrchr(b' ', line)?);
    if last.saturating_sub(first + 1) > limits.uri_length {
        return Some(Refusal::UriTooLong);
    }
    let version = line.get(last + 1..)?.strip_prefix(b"HTTP/")?;
    let is_version = version.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
        && version.first().is_some_and(u8::is_ascii_digit);
    (is_version && !matches!(version, b"1.0" | b"1.1")).then_some(Refusal::Version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { request_header_size: 1024, request_headers: 3, uri_length: 64, ..Limits::default() }
    }

    #[test]
    fn finds_the_end_of_a_head_and_what_is_wrong_with_it() {
        let long = |length: usize| "a".repeat(length);
        let table: Vec<(String, Step)> = vec![
            ("GET / HTTP/1.1\r\n\r\n".into(), Step::Whole),
            ("\r\n\nGET / HTTP/1.0\nHost: a\n\nbody".into(), Step::Whole),
            ("GET / HTTP/1.1\r\nHost: a\r\n".into(), Step::More),
            (String::new(), Step::More),
            ("\r\n".repeat(20), Step::More),
            ("\r\n".repeat(600), Step::Refuse(Refusal::HeadTooLarge)),
            (format!("GET /{} HTTP/1.1\r\n\r\n", long(63)), Step::Whole),
            (format!("GET /{} HTTP/1.1\r\n\r\n", long(64)), Step::Refuse(Refusal::UriTooLong)),
            (format!("GET /{}", long(300)), Step::Refuse(Refusal::UriTooLong)),
            ("GET / HTTP/1.1\r\na: 1\r\nb: 2\r\nc: 3\r\n\r\n".into(), Step::Whole),
            (
                "GET / HTTP/1.1\r\na: 1\r\nb: 2\r\nc: 3\r\nd: 4\r\n".into(),
                Step::Refuse(Refusal::TooManyHeaders),
            ),
            (format!("GET / HTTP/1.1\r\na: {}", long(1100)), Step::Refuse(Refusal::HeadTooLarge)),
            (format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", long(1100)), Step::Refuse(Refusal::HeadTooLarge)),
            ("GET / HTTP/2.0\r\n\r\n".into(), Step::Refuse(Refusal::Version)),
            ("GET / HTTP/1.2\r\n\r\n".into(), Step::Refuse(Refusal::Version)),
            // No version at all is Pingora's to refuse.
            ("GET / HTTP/x\r\n\r\n".into(), Step::Whole),
            ("GET /\r\n\r\n".into(), Step::Whole),
        ];
        for (text, expected) in table {
            assert_eq!(Scan::default().look(text.as_bytes(), &limits()), expected, "{text:?}");
            // Byte by byte it comes to the same.
            let mut scan = Scan::default();
            let mut last = Step::More;
            for end in 0..=text.len() {
                last = scan.look(&text.as_bytes()[..end], &limits());
                if last != Step::More {
                    break;
                }
            }
            assert_eq!(last, expected, "{text:?} byte by byte");
        }
    }

    #[test]
    fn a_head_that_is_whole_here_is_not_partial_to_the_parser() {
        // All short texts of these pieces, after a request line.
        let pieces = ["\r", "\n", "a", ":", " ", "\r\n"];
        let limits = Limits { request_headers: 256, ..Limits::default() };
        for number in 0..6_usize.pow(6) {
            let mut text = String::from("GET / HTTP/1.1\r\n");
            let mut rest = number;
            for _ in 0..6 {
                text.push_str(pieces[rest % 6]);
                rest /= 6;
            }
            let whole = Scan::default().look(text.as_bytes(), &limits) == Step::Whole;
            let mut headers = [httparse::EMPTY_HEADER; 256];
            let parsed = httparse::Request::new(&mut headers).parse(text.as_bytes());
            let partial = matches!(parsed, Ok(httparse::Status::Partial));
            assert!(!(whole && partial), "{text:?}");
            assert!(whole || !matches!(parsed, Ok(httparse::Status::Complete(_))), "{text:?}");
        }
    }
}
