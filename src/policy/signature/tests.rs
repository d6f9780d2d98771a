//! The vectors of `signing.md`, hostile headers as a table, and a second implementation that shares no line with the first.

use proptest::prelude::*;

use super::canonical::{format_date, parse_date};
use super::key::k_date;
use super::*;
use crate::policy::TokenKind;
use crate::policy::tables::{PK, rows, several, slices};

mod second;

const SECRET: &str = "sk_fedcba9876543210fedcba9876543210";
const HOST: &str = "cloud.iexapis.com";
const DATE: &str = "20240115T123045Z";
const SIGNATURE: &str = "46f699f9b60e5c1499f9d774005ca424e887ed6d20905cd86a19d96c484fde3e";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    at("2024-01-15T12:30:45Z")
}

fn secret(text: &str) -> SigningSecret {
    SigningSecret::parse(text).unwrap()
}

fn token() -> Token {
    Token::parse(PK.as_bytes()).unwrap()
}

/// A signed request, changed by each test where it matters.
#[derive(Clone)]
struct Case {
    method: &'static str,
    target: String,
    host: Option<&'static str>,
    authorization: Vec<Vec<u8>>,
    dates: Vec<Vec<u8>>,
    now: Timestamp,
    secrets: Vec<SigningSecret>,
    rule: SignatureBody,
    /// `None`: the request has none.
    body: Option<&'static [u8]>,
}

impl Case {
    /// Signed as a client does it, over `signed_host` and `signed_body`.
    fn signed(method: &'static str, target: &str, signed_host: &str, signed_body: &[u8]) -> Self {
        let signing =
            sign(method, target.as_bytes(), signed_host, signed_body, PK, &secret(SECRET), now()).unwrap();
        Self {
            method,
            target: target.to_owned(),
            host: Some(HOST),
            authorization: vec![signing.authorization.into_bytes()],
            dates: vec![signing.date.into_bytes()],
            now: now(),
            secrets: vec![secret(SECRET)],
            rule: SignatureBody::Strict,
            body: None,
        }
    }

    fn get() -> Self {
        Self::signed("GET", &format!("/v1/stock/aapl/quote?token={PK}"), HOST, b"")
    }

    fn claim(&self) -> Result<Claim, SignatureRefusal> {
        let (authorization, dates) = (slices(&self.authorization), slices(&self.dates));
        let request = RawRequest {
            method: self.method,
            target: self.target.as_bytes(),
            host: self.host.map(str::as_bytes),
            authorization: &authorization,
            dates: &dates,
        };
        Claim::read(&request, &token(), self.now, DEFAULT_MAX_SKEW)
    }

    /// All steps: what came of it, and whether the body was needed.
    fn check(&self) -> (Result<Verified, SignatureRefusal>, bool) {
        match self.claim().and_then(|claim| claim.check(&self.secrets, self.rule, self.body.is_some())) {
            Err(refusal) => (Err(refusal), false),
            Ok(Checked::Verified(verified)) => (Ok(verified), false),
            Ok(Checked::Pending(pending)) => {
                let mut hash = BodyHash::begin(1024, None).unwrap();
                self.body.unwrap().chunks(7).for_each(|piece| hash.update(piece).unwrap());
                (pending.finish(&hash.finish()), true)
            }
        }
    }

    fn outcome(&self) -> String {
        match self.check().0 {
            Ok(_) => "ok".to_owned(),
            Err(SignatureRefusal::Invalid(why)) => format!("{why:?}"),
            Err(refusal) => format!("{refusal:?}"),
        }
    }
}

/// A signature that is right, as far as that can be said before the body: for tests of other rooms.
pub(in crate::policy) fn checked_example(has_body: bool) -> Checked {
    let case = Case { body: has_body.then_some(b"".as_slice()), ..Case::get() };
    case.claim().unwrap().check(&case.secrets, SignatureBody::Strict, has_body).unwrap()
}

#[test]
fn makes_the_signatures_of_the_specification() {
    let record: &[u8] = br#"[{"symbol":"AAPL","v":1}]"#;
    let table = [
        ("GET", format!("/v1/stock/aapl/quote?token={PK}"), b"".as_slice(), SIGNATURE),
        (
            "GET",
            format!("/v1/stock/market/batch?token={PK}&symbols=aapl,msft&types=quote"),
            b"",
            "fe16eb33da9b260a13ed7d2f4c037e29bfe292a28e40b3de2ebae2dd366e6cf1",
        ),
        (
            "POST",
            format!("/v1/record/WS/DS?token={PK}"),
            record,
            "e0c26bc2431dbd3779aeaf597823a4568923e481e55a3d7e914d69672bbe944a",
        ),
    ];
    for (method, target, body, signature) in table {
        let signing = sign(method, target.as_bytes(), HOST, body, PK, &secret(SECRET), now()).unwrap();
        assert_eq!(signing.signature, signature, "{target}");
        assert_eq!(signing.date, DATE);
        let mut case = Case::signed(method, &target, HOST, body);
        case.body = (!body.is_empty()).then_some(body);
        assert_eq!(case.outcome(), "ok", "{target}");
    }
}

#[test]
fn goes_by_the_steps_of_the_specification() {
    let signing = sign(
        "GET",
        format!("/v1/stock/aapl/quote?token={PK}").as_bytes(),
        HOST,
        b"",
        PK,
        &secret(SECRET),
        now(),
    );
    let signing = signing.unwrap();
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let canonical = format!(
        "GET\n/v1/stock/aapl/quote\ntoken={PK}\nhost:{HOST}\nx-iex-date:{DATE}\n\nhost;x-iex-date\n{empty}"
    );
    assert_eq!(String::from_utf8(signing.canonical).unwrap(), canonical);
    assert_eq!(signing.canonical_hash, "1fb2a1ba21af2600943e6c242858bf9a9174e470dbd6f6969b7b8f602fe7b1b9");
    assert_eq!(
        signing.to_sign,
        format!("IEX-HMAC-SHA256\n{DATE}\n20240115/iex_request\n{}", signing.canonical_hash)
    );
    let day = Day::parse(b"20240115").unwrap();
    let k_date = String::from_utf8(k_date(&secret(SECRET), day).to_vec()).unwrap();
    assert_eq!(k_date, "08a0332511bac40f45fda454b0311d3b3b02a0a998020ede0e3dd870849514d7");
    assert_eq!(
        SigningKey::derive(&secret(SECRET), day).text(),
        "ebd1d782d807822c9ce9792a33bc9d2f60df742259f63d4ee672214eb43a811f"
    );
    let credential = format!("Credential={PK}/20240115/iex_request");
    assert_eq!(
        signing.authorization,
        format!("IEX-HMAC-SHA256 {credential}, SignedHeaders=host;x-iex-date, Signature={SIGNATURE}")
    );
}

#[test]
fn reads_headers_as_the_table_says() {
    for [authorization, dates, expected] in rows(include_str!("../tables/signature.txt")) {
        let fill = |column: &str| {
            column
                .replace("{sig}", &format!("Signature={SIGNATURE}"))
                .replace("{cred}", "Credential={pk}/20240115/iex_request")
                .replace("{heads}", "SignedHeaders=host;x-iex-date")
        };
        let case =
            Case { authorization: several(&fill(authorization)), dates: several(dates), ..Case::get() };
        assert_eq!(case.outcome(), expected, "{authorization} · {dates}");
    }
}

#[test]
fn signs_what_was_sent_and_not_what_it_is_brought_to() {
    // Each target is signed as it stands; every other spelling of the same thing is another text.
    let spellings = [
        format!("/v1/stock/aapl/quote?token={PK}"),
        format!("/v1//stock/aapl/quote?token={PK}"),
        format!("/v1/stock/%61apl/quote?token={PK}"),
        format!("/v1/stock/aapl/quote?%74oken={PK}"),
        format!("/v1/stock/aapl/quote/?token={PK}"),
        format!("/v1/stock/aapl/quote?&token={PK}"),
        format!("/v1/stock/aapl/quote?token={PK}&"),
        format!("/v1/stock/aapl/quote?b=1&a=2&token={PK}"),
        format!("/v1/stock/aapl/quote?a=2&b=1&token={PK}"),
        format!("/v1/stock/aapl/quote?token={PK}?x"),
        format!("/v1/stock/AAPL/quote?token={PK}"),
        "/v1/stock/aapl/quote".to_owned(),
        "/".to_owned(),
    ];
    for signed in &spellings {
        for sent in &spellings {
            let case = Case { target: sent.clone(), ..Case::signed("GET", signed, HOST, b"") };
            let expected = if signed == sent { "ok" } else { "Mismatch" };
            assert_eq!(case.outcome(), expected, "signed {signed}, sent {sent}");
        }
    }
    // A query that is empty is signed as one that is not there, and so is an absolute form as its path and query.
    for (signed, sent) in [
        ("/a", "/a?"),
        ("/a?b", "http://cloud.iexapis.com/a?b"),
        ("/a?b", "HTTPS://cloud.iexapis.com:443/a?b"),
        ("?b", "http://cloud.iexapis.com?b"),
        ("", "http://cloud.iexapis.com"),
    ] {
        let case = Case { target: sent.to_owned(), ..Case::signed("GET", signed, HOST, b"") };
        assert_eq!(case.outcome(), "ok", "signed {signed}, sent {sent}");
    }
    let case = Case { method: "POST", ..Case::get() };
    assert_eq!(case.outcome(), "Mismatch", "another method");
}

#[test]
fn takes_the_host_with_its_port_and_without() {
    let table = [
        ("a.test", "a.test", true),
        ("a.test:8080", "a.test:8080", true),
        ("a.test", "a.test:8080", true),
        ("a.test", "a.test:", true),
        ("a.test:8080", "a.test", false),
        ("a.test:80", "a.test:8080", false),
        ("A.test", "a.test", false),
        ("a", "a.test", false),
        ("[::1]", "[::1]:8080", true),
        ("[::1]:8080", "[::1]:8080", true),
        ("[::1]", "[::1]", true),
        ("[:", "[::1]", false),
        ("a:b", "a:b:1", true),
        ("a", "a:b", false),
    ];
    for (signed, sent, fine) in table {
        let case = Case { host: Some(sent), ..Case::signed("GET", "/a", signed, b"") };
        assert_eq!(case.outcome() == "ok", fine, "signed {signed}, sent {sent}");
    }
    for host in [None, Some("")] {
        assert_eq!(Case { host, ..Case::get() }.outcome(), "NoHost");
    }
}

#[test]
fn the_clock_window_is_exact_on_both_sides() {
    let table = [
        ("2024-01-15T12:25:45Z", "ok"),
        ("2024-01-15T12:25:44.999Z", "Stale"),
        ("2024-01-15T12:35:45Z", "ok"),
        ("2024-01-15T12:35:45.001Z", "Stale"),
        ("1970-01-01T00:00:00Z", "Stale"),
        ("9999-12-30T22:00:00Z", "Stale"),
    ];
    for (now, expected) in table {
        assert_eq!(Case { now: at(now), ..Case::get() }.outcome(), expected, "{now}");
    }
    let verified = Case::get().check().0.unwrap();
    assert_eq!(verified.expires_at(), at("2024-01-15T12:35:45Z"));
}

#[test]
fn any_secret_of_the_token_will_do_and_no_other() {
    let with = |secrets: &[&str]| {
        let secrets = secrets.iter().map(|text| secret(text)).collect();
        Case { secrets, ..Case::get() }.outcome()
    };
    assert_eq!(with(&[SECRET]), "ok");
    assert_eq!(with(&["ss_1", SECRET]), "ok");
    assert_eq!(with(&[SECRET, "ss_1"]), "ok");
    assert_eq!(with(&["ss_1"]), "Mismatch");
    assert_eq!(with(&[]), "Mismatch");
    assert_eq!(with(&[&SECRET[..34]]), "Mismatch");
}

#[test]
fn a_body_is_held_to_what_the_route_says() {
    use SignatureBody::{Lenient, Strict};
    let body = b"{\"a\":1}".as_slice();
    // What was signed, what was sent, the rule, what comes of it, whether the body was needed.
    let table = [
        (b"".as_slice(), None, Strict, true, false),
        (b"", None, Lenient, true, false),
        (body, None, Strict, false, false),
        (body, None, Lenient, false, false),
        (body, Some(body), Strict, true, true),
        (body, Some(body), Lenient, true, true),
        (b"", Some(body), Strict, false, true),
        (b"", Some(body), Lenient, true, false),
        (b"", Some(b"".as_slice()), Strict, true, true),
        (b"", Some(b""), Lenient, true, false),
        (body, Some(b"{\"a\":2}"), Strict, false, true),
        (body, Some(b"{\"a\":2}"), Lenient, false, true),
    ];
    for (signed, sent, rule, fine, needed) in table {
        let case = Case { rule, body: sent, ..Case::signed("POST", "/a", HOST, signed) };
        let (verified, was_needed) = case.check();
        assert_eq!((verified.is_ok(), was_needed), (fine, needed), "{signed:?} {sent:?} {rule:?}");
    }
}

#[test]
fn a_body_is_bounded_by_the_byte() {
    let refused = SignatureRefusal::BodyTooLarge { most: 8 };
    assert_eq!(BodyHash::begin(8, Some(9)).unwrap_err(), refused);
    for announced in [None, Some(8), Some(0)] {
        let mut hash = BodyHash::begin(8, announced).unwrap();
        hash.update(b"1234").unwrap();
        hash.update(b"").unwrap();
        hash.update(b"5678").unwrap();
        assert_eq!(hash.clone().finish(), BodyDigest::of(b"12345678"));
        assert_eq!(hash.update(b"9"), Err(refused));
    }
    assert_eq!(BodyHash::begin(0, None).unwrap().finish(), BodyDigest::empty());
}

#[test]
fn a_fingerprint_is_of_the_signature_and_not_of_how_it_is_written() {
    let first = Case::get().check().0.unwrap().fingerprint();
    let mut spelt = Case::get();
    spelt.authorization[0] = String::from_utf8(spelt.authorization[0].clone())
        .unwrap()
        .replace(", ", ",")
        .replace("IEX", "iex")
        .into_bytes();
    assert_eq!(spelt.check().0.unwrap().fingerprint(), first);
    let other = Case::signed("GET", "/a", HOST, b"").check().0.unwrap().fingerprint();
    assert_ne!(other, first);
    assert!(!SIGNATURE.contains(&hex::encode(first.0)), "it shows nothing of the signature");
}

#[test]
fn a_secret_is_never_shown_and_has_its_form() {
    let made = SigningSecret::from_random([0xab; 16]);
    assert_eq!(made.expose(), format!("ss_{}", "ab".repeat(16)));
    let pending = checked_example(true);
    for shown in [format!("{made:?}"), format!("{pending:?}")] {
        assert!(!shown.contains("abab") && !shown.contains("fedc"), "{shown}");
    }
    let of_token = SigningSecret::of_token(&Token::from_random(TokenKind::Secret, [1; 16]));
    assert!(of_token.expose().starts_with("sk_0101"));
    let long = "x".repeat(65);
    for text in ["", "a b", "a\n", "é", long.as_str()] {
        assert!(SigningSecret::parse(text).is_none(), "{text}");
    }
    assert!(SigningSecret::parse(&long[..64]).is_some());
}

proptest! {
    #[test]
    fn agrees_with_a_second_implementation(
        method in "[A-Z]{3,7}", path in "/[!-~&&[^?]]{0,60}", query in "[!-~]{0,80}", host in "[a-z0-9.-]{1,20}(:[0-9]{1,5})?",
        secret_text in "[!-~]{1,64}", body in prop::collection::vec(any::<u8>(), 0..300), seconds in 0i64..4_000_000_000,
        flip in any::<prop::sample::Index>(),
    ) {
        let at = Timestamp::from_second(seconds).unwrap();
        let target = if query.is_empty() { path.clone() } else { format!("{path}?{query}") };
        let made = sign(&method, target.as_bytes(), &host, &body, PK, &secret(&secret_text), at).unwrap();
        let date = String::from_utf8(format_date(at).unwrap().to_vec()).unwrap();
        prop_assert_eq!(parse_date(date.as_bytes()).unwrap().1, at);
        let signature = second::signature(&second::Request {
            method: &method, path: &path, query: &query, host: &host, date: &date, body: &body, secret: &secret_text,
        });
        prop_assert_eq!(&made.signature, &signature);

        // What the second one signs is verified; with one bit of it changed, it is not.
        let verify = |signature: &str| {
            let authorization = format!(
                "IEX-HMAC-SHA256 Credential={PK}/{}/iex_request, SignedHeaders=host;x-iex-date, Signature={signature}",
                &date[..8]
            );
            let request = RawRequest {
                method: &method, target: target.as_bytes(), host: Some(host.as_bytes()),
                authorization: &[authorization.as_bytes()], dates: &[date.as_bytes()],
            };
            let claim = Claim::read(&request, &token(), at, DEFAULT_MAX_SKEW)?;
            match claim.check([&secret(&secret_text)], SignatureBody::Strict, true)? {
                Checked::Pending(pending) => pending.finish(&BodyDigest::of(&body)).map(drop),
                Checked::Verified(_) => panic!("the body was not asked for"),
            }
        };
        prop_assert_eq!(verify(&signature), Ok(()));
        let mut bytes = hex::decode(&signature).unwrap();
        let at = flip.index(256);
        bytes[at / 8] ^= 1 << (at % 8);
        prop_assert_eq!(verify(&hex::encode(bytes)), Err(SignatureRefusal::Invalid(BadSignature::Mismatch)));
    }

    #[test]
    fn no_bytes_make_a_panic_or_a_signature(
        authorization in prop::collection::vec(any::<u8>(), 0..200), date in prop::collection::vec(any::<u8>(), 0..20),
        target in prop::collection::vec(any::<u8>(), 0..50), host in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let ours = [b"IEX-HMAC-SHA256 ".as_slice(), &authorization].concat();
        for value in [&authorization, &ours] {
            let request = RawRequest {
                method: "GET", target: &target, host: Some(&host), authorization: &[value], dates: &[&date],
            };
            prop_assert!(Claim::read(&request, &token(), now(), Duration::MAX).is_err());
        }
    }
}
