//! Credits, pools, periods, limits, rates and prices: the quantities of a policy.
//!
//! Owns their units and their text forms (`100000/month`, `50/s`). Counting is the ledger's. What a request and its
//! response cost is [`Price`]'s; what a response holds is counted by [`super::tally`].

use std::fmt;

mod price;

pub use price::{BadPrice, Form, Hold, KILOBYTE, Price, Rates, Rest, Seen};

/// The largest number of credits a limit or a cost may have: 2^53 - 1. Redis scripts count in doubles, which are
/// exact up to here.
pub const MAX_CREDITS: u64 = 9_007_199_254_740_991;

/// A number of credits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Credits(pub u64);

impl fmt::Display for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which purse a route draws on (`policy.md`, "Credits"): core and dataset routes `core`, premium routes `premium`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pool {
    /// Core and dataset routes.
    Core,
    /// Premium routes.
    Premium,
}

impl Pool {
    /// Both pools, in the order they are shown.
    pub const ALL: [Self; 2] = [Self::Core, Self::Premium];

    /// The pool's name in records, metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Premium => "premium",
        }
    }
}

/// One value for each pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerPool<T> {
    /// For [`Pool::Core`].
    pub core: T,
    /// For [`Pool::Premium`].
    pub premium: T,
}

impl<T> PerPool<T> {
    /// The value for one pool.
    pub fn get(&self, pool: Pool) -> &T {
        match pool {
            Pool::Core => &self.core,
            Pool::Premium => &self.premium,
        }
    }

    /// The value for one pool, to change it.
    pub fn get_mut(&mut self, pool: Pool) -> &mut T {
        match pool {
            Pool::Core => &mut self.core,
            Pool::Premium => &mut self.premium,
        }
    }
}

/// The stretch of time after which a counter starts anew: UTC, by the calendar (`ledger.md`, "Terms").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// From hh:00:00 to the next.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first of the month to the first of the next.
    Month,
    /// Never starts anew.
    None,
}

impl Period {
    /// All periods, shortest first.
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Month, Self::None];

    /// The period's name in records and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::None => "none",
        }
    }

    /// Reads the period's name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.as_str() == text)
    }
}

/// Credits that may be used in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How many; at most [`MAX_CREDITS`].
    pub credits: Credits,
    /// In which stretch of time.
    pub period: Period,
}

/// Why a limit's text is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLimit {
    /// The part before the slash is not a number that fits.
    #[error("`{0}` is not a number of credits from 0 to {MAX_CREDITS}")]
    Credits(String),
    /// The part after the slash is not a period.
    #[error("`{0}` is not a period; use hour, day, month or none")]
    Period(String),
}

impl Limit {
    /// Reads `100000/month`; without a period, `100000` means "ever" (`none`).
    pub fn parse(text: &str) -> Result<Self, BadLimit> {
        let (credits, period) = text.split_once('/').unwrap_or((text, "none"));
        let number = credits.parse().ok().filter(|n| *n <= MAX_CREDITS);
        let number = number.ok_or_else(|| BadLimit::Credits(credits.to_owned()))?;
        let period = Period::parse(period).ok_or_else(|| BadLimit::Period(period.to_owned()))?;
        Ok(Self { credits: Credits(number), period })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.period {
            Period::None => self.credits.fmt(f),
            period => write!(f, "{}/{}", self.credits, period.as_str()),
        }
    }
}

/// The largest rate and burst, in requests.
pub const MAX_RATE: u32 = 1_000_000;

/// A throttle: never more than `burst + rate × t` requests in any window of length t (`ledger.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests per second, 1 to [`MAX_RATE`].
    pub requests_per_second: u32,
    /// Requests that may come at once, 1 to [`MAX_RATE`].
    pub burst: u32,
}

/// Why a rate's text is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a rate; use N/s with N from 1 to {MAX_RATE}")]
pub struct BadRate(String);

impl RateLimit {
    /// Reads `50/s`. The burst is then the rate.
    pub fn parse(text: &str) -> Result<Self, BadRate> {
        let rate = text.strip_suffix("/s").and_then(|n| n.parse().ok());
        let rate = rate.filter(|n| (1..=MAX_RATE).contains(n)).ok_or_else(|| BadRate(text.to_owned()))?;
        Ok(Self { requests_per_second: rate, burst: rate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_read_back_as_they_are_written() {
        for text in ["0/hour", "5/day", "100000/month", "7", "9007199254740991/month"] {
            assert_eq!(Limit::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Limit::parse("7/none").unwrap(), Limit::parse("7").unwrap());
    }

    #[test]
    fn refuses_limits_and_rates_that_are_none() {
        for text in ["", "x", "-1/day", "1/week", "1/", "/day", "9007199254740992", "1.5/day", "1/day/day"] {
            assert!(Limit::parse(text).is_err(), "{text}");
        }
        for text in ["", "50", "0/s", "50/m", "-1/s", "1000001/s", "5 /s"] {
            assert!(RateLimit::parse(text).is_err(), "{text}");
        }
    }
}
