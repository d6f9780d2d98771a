//! What the next page says first: kept in a cookie for a minute, shown once. It holds no secret.

use axum::http::{HeaderMap, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::session::cookie;

const NAME: &str = "tollgate_notice";

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    /// Whether it is bad news.
    pub(super) is_error: bool,
    /// What to say.
    pub(super) text: String,
}

impl Notice {
    pub(super) fn done(text: impl Into<String>) -> Self {
        Self { is_error: false, text: text.into() }
    }

    pub(super) fn error(text: impl Into<String>) -> Self {
        Self { is_error: true, text: text.into() }
    }

    /// The notice that a browser brings along.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let value = cookie(headers, NAME)?;
        let (kind, text) = value.split_at_checked(1)?;
        let text = percent_decode_str(text).decode_utf8().ok()?.into_owned();
        Some(Self { is_error: kind == "e", text }).filter(|notice| !notice.text.is_empty())
    }

    /// As a cookie for the next page.
    pub(super) fn to_cookie(&self) -> Option<HeaderValue> {
        let kind = if self.is_error { 'e' } else { 'n' };
        let text = utf8_percent_encode(&self.text, NON_ALPHANUMERIC);
        let cookie = format!("{NAME}={kind}{text}; Path=/console; Max-Age=60; HttpOnly; SameSite=Strict");
        HeaderValue::from_str(&cookie).ok()
    }

    /// Takes the cookie away.
    pub(super) fn gone() -> HeaderValue {
        const GONE: &str = "tollgate_notice=; Path=/console; Max-Age=0; HttpOnly; SameSite=Strict";
        HeaderValue::from_static(GONE)
    }
}
