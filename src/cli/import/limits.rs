//! Limits of other gateways, as Tollgate has them: a rate by the second, and credits by the hour, day or month.
//!
//! No limit is dropped: one that fits none of them becomes the nearest that is about as strict in the long run, and that is told.
//! A count in less than an hour is a rate: rounded up to whole requests a second, with the whole count as burst. One in an
//! hour or more is credits, where each request costs one.

use serde_json::{Value, json};

/// Periods, longest first: their names and seconds.
const PERIODS: [(&str, f64); 3] = [("month", 30.0 * DAY), ("day", DAY), ("hour", 3600.0)];
const DAY: f64 = 86_400.0;
/// The longest a month can be.
const LONGEST_MONTH: f64 = 31.0 * DAY;
/// The highest rate and burst.
const MOST_RATE: f64 = 1_000_000.0;
/// More credits than this are no limit that anybody means.
const MOST_CREDITS: f64 = 9_007_199_254_740_991.0;

/// The limits of one token.
#[derive(Debug, Default)]
pub(super) struct Limits {
    rate: Option<(u64, u64)>,
    credits: Option<(u64, &'static str)>,
}

impl Limits {
    /// So many requests in so many seconds; `what` is its name in the file.
    pub(super) fn add(&mut self, count: f64, seconds: f64, what: &str, warnings: &mut Vec<String>) {
        let sound = count.is_finite() && seconds.is_finite() && count > 0.0 && seconds > 0.0;
        if !sound {
            warnings.push(format!("{what}: {count} in {seconds} s is no limit; it is left out"));
        } else if seconds < 3600.0 {
            self.add_rate(count, seconds, what, warnings);
        } else {
            self.add_credits(count, seconds, what, warnings);
        }
    }

    fn add_rate(&mut self, count: f64, seconds: f64, what: &str, warnings: &mut Vec<String>) {
        let exact = count / seconds;
        let rate = whole(exact, MOST_RATE);
        if !is_same(exact, rate) || seconds > 1.0 {
            warnings.push(format!("{what}: {count} in {seconds} s becomes {rate}/s with a burst of {count}"));
        }
        self.set_rate(rate, whole(count, MOST_RATE), what, warnings);
    }

    /// A rate and a burst; of two rates the lower one stays.
    pub(super) fn set_rate(&mut self, rate: u64, burst: u64, what: &str, warnings: &mut Vec<String>) {
        let new = (rate.max(1), burst.max(1));
        match self.rate {
            None => self.rate = Some(new),
            Some(old) => {
                let kept = old.min(new);
                warnings.push(format!("{what}: a token has one rate; {}/s stays", kept.0));
                self.rate = Some(kept);
            }
        }
    }

    /// So many requests may come at once, if there is a rate.
    pub(super) fn widen(&mut self, burst: f64) {
        if let Some((_, old)) = &mut self.rate {
            *old = whole(burst, MOST_RATE).max(*old);
        }
    }

    fn add_credits(&mut self, count: f64, seconds: f64, what: &str, warnings: &mut Vec<String>) {
        let fits = PERIODS.into_iter().find(|(_, period)| *period <= seconds);
        let (name, period) = fits.unwrap_or(("hour", 3600.0));
        let exact = is_same_time(seconds, period) || (name == "month" && seconds <= LONGEST_MONTH);
        let credits = whole(if exact { count } else { count * period / seconds }, MOST_CREDITS);
        if !exact {
            warnings.push(format!("{what}: {count} in {seconds} s becomes {credits} credits a {name}"));
        }
        self.set_credits(credits, name, what, warnings);
    }

    /// Credits in a period; of two the one of the longer period stays.
    pub(super) fn set_credits(
        &mut self,
        credits: u64,
        period: &'static str,
        what: &str,
        warnings: &mut Vec<String>,
    ) {
        let place = |name: &str| PERIODS.iter().position(|(period, _)| *period == name);
        match self.credits {
            None => self.credits = Some((credits, period)),
            Some(old) => {
                let kept = if place(period) < place(old.1) { (credits, period) } else { old };
                warnings
                    .push(format!("{what}: a token has one limit of credits; {} a {} stays", kept.0, kept.1));
                self.credits = Some(kept);
            }
        }
    }

    /// As the API has them. What there is none of is said to be none.
    pub(super) fn fields(&self) -> [(&'static str, Value); 2] {
        let rate = self.rate.map(|(rate, burst)| json!({"requests_per_second": rate, "burst": burst}));
        let core = self.credits.map(|(credits, period)| json!({"credits": credits, "period": period}));
        [
            ("rate_limit", rate.unwrap_or_default()),
            ("credit_limit", json!({"core": core.unwrap_or_default(), "premium": null})),
        ]
    }
}

/// Rounded up, at least 1 and at most `most`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and within bounds")]
fn whole(number: f64, most: f64) -> u64 {
    number.ceil().clamp(1.0, most) as u64
}

#[expect(clippy::cast_precision_loss, reason = "rates are small")]
fn is_same(exact: f64, whole: u64) -> bool {
    (exact - whole as f64).abs() < 1e-9
}

fn is_same_time(a: f64, b: f64) -> bool {
    (a - b).abs() < 0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(windows: &[(f64, f64)]) -> (Value, Value, usize) {
        let (mut limits, mut warnings) = (Limits::default(), Vec::new());
        for (count, seconds) in windows {
            limits.add(*count, *seconds, "limit", &mut warnings);
        }
        let [(_, rate), (_, credits)] = limits.fields();
        (rate, credits["core"].clone(), warnings.len())
    }

    fn rate(rate: u64, burst: u64) -> Value {
        json!({"requests_per_second": rate, "burst": burst})
    }

    fn credits(credits: u64, period: &str) -> Value {
        json!({"credits": credits, "period": period})
    }

    #[test]
    fn every_window_becomes_a_limit_and_what_is_not_exact_is_told() {
        for (windows, expected) in [
            (vec![(5.0, 1.0)], (rate(5, 5), Value::Null, 0)),
            (vec![(0.5, 1.0)], (rate(1, 1), Value::Null, 1)),
            (vec![(90.0, 60.0)], (rate(2, 90), Value::Null, 1)),
            (vec![(100.0, 3600.0)], (Value::Null, credits(100, "hour"), 0)),
            (vec![(100.0, 86_400.0)], (Value::Null, credits(100, "day"), 0)),
            (vec![(100.0, 2_592_000.0)], (Value::Null, credits(100, "month"), 0)),
            (vec![(100.0, 2_678_400.0)], (Value::Null, credits(100, "month"), 0)),
            (vec![(700.0, 604_800.0)], (Value::Null, credits(100, "day"), 1)),
            (vec![(1200.0, 31_536_000.0)], (Value::Null, credits(99, "month"), 1)),
            (vec![(5.0, 1.0), (1000.0, 86_400.0), (9.0, 3600.0)], (rate(5, 5), credits(1000, "day"), 1)),
            (vec![(5.0, 1.0), (60.0, 60.0)], (rate(1, 60), Value::Null, 2)),
            (vec![(0.0, 1.0), (1.0, 0.0), (f64::NAN, 1.0)], (Value::Null, Value::Null, 3)),
        ] {
            assert_eq!(of(&windows), expected, "{windows:?}");
        }
    }
}
