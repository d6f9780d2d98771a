//! Which credential a request presents (`policy.md`, "Where a credential may stand" and checks 4 and 5).
//!
//! Owns the three places and what to do when they disagree. It must not know whether the token exists; that is the
//! store's. How a token reads is [`super::token`]'s, taking it out of the query is [`super::query`]'s.

use subtle::ConstantTimeEq;

use super::token::Token;

/// Where the credential stood. When it stood in several places, the first of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The query parameter `token`.
    Query,
    /// `Authorization: Bearer …`.
    Bearer,
    /// `X-API-Key`.
    ApiKey,
}

/// The one well-formed credential of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// The token, not yet looked up.
    pub token: Token,
    /// Where it stood.
    pub place: Place,
}

/// Why a request has no one well-formed credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialProblem {
    /// None at all: 401 `token_missing`.
    Missing,
    /// Two that differ, be they well formed or not: 400 `token_ambiguous`.
    Ambiguous,
    /// One that no token can be: 403 `token_invalid`.
    Invalid,
}

/// Finds the credential of a request. `query_tokens` come from [`super::query::take_tokens`]; the other two are all
/// values of the headers `Authorization` and `X-API-Key`.
///
/// An empty parameter or `X-API-Key` is as if absent (a client whose setting is unset sends that); `Bearer` with nothing
/// after it claims to be a credential and is an invalid one. Other schemes of `Authorization` are no credential here.
pub fn find_credential(
    query_tokens: &[Vec<u8>],
    authorization: &[&[u8]],
    api_keys: &[&[u8]],
) -> Result<Presented, CredentialProblem> {
    let in_query = query_tokens.iter().map(|value| (value.as_slice(), Place::Query));
    let in_keys = api_keys.iter().map(|value| (trim(value), Place::ApiKey));
    let bearers = authorization.iter().filter_map(|value| bearer(value)).map(|value| (value, Place::Bearer));
    let not_empty = |(value, _): &(&[u8], Place)| !value.is_empty();

    let mut all = in_query.filter(not_empty).chain(bearers).chain(in_keys.filter(not_empty));
    let (value, place) = all.next().ok_or(CredentialProblem::Missing)?;
    if all.any(|(other, _)| !bool::from(other.ct_eq(value))) {
        return Err(CredentialProblem::Ambiguous);
    }
    let token = Token::parse(value).ok_or(CredentialProblem::Invalid)?;
    Ok(Presented { token, place })
}

/// What follows the scheme `Bearer` and at least one space (RFC 9110, 11.4); `None` for another scheme.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let value = trim(value);
    let end = value.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(value.len());
    let (scheme, rest) = value.split_at_checked(end)?;
    // Only spaces may stand between: a tab stays, and is part of no token.
    let spaces = rest.iter().position(|byte| *byte != b' ').unwrap_or(rest.len());
    scheme.eq_ignore_ascii_case(b"Bearer").then(|| rest.get(spaces..).unwrap_or_default())
}

/// Takes optional white space (RFC 9110, 5.6.3) off both ends.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::tables::{PK, PK2, rows, several, slices, text};

    fn outcome(query: &[Vec<u8>], authorization: &[Vec<u8>], keys: &[Vec<u8>]) -> String {
        match find_credential(query, &slices(authorization), &slices(keys)) {
            Ok(Presented { token, place }) => format!("{place:?} {}", token.expose()),
            Err(problem) => format!("{problem:?}"),
        }
    }

    #[test]
    fn finds_exactly_one_credential_or_says_why_not() {
        for [query, authorization, keys, expected] in rows(include_str!("tables/credential.txt")) {
            let found = outcome(&several(query), &several(authorization), &several(keys));
            assert_eq!(found, text(expected), "{query} · {authorization} · {keys}");
        }
    }

    proptest! {
        #[test]
        fn a_second_value_never_goes_unseen(
            first in 0..3_usize, second in 0..3_usize, other in prop_oneof![Just(PK2.to_owned()), "[!-~]{1,40}"]
        ) {
            prop_assume!(other != PK);
            let mut places = [Vec::new(), Vec::new(), Vec::new()];
            for (place, value) in [(first, PK), (second, other.as_str())] {
                let value = if place == 1 { format!("Bearer {value}") } else { value.to_owned() };
                places[place].push(value.into_bytes());
            }
            assert_eq!(outcome(&places[0], &places[1], &places[2]), "Ambiguous");
        }
    }
}
