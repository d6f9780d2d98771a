//! Any text as a query: no `token` parameter stays, nothing else goes.

use crate::policy::query::{take_tokens, values};

/// Checks one input.
pub fn check(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else { return };
    let (tokens, rest) = take_tokens(Some(query));
    assert_eq!(tokens, values(Some(query), "token"));
    // Another reader of forms sees the same values.
    let lossy: Vec<_> = tokens.iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect();
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    assert_eq!(
        lossy,
        pairs.filter(|(name, _)| name == "token").map(|(_, value)| value.into_owned()).collect::<Vec<_>>()
    );
    assert!(values(rest.as_deref(), "token").is_empty(), "a token is left");

    let is_token = |piece: &&str| !values(Some(piece), "token").is_empty();
    let kept: Vec<_> = query.split('&').filter(|piece| !is_token(piece)).collect();
    assert_eq!(kept.join("&"), rest.clone().unwrap_or_default(), "another byte changed");
    assert_eq!(tokens.len() + kept.len(), query.split('&').count());

    let (again, same) = take_tokens(rest.as_deref());
    assert!(again.is_empty() && same == rest);
}
