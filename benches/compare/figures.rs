//! Several measurements of one thing: least, middle and most.

use std::time::Duration;

use serde::Serialize;

/// The least, the median and the most of several measurements.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
    /// All of them, round by round.
    pub(crate) rounds: Vec<f64>,
}

impl Spread {
    /// Of these; all zero if there are none.
    pub(crate) fn of(rounds: impl IntoIterator<Item = f64>) -> Self {
        let rounds: Vec<f64> = rounds.into_iter().collect();
        let mut sorted = rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        let last = sorted.len().saturating_sub(1);
        let median = f64::midpoint(at(last / 2), at(last.div_ceil(2)));
        Self { min: at(0), median, max: at(last), rounds }
    }

    /// This over another, round by round: what slowed a whole round down falls out.
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self::of(self.rounds.iter().zip(&other.rounds).map(|(own, other)| own / other))
    }
}

/// What lies at this share of sorted durations, in microseconds; 0 if there are none.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index, and never negative"
    )]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
}
