//! Parameters of a query, without disturbing the rest of it (`policy.md`, "Where a credential may stand").
//!
//! Owns the splitting at `&` and the comparison of names. It must not know what a token looks like; that is
//! [`super::credential`]'s.

use percent_encoding::percent_decode_str;

/// The parameter a credential may stand in.
const TOKEN: &str = "token";

/// Takes every `token` parameter out of a query. Names are compared after percent-decoding, case-sensitively, and
/// `token` alone is taken: not `Token`, not `token[]`. Every other byte stays as it was.
///
/// Returns the decoded values in their order, and what is left: `None` when nothing is.
pub fn take_tokens(query: Option<&str>) -> (Vec<Vec<u8>>, Option<String>) {
    let Some(query) = query else { return (Vec::new(), None) };
    let mut tokens = Vec::new();
    let mut rest = String::with_capacity(query.len() + 1);
    for piece in query.split('&') {
        if is_named(piece, TOKEN) {
            tokens.push(decoded(split(piece).1));
        } else {
            rest.push_str(piece);
            rest.push('&');
        }
    }
    rest.pop();
    let is_gone = rest.is_empty() && !tokens.is_empty();
    (tokens, Some(rest).filter(|_| !is_gone))
}

/// The decoded values of one parameter, in their order. `+` means a space.
pub fn values(query: Option<&str>, name: &str) -> Vec<Vec<u8>> {
    let pieces = query.into_iter().flat_map(|query| query.split('&'));
    pieces.filter(|piece| is_named(piece, name)).map(|piece| decoded(split(piece).1)).collect()
}

/// Splits a piece into its name and value, both still encoded. Without a `=` the value is empty.
fn split(piece: &str) -> (&str, &str) {
    piece.split_once('=').unwrap_or((piece, ""))
}

fn is_named(piece: &str, name: &str) -> bool {
    let spelled = split(piece).0;
    if is_plain(spelled) { spelled == name } else { decode_form(spelled).eq(name.bytes()) }
}

fn decoded(text: &str) -> Vec<u8> {
    if is_plain(text) { text.as_bytes().to_vec() } else { decode_form(text).collect() }
}

/// Whether there is nothing to decode, as is nearly always so.
fn is_plain(text: &str) -> bool {
    memchr::memchr2(b'%', b'+', text.as_bytes()).is_none()
}

/// Decodes as HTML forms do: `%XX` is a byte, `+` a space.
fn decode_form(text: &str) -> impl Iterator<Item = u8> {
    // A `+` that is meant stands as `%2B`; so the plain ones are seen before decoding, in the pieces between them.
    text.split('+')
        .enumerate()
        .flat_map(|(at, piece)| (at > 0).then_some(b' ').into_iter().chain(percent_decode_str(piece)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::tables::{optional, rows, several, text};

    #[test]
    fn takes_every_token_and_leaves_every_other_byte() {
        for [query, tokens, rest] in rows(include_str!("tables/take_tokens.txt")) {
            let expected = (several(tokens), optional(rest));
            assert_eq!(take_tokens(optional(query).as_deref()), expected, "{query}");
        }
    }

    #[test]
    fn reads_the_values_of_one_parameter() {
        for [query, name, expected] in rows(include_str!("tables/values.txt")) {
            assert_eq!(values(optional(query).as_deref(), &text(name)), several(expected), "{query}");
        }
    }

    fn queries() -> impl Strategy<Value = String> {
        const PIECES: [&str; 15] = [
            "&", "&&", "=", "token", "token=", "%74oken=", "tok%65n", "Token", "%", "%2574", "+", ";", "a",
            "b=1", "é",
        ];
        proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..16)
            .prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn leaves_no_token_and_loses_nothing_else(query in queries()) {
            let (tokens, rest) = take_tokens(Some(&query));
            assert_eq!(values(rest.as_deref(), "token"), Vec::<Vec<u8>>::new());
            let others = |query: &str| -> Vec<String> {
                query.split('&').filter(|piece| !is_named(piece, "token")).map(str::to_owned).collect()
            };
            assert_eq!(others(&query).join("&"), rest.clone().unwrap_or_default());
            assert_eq!(tokens.len() + others(&query).len(), query.split('&').count());
            if tokens.is_empty() {
                assert_eq!(rest, Some(query));
            } else {
                assert_ne!(rest.as_deref(), Some(""));
            }
        }

        #[test]
        fn reads_back_what_a_form_wrote(pairs in proptest::collection::vec(("[a-z&=+% é]{1,6}", any::<String>()), 0..6)) {
            let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
            for (name, _) in &pairs {
                let expected: Vec<_> = pairs.iter().filter(|(other, _)| other == name).map(|(_, value)| value.clone().into_bytes()).collect();
                assert_eq!(values(Some(&query), name), expected);
            }
        }
    }
}
