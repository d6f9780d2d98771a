//! Counts against simple references that see the whole, and any cutting into chunks against the whole.

use std::time::Duration;

use fearless_simd::{Level, Simd};
use proptest::prelude::*;

use super::*;
use crate::policy::cost::{Credits, Form, MAX_CREDITS, Price, Rates, Seen};
use crate::policy::{Denial, Pool};

mod reference;

fn tally(kind: BodyKind, chunks: &[&[u8]]) -> Tally {
    let mut tally = Tally::new(kind);
    for chunk in chunks {
        tally.feed(chunk);
    }
    tally
}

fn count(kind: BodyKind, body: &[u8]) -> u64 {
    tally(kind, &[body]).units()
}

#[test]
fn counts_the_elements_of_a_json_array() {
    let cases: [(&str, u64); 30] = [
        ("", 0),
        (" \n", 0),
        ("[]", 0),
        (" [ \r\n\t ] ", 0),
        ("[1]", 1),
        ("[1,2,3]", 3),
        ("[null]", 1),
        ("[[]]", 1),
        ("[[],[1,2,3],[[4,5],6]]", 3),
        (r#"[{"a":1,"b":[1,2]},{"a":2}]"#, 2),
        (r#"["a,b","c]","[","]","{"]"#, 5),
        (r#"["\"","\\","\\\",",","]"#, 4),
        (r#"["\\\\",1]"#, 2),
        (r#"[{"k":"\",\\"},2]"#, 2),
        ("\u{feff}[1,2]", 2),
        ("[1,2] [3,4]", 2),
        ("[1,2],3", 2),
        // No array: one record.
        ("{}", 1),
        (r#"{"a":[1,2,3]}"#, 1),
        ("null", 1),
        ("\"[1,2]\"", 1),
        ("oops", 1),
        // Broken off, or no JSON: one more than the commas, if anything stands there.
        ("[", 0),
        ("[1", 1),
        ("[1,", 2),
        ("[,]", 2),
        (r#"["a"#, 1),
        (r#"["a\"#, 1),
        ("[1}2,3", 1),
        ("]", 1),
    ];
    for (body, expected) in cases {
        assert_eq!(count(BodyKind::Json, body.as_bytes()), expected, "{body}");
        assert_eq!(reference::elements(body.as_bytes()), expected, "the reference: {body}");
    }
}

#[test]
fn counts_lines_with_something_on_them() {
    let cases = [
        ("", 0),
        ("\n\n", 0),
        (" \t\r\n", 0),
        ("{}\n", 1),
        ("{}", 1),
        ("{}\n{}", 2),
        ("{}\r\n\r\n{}\r\n", 2),
        ("\n {}\n  \n\t{} \n", 2),
        ("{\"a\":\"\\n\"}\n", 1),
    ];
    for (body, expected) in cases {
        assert_eq!(count(BodyKind::Lines, body.as_bytes()), expected, "{body:?}");
    }
}

#[test]
fn counts_events_that_a_client_would_see() {
    let cases = [
        ("", 0),
        ("data: a\n\n", 1),
        ("data\n\n", 1),
        ("data:\n\n", 1),
        ("data: a\r\rdata: b\r\n\r\ndata: c\n\n", 3),
        ("data: a\ndata: b\n\n", 1),
        ("event: x\nid: 1\ndata: a\n\n", 1),
        ("data: a\nevent: x\n\n", 1),
        // No data, no event; nor a comment; nor what the end cuts off.
        ("event: x\nid: 1\n\n", 0),
        (": hello\n\n", 0),
        (":data: a\n\n", 0),
        ("\n\n\n", 0),
        ("data: a\n", 0),
        ("data: a", 0),
        ("dat: a\n\ndatax: a\n\n Data: a\n\n data: a\n\nDATA: a\n\n", 0),
        ("data: a\n\n: ping\n\ndata: b\n\n", 2),
        ("\u{feff}data: a\n\n", 1),
        ("\u{feff}\u{feff}data: a\n\ndata: b\n\n", 1),
        ("\u{feff}: c\n\n\u{feff}data: a\n\n", 0),
        ("data: a\r\n\rdata: b\n\r\n", 2),
    ];
    for (body, expected) in cases {
        assert_eq!(count(BodyKind::Events, body.as_bytes()), expected, "{body:?}");
        assert_eq!(reference::events(body.as_bytes()), expected, "the reference: {body:?}");
    }
}

#[test]
fn counts_messages_and_no_control_frames() {
    let mut wire = Vec::new();
    for (first, len, masked) in [
        (0x81, 5, false),
        (0x01, 0, false),
        (0x89, 4, false), // a ping between fragments
        (0x00, 200, false),
        (0x80, 70_000, false),
        (0xc2, 126, true),
        (0x8a, 0, false),
        (0x88, 2, false),
    ] {
        wire.extend(reference::frame(first, len, masked));
    }
    assert_eq!(count(BodyKind::Frames, &wire), 3);
    assert!(tally(BodyKind::Frames, &[&wire]).is_between());
    assert!(!tally(BodyKind::Frames, &[&wire[..wire.len() - 1]]).is_between());
}

#[test]
fn counts_anything_else_as_one_record() {
    assert_eq!(count(BodyKind::Opaque, b""), 0);
    assert_eq!(tally(BodyKind::Opaque, &[b"a", b"", b"[1,2]"]).units(), 1);
    assert_eq!(count(BodyKind::Empty, b"data: a\n\n"), 0);
}

#[test]
fn knows_a_body_by_its_head() {
    let cases = [
        (Some("application/json; charset=utf-8"), BodyKind::Json),
        (Some("Application/JSON"), BodyKind::Json),
        (Some("application/problem+json"), BodyKind::Json),
        (Some("application/x-ndjson"), BodyKind::Lines),
        (Some("application/stream+json"), BodyKind::Lines),
        (Some("text/event-stream;charset=utf-8"), BodyKind::Events),
        (Some("text/csv"), BodyKind::Opaque),
        (Some("application/geo+json-seq"), BodyKind::Opaque),
        (None, BodyKind::Opaque),
    ];
    for (content_type, kind) in cases {
        assert_eq!(BodyKind::of(content_type.map(str::as_bytes), false), kind, "{content_type:?}");
        assert_eq!(BodyKind::of(content_type.map(str::as_bytes), true), BodyKind::Frames);
    }
    let encoded: [(&[&[u8]], bool); 5] = [
        (&[], false),
        (&[b"identity"], false),
        (&[b" Identity , "], false),
        (&[b"gzip"], true),
        (&[b"identity", b"identity, br"], true),
    ];
    for (values, expected) in encoded {
        assert_eq!(is_encoded(values.iter().copied()), expected, "{values:?}");
    }
}

fn rates(form: Form, kind: BodyKind) -> Rates {
    Price::new(form).expect("a price").rates(1, kind, None)
}

fn per_event(credits: u64) -> Form {
    Form { credits: Credits(0), per_event: Some(Credits(credits)), ..Form::default() }
}

/// Lets a body out in chunks with so many credits, and returns what went out with the farewell.
fn let_out(flow: &mut Flow, body: &[u8], size: usize, credits: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(size) {
        let sent = flow.admit(chunk, Credits(credits));
        out.extend_from_slice(&chunk[..sent]);
        if sent < chunk.len() {
            break;
        }
    }
    out
}

fn exhausted() -> Denial {
    Denial::CreditsExhausted { pool: Pool::Core, retry_after: Some(Duration::from_mins(1)) }
}

#[test]
fn delivers_exactly_as_many_events_as_are_paid_for() {
    let event = "id: 7\nevent: tick\ndata: {\"price\": 1}\n\n: ping\n\n";
    let body = event.repeat(150);
    for size in [1, 2, 3, 7, 64, 1000, 100_000] {
        let mut flow = Flow::new(rates(per_event(1), BodyKind::Events), BodyKind::Events);
        let mut out = let_out(&mut flow, body.as_bytes(), size, 100);
        assert_eq!(flow.price(), Credits(100));
        assert!(flow.is_between());
        assert_eq!(out, event.repeat(100).into_bytes(), "in chunks of {size}");
        out.extend(flow.farewell(&exhausted()).expect("a farewell"));
        let told = String::from_utf8(out).expect("text");
        let last = "event: error\ndata: {\"code\":\"credits_exhausted\",\"detail\":\"The stream ended: the API token has no credits left.\"}\n\n";
        assert!(told.ends_with(last), "{told}");
        assert_eq!(reference::events(told.as_bytes()), 101);
    }
}

#[test]
fn says_farewell_within_a_unit_without_making_it_whole() {
    let revoked = Denial::TokenRevoked;
    let events = tally(BodyKind::Events, &[b"data: a\n\ndata: half"]);
    let mut body = b"data: a\n\ndata: half".to_vec();
    body.extend(events.farewell(&revoked).expect("a farewell"));
    assert_eq!(reference::events(&body), 1, "the half event is dropped");
    assert!(body.ends_with(b"\n: token_revoked: The stream ended: the API token was revoked.\n"));

    let lines = tally(BodyKind::Lines, &[b"{}\n{\"half"]).farewell(&revoked).expect("a farewell");
    let text = String::from_utf8(lines).expect("text");
    assert!(
        text.starts_with("\n{\"error\":{\"code\":\"token_revoked\",") && text.ends_with("}}\n"),
        "{text}"
    );
    let whole = tally(BodyKind::Lines, &[b"{}\n"]).farewell(&revoked).expect("a farewell");
    assert!(
        serde_json::from_slice::<serde_json::Value>(&whole)
            .is_ok_and(|line| line["error"]["code"] == "token_revoked")
    );

    assert_eq!(tally(BodyKind::Frames, &[b"\x81\x05he"]).farewell(&revoked), None);
    assert_eq!(tally(BodyKind::Json, &[b"[1,"]).farewell(&revoked), None);
    for (denial, status) in [(exhausted(), 1008u16), (Denial::StoreUnavailable, 1013)] {
        let frame = tally(BodyKind::Frames, &[b"\x81\x01a"]).farewell(&denial).expect("a farewell");
        assert_eq!(frame[0], 0x88);
        assert_eq!(usize::from(frame[1]), frame.len() - 2);
        assert!(frame[1] <= 125);
        assert_eq!(u16::from_be_bytes([frame[2], frame[3]]), status);
        assert!(std::str::from_utf8(&frame[4..]).is_ok_and(|text| text.starts_with(denial.code())));
    }
}

#[test]
fn cuts_nothing_that_is_no_stream() {
    let form = Form { per_record: Some(Credits(1)), per_kilobyte: Some(Credits(1)), ..Form::default() };
    let mut flow = Flow::new(rates(form, BodyKind::Json), BodyKind::Json);
    assert_eq!(flow.admit(b"[1,2,3]", Credits(0)), 7);
    assert_eq!(flow.price(), Credits(4));
    assert!(!flow.is_stream() && !flow.is_between());
}

#[test]
fn a_stream_is_small() {
    assert!(size_of::<Flow>() <= 96, "{}", size_of::<Flow>());
}

/// Pieces that mean something to one of the readers, and some that mean nothing.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: [&[u8]; 34] = [
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b"\"",
        b"\\",
        b"\\\\",
        b"\\\"",
        b"1",
        b" ",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b":",
        b"data",
        b"data: x",
        b"dat",
        b"a",
        b": c\n",
        b"event: e\n",
        b"id\n",
        b"data: x\n\n",
        b"\xef\xbb\xbf",
        b"\xef",
        b"\x81\x03abc",
        b"\x01\x00",
        b"\x89\x01p",
        b"\x82\x7e\x00\x02hi",
        b"\xff",
        b"                                                                ",
        b"{\"a\":[1,2,{\"b\":\"c,d\"}],\"e\":\"\\\"]\"},",
        b"\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x01x",
    ];
    const STARTS: [&[u8]; 6] = [b"", b"[", b" [[", b"[{\"a\":\"", b"data: ", b"\x81\x02"];
    let start = proptest::sample::select(&STARTS[..]);
    let rest = proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..60);
    (start, rest).prop_map(|(start, rest)| [start, &rest.concat()].concat())
}

/// The body in chunks that end at these places.
fn cut<'b>(body: &'b [u8], places: &[prop::sample::Index]) -> Vec<&'b [u8]> {
    let mut at: Vec<usize> = places.iter().map(|place| place.index(body.len() + 1)).collect();
    at.push(body.len());
    at.sort_unstable();
    let mut start = 0;
    at.into_iter().map(|end| &body[std::mem::replace(&mut start, end)..end]).collect()
}

fn places() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    proptest::collection::vec(any::<prop::sample::Index>(), 0..8)
}

fn forms() -> impl Strategy<Value = Form> {
    let rate = || proptest::option::of((1..4u64).prop_map(Credits));
    (0..3u64, rate(), rate(), rate(), proptest::option::of(3..20u64)).prop_map(
        |(credits, per_kilobyte, per_record, per_event, max)| {
            let late = per_kilobyte.is_some() || per_record.is_some() || per_event.is_some();
            let max_credits = max.filter(|_| late).map(Credits);
            Form {
                credits: Credits(credits),
                per_kilobyte,
                per_record,
                per_event,
                max_credits,
                ..Form::default()
            }
        },
    )
}

proptest! {
    #[test]
    fn any_chunks_count_as_the_whole(body in bodies(), places in places()) {
        let expected = [
            (BodyKind::Json, reference::elements(&body)),
            (BodyKind::Lines, reference::lines(&body)),
            (BodyKind::Events, reference::events(&body)),
            (BodyKind::Frames, reference::messages(&body)),
            (BodyKind::Opaque, u64::from(!body.is_empty())),
            (BodyKind::Empty, 0),
        ];
        for level in levels() {
            let mut elements = Elements::default();
            for chunk in cut(&body, &places) {
                elements.feed_by(level, chunk);
            }
            assert_eq!(elements.count(), reference::elements(&body), "{level:?}");
        }
        let each: Vec<&[u8]> = body.chunks(1).collect();
        for (kind, expected) in expected {
            let whole = tally(kind, &[&body]);
            assert_eq!(whole.units(), expected, "{kind:?}");
            assert_eq!(tally(kind, &cut(&body, &places)), whole, "{kind:?}");
            assert_eq!(tally(kind, &each), whole, "{kind:?}, byte by byte");
        }
    }

    #[test]
    fn any_json_value_counts_as_its_parser_says(values in proptest::collection::vec(json_values(), 0..20), pretty: bool, places in places()) {
        let value = serde_json::Value::Array(values);
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.expect("JSON");
        let len = value.as_array().map_or(0, Vec::len) as u64;
        assert_eq!(tally(BodyKind::Json, &cut(text.as_bytes(), &places)).units(), len, "{text}");
    }

    /// Never more than is paid for; never an event cut in two or given away; never less than could go.
    #[test]
    fn lets_out_what_is_paid_for(body in bodies(), fill in 0..2500usize, places in places(), form in forms(), credits in 0..40u64) {
        let mut body = body;
        // Long enough for kilobytes to matter.
        body.splice(..0, b"data: ".iter().copied().chain(std::iter::repeat_n(b'x', fill)).take(fill));
        for kind in [BodyKind::Events, BodyKind::Lines, BodyKind::Frames] {
            let rates = rates(form.clone(), kind);
            let mut flow = Flow::new(rates, kind);
            let mut out = 0;
            for chunk in cut(&body, &places) {
                let before = flow;
                let sent = flow.admit(chunk, Credits(credits));
                out += sent;
                let mut again = before;
                again.pass(&chunk[..sent]);
                assert_eq!(again, flow, "what goes out is what was counted");
                assert!(sent == 0 || flow.due() <= Credits(credits), "{kind:?} {form:?}");
                if sent < chunk.len() {
                    assert!(Credits(credits) < flow.next_price(), "{kind:?} {form:?}: more could go");
                    if form.per_kilobyte.is_none() {
                        assert!(flow.is_between(), "{kind:?} {form:?}");
                    }
                    break;
                }
            }
            assert!(flow.price() <= flow.due());
            assert_eq!(flow.seen().bytes, out as u64);
            assert_eq!(flow.seen().units, tally(kind, &[&body[..out]]).units());
        }
    }

    /// A gate that draws just what the next byte needs, again and again, delivers what one does that has it all in hand.
    #[test]
    fn drawing_step_by_step_delivers_the_same(body in bodies(), places in places(), form in forms(), limit in 0..40u64) {
        for kind in [BodyKind::Events, BodyKind::Lines, BodyKind::Frames] {
            let price = Price::new(form.clone()).expect("a price");
            let hold = price.hold(1).credits;
            if hold.0 > limit {
                continue;
            }
            let mut direct = Flow::new(price.rates(1, kind, None), kind);
            let mut stepwise = direct;
            let mut in_hand = hold;
            let mut ended = (false, false);
            for chunk in cut(&body, &places) {
                if !ended.0 {
                    ended.0 = direct.admit(chunk, Credits(limit)) < chunk.len();
                }
                let mut rest = chunk;
                while !rest.is_empty() && !ended.1 {
                    rest = &rest[stepwise.admit(rest, in_hand)..];
                    if !rest.is_empty() {
                        assert!(stepwise.next_price() > in_hand, "a step that brings nothing");
                        ended.1 = stepwise.next_price().0 > limit;
                        in_hand = Credits(in_hand.0.max(stepwise.next_price().0));
                    }
                }
            }
            assert_eq!(direct.seen().units, stepwise.seen().units, "{kind:?} {form:?}");
            assert!(stepwise.seen().bytes <= direct.seen().bytes);
            assert!(form.per_kilobyte.is_some() || stepwise == direct, "{kind:?} {form:?}");
            assert!(stepwise.due().0 <= limit);
        }
    }

    #[test]
    fn with_enough_credits_all_goes_out(body in bodies(), places in places(), form in forms()) {
        for kind in BodyKind::ALL {
            let mut flow = Flow::new(rates(form.clone(), kind), kind);
            for chunk in cut(&body, &places) {
                assert_eq!(flow.admit(chunk, Credits(MAX_CREDITS)), chunk.len());
            }
            assert_eq!(flow.seen().bytes, body.len() as u64);
            // Where a body is not read, because its units could not change the price, the price is the same all the same.
            let seen = Seen { bytes: body.len() as u64, units: count(kind, &body) };
            assert_eq!(flow.price(), rates(form.clone(), kind).of(seen), "{kind:?} {form:?}");
        }
    }
}

/// The vectors that this machine has.
fn levels() -> Vec<Level> {
    let level = Level::new();
    let mut levels = vec![level, Level::baseline()];
    #[cfg(target_arch = "x86_64")]
    {
        levels.extend(level.as_sse4_2().map(Simd::level));
        levels.extend(level.as_avx2().map(Simd::level));
    }
    levels
}

fn json_values() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<i64>().prop_map(Into::into),
        "[\\[\\]{},\"\\\\a é]{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            proptest::collection::vec(("[,\"\\]a]{0,3}", inner), 0..4)
                .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
        ]
    })
}
