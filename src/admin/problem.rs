//! Errors of the admin API, as RFC 9457 problems.
//!
//! Owns the one road from an error to a response: status, code, sentence, and each bad field with its JSON pointer
//! (RFC 6901). Whatever has the shape of a token is masked on the way out (law 7), so no caller has to think of it.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::policy::token::mask_tokens;
use crate::store::StoreError;

/// The longest piece of a client's own text that an error repeats, in characters.
const MAX_QUOTE: usize = 80;

/// The most fields that an error tells of: an answer is not to be many times as large as what it answers.
const MOST_ERRORS: usize = 100;

/// A place in a request, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// A JSON pointer into the body (RFC 6901).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/credit_limit/core/period")]
    pub(super) pointer: Option<String>,
    /// The query parameter, where it is not the body that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parameter: Option<String>,
    /// What is wrong, and what is expected.
    pub(super) detail: String,
}

impl FieldError {
    /// Something wrong in the body.
    pub(super) fn at(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), parameter: None, detail: detail.into() }
    }

    /// Something wrong with a query parameter.
    pub(super) fn parameter(name: &str, detail: impl Into<String>) -> Self {
        Self { pointer: None, parameter: Some(quote(name)), detail: detail.into() }
    }
}

/// An error as RFC 9457 has it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// Always `about:blank`: the code tells more.
    r#type: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// What went wrong with this request, and what would mend it.
    detail: String,
    /// The error's name, for programs.
    #[schema(example = "version_conflict")]
    code: &'static str,
    /// Everything that is wrong with the fields, all at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// An error with its status, its name and its sentence.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), errors: Vec::new(), headers: Vec::new() }
    }

    /// The body was understood, yet some of its fields cannot be taken. Nothing was changed.
    pub(super) fn fields(mut errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "One field cannot be taken; nothing was changed.".to_owned(),
            n if n > MOST_ERRORS => {
                format!(
                    "{n} fields cannot be taken, of which the first {MOST_ERRORS} are told; nothing was changed."
                )
            }
            n => format!("{n} fields cannot be taken; nothing was changed."),
        };
        errors.truncate(MOST_ERRORS);
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_fields", detail);
        problem.errors = errors;
        problem
    }

    /// Some of the query's parameters cannot be taken.
    pub(super) fn parameters(errors: Vec<FieldError>) -> Self {
        let detail = "The query has parameters that cannot be taken.";
        let mut problem = Self::new(StatusCode::BAD_REQUEST, "invalid_parameters", detail);
        problem.errors = errors;
        problem
    }

    /// There is no such token on this account.
    pub(super) fn no_token() -> Self {
        Self::new(StatusCode::NOT_FOUND, "token_not_found", "This account has no token with that id.")
    }

    /// There is no such member of this account.
    pub(super) fn no_member() -> Self {
        Self::new(StatusCode::NOT_FOUND, "member_not_found", "This account has no member with that id.")
    }

    /// Its status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Its name, for programs.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// Its sentence, for people.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Everything that is wrong, for an answer that tells of many things at once. An error without a place of its own
    /// gets `pointer`.
    pub(super) fn into_errors(self, pointer: &str) -> Vec<FieldError> {
        if self.errors.is_empty() { vec![FieldError::at(pointer, self.detail)] } else { self.errors }
    }

    /// Adds what is wrong with one field.
    pub(super) fn with_error(mut self, error: FieldError) -> Self {
        self.errors.push(error);
        self
    }

    /// Adds a header.
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => {
                tracing::warn!(%cause, "the store did not answer the admin API");
                let detail = "The store cannot be reached right now; nothing is known about this request.";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", detail)
                    .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
            }
            StoreError::Unreadable { key, why } => {
                tracing::error!(%key, %why, "a record cannot be read");
                let detail =
                    format!("The stored record cannot be read ({why}); nothing is let through by it.");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "record_unreadable", detail)
            }
            StoreError::Seal(cause) => {
                tracing::warn!(%cause, "a secret token could not be sealed or opened");
                Self::new(StatusCode::CONFLICT, "seal_failed", sentence(&cause.to_string()))
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ProblemBody {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: self.detail,
            code: self.code,
            errors: self.errors,
        };
        let mut response = json(self.status, &body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.extend(self.headers);
        response
    }
}

/// A JSON answer in which everything with the shape of a token is masked. Answers that are meant to show a token
/// use `axum::Json` instead.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // Serializing these plain structures cannot fail; were it to, an empty body is still the right status.
    let mut bytes = serde_json::to_vec(body).unwrap_or_default();
    mask_tokens(&mut bytes);
    (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response()
}

/// A client's own text, fit to be repeated in an error: tokens masked before it is cut (a cut token would no longer
/// be known for one), control characters escaped, at most [`MAX_QUOTE`] characters.
pub(super) fn quote(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    mask_tokens(&mut bytes);
    let masked = String::from_utf8_lossy(&bytes);
    let mut quoted: String = masked.chars().take(MAX_QUOTE).flat_map(escape).collect();
    if masked.chars().nth(MAX_QUOTE).is_some() {
        quoted.push('…');
    }
    quoted
}

fn escape(c: char) -> Box<dyn Iterator<Item = char>> {
    if c.is_control() { Box::new(c.escape_default()) } else { Box::new(std::iter::once(c)) }
}

/// The text with a capital letter at its start and a full stop at its end.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
    let stop = if text.ends_with('.') { "" } else { "." };
    format!("{first}{}{stop}", chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_masks_a_token_before_it_cuts_it() {
        let token = format!("sk_{}", "0123456789abcdef".repeat(2));
        let quoted = quote(&format!("{}{token}", "x".repeat(60)));
        assert!(!quoted.contains("0123"), "{quoted}");
        assert!(quoted.ends_with('…'), "{quoted}");
        assert_eq!(quote("a\nb"), "a\\nb");
    }
}
