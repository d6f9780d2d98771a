//! How far up a picture goes, and which numbers stand beside it.

/// How many steps a scale has, about.
const STEPS: u64 = 4;

/// Even steps from 0 to above all values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scale {
    step: u64,
    top: u64,
}

impl Scale {
    /// The scale for values up to `most`.
    pub(super) fn of(most: u64) -> Self {
        let least = most.div_ceil(STEPS).max(1);
        let mut ten: u64 = 1;
        let step = loop {
            let next = [1, 2, 5].into_iter().map(|n| ten.saturating_mul(n)).find(|step| *step >= least);
            match (next, ten.checked_mul(10)) {
                (Some(step), _) => break step,
                (None, Some(more)) => ten = more,
                (None, None) => break least,
            }
        };
        Self { step, top: most.div_ceil(step).max(1).saturating_mul(step) }
    }

    /// The upper end.
    pub(super) fn top_as_f64(self) -> f64 {
        float(self.top)
    }

    /// The numbers beside it, from 0 up.
    pub(super) fn marks(self) -> impl Iterator<Item = u64> {
        (0..=self.top / self.step).map(move |n| n * self.step)
    }
}

/// For drawing; a pixel is much coarser than what is lost.
#[expect(clippy::cast_precision_loss, reason = "only positions in a picture are reckoned with it")]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}

/// The same for places in a row.
pub(super) fn fraction(at: usize) -> f64 {
    float(u64::try_from(at).unwrap_or(u64::MAX))
}

/// A round number in few characters: `1500` as `1.5k`.
pub(super) fn compact(number: u64) -> String {
    const UNITS: [(u64, &str); 5] = [
        (1_000_000_000_000_000, "P"),
        (1_000_000_000_000, "T"),
        (1_000_000_000, "G"),
        (1_000_000, "M"),
        (1_000, "k"),
    ];
    let Some((unit, name)) = UNITS.into_iter().find(|(unit, _)| number >= *unit) else {
        return number.to_string();
    };
    match number % unit / (unit / 10) {
        0 => format!("{}{name}", number / unit),
        tenths => format!("{}.{tenths}{name}", number / unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_reach_over_all_values() {
        let table = [
            (0, 1, 1),
            (1, 1, 1),
            (3, 1, 3),
            (4, 1, 4),
            (5, 2, 6),
            (99, 50, 100),
            (100, 50, 100),
            (101, 50, 150),
            (1_234, 500, 1_500),
            (70_000, 20_000, 80_000),
        ];
        for (most, step, top) in table {
            assert_eq!(Scale::of(most), Scale { step, top }, "{most}");
        }
        let marks = Scale::of(u64::MAX).marks().count();
        assert!(marks <= 6, "{marks}");
        assert_eq!(Scale::of(5).marks().collect::<Vec<_>>(), [0, 2, 4, 6]);
    }

    #[test]
    fn round_numbers_are_short() {
        let table = [
            (0, "0"),
            (999, "999"),
            (1_000, "1k"),
            (1_500, "1.5k"),
            (20_000, "20k"),
            (2_500_000, "2.5M"),
            (7_000_000_000, "7G"),
        ];
        for (number, text) in table {
            assert_eq!(compact(number), text);
        }
    }
}
