use proptest::prelude::*;

use super::*;

fn token(number: u128) -> TokenId {
    TokenId::from_ulid(ulid::Ulid::from(number))
}

fn key(name: &str, target: &str) -> Key {
    Key::parse(&[name.as_bytes()], &token(1), "POST", target).expect("a key")
}

fn memory(capacity: usize) -> Memory {
    Memory::new(Bounds { capacity, window: 100, repeats: 3 })
}

#[test]
fn a_retry_is_charged_once() {
    let (mut memory, key) = (memory(9), key("k", "/a"));
    assert_eq!(memory.open(key, 0), Ok(Opened::Unpaid));
    assert_eq!(memory.pay(key, 1), Payment::First);
    assert_eq!(memory.open(key, 2), Ok(Opened::Paid));
    assert_eq!(memory.open(key, 99), Ok(Opened::Paid));
    // The window is over: a new request.
    assert_eq!(memory.open(key, 100), Ok(Opened::Unpaid));
}

#[test]
fn a_refused_first_try_leaves_the_price_to_the_next() {
    let (mut memory, key) = (memory(9), key("k", "/a"));
    assert_eq!(memory.open(key, 0), Ok(Opened::Unpaid));
    assert_eq!(memory.open(key, 1), Ok(Opened::Unpaid));
    assert_eq!(memory.pay(key, 2), Payment::First);
    assert_eq!(memory.open(key, 3), Ok(Opened::Paid));
}

#[test]
fn of_concurrent_tries_the_first_to_be_answered_pays() {
    let (mut memory, key) = (memory(9), key("k", "/a"));
    for now in 0..5 {
        assert_eq!(memory.open(key, now), Ok(Opened::Unpaid));
    }
    assert_eq!(memory.pay(key, 5), Payment::First);
    for now in 6..10 {
        assert_eq!(memory.pay(key, now), Payment::Again);
    }
}

#[test]
fn a_key_is_one_requests_and_one_tokens() {
    let mut memory = memory(9);
    assert_eq!(memory.open(key("k", "/a"), 0), Ok(Opened::Unpaid));
    assert_eq!(memory.open(key("k", "/b"), 0), Err(Reused));
    let method = Key::parse(&[b"k"], &token(1), "PUT", "/a").expect("a key");
    assert_eq!(memory.open(method, 0), Err(Reused));
    assert_eq!(memory.open(key("\"k\"", "/b"), 0), Err(Reused));
    let other = Key::parse(&[b"k"], &token(2), "POST", "/b").expect("a key");
    assert_eq!(memory.open(other, 0), Ok(Opened::Unpaid));
    assert_eq!(Denial::from(Reused).code(), "idempotency_key_reused");
}

#[test]
fn no_key_pays_for_everything() {
    let (mut memory, key) = (memory(9), key("k", "/a"));
    let mut charged = 0;
    for now in 0..12 {
        if memory.open(key, now) == Ok(Opened::Unpaid) {
            assert_eq!(memory.pay(key, now), Payment::First);
            charged += 1;
        }
    }
    assert_eq!(charged, 3, "each fourth request pays");
}

#[test]
fn refuses_what_is_no_key() {
    let long = vec![b'a'; MAX_KEY + 1];
    let cases: [&[&[u8]]; 7] = [&[], &[b""], &[b"  "], &[b"\"\""], &[b"a", b"a"], &[b"a\x7f"], &[&long]];
    for values in cases {
        let told = Key::parse(values, &token(1), "POST", "/");
        assert_eq!(told, Err(Denial::IdempotencyKeyInvalid), "{values:?}");
    }
    assert!(Key::parse(&[&long[1..]], &token(1), "POST", "/").is_ok());
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Open(u8, u8),
    /// The n-th of those in flight is answered, well or not.
    Answer(usize, bool),
    Wait(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6u8, 0..2u8).prop_map(|(name, target)| Step::Open(name, target)),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(at, well)| Step::Answer(at, well)),
        1 => (0..60u8).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    /// Within one window and while it is remembered, a key is charged once; the memory stays within its bounds; and
    /// nothing is free that nobody paid for.
    #[test]
    fn charges_once_in_any_history(steps in steps(), capacity in 0..8usize) {
        let bounds = Bounds { capacity, window: 100, repeats: u32::MAX };
        let mut memory = Memory::new(bounds);
        let (mut now, mut flying) = (0, Vec::new());
        let mut paid: Vec<(u8, u8, Micros)> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(wait) => now += Micros::from(wait),
                Step::Open(name, target) => {
                    let key = key(&name.to_string(), &target.to_string());
                    let recently = |(n, t, at): &(u8, u8, Micros)| (*n, *t) == (name, target) && now - at < 200;
                    match memory.open(key, now) {
                        Ok(Opened::Unpaid) => flying.push((name, target)),
                        Ok(Opened::Paid) => assert!(paid.iter().any(recently), "free, and never paid for"),
                        Err(Reused) => {}
                    }
                }
                Step::Answer(at, well) => {
                    if flying.is_empty() {
                        continue;
                    }
                    let (name, target) = flying.swap_remove(at % flying.len());
                    let key = key(&name.to_string(), &target.to_string());
                    let first = well && memory.pay(key, now) == Payment::First;
                    // With room for all keys and within the shortest time a key can be kept, once is once. A key
                    // that both targets ever had is another matter: the one that was forgotten pays for itself.
                    if first {
                        paid.push((name, target, now));
                    }
                    if capacity > 0 && well {
                        let again = memory.open(key, now);
                        assert_ne!(again, Ok(Opened::Unpaid), "paid just now");
                    }
                }
            }
            assert!(memory.len() <= capacity);
            assert_eq!(memory.len(), memory.order.len());
        }
    }

    /// With room enough and no time passing, each key and target is paid for exactly once if any try went well.
    #[test]
    fn once_is_once(tries in proptest::collection::vec((0..5u8, any::<bool>(), any::<bool>()), 0..60)) {
        let mut memory = Memory::new(Bounds { capacity: 5, window: 100, repeats: u32::MAX });
        let mut charged = [0u32; 5];
        let mut well_answered = [false; 5];
        let mut late = Vec::new();
        for (name, well, is_late) in tries {
            let key = key(&name.to_string(), "/");
            let opened = memory.open(key, 7).expect("one request");
            well_answered[usize::from(name)] |= well;
            if opened == Opened::Unpaid && well {
                if is_late {
                    late.push((name, key));
                } else if memory.pay(key, 7) == Payment::First {
                    charged[usize::from(name)] += 1;
                }
            }
        }
        for (name, key) in late {
            charged[usize::from(name)] += u32::from(memory.pay(key, 7) == Payment::First);
        }
        for (charged, well) in charged.into_iter().zip(well_answered) {
            assert_eq!(charged, u32::from(well));
        }
    }
}
