use std::sync::atomic::AtomicUsize;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::*;
use crate::policy::signature::{Checked, Claim, DATE_HEADER, RawRequest, SignatureBody, SigningSecret, sign};
use crate::policy::{Token, TokenKind};

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

/// A signature that is right; each `n` has its own.
pub(in crate::gate) fn verified(n: usize) -> Verified {
    let token = Token::from_random(TokenKind::Publishable, [1; 16]);
    let secret = SigningSecret::from_random([2; 16]);
    let target = format!("/{n}");
    let signing = sign("GET", target.as_bytes(), "h", b"", token.expose(), &secret, now()).unwrap();
    assert_eq!(DATE_HEADER, "x-iex-date");
    let request = RawRequest {
        method: "GET",
        target: target.as_bytes(),
        host: Some(b"h"),
        authorization: &[signing.authorization.as_bytes()],
        dates: &[signing.date.as_bytes()],
    };
    let claim = Claim::read(&request, &token, now(), Duration::from_mins(5)).unwrap();
    match claim.check([&secret], SignatureBody::Strict, false).unwrap() {
        Checked::Verified(verified) => verified,
        Checked::Pending(_) => panic!("there is no body"),
    }
}

/// A store that remembers all it is told, and answers when it is let.
#[derive(Default)]
struct Fake {
    calls: AtomicUsize,
    largest: AtomicUsize,
    seen: Mutex<std::collections::HashSet<[u8; 16]>>,
    lives: Mutex<Vec<Duration>>,
    nonces: Mutex<std::collections::HashSet<u128>>,
}

fn replay(fake: &Arc<Fake>, gate: &Arc<Semaphore>, patience: Duration) -> Arc<Replay> {
    let (fake, gate) = (fake.clone(), gate.clone());
    let ask = move |_: AccountId, sightings: Vec<Sighting>| -> Asked {
        let (fake, gate) = (fake.clone(), gate.clone());
        Box::pin(async move {
            fake.calls.fetch_add(1, Ordering::SeqCst);
            fake.largest.fetch_max(sightings.len(), Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            let remember = |sighting: &Sighting| {
                fake.lives.lock().push(sighting.life);
                assert!(fake.nonces.lock().insert(sighting.nonce), "each use has its name");
                let new = fake.seen.lock().insert(sighting.fingerprint.0);
                if new { Remembered::New } else { Remembered::Seen }
            };
            Ok(sightings.iter().map(remember).collect())
        })
    };
    Replay::asking(Box::new(ask), patience, GATHER, Handle::current())
}

/// How many wait, and how many calls are under way.
fn extent(replay: &Replay) -> (usize, usize) {
    replay.shared.extent(&AccountId::default_account())
}

const LONG: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_lone_check_goes_out_at_once_and_a_repetition_is_refused() {
    let fake = Arc::new(Fake::default());
    let replay = replay(&fake, &Arc::new(Semaphore::new(100)), LONG);
    let account = AccountId::default_account();
    assert_eq!(replay.check(&account, &verified(1), now()).await, Ok(()));
    assert_eq!(replay.check(&account, &verified(1), now()).await, Err(Denial::SignatureReplayed));
    assert_eq!(replay.check(&account, &verified(2), now()).await, Ok(()));
    assert_eq!(fake.calls.load(Ordering::SeqCst), 3);
    // Five minutes that it is good for, and one for clocks that differ.
    assert_eq!(*fake.lives.lock(), [Duration::from_mins(6); 3]);
    let later = now().checked_add(jiff::SignedDuration::from_mins(10)).unwrap();
    assert_eq!(replay.check(&account, &verified(3), later).await, Ok(()));
    assert_eq!(fake.lives.lock().last(), Some(&CLOCKS));
}

#[tokio::test]
async fn checks_that_come_together_share_calls_and_one_copy_of_each_passes() {
    const SIGNATURES: usize = 300;
    const COPIES: usize = 5;
    let (fake, gate) = (Arc::new(Fake::default()), Arc::new(Semaphore::new(0)));
    let replay = replay(&fake, &gate, LONG);
    let signatures: Vec<_> = (0..SIGNATURES).map(verified).collect();
    let mut checks = Vec::new();
    for _ in 0..COPIES {
        for signature in &signatures {
            let (replay, signature) = (replay.clone(), signature.clone());
            checks.push(tokio::spawn(async move {
                replay.check(&AccountId::default_account(), &signature, now()).await
            }));
        }
    }
    // All calls are under way, and hold what came first; the rest gathers meanwhile.
    while fake.calls.load(Ordering::SeqCst) < FLIGHTS || extent(&replay).0 < BATCH {
        tokio::task::yield_now().await;
    }
    gate.add_permits(10_000);
    let (mut passed, mut replayed) = (0, 0);
    for check in checks {
        match check.await.unwrap() {
            Ok(()) => passed += 1,
            Err(Denial::SignatureReplayed) => replayed += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((passed, replayed), (SIGNATURES, SIGNATURES * (COPIES - 1)));
    let calls = fake.calls.load(Ordering::SeqCst);
    assert!(calls <= FLIGHTS + SIGNATURES * COPIES / BATCH + FLIGHTS, "{calls} calls");
    assert_eq!(fake.largest.load(Ordering::SeqCst), BATCH);
    // One that was shared waits a moment for more before it ends.
    let ended = async {
        while extent(&replay).1 > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LONG, ended).await.expect("all calls end");
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_told_as_such_and_uses_nothing_up() {
    let (fake, gate) = (Arc::new(Fake::default()), Arc::new(Semaphore::new(0)));
    let replay = replay(&fake, &gate, Duration::from_millis(20));
    let account = AccountId::default_account();
    // These hold all calls, each begun since the one before is late; the one behind them waits in vain.
    for n in 0..=FLIGHTS {
        assert_eq!(replay.check(&account, &verified(n), now()).await, Err(Denial::StoreUnavailable));
    }
    gate.add_permits(10_000);
    while extent(&replay).1 > 0 {
        tokio::task::yield_now().await;
    }
    // What never reached the store may be sent again; what did may not.
    assert_eq!(replay.check(&account, &verified(FLIGHTS), now()).await, Ok(()));
    assert_eq!(replay.check(&account, &verified(0), now()).await, Err(Denial::SignatureReplayed));
}

#[tokio::test]
async fn refusals_of_the_store_reach_everybody_in_the_call() {
    for (answer, expected) in [
        (Ok(Remembered::Full), Denial::ReplayMemoryFull),
        (Err(Denial::StoreUnavailable), Denial::StoreUnavailable),
    ] {
        let ask = move |_: AccountId, sightings: Vec<Sighting>| -> Asked {
            let answers = answer.clone().map(|answer| vec![answer; sightings.len()]);
            Box::pin(async move { answers })
        };
        let replay = Replay::asking(Box::new(ask), LONG, GATHER, Handle::current());
        let (account, first, second) = (AccountId::default_account(), verified(1), verified(2));
        let both =
            tokio::join!(replay.check(&account, &first, now()), replay.check(&account, &second, now()));
        assert_eq!(both, (Err(expected.clone()), Err(expected)));
    }
}

#[tokio::test]
async fn after_a_shared_call_checks_gather_for_the_next_one() {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let told = sizes.clone();
    let ask = move |_: AccountId, sightings: Vec<Sighting>| -> Asked {
        told.lock().push(sightings.len());
        Box::pin(async move { Ok(vec![Remembered::New; sightings.len()]) })
    };
    let replay = Replay::asking(Box::new(ask), LONG, Duration::from_millis(300), Handle::current());
    let account = AccountId::default_account();
    let signatures: Vec<_> = (0..5).map(verified).collect();
    let check = async |n: usize, after: u32| {
        for _ in 0..after {
            tokio::task::yield_now().await;
        }
        replay.check(&account, &signatures[n], now()).await
    };
    assert_eq!(tokio::join!(check(0, 0), check(1, 0)), (Ok(()), Ok(())));
    // They come one after the other, each long after a call could have been made.
    assert_eq!(tokio::join!(check(2, 10), check(3, 20), check(4, 30)), (Ok(()), Ok(()), Ok(())));
    assert_eq!(*sizes.lock(), [2, 3]);
}
