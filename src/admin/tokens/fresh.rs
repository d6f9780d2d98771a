//! New ids, and new values for tokens, from the operating system's random numbers.

use axum::http::StatusCode;
use jiff::Timestamp;
use parking_lot::Mutex;
use ulid::Ulid;

use crate::admin::problem::Problem;
use crate::policy::signature::SigningSecret;
use crate::policy::{Token, TokenId, TokenKind};

/// Gives out ids that sort by age, also those made within one millisecond.
#[derive(Debug, Default)]
pub(in crate::admin) struct Fresh {
    last: Mutex<Option<Ulid>>,
}

impl Fresh {
    /// An id younger than all that were given out before.
    pub(super) fn id(&self, now: Timestamp) -> Result<TokenId, Problem> {
        self.ulid(now).map(TokenId::from_ulid)
    }

    /// What such an id is made of.
    pub(in crate::admin) fn ulid(&self, now: Timestamp) -> Result<Ulid, Problem> {
        let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
        let made = Ulid::from_parts(millis, u128::from_be_bytes(random()?));
        let mut last = self.last.lock();
        let id = match *last {
            Some(last) if last >= made || last.timestamp_ms() == millis => last.increment().unwrap_or(made),
            _ => made,
        };
        *last = Some(id);
        Ok(id)
    }
}

/// A new token value.
pub(super) fn value(kind: TokenKind) -> Result<Token, Problem> {
    Ok(Token::from_random(kind, random()?))
}

/// A new signing secret.
pub(super) fn signing_secret() -> Result<SigningSecret, Problem> {
    random().map(SigningSecret::from_random)
}

/// Random bytes.
pub(in crate::admin) fn random<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bits = [0; N];
    getrandom::fill(&mut bits).map_err(|cause| {
        tracing::error!(%cause, "the operating system gives no random numbers");
        let detail = "The operating system gives no random numbers; nothing was changed.";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no_random_numbers", detail)
    })?;
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_age_even_when_the_clock_steps_back() {
        let fresh = Fresh::default();
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        let ids: Vec<_> = [5, 5, 5, 4, 6, 6].map(|millis| fresh.id(at(millis)).unwrap()).into();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    }
}
