//! Random numbers that come again with the same seed (splitmix64), and Zipf's law.

/// A generator.
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A number from nought to below one.
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The shares of `count` tokens by Zipf's law with exponent one, summed up.
pub fn zipf(count: u32) -> Vec<f64> {
    let whole: f64 = (1..=count).map(|rank| 1.0 / f64::from(rank)).sum();
    let mut upto = 0.0;
    (1..=count)
        .map(|rank| {
            upto += 1.0 / f64::from(rank) / whole;
            upto
        })
        .collect()
}
