//! The same over HTTP/2, frame by frame: each row is sent on a connection of its own, then one plain request more on the same
//! connection, which shows whether the stream was refused or the connection. The rows are in `smuggling_http2_rows`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::recorder::Heard;
use super::smuggling::{PROBE, Scene, fill_in, unmarked};
use super::smuggling_http2_rows::{ROWS, Row};
use crate::harness::frames::{self, Client, END_HEADERS, END_STREAM, Told};

/// Names and values of fields.
pub(super) type Fields = &'static [(&'static [u8], &'static [u8])];

/// A part of what is sent. On stream 1, where nothing else is said.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// The head of a GET with these fields more; its stream ends.
    Get(Fields),
    /// The head of a POST with these fields more; a body follows.
    Post(Fields),
    /// A head of exactly these fields; its stream ends.
    Head(Fields),
    /// As `Head`, and a body follows.
    Open(Fields),
    /// A piece of the body.
    Data(&'static [u8]),
    /// The last piece of the body.
    Last(&'static [u8]),
    /// Trailers; the stream ends.
    Trailers(Fields),
    /// As `Trailers`, but the stream does not end.
    NoTrailers(Fields),
    /// A frame: kind, flags, stream, payload.
    Frame(u8, u8, u32, &'static [u8]),
    /// A frame whose payload is a GET's head between two pieces: kind, flags, stream, the pieces.
    Around(u8, u8, u32, &'static [u8], &'static [u8]),
    /// The beginning of a GET's head, as a frame with these flags.
    Begun(u8),
    /// The head of a GET with so many fields more, each with a value of so many bytes.
    Long(usize, usize),
    /// The part, so many times.
    Times(usize, &'static Part),
    /// A GET on so many streams, each reset at once.
    ResetAtOnce(u32),
    /// Bytes that are no frame.
    Bytes(&'static [u8]),
}

/// What becomes of a row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// The stream is reset with this code, the connection goes on, and the upstream never had a whole request.
    Reset(u32),
    /// As `Reset`, and the upstream may have had a whole request, without a body.
    ResetLate(u32),
    /// The connection is ended with one of these codes, or without a word (RFC 9113, 5.4.1); no byte reached the upstream.
    Ended(&'static [u32]),
    /// As `Ended`, and requests before may have passed.
    EndedAtLast(&'static [u32]),
    /// Answered with this status; no byte of it reached the upstream.
    Refused(u16),
    /// One request in clean form, with these fields besides those of a plain GET, and this body.
    Passed(Fields, &'static [u8]),
    /// As `Passed`, at this target.
    At(&'static str),
}

/// The stream of the plain request behind each row.
const BEHIND: u32 = 0x1001;
/// Fields that each request has at the upstream.
const ALWAYS: [&str; 9] = [
    "host",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
    "x-tollgate-account",
    "x-tollgate-token-id",
    "x-tollgate-request-id",
    "traceparent",
];
const GET: Fields = &[
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"gate.test"),
    (b":path", b"/v1/free/x?token={T}"),
];
const POST: Fields = &[
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"gate.test"),
    (b":path", b"/v1/data/MY/CARS/x?token={T}"),
];

/// Writes frames for one row.
struct Writer<'a> {
    token: &'a str,
    number: usize,
}

impl Writer<'_> {
    fn block(&self, fields: Fields) -> Vec<u8> {
        let fill = |text| fill_in(text, self.token, self.number);
        fields.iter().flat_map(|(name, value)| frames::field(&fill(name), &fill(value))).collect()
    }

    fn get(&self) -> Vec<u8> {
        self.block(GET)
    }

    fn bytes(&self, part: &Part) -> Vec<u8> {
        match *part {
            Part::Get(more) => frames::head(1, END_STREAM, &[self.get(), self.block(more)].concat()),
            Part::Post(more) => frames::head(1, 0, &[self.block(POST), self.block(more)].concat()),
            Part::Head(fields) | Part::Trailers(fields) => frames::head(1, END_STREAM, &self.block(fields)),
            Part::Open(fields) | Part::NoTrailers(fields) => frames::head(1, 0, &self.block(fields)),
            Part::Data(piece) => frames::frame(frames::DATA, 0, 1, piece),
            Part::Last(piece) => frames::frame(frames::DATA, END_STREAM, 1, piece),
            Part::Frame(kind, flags, stream, payload) => frames::frame(kind, flags, stream, payload),
            Part::Around(kind, flags, stream, before, after) => {
                frames::frame(kind, flags, stream, &[before, &self.get(), after].concat())
            }
            Part::Begun(flags) => frames::frame(frames::HEADERS, flags, 1, &self.get()),
            Part::Long(count, length) => {
                let more = frames::field(b"x-long", &vec![b'a'; length]).repeat(count);
                frames::head(1, END_STREAM, &[self.get(), more].concat())
            }
            Part::Times(count, part) => self.bytes(part).repeat(count),
            Part::ResetAtOnce(count) => {
                let streams = (0..count).map(|number| 1 + 2 * number);
                let cancel = |stream| frames::frame(frames::RESET, 0, stream, &[0, 0, 0, 8]);
                let both = |stream| [frames::head(stream, END_STREAM, &self.get()), cancel(stream)].concat();
                streams.flat_map(both).collect()
            }
            Part::Bytes(bytes) => bytes.to_vec(),
        }
    }

    /// A plain request.
    fn probe(&self) -> Vec<u8> {
        let target = format!("{PROBE}?token={}&row={}", self.token, self.number);
        let pseudo =
            [(":method", "GET"), (":scheme", "http"), (":authority", "gate.test"), (":path", &target)];
        let block: Vec<u8> = pseudo
            .iter()
            .flat_map(|(name, value)| frames::field(name.as_bytes(), value.as_bytes()))
            .collect();
        frames::frame(frames::HEADERS, END_STREAM | END_HEADERS, BEHIND, &block)
    }
}

/// What was said in reply to a row, and to the plain request behind it.
#[derive(Debug, Default)]
struct Said {
    row: Option<Told>,
    behind: Option<Told>,
}

impl Scene {
    async fn play_frames(&self, parts: &[Part], number: usize) -> Said {
        let writer = Writer { token: &self.token.value, number };
        let mut client = Client::connect(self.gate.address).await;
        let bytes: Vec<u8> = parts.iter().flat_map(|part| writer.bytes(part)).collect();
        client.send(&bytes).await;
        let mut said = Said::default();
        let reading = async {
            loop {
                let told = client.next().await;
                match told {
                    Told::Goaway(_) | Told::Closed => {
                        // What was said first counts: nothing goes on behind it.
                        said.row.get_or_insert(told);
                        return said.behind.get_or_insert(told);
                    }
                    Told::Status(1, _) | Told::Reset(1, _) if said.row.is_none() => {
                        said.row = Some(told);
                        client.send(&writer.probe()).await;
                    }
                    Told::Status(BEHIND, _) | Told::Reset(BEHIND, _) => return said.behind.insert(told),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reading).await.expect("the gate answers or closes");
        said
    }

    /// What is wrong with how a row went, if anything is.
    async fn try_frames(&self, number: usize, (_, _, parts, outcome): &Row) -> Result<(), String> {
        let said = self.play_frames(parts, number).await;
        let (heard, probes) = self.heard_of(number);
        let target = |heard: &Heard| unmarked(heard, &format!("row={number}"));
        let whole = heard.iter().filter(|heard| heard.complete).count();
        let told = format!("{said:?}, upstream {heard:?}");
        let goes_on = said.behind == Some(Told::Status(BEHIND, 200)) && probes == 1;
        let is_over = |codes: &[u32]| match said.behind {
            // h2 says PROTOCOL_ERROR also where there is a code that says more.
            Some(Told::Goaway(code)) => codes.contains(&code) || code == frames::PROTOCOL,
            Some(Told::Closed) => true,
            _ => false,
        };
        let passed = |right: &dyn Fn(&Heard) -> bool| {
            said.row == Some(Told::Status(1, 200))
                && goes_on
                && matches!(&heard[..], [only] if only.complete && right(only))
        };
        let right = match *outcome {
            Outcome::Reset(code) => said.row == Some(Told::Reset(1, code)) && goes_on && whole == 0,
            Outcome::ResetLate(code) => {
                let bare = |heard: &Heard| heard.complete && heard.body.is_empty();
                said.row == Some(Told::Reset(1, code))
                    && goes_on
                    && heard.len() <= 1
                    && heard.iter().all(bare)
            }
            Outcome::Ended(codes) => is_over(codes) && heard.is_empty() && probes == 0,
            Outcome::EndedAtLast(codes) => is_over(codes) && probes == 0,
            Outcome::Refused(status) => {
                said.row == Some(Told::Status(1, status)) && goes_on && heard.is_empty()
            }
            Outcome::Passed(more, body) => {
                passed(&|heard| target(heard).ends_with("/x") && heard.body == body && has(heard, more))
            }
            Outcome::At(at) => passed(&|heard| target(heard) == at),
        };
        if right { Ok(()) } else { Err(told) }
    }
}

/// Whether a request has exactly these fields besides those that each one has.
fn has(heard: &Heard, more: Fields) -> bool {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let expected: BTreeSet<_> = more.iter().map(|(name, value)| (text(name), text(value))).collect();
    let found: Vec<_> = heard
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .filter(|(name, _)| !ALWAYS.contains(&name.as_str()))
        .collect();
    found.len() == expected.len() && found.into_iter().collect::<BTreeSet<_>>() == expected
}

#[tokio::test]
async fn what_comes_over_http2_is_read_in_one_way_or_refused() {
    let scene = Scene::start("http2: true").await;
    let mut wrong = Vec::new();
    for (number, row) in ROWS.iter().enumerate() {
        if let Err(why) = scene.try_frames(number, row).await {
            wrong.push(format!("{} (RFC 9113, {}; {:?}): {why}", row.0, row.1, row.3));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), ROWS.len(), wrong.join("\n"));
    scene.look_back().await;
}
