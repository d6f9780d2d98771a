//! `X-Credits-*`, `RateLimit-Policy` and `RateLimit`, from the counter that decided (`clients.md`, "dialect: standard";
//! draft-ietf-httpapi-ratelimit-headers-11).
//!
//! One item for the throttle and one for credits. `q` is the quota, `w` its window in seconds; `r` is what is left of it, `t` the
//! seconds until there is more. A month is told as thirty days, since the draft knows seconds only. Values are put
//! together piece by piece: this is written for each response.

use std::time::Duration;

use http::HeaderName;

use super::told::Told;
use super::whole_seconds;
use crate::ledger::Standing;
use crate::policy::{Denial, Limit, Period, Policy, RateLimit};

const POLICY: &str = "RateLimit-Policy";
const LEFT: &str = "RateLimit";
const THROTTLE: &str = "\"throttle\"";
const CREDITS: &str = "\"credits\"";

/// Tells them of a response that passes.
pub(in crate::gate) fn tell(told: &mut Told, standing: &Standing, rate: Option<RateLimit>) {
    let mut digits = itoa::Buffer::new();
    told.field("X-Credits-Used", &[digits.format(standing.used.0)]);
    if let Some(remaining) = standing.remaining {
        told.field("X-Credits-Remaining", &[digits.format(remaining.0)]);
    }
    // Passes that were taken just now, by a throttle that was taken away since, are no quota any more.
    let throttle = rate.zip(standing.burst_left).map(|(rate, left)| (rate, left.min(rate.burst)));
    let credits = standing.limit.zip(standing.remaining);
    if throttle.is_none() && credits.is_none() {
        return;
    }
    told.field_by(POLICY, |value| {
        let mut items = Items::of(value);
        if let Some((rate, _)) = throttle {
            items.throttle_policy(rate);
        }
        if let Some((limit, _)) = credits {
            items.credits_policy(limit);
        }
    });
    told.field_by(LEFT, |value| {
        let mut items = Items::of(value);
        if let Some((_, passes)) = throttle {
            // A pass comes back within a second at the latest: no rate is below one a second.
            items.left(THROTTLE, passes.into(), Some(Duration::from_secs(1)));
        }
        if let Some((_, remaining)) = credits {
            items.left(CREDITS, remaining.0, standing.resets_in);
        }
    });
}

/// The same for a refusal, as far as it is known: the limit that decided, and what is left of it. `cost` is what the
/// request would have cost: only where it is one credit is it known that none is left.
pub(in crate::gate) fn of_refusal(denial: &Denial, policy: &Policy, cost: u64) -> Vec<(HeaderName, String)> {
    let (mut policies, mut left) = (String::new(), String::new());
    match denial {
        Denial::RateLimited { retry_after } => {
            let Some(rate) = policy.rate_limit else { return Vec::new() };
            Items::of(&mut policies).throttle_policy(rate);
            Items::of(&mut left).left(THROTTLE, 0, Some(*retry_after));
        }
        Denial::CreditsExhausted { pool, retry_after } => {
            let Some(limit) = *policy.credit_limit.get(*pool) else { return Vec::new() };
            Items::of(&mut policies).credits_policy(limit);
            if cost == 1 {
                Items::of(&mut left).left(CREDITS, 0, *retry_after);
            }
        }
        _ => return Vec::new(),
    }
    let all = [("ratelimit-policy", policies), ("ratelimit", left)];
    let told = all.into_iter().filter(|(_, value)| !value.is_empty());
    told.map(|(name, value)| (HeaderName::from_static(name), value)).collect()
}

/// Items of a list (RFC 9651).
struct Items<'t> {
    text: &'t mut String,
    is_first: bool,
}

impl<'t> Items<'t> {
    fn of(text: &'t mut String) -> Self {
        Self { text, is_first: true }
    }

    fn add(&mut self, pieces: &[&str]) {
        if !std::mem::take(&mut self.is_first) {
            self.text.push_str(", ");
        }
        for piece in pieces {
            self.text.push_str(piece);
        }
    }

    /// Never more than `burst + rate × t` pass in a time t. The burst is told as the quota, and as its window the time in
    /// which it fills up again.
    fn throttle_policy(&mut self, rate: RateLimit) {
        let (mut quota, mut window) = (itoa::Buffer::new(), itoa::Buffer::new());
        let seconds = rate.burst.div_ceil(rate.requests_per_second.max(1));
        self.add(&[THROTTLE, ";q=", quota.format(rate.burst), ";w=", window.format(seconds)]);
    }

    fn credits_policy(&mut self, limit: Limit) {
        let window = match limit.period {
            Period::Hour => ";w=3600",
            Period::Day => ";w=86400",
            Period::Month => ";w=2592000",
            Period::None => "",
        };
        self.add(&[CREDITS, ";q=", itoa::Buffer::new().format(limit.credits.0), window]);
    }

    fn left(&mut self, name: &str, left: u64, wait: Option<Duration>) {
        let (mut digits, mut seconds) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (mark, wait) = match wait {
            Some(wait) => (";t=", seconds.format(whole_seconds(wait).max(1))),
            None => ("", ""),
        };
        self.add(&[name, ";r=", digits.format(left), mark, wait]);
    }
}

#[cfg(test)]
mod tests {
    use pingora::http::ResponseHeader;

    use super::*;
    use crate::gate::reply::told;
    use crate::policy::{AccountId, Credits, Pool, TokenId, TokenKind};

    fn standing(limit: Option<&str>, remaining: Option<u64>, burst_left: Option<u32>) -> Standing {
        Standing {
            used: Credits(7),
            limit: limit.map(|text| Limit::parse(text).unwrap()),
            remaining: remaining.map(Credits),
            resets_in: limit.map(|_| Duration::from_millis(1500)),
            burst_left,
            at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn written(standing: &Standing, rate: Option<RateLimit>) -> [Option<String>; 2] {
        let mut response = ResponseHeader::build(200, None).unwrap();
        response.insert_header(POLICY, "the upstream's").unwrap();
        told::clear(&mut response);
        let mut fields = Told::default();
        tell(&mut fields, standing, rate);
        fields.put_into(&mut response).unwrap();
        let told = |name| response.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        [told(POLICY), told(LEFT)]
    }

    #[test]
    fn tells_one_item_for_each_limit_there_is() {
        let rate = |requests_per_second, burst| Some(RateLimit { requests_per_second, burst });
        // (limit, remaining, passes left, rate, policy, left)
        let table = [
            (None, None, None, None, None, None),
            (None, Some(9), None, None, None, None),
            (
                Some("10/day"),
                Some(3),
                None,
                None,
                Some(r#""credits";q=10;w=86400"#),
                Some(r#""credits";r=3;t=2"#),
            ),
            (
                None,
                None,
                Some(4),
                rate(50, 100),
                Some(r#""throttle";q=100;w=2"#),
                Some(r#""throttle";r=4;t=1"#),
            ),
            (
                None,
                None,
                Some(u32::MAX),
                rate(9, 5),
                Some(r#""throttle";q=5;w=1"#),
                Some(r#""throttle";r=5;t=1"#),
            ),
            (
                Some("10"),
                Some(3),
                Some(0),
                rate(1, 1),
                Some(r#""throttle";q=1;w=1, "credits";q=10"#),
                Some(r#""throttle";r=0;t=1, "credits";r=3;t=2"#),
            ),
        ];
        for (limit, remaining, passes, rate, policy, left) in table {
            let told = written(&standing(limit, remaining, passes), rate);
            assert_eq!(told, [policy.map(str::to_owned), left.map(str::to_owned)], "{limit:?} {rate:?}");
        }
    }

    #[test]
    fn a_refusal_tells_the_limit_that_decided_and_no_other() {
        let id = TokenId::from_ulid(ulid::Ulid(1));
        let account = AccountId::default_account();
        let mut policy = Policy::new(id, account, TokenKind::Publishable, jiff::Timestamp::UNIX_EPOCH);
        policy.rate_limit = Some(RateLimit { requests_per_second: 2, burst: 5 });
        policy.credit_limit.core = Some(Limit::parse("10/hour").unwrap());
        let wait = Duration::from_secs(3);
        let exhausted = |pool| Denial::CreditsExhausted { pool, retry_after: Some(wait) };
        let table = [
            (
                Denial::RateLimited { retry_after: wait },
                1,
                vec![r#""throttle";q=5;w=3"#, r#""throttle";r=0;t=3"#],
            ),
            (exhausted(Pool::Core), 1, vec![r#""credits";q=10;w=3600"#, r#""credits";r=0;t=3"#]),
            (exhausted(Pool::Core), 5, vec![r#""credits";q=10;w=3600"#]),
            (exhausted(Pool::Premium), 1, vec![]),
            (Denial::BudgetExhausted { pool: Pool::Core, retry_after: None }, 1, vec![]),
            (Denial::TokenInvalid, 1, vec![]),
        ];
        for (denial, cost, expected) in table {
            let told: Vec<_> =
                of_refusal(&denial, &policy, cost).into_iter().map(|(_, value)| value).collect();
            assert_eq!(told, expected, "{denial:?} {cost}");
        }
    }
}
