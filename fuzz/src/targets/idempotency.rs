//! Any keys in any order: memory stays bounded, and one payment frees a bounded number of repeats.

use crate::ledger::idempotency::{Bounds, Key, MAX_KEY, Memory, Opened, Payment};
use crate::policy::TokenId;

const BOUNDS: Bounds = Bounds { capacity: 4, window: 50, repeats: 3 };

/// Checks one input: lines, each a step: what is done, a target and a key.
pub fn check(data: &[u8]) {
    let token = TokenId::parse("tok_01ARZ3NDEKTSV4RRFFQ69G5FAV").expect("an id");
    let mut memory = Memory::new(BOUNDS);
    let (mut now, mut paid, mut free) = (0, 0_u64, 0_u64);
    for line in data.split(|byte| *byte == b'\n') {
        let Some((&[step, target], key)) = line.split_first_chunk::<2>() else { continue };
        now += u64::from(step >> 2);
        let parsed = Key::parse(&[key], &token, "GET", &char::from(target).to_string());
        assert!(Key::parse(&[key, key], &token, "GET", "/").is_err(), "two keys");
        let Ok(parsed) = parsed else { continue };
        assert!(key.trim_ascii().len() <= MAX_KEY + 2, "a key that is too long");
        if step & 1 == 0 {
            if memory.open(parsed, now) == Ok(Opened::Paid) {
                free += 1;
            }
        } else if memory.pay(parsed, now) == Payment::First {
            paid += 1;
        }
        assert!(memory.len() <= BOUNDS.capacity);
        assert!(free <= paid * u64::from(BOUNDS.repeats), "{free} free repeats of {paid} payments");
    }
}
