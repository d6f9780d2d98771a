//! Why somebody was not let in, as people are told.

use std::time::Duration;

use axum::http::StatusCode;

use super::passphrase::BadPassphrase;
use crate::admin::problem::Problem;
use crate::gate::reply::whole_seconds;
use crate::store::StoreError;

/// Why somebody was not let in. Its text is for people, and tells nobody which names there are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// Name and passphrase, or the token, are not right.
    #[error("That is not right. Check what you entered and try again.")]
    Wrong,
    /// There were too many failures.
    #[error("There were too many tries. Wait {}, then try again.", in_words(*.retry_after))]
    TooMany {
        /// How long to wait.
        retry_after: Duration,
    },
    /// Too many sign in at once.
    #[error("Too many people sign in at this moment. Try again in some seconds.")]
    Busy,
    /// The passphrase cannot be chosen.
    #[error(transparent)]
    Passphrase(#[from] BadPassphrase),
    /// The link was taken up already, its time is over, or it never was one.
    #[error("This link is not good any more. Ask an admin for a new one.")]
    InvitationOver,
    /// There is no session (any more).
    #[error("You are signed out. Sign in and try again.")]
    SignedOut,
    /// The admin API does not take this token.
    #[error("{}", .0.detail())]
    Token(Problem),
    /// The store does not answer; nobody is signed out by that.
    #[error("The store cannot be reached right now, so nobody can be let in. Try again in a moment.")]
    Store(StoreError),
    /// The operating system gives no random numbers.
    #[error("Something went wrong; the log says what. Nothing was changed.")]
    NoRandomNumbers,
}

impl Refused {
    /// The status of the page that tells of it.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Wrong => StatusCode::FORBIDDEN,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy | Self::Store(StoreError::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Passphrase(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::InvitationOver => StatusCode::GONE,
            Self::SignedOut => StatusCode::UNAUTHORIZED,
            Self::Token(problem) => problem.status(),
            Self::Store(_) | Self::NoRandomNumbers => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// When to try again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooMany { retry_after } => Some(*retry_after),
            Self::Busy | Self::Store(StoreError::Unavailable(_)) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "the store did not answer the console's door");
        Self::Store(error)
    }
}

/// A wait, rounded up: `40 seconds`, `2 minutes`.
fn in_words(wait: Duration) -> String {
    let seconds = whole_seconds(wait);
    let (number, unit) = if seconds > 90 { (seconds.div_ceil(60), "minute") } else { (seconds, "second") };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_told_in_words_and_rounded_up() {
        for (millis, words) in [
            (1, "1 second"),
            (1000, "1 second"),
            (40_001, "41 seconds"),
            (90_000, "90 seconds"),
            (90_001, "2 minutes"),
            (900_000, "15 minutes"),
        ] {
            assert_eq!(in_words(Duration::from_millis(millis)), words);
        }
    }

    #[test]
    fn each_refusal_has_its_status() {
        let outage = || StoreError::Unavailable("x".to_owned());
        let broken = || StoreError::Unreadable { key: "member:x".to_owned(), why: "x".to_owned() };
        let disabled =
            Problem::new(StatusCode::UNAUTHORIZED, "token_disabled", "This secret token is disabled.");
        let second = Some(Duration::from_secs(1));
        for (refused, status, retry_after) in [
            (Refused::Wrong, 403, None),
            (Refused::TooMany { retry_after: Duration::from_secs(1) }, 429, second),
            (Refused::Busy, 503, second),
            (Refused::Passphrase(BadPassphrase::TooShort), 422, None),
            (Refused::InvitationOver, 410, None),
            (Refused::SignedOut, 401, None),
            (Refused::Token(disabled), 401, None),
            (Refused::Store(outage()), 503, second),
            (Refused::Store(broken()), 500, None),
            (Refused::NoRandomNumbers, 500, None),
        ] {
            assert_eq!(
                (refused.status().as_u16(), refused.retry_after()),
                (status, retry_after),
                "{refused}"
            );
            let text = refused.to_string();
            assert!(text.ends_with('.') && text.starts_with(char::is_uppercase), "{text}");
        }
    }
}
