//! Any bytes as a token and as credentials: only the strict grammar is a token, and none shows or stays unmasked.

use crate::policy::credential::{CredentialProblem, find_credential};
use crate::policy::token::{TOKEN_LEN, Token, TokenId, contains_token, mask_tokens};

/// Checks one input.
pub fn check(data: &[u8]) {
    if let Some(token) = Token::parse(data) {
        assert_eq!(token.expose().as_bytes(), data);
        assert_eq!(data.len(), TOKEN_LEN);
        assert!(contains_token(data));
        assert!(!format!("{token:?}").contains(&token.expose()[3..]));
    }
    let mut masked = data.to_vec();
    assert_eq!(mask_tokens(&mut masked), contains_token(data));
    assert!(!contains_token(&masked), "a token is left");
    assert_eq!(masked.len(), data.len());
    if let Some(id) = std::str::from_utf8(data).ok().and_then(TokenId::parse) {
        assert_eq!(id.as_str().as_bytes(), data);
    }

    // Lines are values: of the query, of Authorization, of X-API-Key, in turn.
    let mut places = [Vec::new(), Vec::new(), Vec::new()];
    for (at, line) in data.split(|byte| *byte == b'\n').enumerate() {
        places[at % 3].push(line);
    }
    let [query, authorization, keys] = places;
    let query: Vec<_> = query.into_iter().map(<[u8]>::to_vec).collect();
    match find_credential(&query, &authorization, &keys) {
        Ok(presented) => {
            let text = presented.token.expose().as_bytes();
            assert!(data.windows(TOKEN_LEN).any(|window| window == text), "a token from nowhere");
            assert!(query.iter().all(|value| value.is_empty() || value == text), "another value went unseen");
            assert!(
                keys.iter().all(|key| matches!(trim(key), b"") || trim(key) == text),
                "another key went unseen"
            );
            let bearer = |value: &&&[u8]| {
                trim(value).get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"bearer "))
            };
            assert!(
                authorization
                    .iter()
                    .filter(bearer)
                    .all(|value| value.windows(TOKEN_LEN).any(|window| window == text))
            );
        }
        Err(CredentialProblem::Missing) => assert!(query.iter().all(Vec::is_empty)),
        Err(CredentialProblem::Ambiguous | CredentialProblem::Invalid) => {}
    }
}

fn trim(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    &value[start..end]
}
