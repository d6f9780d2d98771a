//! Tables and properties of the canonical target.

use proptest::prelude::*;

use super::*;
use crate::policy::tables::{PK, SK, bytes, optional, rows};

fn outcome(raw: &[u8], host: Option<&str>) -> String {
    match Target::parse(raw, host.map(str::as_bytes)) {
        Ok(target) => target.to_wire(),
        Err(problem) => format!("{problem:?}"),
    }
}

#[test]
fn every_target_has_one_form_or_a_reason() {
    for [raw, expected] in rows(include_str!("../tables/target.txt")) {
        assert_eq!(outcome(&bytes(raw), Some("api.test")), expected, "{raw}");
    }
}

#[test]
fn an_absolute_form_must_name_the_host() {
    for [raw, host, expected] in rows(include_str!("../tables/target_host.txt")) {
        assert_eq!(outcome(&bytes(raw), optional(host).as_deref()), expected, "{raw} at {host}");
    }
}

#[test]
fn refuses_what_is_longer_than_the_bound() {
    let path = |len: usize| format!("/{}", "a".repeat(len - 1));
    assert_eq!(outcome(path(MAX_TARGET).as_bytes(), None), path(MAX_TARGET));
    assert_eq!(outcome(path(MAX_TARGET + 1).as_bytes(), None), "TooLong");
    assert_eq!(outcome(format!("/?{}", "a".repeat(MAX_TARGET)).as_bytes(), None), "TooLong");
    // Encoding makes it longer: the bound holds for what is sent, too.
    assert_eq!(outcome(format!("/{}", "|".repeat(MAX_TARGET / 2)).as_bytes(), None), "TooLong");
}

#[test]
fn a_trailing_slash_gives_a_last_empty_segment() {
    let segments = |raw: &str| -> Vec<String> {
        Target::parse(raw.as_bytes(), None).unwrap().segments().map(str::to_owned).collect()
    };
    assert_eq!(segments("/"), [""]);
    assert_eq!(segments("/a/b"), ["a", "b"]);
    assert_eq!(segments("//a//b%2fc//"), ["a", "b%2Fc", ""]);
}

#[test]
fn decodes_pieces_once_and_only_to_utf8() {
    assert_eq!(decode("a%2Fb").as_deref(), Some("a/b"));
    assert_eq!(decode("a%252Fb").as_deref(), Some("a%2Fb"));
    assert_eq!(decode("a+b").as_deref(), Some("a+b"));
    assert_eq!(decode("%C0%AF"), None);
}

#[test]
fn finds_tokens_where_no_credential_belongs() {
    let encode = |text: &str| {
        format!("%{}", text.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join("%"))
    };
    let twice = |text: &str| encode(text).replace('%', "%25");
    let (pk, sk) = (PK, SK);
    let held = [
        format!("/{pk}"),
        format!("/v1/data/MY/{sk}/x"),
        format!("/x{pk}y"),
        format!("/{}", encode(pk)),
        format!("/{}", twice(sk)),
        format!("/?Token={pk}"),
        format!("/?token[]={pk}"),
        format!("/?a=1;token={sk}"),
        format!("/?%2574oken={pk}"),
        format!("/?+token={pk}"),
        format!("/?{pk}"),
        format!("/?x={}", encode(pk)),
        format!("/?x={}", twice(sk)),
        format!("/?x=pk%5f{}", &pk[3..]),
        format!("/?x=pk%255F{}", &pk[3..]),
        format!("/?x={}", pk.replace("abc", "ABC")),
    ];
    for raw in &held {
        assert!(Target::parse(raw.as_bytes(), None).unwrap().holds_token(), "{raw}");
    }
    for raw in ["/", "/pk_", "/pk_0123?x=sk_0123", "/?x=tok_01ARZ3NDEKTSV4RRFFQ69G5FAV", "/?x=%25252525"] {
        assert!(!Target::parse(raw.as_bytes(), None).unwrap().holds_token(), "{raw}");
    }
    let mut target = Target::parse(format!("/a?token={pk}").as_bytes(), None).unwrap();
    target.set_query(Some("x=1".to_owned()));
    assert!(!target.holds_token());
    assert_eq!(target.to_wire(), "/a?x=1");
}

#[test]
fn debug_shows_nothing_of_the_target() {
    let target = Target::parse(format!("/{PK}?token={SK}").as_bytes(), None).unwrap();
    assert_eq!(format!("{target:?}"), "Target(…)");
}

/// Pieces that canonical forms trip over.
const PIECES: [&[u8]; 40] = [
    b"/", b"//", b".", b"..", b";", b"%2e", b"%2E", b"%2f", b"%2F", b"%5c", b"\\", b"%", b"%25", b"%252e",
    b"%3b", b"%20", b" ", b"%00", b"\0", b"\n", b"%0a", b"\x7f", b"\x80", b"%c3%a9", b"%c0%af", b"?", b"#",
    b"&", b"=", b"token", b"%74oken", b"a", b"%41", b"%7e", b"|", b"\"", b"[", b"%5b", b"{", b"%7D",
];

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => proptest::sample::select(&PIECES[..]).prop_map(<[u8]>::to_vec),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| [&b"/"[..], &pieces.concat()].concat())
}

/// Mostly valid, so that properties of accepted targets are put to the test often.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    const HARMLESS: [&str; 16] = [
        "/", "//", ".a", "a.", "..b", "%2f", "%41", "%7e", "%25", "%252e", "%c3%a9", "|", "[", ",", "%2C",
        "a;b",
    ];
    let path = proptest::collection::vec(proptest::sample::select(&HARMLESS[..]), 0..20);
    let query = proptest::option::of(proptest::collection::vec(
        proptest::sample::select(&["&", "=", "%2f", "[", "a", "?"][..]),
        0..9,
    ));
    (path, query).prop_map(|(path, query)| {
        let query = query.map_or(String::new(), |query| format!("?{}", query.concat()));
        format!("/{}{query}", path.concat()).into_bytes()
    })
}

fn hold_invariants(raw: &[u8]) {
    let Ok(target) = Target::parse(raw, Some(b"api.test")) else { return };
    let (path, wire) = (target.path(), target.to_wire());
    assert!(path.starts_with('/') && !path.contains("//"));
    assert!(wire.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#')));
    assert!(!path.contains(['?', '"', '<', '>', '^', '`', '{', '|', '}', '[', ']']));
    for segment in target.segments() {
        let text = decode(segment).expect("a canonical path is UTF-8");
        assert!(!text.contains('\\') && !text.chars().any(|c| c.is_ascii_control()));
        for piece in text.split('/') {
            assert!(!matches!(piece.split(';').next(), Some("." | "..")), "{segment}");
        }
    }
    assert!(wire.len() <= MAX_TARGET);
    let again = Target::parse(wire.as_bytes(), None);
    assert_eq!(again.as_ref(), Ok(&target));
}

proptest! {
    #[test]
    fn accepted_targets_hold_the_invariants(raw in prop_oneof![hostile(), plausible()]) {
        hold_invariants(&raw);
    }

    #[test]
    fn plausible_targets_are_accepted_unless_they_climb(raw in plausible()) {
        let outcome = Target::parse(&raw, None);
        assert!(matches!(outcome, Ok(_) | Err(BadTarget::DotSegment)), "{outcome:?}");
    }

    #[test]
    fn any_bytes_give_an_outcome(raw in proptest::collection::vec(any::<u8>(), 0..64), host in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..16))) {
        let _ = Target::parse(&raw, host.as_deref());
    }

    #[test]
    fn a_plain_path_is_its_own_canonical_form(raw in prop_oneof![hostile(), plausible(), "(/[a-z.;~@]{0,3}){1,4}".prop_map(String::into_bytes)]) {
        let path = raw.split(|byte| *byte == b'?').next().unwrap_or_default();
        if let Some(plain) = plain_path(path) {
            assert_eq!(spell_path(path).as_deref(), Ok(plain));
        }
    }

    #[test]
    fn the_query_stays_byte_for_byte(raw in hostile()) {
        let sent = raw.iter().position(|byte| *byte == b'?').map(|at| &raw[at + 1..]);
        if let Ok(target) = Target::parse(&raw, None) {
            assert_eq!(target.query().map(str::as_bytes), sent);
        }
    }

    #[test]
    fn the_decoded_path_is_what_was_sent(raw in plausible()) {
        // Only the spelling changes: decoded, and with repeated slashes made one, the path is the same.
        let Ok(target) = Target::parse(&raw, None) else { return Ok(()) };
        let path = String::from_utf8(raw).unwrap();
        let path = path.split('?').next().unwrap_or_default();
        let squeezed: Vec<_> = path.split('/').enumerate().filter(|(at, piece)| *at == 0 || !piece.is_empty()).map(|(_, piece)| piece).collect();
        let trailing = if path.ends_with('/') { "/" } else { "" };
        let expected = format!("{}{trailing}", squeezed.join("/"));
        assert_eq!(decode(target.path()), decode(&expected));
    }
}
