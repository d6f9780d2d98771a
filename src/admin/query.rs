//! Reads query parameters. Unknown and doubled ones are refused: a typo must not mean "use the default".

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::problem::{FieldError, Problem, quote};
use super::receipt::MAX_WAIT;
use crate::config::units::parse_duration;

/// About `wait`, for the description.
pub(super) const WAIT: &str = "How long to wait until the change is in force on every node, like 2s; at most 60s. The \
                               answer then carries a `receipt`, whether it came to that or not.";

/// The parameters of a request, decoded, in their order.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

impl Query {
    /// Refuses parameters that are not `known`, or come twice.
    pub(super) fn allow(&self, known: &[&str]) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (at, (name, _)) in self.0.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                errors.push(FieldError::parameter(name, format!("unknown parameter; known here: {known}")));
            } else if self.0.iter().take(at).any(|(earlier, _)| earlier == name) {
                errors.push(FieldError::parameter(name, "came twice"));
            }
        }
        errors
    }

    /// A parameter that `read` understands; `None`: it is absent or wrong.
    pub(super) fn read<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
        errors: &mut Vec<FieldError>,
    ) -> Option<T> {
        let (_, text) = self.0.iter().find(|(found, _)| found == name)?;
        let value = read(text);
        if value.is_none() {
            errors.push(FieldError::parameter(name, format!("expected {expected}, found `{}`", quote(text))));
        }
        value
    }

    /// Accepts nothing but `wait`: how long to wait for a receipt; `None`: there is to be none.
    pub(super) fn allow_wait(&self) -> Result<Option<Duration>, Problem> {
        let mut errors = self.allow(&["wait"]);
        let wait = self.wait(&mut errors);
        if errors.is_empty() { Ok(wait) } else { Err(Problem::parameters(errors)) }
    }

    /// How long to wait for a receipt; `None`: there is to be none.
    pub(super) fn wait(&self, errors: &mut Vec<FieldError>) -> Option<Duration> {
        let read = |text: &str| parse_duration(text).ok().filter(|wait| *wait <= MAX_WAIT);
        self.read("wait", "a duration with its unit, like 250ms or 2s, at most 60s", read, errors)
    }

    /// Accepts no parameter.
    pub(super) fn allow_none(&self) -> Result<(), Problem> {
        let errors = self.allow(&[]);
        if errors.is_empty() { Ok(()) } else { Err(Problem::parameters(errors)) }
    }
}
