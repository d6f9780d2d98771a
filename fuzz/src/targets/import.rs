//! Any bytes as a file to be imported: each token is one line of JSON within the bounds of the API, and stays what it is.

use serde_json::Value;

use crate::cli::import::{Format, Read, read_dump, read_lines};
use crate::policy::{Token, TokenKind};

/// The highest rate and burst, and the most credits.
const MOST_RATE: u64 = 1_000_000;
const MOST_CREDITS: u64 = (1 << 53) - 1;

/// Checks one input.
pub fn check(data: &[u8]) {
    let lines = read_lines(data);
    assert!(lines.len() <= data.split(|byte| *byte == b'\n').count());
    for line in &lines {
        assert!(!line.body.trim().is_empty() && !line.body.contains('\n'), "more than one line");
        assert!(data.windows(line.body.len()).any(|window| window == line.body.as_bytes()), "from nowhere");
    }
    let again: String = lines.iter().map(|line| line.body.clone() + "\n").collect();
    assert!(lines.iter().map(known_by).eq(read_lines(again.as_bytes()).iter().map(known_by)));

    for (format, name) in Format::DUMPS {
        let Some(tokens) = read_dump(data, format) else { continue };
        assert_eq!(read_dump(data, format).as_ref(), Some(&tokens), "another import would make others");
        tokens.iter().for_each(|token| hold(token, name));
        // What was made of a dump is a file of lines.
        let written: String = tokens.iter().map(|token| token.body.clone() + "\n").collect();
        let bodies = tokens.iter().map(|token| &token.body);
        assert!(read_lines(written.as_bytes()).iter().map(|line| &line.body).eq(bodies), "not a line each");
    }
}

/// What of a line does not change when it is written anew.
fn known_by(line: &Read) -> (&str, &Option<(&'static str, String)>, bool) {
    (&line.body, &line.identity, line.brings_value)
}

/// What holds for each token of a dump.
fn hold(token: &Read, format: &str) {
    let body: Value = serde_json::from_str(&token.body).expect("a token is JSON");
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let key = text("import_key").expect("a name for the next import");
    let digest = key.strip_prefix(format).and_then(|rest| rest.strip_prefix(':')).expect("a name of its kind");
    assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(token.identity, Some(("import_key", key.to_owned())));
    assert_eq!(text("type"), Some("publishable"), "a dump makes no secret tokens");
    let nickname = text("nickname").expect("a nickname");
    assert!(nickname.chars().count() <= 200 && !nickname.chars().any(char::is_control));
    let value = body.get("token").map(|value| value.as_str().expect("a value is a text"));
    let kind = value.map(|value| Token::parse(value.as_bytes()).expect("a value is a token").kind());
    assert!(!matches!(kind, Some(TokenKind::Secret)), "it would open the admin API");
    assert_eq!(token.brings_value, value.is_some());
    assert!(token.key_sha256.as_ref().is_none_or(|digest| digest.len() == 64));
    for (name, most) in [
        ("/rate_limit/requests_per_second", MOST_RATE),
        ("/rate_limit/burst", MOST_RATE),
        ("/credit_limit/core/credits", MOST_CREDITS),
    ] {
        if let Some(number) = body.pointer(name) {
            let number = number.as_u64().expect("a limit is a whole number");
            assert!((1..=most).contains(&number), "{name}: {number}");
        }
    }
}
