//! Dumps of other gateways. The files in `dumps` are ours, written after the formats' documentation.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tollgate::policy::Token;
use tollgate::store::Store as _;

use super::{listed, others, parse};
use crate::admin::desk::Desk;
use crate::cli::tool::{Done, run};

fn dump(name: &str) -> String {
    format!("{}/tests/it/bulk/dumps/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Imports a dump twice, checks the mapping, and gives the tokens by nickname besides what was said.
fn import(desk: &Desk, format: &str, name: &str) -> (Vec<Value>, Done) {
    let folder = tempfile::tempdir().unwrap();
    let mapping = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let file = dump(name);
    let words = ["token", "import", &file, "--format", format];
    let shown = run(desk, &[words.as_slice(), &["--dry-run"]].concat()).expect(0);
    assert_eq!(others(&listed(desk)).len(), 0, "{shown:?}");
    run(desk, &words).expect(2).says(&["--mapping"]);
    let done = run(desk, &[words.as_slice(), &["--mapping", &mapping("one")]].concat()).expect(0);
    let again = run(desk, &[words.as_slice(), &["--mapping", &mapping("two")]].concat()).expect(0);
    assert!(again.out.starts_with("0 created"), "{}", again.out);
    let mut tokens = others(&listed(desk));
    tokens.sort_by_key(|token| token["nickname"].as_str().unwrap().to_owned());
    for row in parse(&std::fs::read_to_string(mapping("one")).unwrap()) {
        let value = Token::parse(row["token"].as_str().unwrap().as_bytes()).unwrap();
        let found = desk.block_on(desk.store.find_token(&value.digest())).unwrap().unwrap();
        assert_eq!(
            (found.id.as_str(), found.nickname.as_str()),
            (row["id"].as_str().unwrap(), row["name"].as_str().unwrap())
        );
    }
    assert!(!done.err.contains("-key") && !done.out.contains("-key"), "no key is told: {done:?}");
    (tokens, done)
}

fn rate(rate: u64, burst: u64) -> Value {
    json!({"requests_per_second": rate, "burst": burst})
}

fn core(credits: u64, period: &str) -> Value {
    json!({"core": {"credits": credits, "period": period}, "premium": null})
}

const NO_LIMIT: &str = r#"{"core": null, "premium": null}"#;

#[track_caller]
fn check(token: &Value, nickname: &str, rate: Value, limit: Value, domains: &[&str]) {
    assert_eq!(token["nickname"], nickname, "{token}");
    assert_eq!(token["rate_limit"], rate, "{nickname}");
    assert_eq!(token["credit_limit"], limit, "{nickname}");
    assert_eq!(token["allowed_domains"], json!(domains), "{nickname}");
    assert_eq!(token["type"], "publishable", "{nickname}");
}

#[test]
fn keys_of_kong_become_tokens() {
    let desk = Desk::start();
    let (tokens, done) = import(&desk, "kong", "kong.yaml");
    let none: Value = serde_json::from_str(NO_LIMIT).unwrap();
    assert_eq!(tokens.len(), 4, "{done:?}");
    let addresses = ["203.0.113.0/24", "198.51.100.7"];
    check(&tokens[0], "alice (customer-17)", rate(5, 5), core(10_000, "day"), &addresses);
    check(&tokens[1], "alice (customer-17) #2", rate(5, 5), core(10_000, "day"), &addresses);
    check(&tokens[2], "bob", Value::Null, none, &[]);
    check(&tokens[3], "dave", rate(2, 90), core(100, "day"), &[]);
    // A key that is one of ours by its form goes on working; one that would be a secret token does not.
    assert_eq!(tokens[1]["token"], "pk_00000000000000000000000000000a11");
    let secret = Token::parse(b"sk_00000000000000000000000000000da0").unwrap();
    assert!(desk.block_on(desk.store.find_token(&secret.digest())).unwrap().is_none());
    done.says(&[
        "consumer alice, key 1: tags are not carried over",
        "consumer alice, key 1: groups gold-customers",
        "consumer bob, key 1: basicauth_credentials are not carried over",
        "consumer bob, key 1: rate-limiting: it counts by ip",
        "consumer carol: has no key",
        "consumer dave, key 1: plugin request-transformer is not carried over",
        "consumer dave, key 1: rate-limiting-advanced: 90 in 60 s becomes 2/s with a burst of 90",
        "consumer dave, key 1: rate-limiting-advanced: 700 in 604800 s becomes 100 credits a day",
        "consumer dave, key 1: its key looks like a secret token",
    ]);
}

#[test]
fn the_mapping_finds_a_token_by_the_digest_of_its_old_key() {
    let desk = Desk::start();
    let folder = tempfile::tempdir().unwrap();
    let mapping = folder.path().join("mapping");
    let file = dump("kong.yaml");
    run(&desk, &["token", "import", &file, "--format", "kong", "--mapping", mapping.to_str().unwrap()])
        .expect(0);
    let digest: [u8; 32] = Sha256::digest(b"0012345").into();
    let rows = parse(&std::fs::read_to_string(mapping).unwrap());
    let row = rows.iter().find(|row| row["key_sha256"] == hex::encode(digest)).unwrap();
    assert_eq!(row["name"], "bob");
    assert_eq!(rows.len(), 3, "a key that is kept needs no mapping");
}

#[test]
fn keys_of_tyk_become_tokens() {
    let desk = Desk::start();
    let (tokens, done) = import(&desk, "tyk", "tyk.json");
    let none: Value = serde_json::from_str(NO_LIMIT).unwrap();
    assert_eq!(tokens.len(), 3, "{done:?}");
    check(&tokens[0], "Tyk key 3", Value::Null, core(300, "none"), &[]);
    check(&tokens[1], "eve@example.com", rate(17, 1000), core(50_000, "month"), &[]);
    check(&tokens[2], "frank", rate(5, 5), none, &[]);
    assert_eq!(
        (&tokens[1]["expires_at"], &tokens[1]["created_at"]),
        (&json!("2100-01-01T00:00:00Z"), &json!("2024-03-01T10:00:00Z"))
    );
    assert_eq!((&tokens[2]["status"], &tokens[2]["signed_requests"]), (&json!("disabled"), &json!(true)));
    done.says(&[
        "key eve@example.com: rate: 1000 in 60 s becomes 17/s with a burst of 1000",
        "key eve@example.com: access to Quotes: patterns in allowed_urls are not carried over",
        "key eve@example.com: meta_data is not carried over",
        "key frank: requests are signed in another way here",
        "key frank: it takes limits from policies",
    ]);
}

#[test]
fn keys_of_tyk_come_in_many_forms() {
    let session = json!({"rate": 5, "per": 1, "alias": "zed", "quota_max": -1});
    let named = json!({"key_id": "k", "data": session});
    for text in [
        session.to_string(),
        json!([session]).to_string(),
        named.to_string(),
        json!({"k": session}).to_string(),
        json!({"data": {"keys": [named]}}).to_string(),
        format!("{named}\n{named}\n").replacen("\"k\"", "\"j\"", 1),
    ] {
        let desk = Desk::start();
        let folder = tempfile::tempdir().unwrap();
        let path = super::file(&folder, "keys", &text);
        let done =
            super::with(&desk, &["token", "import", "--dry-run", "--format", "tyk"], &path, &[]).expect(0);
        let many = usize::from(text.contains('\n')) + 1;
        assert!(
            done.out.contains(&format!("{many} created")) && done.out.contains("zed"),
            "{text}: {done:?}"
        );
    }
}

#[test]
fn consumers_of_apisix_become_tokens() {
    let desk = Desk::start();
    let (tokens, done) = import(&desk, "apisix", "apisix.yaml");
    let none: Value = serde_json::from_str(NO_LIMIT).unwrap();
    assert_eq!(tokens.len(), 2, "{done:?}");
    check(&tokens[0], "heidi", rate(4, 200), none, &[]);
    check(&tokens[1], "ivan", Value::Null, core(5000, "day"), &["www.example.com", "*.example.org"]);
    done.says(&[
        "consumer heidi, key 1: desc is not carried over",
        "consumer heidi, key 1: limit-count: 200 in 60 s becomes 4/s with a burst of 200",
        "consumer heidi, key 1: limit-req: a token has one rate; 4/s stays",
        "consumer ivan, key 1: consumer-restriction (whitelist of route_id) is not carried over",
        "consumer ivan, key 1: plugin proxy-rewrite is not carried over",
        "consumer judy: has no key",
    ]);
}

#[test]
fn credentials_of_apisix_are_keys_of_their_consumer() {
    let desk = Desk::start();
    let (tokens, done) = import(&desk, "apisix", "apisix.json");
    assert_eq!(tokens.len(), 2, "{done:?}");
    check(&tokens[0], "heidi", Value::Null, core(100, "hour"), &[]);
    check(&tokens[1], "heidi #2", Value::Null, core(100, "hour"), &[]);
    assert_eq!(tokens[0]["created_at"], "2023-11-14T22:13:20Z");
    done.says(&["consumer heidi, key 2: its key is a reference to a secret"]);
}

#[test]
fn what_is_no_dump_of_that_gateway_is_refused() {
    let desk = Desk::start();
    let folder = tempfile::tempdir().unwrap();
    let ids = r#"{"keys": ["one", "two"]}"#;
    for (format, text, says) in [
        ("kong", "a: 1\n", "_format_version"),
        ("kong", "a: [", "line 1"),
        ("tyk", "{}", "no key of Tyk"),
        ("tyk", ids, "only the names"),
        ("apisix", "routes: []\n", "no list of consumers"),
        ("apisix", "consumers: []\n", "no consumer of APISIX"),
    ] {
        let path = super::file(&folder, "dump", text);
        super::with(&desk, &["token", "import", "--format", format], &path, &[]).expect(1).says(&[says]);
    }
}
