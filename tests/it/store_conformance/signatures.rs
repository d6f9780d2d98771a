//! Secrets that sign, and signatures that were used.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tollgate::policy::signature::{Fingerprint, SigningSecret};
use tollgate::policy::{AccountId, PerPool, Status, TokenId, TokenKind};
use tollgate::store::seal::{SealError, Sealer};
use tollgate::store::{Remembered, Retention, Sighting, StoreError, Written};

use super::bench::{Bench, a_note, account_id, new_id, new_value, next, sealer};

super::on_both![
    a_signing_secret_is_kept_sealed_and_read_back,
    a_signing_secret_needs_the_stored_version,
    a_signing_secret_outlives_an_edit_and_a_rotation,
    a_signing_secret_needs_a_master_key,
    the_secrets_of_an_account_are_its_usable_secret_tokens,
    a_former_secret_signs_in_its_grace,
    a_secret_that_cannot_be_opened_is_told_and_hides_no_others,
    a_signature_is_new_once,
    the_same_use_told_twice_is_one_use,
    exactly_one_of_many_uses_at_once_is_new,
    a_signature_is_remembered_for_its_life,
    a_full_memory_refuses_and_forgets_nothing,
    accounts_do_not_share_signatures,
    a_batch_may_hold_signatures_of_many_seconds,
];

pub fn new_secret() -> SigningSecret {
    SigningSecret::from_random((0xfade_u128 << 112 | u128::from(next())).to_be_bytes())
}

async fn put(bench: &Bench, id: &TokenId, version: u64, secret: &SigningSecret) -> Written {
    bench.store().put_signing_secret(&account_id(), id, version, secret, &a_note()).await.unwrap()
}

async fn a_signing_secret_is_kept_sealed_and_read_back(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, value) = bench.make_token(|_| ()).await;
    let (other, _) = bench.make_token(|_| ()).await;
    assert!(bench.store().signing_secret(&account_id(), &policy.id).await.unwrap().is_none());
    let [first, second] = [(); 2].map(|()| new_secret());
    assert_eq!(put(&bench, &policy.id, 1, &first).await, Written::Done { version: 2 });
    assert_eq!(put(&bench, &policy.id, 2, &second).await, Written::Done { version: 3 });
    bench.reopen(Some(sealer()));
    let kept = bench.store().signing_secret(&account_id(), &policy.id).await.unwrap();
    assert!(kept == Some(second.clone()), "the newer one");
    assert!(bench.store().signing_secret(&account_id(), &other.id).await.unwrap().is_none());
    assert_eq!(bench.store().find_token(&value.digest()).await.unwrap().unwrap().version, 3);

    let raw = bench.raw_token(&policy.id).await["signing"].clone();
    bench.spoil_token(&other.id, |fields| drop(fields.insert("signing".to_owned(), raw))).await;
    let moved = bench.store().signing_secret(&account_id(), &other.id).await;
    assert!(matches!(moved, Err(StoreError::Seal(SealError::WrongKey))), "bound to its token");
    let everything = bench.everything().await;
    for secret in [first, second] {
        let digits = &secret.expose()[3..];
        assert!(!everything.windows(digits.len()).any(|window| window == digits.as_bytes()));
    }
}

async fn a_signing_secret_needs_the_stored_version(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    assert_eq!(put(&bench, &policy.id, 2, &new_secret()).await, Written::Conflict { version: 1 });
    assert_eq!(put(&bench, &new_id(), 1, &new_secret()).await, Written::Missing);
    assert!(bench.store().signing_secret(&account_id(), &policy.id).await.unwrap().is_none());
    assert!(bench.store().signing_secret(&account_id(), &new_id()).await.unwrap().is_none());
    let before = bench.store().epoch(&account_id()).await.unwrap();
    put(&bench, &policy.id, 1, &new_secret()).await;
    assert_eq!(bench.store().epoch(&account_id()).await.unwrap(), before + 1, "nodes are told");
}

async fn a_signing_secret_outlives_an_edit_and_a_rotation(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let secret = new_secret();
    put(&bench, &policy.id, 1, &secret).await;
    bench.edit(&policy.id, |policy| policy.replay_protection = false).await;
    let value = new_value(TokenKind::Publishable);
    let rotated =
        bench.store().rotate_token(&account_id(), &policy.id, 3, &value, Duration::ZERO, &a_note()).await;
    assert_eq!(rotated.unwrap(), Written::Done { version: 4 });
    assert!(bench.store().signing_secret(&account_id(), &policy.id).await.unwrap() == Some(secret));
    assert!(!bench.store().find_token(&value.digest()).await.unwrap().unwrap().replay_protection);
}

async fn a_signing_secret_needs_a_master_key(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    put(&bench, &policy.id, 1, &new_secret()).await;
    for (sealer, expected) in
        [(None, SealError::NoMasterKey), (Some(Sealer::new(&[8; 32])), SealError::WrongKey)]
    {
        bench.reopen(sealer);
        let read = bench.store().signing_secret(&account_id(), &policy.id).await;
        assert!(matches!(read, Err(StoreError::Seal(found)) if found == expected), "{expected}");
    }
    bench.reopen(None);
    let refused =
        bench.store().put_signing_secret(&account_id(), &policy.id, 2, &new_secret(), &a_note()).await;
    assert!(matches!(refused, Err(StoreError::Seal(SealError::NoMasterKey))));
}

/// The ids and secrets of an account, as pairs of texts.
async fn secrets(bench: &Bench) -> Vec<(String, String)> {
    let all = bench.store().account_secrets(&account_id()).await.unwrap();
    assert_eq!(all.unopened, []);
    let pair = |found: &tollgate::store::AccountSecret| {
        (found.token_id.to_string(), found.secret.expose().to_owned())
    };
    all.secrets.iter().map(pair).collect()
}

async fn the_secrets_of_an_account_are_its_usable_secret_tokens(bench: Bench) {
    assert_eq!(secrets(&bench).await, []);
    let (first, first_value) = bench.make_account(PerPool::default()).await;
    bench.make_token(|policy| policy.nickname = r#""type":"secret""#.to_owned()).await;
    let pair = |id: &TokenId, value: &tollgate::policy::Token| (id.to_string(), value.expose().to_owned());
    assert_eq!(secrets(&bench).await, [pair(&first, &first_value)]);

    let (second, second_value) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    let both = [pair(&first, &first_value), pair(&second.id, &second_value)];
    assert_eq!(secrets(&bench).await, both);
    bench.edit(&second.id, |policy| policy.status = Status::Disabled).await;
    assert_eq!(secrets(&bench).await, both[..1]);
    let end = bench.now().checked_add(SignedDuration::from_secs(10)).unwrap();
    bench.edit(&second.id, |policy| (policy.status, policy.expires_at) = (Status::Active, Some(end))).await;
    let all = bench.store().account_secrets(&account_id()).await.unwrap();
    assert_eq!(all.secrets.iter().map(|found| found.until).collect::<Vec<_>>(), [None, Some(end)]);
    bench.set_time(end);
    assert_eq!(secrets(&bench).await, both[..1]);
    bench.edit(&first, |policy| policy.status = Status::Revoked).await;
    assert_eq!(secrets(&bench).await, []);
}

async fn a_former_secret_signs_in_its_grace(bench: Bench) {
    let (id, old) = bench.make_account(PerPool::default()).await;
    let new = new_value(TokenKind::Secret);
    let grace = Duration::from_mins(10);
    bench.store().rotate_token(&account_id(), &id, 1, &new, grace, &a_note()).await.unwrap();
    let [new, old] = [new, old].map(|value| value.expose().to_owned());
    let texts =
        async |bench: &Bench| secrets(bench).await.into_iter().map(|(_, secret)| secret).collect::<Vec<_>>();
    assert_eq!(texts(&bench).await, [new.clone(), old]);
    bench.pass(SignedDuration::from_mins(10));
    assert_eq!(texts(&bench).await, [new]);
}

async fn a_secret_that_cannot_be_opened_is_told_and_hides_no_others(mut bench: Bench) {
    let (first, _) = bench.make_account(PerPool::default()).await;
    let (spoilt, _) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    bench.spoil_token(&spoilt.id, |fields| drop(fields.insert("status".to_owned(), "?".to_owned()))).await;
    bench.reopen(None);
    let (keyless, _) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    let all = bench.store().account_secrets(&account_id()).await.unwrap();
    assert!(all.secrets.is_empty());
    assert_eq!(
        all.unopened,
        [(first.clone(), SealError::NoMasterKey), (keyless.id.clone(), SealError::NoMasterKey)]
    );
    bench.reopen(Some(sealer()));
    let all = bench.store().account_secrets(&account_id()).await.unwrap();
    assert_eq!(all.secrets.iter().map(|found| &found.token_id).collect::<Vec<_>>(), [&first]);
    assert_eq!(all.unopened, [(keyless.id, SealError::NotKept)]);
}

/// A use of the signature `n`, of the second that the bench's clock shows.
pub fn sighting(bench: &Bench, n: u64) -> Sighting {
    Sighting {
        fingerprint: Fingerprint((u128::from(n) * 0x9e37_79b9_7f4a_7c15).to_be_bytes()),
        dated: bench.now().as_second(),
        life: Duration::from_mins(6),
        nonce: u128::from(next()),
    }
}

async fn remember(bench: &Bench, sightings: &[Sighting]) -> Vec<Remembered> {
    bench.store().remember_signatures(&account_id(), sightings).await.unwrap()
}

async fn a_signature_is_new_once(mut bench: Bench) {
    use Remembered::{New, Seen};
    let uses: Vec<_> = [1, 2, 1, 3, 2, 1].map(|n| sighting(&bench, n)).into();
    assert_eq!(remember(&bench, &uses).await, [New, New, Seen, New, Seen, Seen], "within one call");
    let again: Vec<_> = [3, 4].map(|n| sighting(&bench, n)).into();
    assert_eq!(remember(&bench, &again).await, [Seen, New]);
    assert_eq!(remember(&bench, &[]).await, []);
    // And it is still known to the next run.
    bench.reopen(Some(sealer()));
    let later: Vec<_> = [1, 2, 3, 4, 5].map(|n| sighting(&bench, n)).into();
    let later: Vec<_> = later.into_iter().map(|use_| Sighting { dated: uses[0].dated, ..use_ }).collect();
    assert_eq!(remember(&bench, &later).await, [Seen, Seen, Seen, Seen, New]);
}

async fn the_same_use_told_twice_is_one_use(bench: Bench) {
    let first = sighting(&bench, 1);
    for _ in 0..3 {
        assert_eq!(remember(&bench, &[first, first]).await, [Remembered::New; 2]);
    }
    let other = Sighting { nonce: first.nonce + 1_000_000, ..first };
    assert_eq!(remember(&bench, &[other]).await, [Remembered::Seen]);
}

async fn exactly_one_of_many_uses_at_once_is_new(bench: Bench) {
    const SIGNATURES: u64 = 50;
    let use_all = |turn: u64| {
        let store = Arc::clone(bench.store());
        // Each caller has its own order and its own batches.
        let order: Vec<_> =
            (0..SIGNATURES).map(|n| sighting(&bench, (n * 7 + turn * 13) % SIGNATURES)).collect();
        tokio::spawn(async move {
            let mut new = Vec::new();
            for batch in order.chunks(1 + usize::try_from(turn % 5).unwrap()) {
                let answers = store.remember_signatures(&account_id(), batch).await.unwrap();
                let won = batch.iter().zip(answers).filter(|(_, answer)| *answer == Remembered::New);
                new.extend(won.map(|(sighting, _)| sighting.fingerprint));
            }
            new
        })
    };
    let mut new = Vec::new();
    for task in (0..16).map(use_all).collect::<Vec<_>>() {
        new.extend(task.await.unwrap());
    }
    assert_eq!(new.len() as u64, SIGNATURES);
    assert_eq!(new.into_iter().collect::<BTreeSet<_>>().len() as u64, SIGNATURES);
}

async fn a_signature_is_remembered_for_its_life(mut bench: Bench) {
    let first = sighting(&bench, 1);
    assert_eq!(remember(&bench, &[first]).await, [Remembered::New]);
    bench.pass(SignedDuration::from_mins(6).saturating_sub(SignedDuration::from_micros(1)));
    bench.reopen(Some(sealer()));
    let again =
        |bench: &Bench| Sighting { nonce: u128::from(next()), dated: first.dated, ..sighting(bench, 1) };
    let (at, life) = (first.dated, Duration::from_mins(6));
    assert_eq!(remember(&bench, &[again(&bench)]).await, [Remembered::Seen], "{at} {life:?}");
    // A second may be given on top, no more.
    bench.pass(SignedDuration::from_secs(2));
    assert_eq!(remember(&bench, &[again(&bench)]).await, [Remembered::New]);
}

async fn a_full_memory_refuses_and_forgets_nothing(mut bench: Bench) {
    bench.keep_for(Retention { signatures: 160, ..Retention::default() });
    let uses: Vec<_> = (0..400).map(|n| sighting(&bench, n)).collect();
    let mut answers = Vec::new();
    for batch in uses.chunks(7) {
        answers.extend(remember(&bench, batch).await);
    }
    let new: Vec<_> = uses
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| **answer == Remembered::New)
        .map(|(use_, _)| *use_)
        .collect();
    assert!((10..=160).contains(&new.len()), "{}", new.len());
    assert_eq!(answers.iter().filter(|answer| **answer == Remembered::Full).count(), 400 - new.len());
    // What is remembered stays so, and what is not is refused again.
    let again = |use_: &Sighting| Sighting { nonce: use_.nonce + 1_000_000, ..*use_ };
    let seen = remember(&bench, &new.iter().map(again).collect::<Vec<_>>()).await;
    assert!(seen.iter().all(|answer| *answer == Remembered::Seen));
    assert_eq!(remember(&bench, &[again(&uses[399])]).await, [Remembered::Full]);
    // There is room again when they are over.
    bench.pass(SignedDuration::from_mins(7));
    assert_eq!(remember(&bench, &[sighting(&bench, 1000)]).await, [Remembered::New]);
}

async fn accounts_do_not_share_signatures(bench: Bench) {
    let other = AccountId::parse("other").unwrap();
    let first = sighting(&bench, 1);
    assert_eq!(remember(&bench, &[first]).await, [Remembered::New]);
    let elsewhere = Sighting { nonce: u128::from(next()), ..first };
    let answers = bench.store().remember_signatures(&other, &[elsewhere]).await.unwrap();
    assert_eq!(answers, [Remembered::New]);
}

async fn a_batch_may_hold_signatures_of_many_seconds(bench: Bench) {
    let dated = |n: u64, second: i64| Sighting {
        dated: bench.now().as_second() - 300 + second,
        ..sighting(&bench, n)
    };
    let batch: Vec<_> = (0..500).map(|n| dated(n, i64::try_from(n * 37 % 600).unwrap())).collect();
    assert!(remember(&bench, &batch).await.iter().all(|answer| *answer == Remembered::New));
    let again: Vec<_> =
        batch.iter().rev().map(|use_| Sighting { nonce: use_.nonce + 1_000_000, ..*use_ }).collect();
    assert!(remember(&bench, &again).await.iter().all(|answer| *answer == Remembered::Seen));
}
