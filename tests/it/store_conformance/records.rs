//! Records that cannot be read: nothing is let through by them, and they hide no others (law 9).

use tollgate::policy::{PerPool, TokenKind};
use tollgate::store::{Listed, StoreError};

use super::bench::{Bench, Takes as _, a_note, account_id, charge};

super::on_both![
    a_spoilt_record_is_told_with_its_field,
    a_spoilt_record_hides_no_others,
    credits_are_not_taken_by_spoilt_terms,
    credits_are_not_taken_without_records,
    a_spoilt_version_is_not_written_over,
    no_message_holds_a_token,
];

/// What is done to which field, and what the message says of it.
const SPOILS: &[(&str, Option<&str>, &str)] = &[
    ("status", None, "`status` is missing"),
    ("expires_at", None, "`expires_at` is missing"),
    ("core_limit", None, "`core_limit` is missing"),
    ("allowed_domains", None, "`allowed_domains` is missing"),
    ("digest", None, "`digest` is missing"),
    ("former", None, "`former` is missing"),
    ("geofence", Some("EU"), "`geofence` is not a field that is known here"),
    ("status", Some("Active"), "`status` is not active, disabled or revoked"),
    ("status", Some(""), "`status` is not active, disabled or revoked"),
    ("type", Some("admin"), "`type` is not publishable or secret"),
    ("id", Some("tok_00000000000000000000000001"), "`id` is not the one in the record's key"),
    ("account", Some("other"), "`account` is not the one in the record's key"),
    ("created_at", Some("yesterday"), "`created_at` is not a time"),
    ("expires_at", Some("never"), "`expires_at` is not a time"),
    ("signed_requests", Some("no"), "`signed_requests` is not true or false"),
    ("core_access", Some("1"), "`core_access` is not true or false"),
    ("premium_access", Some(""), "`premium_access` is not true or false"),
    ("datasets", Some("MY/CARS"), "`datasets` is not of its form"),
    ("datasets", Some(r#"[{"dataset": "*/*", "operations": ["read"]}]"#), "`datasets` holds a bad grant"),
    ("datasets", Some(r#"[{"dataset": "MY/CARS", "operations": []}]"#), "`datasets` holds a bad grant"),
    (
        "datasets",
        Some(r#"[{"dataset": "MY/CARS", "operations": ["read"], "x": 1}]"#),
        "`datasets` is not of its form",
    ),
    ("allowed_domains", Some("www.example.com"), "`allowed_domains` is not of its form"),
    (
        "allowed_domains",
        Some(r#"["ok.example.com", "*.com"]"#),
        "`allowed_domains` holds a bad rule, number 2",
    ),
    ("allowed_domains", Some(r#"["exa mple.com"]"#), "`allowed_domains` holds a bad rule, number 1"),
    ("domain_mode", Some("off"), "`domain_mode` is not enforce or report"),
    ("core_limit", Some("many"), "`core_limit` is not a limit"),
    ("premium_limit", Some("5/week"), "`premium_limit` is not a limit"),
    ("rate", Some("0"), "`rate` is not a number"),
    ("rate", Some("5"), "`burst` is empty, and `rate` is not"),
    ("burst", Some("5"), "`rate` is empty, and `burst` is not"),
    ("version", Some("0"), "`version` is not a version"),
    ("version", Some("-1"), "`version` is not a version"),
    ("seen_in_browser_at", Some("1"), "`seen_in_browser_at` is not a time"),
    ("digest", Some("00"), "`digest` is not a digest"),
    ("token", Some(""), "`token` is not a publishable token"),
    ("sealed", Some("v1:00"), "`sealed` is not empty"),
    ("replay_protection", Some(""), "`replay_protection` is not true or false"),
    ("former", Some("{}"), "`former` is not of its form"),
    ("former", Some(r#"[{"digest": "xyz", "until": 1}]"#), "`former` holds"),
];

async fn a_spoilt_record_is_told_with_its_field(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, value) = bench.make_token(|_| ()).await;
    let good = bench.raw_token(&policy.id).await;
    for (field, spoilt, message) in SPOILS {
        let mut fields = good.clone();
        match spoilt {
            Some(value) => drop(fields.insert((*field).to_owned(), (*value).to_owned())),
            None => drop(fields.remove(*field)),
        }
        bench.spoil_token(&policy.id, |stored| *stored = fields).await;
        for error in [
            bench.store().find_token(&value.digest()).await.map(drop).unwrap_err(),
            bench.store().get_token(&account_id(), &policy.id).await.map(drop).unwrap_err(),
            bench.store().reveal_token(&account_id(), &policy.id).await.map(drop).unwrap_err(),
        ] {
            let StoreError::Unreadable { key, why } = &error else { panic!("{field}: {error:?}") };
            assert!(key.contains(policy.id.as_str()), "{field}: {key}");
            assert!(why.contains(message), "{field}: `{why}` does not say `{message}`");
        }
    }
    bench.spoil_token(&policy.id, |stored| *stored = good).await;
    assert_eq!(
        bench.store().find_token(&value.digest()).await.unwrap(),
        Some(policy),
        "the record was good before"
    );
}

async fn a_spoilt_record_hides_no_others(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(bench.make_token(|_| ()).await.0.id);
    }
    bench.spoil_token(&made[1], |fields| drop(fields.insert("status".to_owned(), "?".to_owned()))).await;
    let listed = bench.store().list_tokens(&account_id(), None, 10).await.unwrap();
    let readable: Vec<_> = listed.iter().map(|entry| matches!(entry, Listed::Token(_))).collect();
    assert_eq!(readable, [true, true, false, true]);
    let Listed::Unreadable { id, why } = &listed[2] else { panic!("readable") };
    assert_eq!(*id, made[1]);
    assert!(why.contains("`status`"), "{why}");
}

async fn credits_are_not_taken_by_spoilt_terms(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    let of_token = [
        ("core_limit", Some("many")),
        ("core_limit", Some("5/week")),
        ("core_limit", Some("9007199254740992/day")),
        ("core_limit", Some("-5")),
        ("core_limit", None),
        ("rate", Some("1")),
        ("rate", Some("x")),
        ("rate", None),
        ("burst", Some("1")),
        ("burst", None),
    ];
    let good = bench.raw_token(&policy.id).await;
    for (field, spoilt) in of_token {
        let mut fields = good.clone();
        fields.remove(field);
        fields.extend(spoilt.map(|value| (field.to_owned(), value.to_owned())));
        bench.spoil_token(&policy.id, |stored| *stored = fields).await;
        let error = if field == "core_limit" {
            bench.store().take(&charge(&policy.id, tollgate::policy::Pool::Core, 1)).await.unwrap_err()
        } else {
            bench.store().pace(&account_id(), &policy.id, 1).await.unwrap_err()
        };
        assert!(
            matches!(&error, StoreError::Unreadable { why, .. } if why.contains(field)),
            "{field}: {error}"
        );
    }
    bench.spoil_token(&policy.id, |stored| *stored = good).await;
    for spoilt in [Some("all"), None] {
        bench
            .spoil_account(|fields| {
                fields.remove("core_budget");
                fields.extend(spoilt.map(|value| ("core_budget".to_owned(), value.to_owned())));
            })
            .await;
        let error =
            bench.store().take(&charge(&policy.id, tollgate::policy::Pool::Core, 1)).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Unreadable { why, .. } if why.contains("core_budget")),
            "{error}"
        );
        let error = bench.store().get_account(&account_id()).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Unreadable { why, .. } if why.contains("core_budget")),
            "{error}"
        );
    }
    assert_eq!((bench.used(&policy.id).await, bench.used_by_account().await), (0, 0));
}

async fn credits_are_not_taken_without_records(bench: Bench) {
    let nobody = super::bench::new_id();
    let charge = charge(&nobody, tollgate::policy::Pool::Core, 1);
    assert!(matches!(bench.store().take(&charge).await, Err(StoreError::Unreadable { .. })));
    bench.make_account(PerPool::default()).await;
    assert!(matches!(bench.store().take(&charge).await, Err(StoreError::Unreadable { .. })));
    assert_eq!(bench.used_by_account().await, 0);
}

async fn a_spoilt_version_is_not_written_over(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, _) = bench.make_token(|_| ()).await;
    for spoilt in [None, Some("x"), Some("")] {
        bench
            .spoil_token(&policy.id, |fields| {
                fields.remove("version");
                fields.extend(spoilt.map(|value| ("version".to_owned(), value.to_owned())));
            })
            .await;
        let error = bench.store().put_policy(&policy, &a_note()).await.unwrap_err();
        assert!(matches!(&error, StoreError::Unreadable { why, .. } if why.contains("version")), "{error}");
    }
}

async fn no_message_holds_a_token(mut bench: Bench) {
    bench.make_account(PerPool::default()).await;
    let (policy, value) = bench.make_token_of(TokenKind::Secret, |_| ()).await;
    let text = value.expose().to_owned();
    let good = bench.raw_token(&policy.id).await;
    for field in
        ["token", "core_limit", "status", "datasets", "allowed_domains", "rate", "former", "digest", &text]
    {
        let quoted = format!("[\"{text}\"]");
        for spoilt in [&text, &quoted] {
            let mut fields = good.clone();
            fields.insert(field.to_owned(), spoilt.clone());
            bench.spoil_token(&policy.id, |stored| *stored = fields).await;
            let error = bench.store().find_token(&value.digest()).await;
            // A list of one odd name may even be a rule; then there is no message.
            let Err(error) = error else { continue };
            assert!(!format!("{error} {error:?}").contains(&text[3..]), "{field}: {error}");
        }
    }
}
