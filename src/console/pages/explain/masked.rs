//! Takes secrets out of what is shown again. A publishable token may stay: it stands in web pages. Pure.

use percent_encoding::percent_decode_str;

use crate::policy::token::{contains_token, mask_tokens};

/// How often a text may be encoded over before nobody would read a token out of it.
const LAYERS: usize = 3;

/// The text with every secret masked; nothing, where one hides behind an encoding.
pub(super) fn mask(text: &str) -> String {
    let masked = mask_plain(text);
    let mut inner = masked.clone();
    for _ in 0..LAYERS {
        let decoded = percent_decode_str(&inner.replace('+', " ")).decode_utf8_lossy().into_owned();
        if mask_plain(&decoded) != decoded {
            return String::new();
        }
        if decoded == inner {
            break;
        }
        inner = decoded;
    }
    masked
}

/// Secrets as they stand. Whatever is a token is masked first, and publishable ones are then put back.
fn mask_plain(text: &str) -> String {
    let mut masked = text.as_bytes().to_vec();
    mask_tokens(&mut masked);
    let given = text.as_bytes();
    for at in 0..masked.len() {
        let window = masked.get(at..at + TOKEN).unwrap_or_default();
        // All of it, so that nothing of a neighbour comes back.
        let is_public =
            window.strip_prefix(b"pk_").is_some_and(|digits| digits.iter().all(|digit| *digit == b'*'));
        if is_public
            && let (Some(to), Some(from)) = (masked.get_mut(at..at + TOKEN), given.get(at..at + TOKEN))
        {
            to.copy_from_slice(from);
        }
    }
    String::from_utf8_lossy(&masked).into_owned()
}

/// The length of a token.
const TOKEN: usize = 35;

/// Headers that say who asks. What stands in them is shown again only if it is a publishable token.
const CREDENTIALS: [&str; 4] =
    ["authorization", "proxy-authorization", "cookie", "x-forwarded-authorization"];

/// Lines of headers with every secret masked.
pub(super) fn mask_headers(text: &str) -> String {
    let line = |line: &str| {
        let Some((name, value)) = line.split_once(':') else { return mask(line) };
        if !CREDENTIALS.contains(&name.trim().to_ascii_lowercase().as_str()) {
            return mask(line);
        }
        let value = value.trim();
        let token = value
            .get(..7)
            .filter(|scheme| scheme.eq_ignore_ascii_case("Bearer "))
            .and_then(|_| value.get(7..));
        let is_public = token.is_some_and(|token| {
            token.trim().len() == TOKEN && token.trim().starts_with("pk_") && contains_token(token.as_bytes())
        });
        if is_public { line.to_owned() } else { format!("{name}: ***") }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn secrets_go_and_publishable_tokens_stay() {
        let stars = "*".repeat(32);
        let table = [
            (format!("/v1/x?token=pk_{DIGITS}"), format!("/v1/x?token=pk_{DIGITS}")),
            (format!("/v1/x?token=sk_{DIGITS}&a=1"), format!("/v1/x?token=sk_{stars}&a=1")),
            (format!("ss_{DIGITS} pk_{DIGITS} sk_{DIGITS}"), format!("ss_{stars} pk_{DIGITS} sk_{stars}")),
            (format!("/v1/x?token=sk%5F{DIGITS}"), String::new()),
            (format!("/v1/x?token=%73k_{DIGITS}"), String::new()),
            (format!("/v1/x?next=%2Fy%3Ftoken%3Dsk%255F{DIGITS}"), String::new()),
            (format!("/v1/x?token=pk%5F{DIGITS}"), format!("/v1/x?token=pk%5F{DIGITS}")),
            ("/v1/ü?a=100%&b=%zz".to_owned(), "/v1/ü?a=100%&b=%zz".to_owned()),
            (format!("pk_* sk_{DIGITS}"), format!("pk_* sk_{stars}")),
            ("/v1/x?token=pk_***".to_owned(), "/v1/x?token=pk_***".to_owned()),
        ];
        for (text, shown) in table {
            assert_eq!(mask(&text), shown, "{text}");
        }
    }

    #[test]
    fn headers_that_say_who_asks_are_hidden_unless_everybody_may_know() {
        let table = [
            (format!("Authorization: Bearer pk_{DIGITS}"), true),
            (format!("authorization:bearer pk_{DIGITS}"), true),
            (format!("Authorization: Bearer sk_{DIGITS}"), false),
            (format!("Authorization: Bearer pk_{DIGITS} sk_{DIGITS}"), false),
            ("Authorization: TOLLGATE1 Signature=00ff".to_owned(), false),
            ("Authorization: Basic c2tfMDEyMw==".to_owned(), false),
            (" COOKIE : a=b".to_owned(), false),
            ("X-Other: a: b".to_owned(), true),
        ];
        for (line, stays) in table {
            let shown = mask_headers(&format!("Accept: */*\n{line}"));
            assert!(shown.starts_with("Accept: */*\n"), "{shown}");
            assert_eq!(shown.ends_with(&line), stays, "{line}: {shown}");
            assert!(stays || shown.ends_with(": ***"), "{shown}");
        }
        assert!(!mask_headers(&format!("X-Key: sk_{DIGITS}")).contains(DIGITS));
    }
}
