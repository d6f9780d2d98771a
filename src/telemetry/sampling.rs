//! Which requests get a line in the access log.

use std::time::Duration;

/// What is written where not everything is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogSampling {
    /// The part of requests that get a line, 0 to 1.
    pub part: f64,
    /// Each refused request gets one.
    pub refused: bool,
    /// Each request that failed gets one: a status of 500 and above, or no response at all.
    pub errors: bool,
    /// Each request that took longer gets one.
    pub slow: Option<Duration>,
}

/// A request that has ended, as far as sampling asks.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Decides whether it is in the part: the same wherever the same request or trace is logged.
    pub key: u64,
    /// Whether the gate refused it.
    pub refused: bool,
    /// Whether it failed.
    pub failed: bool,
    /// How long it took.
    pub took: Duration,
}

impl LogSampling {
    /// For which part of all requests like it the line stands: 1 for those that always get one. `None`: no line.
    pub(super) fn choose(&self, ended: &Ended) -> Option<f64> {
        let always = (self.refused && ended.refused)
            || (self.errors && ended.failed)
            || self.slow.is_some_and(|slow| ended.took >= slow);
        if always {
            return Some(1.0);
        }
        #[expect(clippy::cast_precision_loss, reason = "a part of one, to 53 bits")]
        let place = (mix(ended.key) >> 11) as f64 / (1_u64 << 53) as f64;
        (place < self.part).then_some(self.part)
    }
}

/// Spreads a key over all 64 bits (the last step of SplitMix64): keys hold the time, too.
fn mix(key: u64) -> u64 {
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(key: u64) -> Ended {
        Ended { key, refused: false, failed: false, took: Duration::ZERO }
    }

    #[test]
    fn lines_times_what_they_stand_for_is_how_many_requests_there_were() {
        for part in [0.0, 0.01, 0.25, 1.0] {
            let sampling = LogSampling { part, refused: true, errors: true, slow: None };
            let lines: Vec<f64> = (0..100_000).filter_map(|key| sampling.choose(&ended(key))).collect();
            let requests: f64 = lines.iter().map(|part| 1.0 / part).sum();
            assert!(part == 0.0 || (95_000.0..105_000.0).contains(&requests), "{part}: {requests}");
            assert!(part > 0.0 || lines.is_empty());
        }
    }

    #[test]
    fn the_same_key_is_chosen_the_same_way() {
        let sampling = LogSampling { part: 0.5, refused: false, errors: false, slow: None };
        for key in 0..100 {
            assert_eq!(sampling.choose(&ended(key)), sampling.choose(&ended(key)));
        }
    }

    #[test]
    fn what_always_gets_a_line_stands_for_itself() {
        let sampling =
            LogSampling { part: 0.0, refused: true, errors: true, slow: Some(Duration::from_secs(1)) };
        let table = [
            (Ended { refused: true, ..ended(1) }, Some(1.0)),
            (Ended { failed: true, ..ended(1) }, Some(1.0)),
            (Ended { took: Duration::from_secs(1), ..ended(1) }, Some(1.0)),
            (Ended { took: Duration::from_millis(999), ..ended(1) }, None),
        ];
        for (ended, expected) in table {
            assert_eq!(sampling.choose(&ended), expected, "{ended:?}");
        }
        let none = LogSampling { part: 0.0, refused: false, errors: false, slow: None };
        assert_eq!(none.choose(&Ended { refused: true, failed: true, ..ended(1) }), None);
    }
}
