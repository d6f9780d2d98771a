//! Token values: rotated, sealed, revealed, and never in the clear where they are secret.

use std::time::Duration;

use jiff::SignedDuration;
use tollgate::policy::{PerPool, TokenKind};
use tollgate::store::seal::{SealError, Sealer};
use tollgate::store::{KeptValue, StoreError, Written};

use super::bench::{Bench, a_note, account_id, new_value, sealer};

super::on_both![
    an_old_value_works_for_its_grace_and_no_longer,
    without_grace_an_old_value_ends_at_once,
    each_former_value_keeps_its_own_grace,
    a_value_can_be_rotated_back_to,
    a_rotation_needs_the_stored_version,
    one_of_many_rotations_wins,
    a_rotation_takes_the_mark_of_a_leak_away,
    reveals_values_with_the_right_key_only,
    secret_values_are_nowhere_in_the_clear,
    a_sealed_value_moved_to_another_record_does_not_open,
];

const HOUR: Duration = Duration::from_hours(1);

async fn an_old_value_works_for_its_grace_and_no_longer(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    for kind in [TokenKind::Publishable, TokenKind::Secret] {
        let (policy, old) = bench.make_token_of(kind, |_| ()).await;
        let store = bench.store();
        let new = new_value(kind);
        let written = store.rotate_token(&account_id(), &policy.id, 1, &new, HOUR, &a_note()).await.unwrap();
        assert_eq!(written, Written::Done { version: 2 });
        for value in [&old, &new] {
            let found = store.find_token(&value.digest()).await.unwrap().unwrap();
            assert_eq!((found.id, found.version), (policy.id.clone(), 2));
        }
        assert!(store.reveal_token(&account_id(), &policy.id).await.unwrap() == Some(new.clone()));
        bench.pass(SignedDuration::from_micros(3_599_999_999));
        assert!(store.find_token(&old.digest()).await.unwrap().is_some());
        bench.pass(SignedDuration::from_micros(1));
        assert!(store.find_token(&old.digest()).await.unwrap().is_none());
        assert!(store.find_token(&new.digest()).await.unwrap().is_some());
    }
}

async fn without_grace_an_old_value_ends_at_once(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, old) = bench.make_token(|_| ()).await;
    let new = new_value(TokenKind::Publishable);
    bench.store().rotate_token(&account_id(), &policy.id, 1, &new, Duration::ZERO, &a_note()).await.unwrap();
    assert!(bench.store().find_token(&old.digest()).await.unwrap().is_none());
    assert!(bench.store().find_token(&new.digest()).await.unwrap().is_some());
    let kept = bench.store().get_token(&account_id(), &policy.id).await.unwrap().unwrap();
    assert!(matches!(kept.value, KeptValue::Clear(value) if value == new));
}

async fn each_former_value_keeps_its_own_grace(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, first) = bench.make_token(|_| ()).await;
    let [second, third] = [(); 2].map(|()| new_value(TokenKind::Publishable));
    let store = bench.store();
    store.rotate_token(&account_id(), &policy.id, 1, &second, 3 * HOUR, &a_note()).await.unwrap();
    store.rotate_token(&account_id(), &policy.id, 2, &third, HOUR, &a_note()).await.unwrap();
    let alive = async |bench: &Bench| {
        let mut alive = Vec::new();
        for value in [&first, &second, &third] {
            alive.push(bench.store().find_token(&value.digest()).await.unwrap().is_some());
        }
        alive
    };
    assert_eq!(alive(&bench).await, [true, true, true]);
    bench.pass(SignedDuration::from_hours(1));
    assert_eq!(alive(&bench).await, [true, false, true]);
    bench.pass(SignedDuration::from_hours(2));
    assert_eq!(alive(&bench).await, [false, false, true]);
}

async fn a_value_can_be_rotated_back_to(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, first) = bench.make_token(|_| ()).await;
    let second = new_value(TokenKind::Publishable);
    let store = bench.store();
    store.rotate_token(&account_id(), &policy.id, 1, &second, HOUR, &a_note()).await.unwrap();
    let back =
        store.rotate_token(&account_id(), &policy.id, 2, &first, Duration::ZERO, &a_note()).await.unwrap();
    assert_eq!(back, Written::Done { version: 3 });
    bench.pass(SignedDuration::from_hours(2));
    assert!(store.find_token(&first.digest()).await.unwrap().is_some());
    assert!(store.find_token(&second.digest()).await.unwrap().is_none());
}

async fn a_rotation_needs_the_stored_version(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, old) = bench.make_token(|_| ()).await;
    let new = new_value(TokenKind::Publishable);
    let written =
        bench.store().rotate_token(&account_id(), &policy.id, 2, &new, HOUR, &a_note()).await.unwrap();
    assert_eq!(written, Written::Conflict { version: 1 });
    assert!(bench.store().find_token(&new.digest()).await.unwrap().is_none());
    assert_eq!(bench.store().find_token(&old.digest()).await.unwrap(), Some(policy));
}

async fn one_of_many_rotations_wins(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, old) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    let rotate = |_| {
        let store = std::sync::Arc::clone(bench.store());
        let (id, value) = (policy.id.clone(), new_value(TokenKind::Secret));
        tokio::spawn(async move {
            let written =
                store.rotate_token(&account_id(), &id, 1, &value, Duration::ZERO, &a_note()).await.unwrap();
            (value, written)
        })
    };
    let mut won = Vec::new();
    for task in (0..16).map(rotate).collect::<Vec<_>>() {
        let (value, written) = task.await.unwrap();
        let found = bench.store().find_token(&value.digest()).await.unwrap().is_some();
        assert_eq!(found, matches!(written, Written::Done { version: 2 }), "{written:?}");
        won.extend(found.then_some(value));
    }
    assert_eq!(won.len(), 1);
    assert!(bench.store().reveal_token(&account_id(), &policy.id).await.unwrap().as_ref() == won.first());
    assert!(bench.store().find_token(&old.digest()).await.unwrap().is_none());
}

async fn a_rotation_takes_the_mark_of_a_leak_away(bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    let store = bench.store();
    store.mark_seen_in_browser(&account_id(), &policy.id, bench.now()).await.unwrap();
    let new = new_value(TokenKind::Secret);
    store.rotate_token(&account_id(), &policy.id, 1, &new, Duration::ZERO, &a_note()).await.unwrap();
    assert_eq!(store.find_token(&new.digest()).await.unwrap().unwrap().seen_in_browser_at, None);
}

async fn reveals_values_with_the_right_key_only(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (public, public_value) = bench.make_token(|_| ()).await;
    let (secret, secret_value) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    let refusals = [
        (Some(sealer()), None),
        (Some(Sealer::new(&[8; 32])), Some(SealError::WrongKey)),
        (None, Some(SealError::NoMasterKey)),
    ];
    for (sealer, refusal) in refusals {
        bench.reopen(sealer);
        let store = bench.store();
        assert!(store.reveal_token(&account_id(), &public.id).await.unwrap().as_ref() == Some(&public_value));
        match (store.reveal_token(&account_id(), &secret.id).await, refusal) {
            (Ok(revealed), None) => assert!(revealed.as_ref() == Some(&secret_value)),
            (Err(StoreError::Seal(found)), Some(expected)) => assert_eq!(found, expected),
            (other, expected) => panic!("{other:?}, not {expected:?}"),
        }
        // It is found all the same.
        assert_eq!(store.find_token(&secret_value.digest()).await.unwrap().unwrap().id, secret.id);
    }
    // What is made without a key works, and cannot be revealed later.
    let (keyless, value) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    assert_eq!(bench.store().find_token(&value.digest()).await.unwrap().unwrap().id, keyless.id);
    bench.reopen(Some(sealer()));
    let refused = bench.store().reveal_token(&account_id(), &keyless.id).await;
    assert!(matches!(refused, Err(StoreError::Seal(SealError::NotKept))), "{refused:?}");
}

async fn secret_values_are_nowhere_in_the_clear(mut bench: Bench) {
    let (first, first_value) = bench.make_account(PerPool::default()).await;
    let (_, public) = bench.make_token(|_| ()).await;
    let (policy, second) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    let third = new_value(TokenKind::Secret);
    bench.store().rotate_token(&account_id(), &policy.id, 1, &third, HOUR, &a_note()).await.unwrap();
    bench.take(&first, 1).await;
    let everything = bench.everything().await;
    let holds = |text: &str| everything.windows(text.len()).any(|window| window == text.as_bytes());
    // What must be there shows that the search can find something.
    assert!(holds(first.as_str()) && holds(public.expose()) && holds(&second.digest().to_hex()));
    for secret in [first_value, second, third] {
        assert!(!holds(secret.expose()), "in the clear");
        assert!(!holds(&secret.expose()[3..]), "its digits in the clear");
        assert!(!holds(&hex::encode(secret.expose())), "in the clear, as hex");
    }
    assert!(!holds("sk_"));
}

async fn a_sealed_value_moved_to_another_record_does_not_open(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (mine, _) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    let (yours, _) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    let sealed = bench.raw_token(&yours.id).await["sealed"].clone();
    bench.spoil_token(&mine.id, |fields| drop(fields.insert("sealed".to_owned(), sealed))).await;
    let refused = bench.store().reveal_token(&account_id(), &mine.id).await;
    assert!(matches!(refused, Err(StoreError::Seal(SealError::WrongKey))), "{refused:?}");
}
