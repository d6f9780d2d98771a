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
    let tokens = values(Some(query), TOKEN);
    if tokens.is_empty() {
        return (tokens, Some(query.to_owned()));
    }
    let mut rest = String::with_capacity(query.len());
    for piece in query.split('&').filter(|piece| !is_named(piece, TOKEN)) {
        rest.push_str(piece);
        rest.push('&');
    }
    rest.pop();
    (tokens, Some(rest).filter(|rest| !rest.is_empty()))
}

/// The decoded values of one parameter, in their order. `+` means a space.
pub fn values(query: Option<&str>, name: &str) -> Vec<Vec<u8>> {
    let pieces = query.into_iter().flat_map(|query| query.split('&'));
    pieces.filter(|piece| is_named(piece, name)).map(|piece| decode_form(split(piece).1).collect()).collect()
}

/// Splits a piece into its name and value, both still encoded. Without a `=` the value is empty.
fn split(piece: &str) -> (&str, &str) {
    piece.split_once('=').unwrap_or((piece, ""))
}

fn is_named(piece: &str, name: &str) -> bool {
    decode_form(split(piece).0).eq(name.bytes())
}

/// Decodes as HTML forms do: `%XX` is a byte, `+` a space.
fn decode_form(text: &str) -> impl Iterator<Item = u8> {
    // A `+` that is meant stands as `%2B`; so the plain ones are seen before decoding, in the pieces between them.
    text.split('+')
        .enumerate()
        .flat_map(|(at, piece)| (at > 0).then_some(b' ').into_iter().chain(percent_decode_str(piece)))
}
