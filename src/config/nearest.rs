//! The known word that a mistyped one most likely meant.

/// The candidate nearest to `word`, if one is near enough to be what was meant.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let far = (word.chars().count() / 3).max(1);
    let measured = candidates.into_iter().map(|candidate| (distance(word, candidate), candidate));
    measured.filter(|(distance, _)| *distance <= far).min_by_key(|(distance, _)| *distance).map(|(_, c)| c)
}

/// How many characters must be put in, taken out, changed or swapped with their neighbour to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // Rows of the usual table: for the prefix of `a` before the last one, and for the last one.
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (i, from) in a.chars().enumerate() {
        let mut row = vec![i + 1];
        let mut left = i + 1;
        for (j, to) in b.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
            let mut cost = (at(&last, j) + usize::from(from != *to)).min(at(&last, j + 1) + 1).min(left + 1);
            let swapped = j > 0 && previous == Some(*to) && b.get(j - 1) == Some(&from);
            if swapped {
                cost = cost.min(at(&before, j - 1) + 1);
            }
            row.push(cost);
            left = cost;
        }
        before = std::mem::replace(&mut last, row);
        previous = Some(from);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn counts_edits_between_words() {
        let cases = [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("route", "routes", 1),
            ("upstraems", "upstreams", 1),
            ("listners", "listeners", 1),
            ("kitten", "sitting", 3),
            ("größe", "grösse", 2),
        ];
        for (a, b, expected) in cases {
            assert_eq!(distance(a, b), expected, "{a} -> {b}");
        }
    }

    #[test]
    fn suggests_only_what_is_near() {
        let known = ["upstreams", "routes", "listeners"];
        assert_eq!(nearest("upstream", known), Some("upstreams"));
        assert_eq!(nearest("rotues", known), Some("routes"));
        assert_eq!(nearest("colour", known), None);
    }
}
