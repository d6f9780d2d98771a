//! Wrong bearer tokens at the admin API: counted by address, and beyond a limit answered 429.
//!
//! A right token is let in at any time, also from an address that is held back: the people who would look after a flood of
//! guesses often share its address (a bastion, a reverse proxy, an office), and must not be locked out by it. What the
//! limit adds to 128 random bits is a client that learns to wait, and a figure to alert on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::auth::{INVALID, refuse};
use super::problem::Problem;
use crate::gate::reply::whole_seconds;
use crate::gate::{GuessLimit, Strangers};

/// Who a request comes from, by its peer and its headers: proxies that are trusted speak for others.
pub type ClientOf = Arc<dyn Fn(IpAddr, &HeaderMap) -> IpAddr + Send + Sync>;

/// Counts wrong tokens. One for each admin API.
pub struct Guard {
    strangers: Strangers,
    client_of: ClientOf,
    refused: IntCounter,
    held_back: IntCounter,
}

impl Guard {
    /// A guard that counts in this registry.
    pub fn new(
        limit: GuessLimit,
        client_of: ClientOf,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let answers = IntCounterVec::new(
            Opts::new(
                "tollgate_admin_invalid_tokens_total",
                "Calls of the admin API with a token that is nobody's, by answer: refused (401), or held_back (429) where \
                 their address had tried too many",
            ),
            &["answer"],
        )?;
        registry.register(Box::new(answers.clone()))?;
        let [refused, held_back] =
            ["refused", "held_back"].map(|answer| answers.with_label_values(&[answer]));
        Ok(Self { strangers: Strangers::new(limit), client_of, refused, held_back })
    }

    /// Who a call comes from.
    pub(super) fn client(&self, peer: Option<SocketAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        peer.map(|peer| (self.client_of)(peer.ip(), headers))
    }

    /// Counts a wrong token from there, and says what it is answered.
    pub(super) fn invalid(&self, client: Option<IpAddr>, now: Instant) -> Problem {
        let Some(wait) = self.strangers.held_back(client, now) else {
            self.refused.inc();
            self.strangers.failed(client, now);
            return refuse("token_invalid", INVALID);
        };
        self.held_back.inc();
        tracing::warn!(
            client = client.map(tracing::field::display),
            "too many invalid tokens at the admin API"
        );
        let detail = "Too many tokens that are none of this account came from this address. A right one is let in at any time.";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_invalid_tokens", detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn beyond_the_limit_wrong_tokens_are_told_how_long_to_wait() {
        let limit = GuessLimit { failures: 3, window: Duration::from_mins(1) };
        let guard = Guard::new(limit, Arc::new(|peer, _| peer), &Registry::new()).unwrap();
        let client = |text: &str| Some(text.parse().unwrap());
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        // (from, after so many milliseconds, status, Retry-After)
        let table = [
            ("2001:db8::1", 0, 401, None),
            ("2001:db8::2", 10_000, 401, None),
            ("2001:db8::3", 20_000, 401, None),
            ("2001:db8::4", 29_500, 429, Some("31")),
            ("2001:db8:0:1::1", 29_500, 401, None),
            ("192.0.2.1", 29_500, 401, None),
            ("2001:db8::1", 59_900, 429, Some("1")),
            ("2001:db8::1", 61_000, 401, None),
        ];
        for (from, at, status, wait) in table {
            let response = guard.invalid(client(from), after(at)).into_response();
            let told = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!((response.status().as_u16(), told), (status, wait), "{from} after {at} ms");
        }
        assert_eq!((guard.refused.get(), guard.held_back.get()), (6, 2));
    }
}
