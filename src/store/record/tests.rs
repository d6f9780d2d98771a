//! Every policy reads back as it was written; every field is in the table.

use proptest::prelude::*;

use super::*;
use crate::policy::cost::{MAX_CREDITS, MAX_RATE};
use crate::policy::domain::DomainRules;
use crate::policy::record::{Account, PayAsYouGo};
use crate::policy::{Credits, DomainMode, Grant, Limit, PerPool, Period, RateLimit, Status};

fn any_time() -> impl Strategy<Value = Timestamp> {
    (-60_000_000_000i64..200_000_000_000, 0i32..1_000_000_000)
        .prop_map(|(seconds, nanos)| Timestamp::new(seconds, nanos).unwrap())
}

fn any_limit() -> impl Strategy<Value = Option<Limit>> {
    let credits = prop_oneof![0u64..100, 0u64..=MAX_CREDITS, Just(MAX_CREDITS)];
    let period = prop::sample::select(Period::ALL.to_vec());
    prop::option::of(
        (credits, period).prop_map(|(credits, period)| Limit { credits: Credits(credits), period }),
    )
}

fn any_pair() -> impl Strategy<Value = PerPool<Option<Limit>>> {
    (any_limit(), any_limit()).prop_map(|(core, premium)| PerPool { core, premium })
}

fn any_rate() -> impl Strategy<Value = Option<RateLimit>> {
    let rate = (1..=MAX_RATE, 1..=MAX_RATE);
    let rate = rate.prop_map(|(requests_per_second, burst)| RateLimit { requests_per_second, burst });
    prop::option::of(rate)
}

fn any_grants() -> impl Strategy<Value = Vec<Grant>> {
    let operations = prop::sample::subsequence(vec!["read", "write", "delete"], 1..=3);
    let dataset = "[A-Za-z0-9_-]{1,8}/([A-Za-z0-9_.-]{0,6}[A-Za-z0-9]|[*])";
    prop::collection::vec((dataset, operations).prop_map(|(id, ops)| Grant::new(&id, ops).unwrap()), 0..5)
}

fn any_domains() -> impl Strategy<Value = DomainRules> {
    let rules = vec![
        "www.example.com",
        "*.example.org",
        "https://app.example.net:8443/app/stock",
        "localhost:3000",
        "203.0.113.0/24",
        "[2001:db8::1]",
        "http://bücher.example",
    ];
    prop::sample::subsequence(rules, 0..=7).prop_map(|rules| DomainRules::parse(rules).unwrap())
}

prop_compose! {
    fn any_policy()(
        id in any::<u128>(), account in "[a-z0-9_-]{1,64}", secret in any::<bool>(), nickname in any::<String>(),
        status in prop::sample::select(vec![Status::Active, Status::Disabled, Status::Revoked]),
        created_at in any_time(), expires_at in prop::option::of(any_time()), flags in any::<[bool; 5]>(),
        grants in any_grants(), allowed_domains in any_domains(), credit_limit in any_pair(), rate_limit in any_rate(),
    )(
        version in 1..=MAX_CREDITS, seen_in_browser_at in prop::option::of(any_time()),
        id in Just(id), account in Just(account), secret in Just(secret), nickname in Just(nickname),
        status in Just(status), created_at in Just(created_at), expires_at in Just(expires_at), flags in Just(flags),
        grants in Just(grants), allowed_domains in Just(allowed_domains), credit_limit in Just(credit_limit),
        rate_limit in Just(rate_limit),
    ) -> Policy {
        let [signed_requests, replay_protection, core_access, premium_access, enforce] = flags;
        Policy {
            id: TokenId::from_ulid(ulid::Ulid(id)),
            account: AccountId::parse(&account).unwrap(),
            kind: if secret { TokenKind::Secret } else { TokenKind::Publishable },
            domain_mode: if enforce { DomainMode::Enforce } else { DomainMode::Report },
            nickname, status, created_at, expires_at, signed_requests, replay_protection, core_access, premium_access, grants,
            allowed_domains, credit_limit, rate_limit, version, seen_in_browser_at,
        }
    }
}

fn any_record() -> impl Strategy<Value = TokenRecord> {
    let former = prop::collection::vec((any::<[u8; 16]>(), any::<u32>()), 0..4);
    (any_policy(), any::<[u8; 16]>(), former, any::<bool>()).prop_map(|(policy, bits, former, sealed)| {
        let value = Token::from_random(policy.kind, bits);
        let sealer = Sealer::new(&[3; 32]);
        let mut record = TokenRecord::new(sealed.then_some(&sealer), &policy, &value).unwrap();
        let former = former.into_iter().map(|(bits, until)| Former {
            digest: Token::from_random(policy.kind, bits).digest(),
            until: Timestamp::from_microsecond(i64::from(until) * 1_000_003).unwrap(),
            sealed: until.is_multiple_of(2).then(|| "v1:00".to_owned()),
        });
        record.former = former.collect();
        record.signing = sealed.then(|| "v1:ab".to_owned());
        record
    })
}

proptest! {
    #[test]
    fn a_token_reads_back_as_it_was_written(record in any_record()) {
        let fields = record.to_fields();
        let names: Vec<_> = fields.keys().map(String::as_str).collect();
        let mut table: Vec<_> = TOKEN_FIELDS.iter().map(|(name, _)| *name).collect();
        table.sort_unstable();
        prop_assert_eq!(names, table);
        let read = TokenRecord::parse(&fields, &record.policy.account, &record.policy.id);
        prop_assert_eq!(read, Ok(record));
    }

    #[test]
    fn an_account_reads_back_as_it_was_written(
        id in "[a-z0-9_-]{1,64}", created_at in any_time(), budget in any_pair(), version in 1..=MAX_CREDITS,
        pay_as_you_go in any_pair().prop_map(|pair: PerPool<Option<Limit>>| match pair.core {
            None => PayAsYouGo::Off,
            Some(_) => PayAsYouGo::On { quota: pair.premium },
        }),
    ) {
        let account = Account { id: AccountId::parse(&id).unwrap(), created_at, budget, pay_as_you_go, version };
        let fields = account_fields(&account);
        prop_assert_eq!(fields.len(), ACCOUNT_FIELDS.len());
        prop_assert_eq!(parse_account(&fields, &account.id), Ok(account.clone()));
        // As it was written before there was pay-as-you-go.
        let mut earlier = fields;
        earlier.remove("core_quota");
        let read = parse_account(&earlier, &account.id);
        prop_assert_eq!(read, Ok(Account { pay_as_you_go: PayAsYouGo::Off, ..account }));
    }

    #[test]
    fn a_record_that_lacks_any_field_or_has_one_more_is_unreadable(record in any_record(), name in "[a-z_]{1,12}") {
        let (account, id) = (&record.policy.account, &record.policy.id);
        for (field, _) in TOKEN_FIELDS.iter().filter(|(field, _)| !LATER_FIELDS.iter().any(|(later, _)| later == field)) {
            let mut fields = record.to_fields();
            fields.remove(*field);
            let problem = TokenRecord::parse(&fields, account, id).unwrap_err().to_string();
            prop_assert_eq!(problem, format!("`{field}` is missing"));
        }
        prop_assume!(!TOKEN_FIELDS.iter().any(|(field, _)| *field == name));
        let mut fields = record.to_fields();
        fields.insert(name.clone(), String::new());
        let problem = TokenRecord::parse(&fields, account, id).unwrap_err().to_string();
        prop_assert!(problem.contains(&name));
    }

    #[test]
    fn no_junk_in_any_field_makes_a_panic_or_shows_a_token(record in any_record(), junk in any::<String>(), at in 0usize..25) {
        let token = Token::from_random(TokenKind::Secret, [0xab; 16]);
        for junk in [junk.clone(), format!("{junk}{}", token.expose()), format!("[\"{}\"]", token.expose())] {
            let mut fields = record.to_fields();
            fields.insert(TOKEN_FIELDS[at].0.to_owned(), junk);
            if let Err(problem) = TokenRecord::parse(&fields, &record.policy.account, &record.policy.id) {
                let told = format!("{problem} {problem:?}");
                prop_assert!(!told.contains(&token.expose()[3..]));
            }
        }
    }
}

#[test]
fn a_put_writes_what_the_table_says() {
    let policy = Policy::new(
        TokenId::from_ulid(ulid::Ulid(1)),
        AccountId::default_account(),
        TokenKind::Secret,
        Timestamp::UNIX_EPOCH,
    );
    let written: Vec<_> = edited(policy_fields(&policy), &TOKEN_FIELDS).into_keys().collect();
    let mut expected = vec![
        "nickname",
        "status",
        "expires_at",
        "signed_requests",
        "replay_protection",
        "core_access",
        "premium_access",
        "datasets",
        "allowed_domains",
        "domain_mode",
        "core_limit",
        "premium_limit",
        "rate",
        "burst",
    ];
    expected.sort_unstable();
    assert_eq!(written, expected);
}

#[test]
fn the_table_in_the_docs_is_the_table_in_the_code() {
    let source = include_str!("../record.rs");
    let rows =
        source.lines().filter_map(|line| line.strip_prefix("//! | `")).filter_map(|row| row.split_once('`'));
    let documented: Vec<_> = rows.map(|(name, rest)| (name, rest.contains("| yes |"))).collect();
    let coded: Vec<_> = TOKEN_FIELDS.iter().map(|(name, by)| (*name, *by == ChangedBy::Put)).collect();
    assert_eq!(documented, coded);
}

#[test]
fn a_record_from_before_there_was_signing_is_protected_and_has_no_secret() {
    let policy = Policy::new(
        TokenId::from_ulid(ulid::Ulid(1)),
        AccountId::default_account(),
        TokenKind::Publishable,
        Timestamp::UNIX_EPOCH,
    );
    let value = Token::from_random(TokenKind::Publishable, [1; 16]);
    let mut fields = TokenRecord::new(None, &policy, &value).unwrap().to_fields();
    for (field, _) in LATER_FIELDS {
        fields.remove(field);
    }
    let read = TokenRecord::parse(&fields, &policy.account, &policy.id).unwrap();
    assert_eq!((&read.policy, read.policy.replay_protection, read.signing), (&policy, true, None));
    assert_eq!(parse_policy(&fields), Ok(policy));
}

#[test]
fn a_clear_value_must_be_the_one_of_the_digest() {
    let policy = Policy::new(
        TokenId::from_ulid(ulid::Ulid(1)),
        AccountId::default_account(),
        TokenKind::Publishable,
        Timestamp::UNIX_EPOCH,
    );
    let value = |bits| Token::from_random(TokenKind::Publishable, [bits; 16]);
    let mut fields = TokenRecord::new(None, &policy, &value(1)).unwrap().to_fields();
    fields.insert("token".to_owned(), value(2).expose().to_owned());
    let problem = TokenRecord::parse(&fields, &policy.account, &policy.id).unwrap_err();
    assert!(problem.to_string().contains("`digest`"), "{problem}");
}
