//! The door together with the admin API and the embedded store.

use axum::http::{HeaderValue, header};
use serde_json::{Value, json};

use super::*;

mod house;

use house::{House, PASSPHRASE, Peer, SECRET, link};

fn is<T>(result: &Result<T, Refused>, matches: fn(&Refused) -> bool) -> bool {
    result.as_ref().err().is_some_and(matches)
}

fn is_wrong<T>(result: &Result<T, Refused>) -> bool {
    is(result, |refused| matches!(refused, Refused::Wrong))
}

fn is_over<T>(result: &Result<T, Refused>) -> bool {
    is(result, |refused| matches!(refused, Refused::InvitationOver))
}

#[tokio::test]
async fn a_link_makes_a_member_once() {
    let house = House::open().await;
    let (id, secret) = house.invite("Ada", "viewer").await;
    let peer = Peer::at(1);
    for _ in 0..20 {
        let invited = house.door.invitation(&id, &secret, &peer.asker()).await.unwrap();
        assert_eq!((invited.name.as_str(), invited.role), ("Ada", Role::Viewer));
        let left = invited.until.duration_since(Timestamp::now()).as_hours();
        assert!((167..=168).contains(&left), "seven days: {left} h");
    }
    assert!(is_wrong(&house.sign_in("Ada", PASSPHRASE).await), "no passphrase yet");
    for (id, secret) in [
        (&id, "00".repeat(32)),
        (&id, String::new()),
        (&id, secret.to_uppercase()),
        (&MemberId::from_ulid(ulid::Ulid(7)), secret.clone()),
    ] {
        assert!(is_over(&house.door.invitation(id, &secret, &peer.asker()).await), "{id} {secret}");
        let accepted = house.door.accept_invitation(id, &secret, PASSPHRASE, &Peer::at(9).asker()).await;
        assert!(is_over(&accepted), "{id} {secret}");
    }
    let weak = house.door.accept_invitation(&id, &secret, "short", &peer.asker()).await;
    assert!(is(&weak, |refused| matches!(refused, Refused::Passphrase(_))));
    let entered = house.door.accept_invitation(&id, &secret, PASSPHRASE, &peer.asker()).await.unwrap();
    assert_eq!((entered.cookie.len(), entered.max_age), (64, Duration::from_hours(12)));
    assert!(!format!("{entered:?}").contains(&entered.cookie));
    assert_eq!(house.who(&entered.cookie).await, Some(("Ada".to_owned(), Role::Viewer)));
    let again = house.door.accept_invitation(&id, &secret, "another passphrase", &peer.asker()).await;
    assert!(is_over(&again));
    assert!(is_over(&house.door.invitation(&id, &secret, &peer.asker()).await));
    assert!(house.sign_in("Ada", PASSPHRASE).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_take_up_one_link_at_once_one_gets_in() {
    let house = House::open().await;
    for round in 0..3 {
        let name = format!("Ada {round}");
        let (id, secret) = house.invite(&name, "admin").await;
        let accept = |number: u8| {
            let (door, id, secret) = (Arc::clone(&house.door), id.clone(), secret.clone());
            let passphrase = format!("passphrase number {number}");
            tokio::spawn(async move {
                let entered =
                    door.accept_invitation(&id, &secret, &passphrase, &Peer::at(number).asker()).await;
                (passphrase, entered)
            })
        };
        let racers = [accept(10), accept(11)];
        let mut won = Vec::new();
        for racer in racers {
            match racer.await.unwrap() {
                (passphrase, Ok(entered)) => won.push((passphrase, entered.cookie)),
                (passphrase, lost) => {
                    assert!(is_over(&lost));
                    assert!(is_wrong(&house.sign_in(&name, &passphrase).await));
                }
            }
        }
        let [(passphrase, cookie)] = won.as_slice() else { panic!("{} got in", won.len()) };
        assert!(house.who(cookie).await.is_some());
        assert!(house.sign_in(&name, passphrase).await.is_ok());
    }
}

/// The link is not used up by it: both hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_may_be_renamed_while_they_take_up_their_link() {
    let house = House::open().await;
    let (id, secret) = house.invite("Ada", "viewer").await;
    let accepting = tokio::spawn({
        let (door, id) = (Arc::clone(&house.door), id.clone());
        async move { door.accept_invitation(&id, &secret, PASSPHRASE, &Peer::at(1).asker()).await }
    });
    for name in ["Ada L", "Grace"] {
        assert_eq!(house.root("PATCH", &format!("/v1/members/{id}"), json!({"name": name})).await.0, 200);
    }
    let entered = accepting.await.unwrap().unwrap();
    assert_eq!(house.who(&entered.cookie).await, Some(("Grace".to_owned(), Role::Viewer)));
    assert!(house.sign_in("grace", PASSPHRASE).await.is_ok());
}

#[tokio::test]
async fn links_end_with_their_time_and_with_the_next_link() {
    let house = House::open().await;
    let peer = Peer::at(1);
    let (id, secret) = house.invite("Ada", "viewer").await;
    let (status, renewed) = house.root("POST", &format!("/v1/members/{id}/invite"), Value::Null).await;
    assert_eq!((status.as_u16(), renewed["status"].as_str()), (200, Some("invited")));
    let (_, newer) = link(&renewed);
    assert!(is_over(&house.door.accept_invitation(&id, &secret, PASSPHRASE, &peer.asker()).await));
    assert!(house.door.invitation(&id, &newer, &peer.asker()).await.is_ok());

    let mut member = house.store.member(house.account(), &id).await.unwrap().unwrap();
    if let Some(invitation) = &mut member.invitation {
        invitation.until = Timestamp::now();
    }
    let note = crate::store::trail::a_note();
    house.store.put_member(house.account(), &member, &note).await.unwrap();
    assert!(is_over(&house.door.accept_invitation(&id, &newer, PASSPHRASE, &peer.asker()).await));
    let (_, shown) = house.root("GET", &format!("/v1/members/{id}"), Value::Null).await;
    assert_eq!((&shown["status"], &shown["invited_until"]), (&json!("lapsed"), &Value::Null));
}

#[tokio::test]
async fn members_sign_in_with_name_and_passphrase_and_nothing_else() {
    let house = House::open().await;
    house.join("Ada@Example.com", "admin").await;
    for name in ["Ada@Example.com", "ada@example.com", "  ADA@EXAMPLE.COM "] {
        let cookie = house.sign_in(name, PASSPHRASE).await.unwrap();
        assert_eq!(house.who(&cookie).await, Some(("Ada@Example.com".to_owned(), Role::Admin)));
    }
    for (name, passphrase) in [
        ("Ada@Example.com", "correct horse batterz"),
        ("Ada@Example.com", ""),
        ("Ada@Example.com", " correct horse battery"),
        ("Ada", PASSPHRASE),
        ("", PASSPHRASE),
    ] {
        assert!(is_wrong(&house.sign_in(name, passphrase).await), "{name} {passphrase}");
    }
}

#[tokio::test]
async fn whoever_fails_too_often_waits_even_with_the_right_passphrase() {
    let house = House::open().await;
    let (_, cookie) = house.join("Ada", "admin").await;
    for _ in 0..5 {
        assert!(is_wrong(&house.sign_in("Ada", "wrong passphrase").await));
    }
    let marks = house.told().await.len();
    let refused = house.sign_in("ada", PASSPHRASE).await.unwrap_err();
    let Refused::TooMany { retry_after } = refused else { panic!("{refused}") };
    assert!((50..=60).contains(&retry_after.as_secs()), "{retry_after:?}");
    assert_eq!(house.told().await.len(), marks, "what is not looked at fills no trail");
    assert!(house.who(&cookie).await.is_some(), "whoever is in stays in");
    // Links and tokens are counted by address.
    let peer = Peer::at(77);
    for _ in 0..10 {
        assert!(is_wrong(&house.door.sign_in_with_token("sk_none", &peer.asker()).await));
    }
    let refused = house.door.sign_in_with_token(SECRET, &peer.asker()).await;
    assert!(is(&refused, |refused| matches!(refused, Refused::TooMany { .. })));
    let refused = house.door.invitation(&MemberId::from_ulid(ulid::Ulid(7)), "x", &peer.asker()).await;
    assert!(is(&refused, |refused| matches!(refused, Refused::TooMany { .. })));
    assert!(house.door.sign_in_with_token(SECRET, &Peer::at(78).asker()).await.is_ok());
}

#[tokio::test]
async fn sessions_of_a_member_end_with_what_they_stand_on() {
    let house = House::open().await;
    for what in ["remove", "link", "sign out", "too old", "forged"] {
        let (id, cookie) = house.join(what, "admin").await;
        let other = house.sign_in(what, PASSPHRASE).await.unwrap();
        assert!(house.who(&cookie).await.is_some() && house.who(&other).await.is_some());
        let path = format!("/v1/members/{id}");
        let mut other_ends = true;
        match what {
            "remove" => assert_eq!(house.root("DELETE", &path, Value::Null).await.0, 200),
            "link" => assert_eq!(house.root("POST", &format!("{path}/invite"), Value::Null).await.0, 200),
            "sign out" => {
                house.door.sign_out(&cookie, &Peer::at(1).asker()).await.unwrap();
                house.door.sign_out(&cookie, &Peer::at(1).asker()).await.unwrap();
                other_ends = false;
            }
            "too old" => {
                let started_at = Timestamp::now() - LIFE;
                let session = Session { visitor: Visitor::Member(id.clone()), started_at };
                let digest = Cookie::parse(&cookie).unwrap().digest();
                house.store.put_session(house.account(), &digest, &session, LIFE).await.unwrap();
                other_ends = false;
            }
            _ => {
                let forged = format!("{}{}", &cookie[..63], if cookie.ends_with('0') { '1' } else { '0' });
                for forged in [forged, format!("{cookie}{}", "0".repeat(64)), String::new(), "x".repeat(64)] {
                    assert_eq!(house.who(&forged).await, None);
                }
                continue;
            }
        }
        assert_eq!(house.who(&cookie).await, None, "{what}");
        assert_eq!(house.who(&other).await.is_none(), other_ends, "{what}");
        if matches!(what, "remove" | "link") {
            assert!(is_wrong(&house.sign_in(what, PASSPHRASE).await), "{what}");
        }
    }
}

#[tokio::test]
async fn a_new_role_or_name_holds_at_once() {
    let house = House::open().await;
    let (id, cookie) = house.join("Ada", "admin").await;
    let path = format!("/v1/members/{id}");
    house.root("PATCH", &path, json!({"role": "viewer", "name": "Grace"})).await;
    assert_eq!(house.who(&cookie).await, Some(("Grace".to_owned(), Role::Viewer)));
    let (caller, _) = house.caller(&cookie).await.unwrap();
    assert_eq!(house.call(&caller, "POST", "/v1/tokens", json!({})).await.0, 403);
    house.root("PATCH", &path, json!({"role": "admin"})).await;
    assert_eq!(house.who(&cookie).await, Some(("Grace".to_owned(), Role::Admin)));
}

#[tokio::test]
async fn a_new_passphrase_ends_all_other_sessions() {
    let house = House::open().await;
    let (_, cookie) = house.join("Ada", "viewer").await;
    let (_, bystander) = house.join("Grace", "viewer").await;
    let other = house.sign_in("Ada", PASSPHRASE).await.unwrap();
    let peer = Peer::at(1);
    let change = |old: &'static str, new: &'static str| {
        let (door, cookie, asker) = (&house.door, &cookie, peer.asker());
        async move { door.change_passphrase(cookie, old, new, &asker).await }
    };
    assert!(is_wrong(&change("not my passphrase", "another passphrase").await));
    assert!(is(&change(PASSPHRASE, "short").await, |refused| matches!(refused, Refused::Passphrase(_))));
    assert!(house.who(&cookie).await.is_some() && house.who(&other).await.is_some());
    let entered = change(PASSPHRASE, "another passphrase").await.unwrap();
    assert_eq!(house.who(&cookie).await, None);
    assert_eq!(house.who(&other).await, None);
    assert!(house.who(&entered.cookie).await.is_some() && house.who(&bystander).await.is_some());
    assert!(is(&change(PASSPHRASE, "another passphrase").await, |refused| matches!(
        refused,
        Refused::SignedOut
    )));
    assert!(is_wrong(&house.sign_in("Ada", PASSPHRASE).await));
    let again = house.sign_in("Ada", "another passphrase").await.unwrap();
    // Once more, within the stretch that clocks may lie apart: the sessions of now end as well.
    let asker = peer.asker();
    let last = house.door.change_passphrase(&again, "another passphrase", PASSPHRASE, &asker).await.unwrap();
    assert_eq!(house.who(&again).await, None);
    assert_eq!(house.who(&entered.cookie).await, None);
    assert!(house.who(&last.cookie).await.is_some());
}

#[tokio::test]
async fn sessions_of_a_token_end_when_it_no_longer_opens_the_api() {
    let house = House::open().await;
    for (what, why) in [
        ("disable", "token_disabled"),
        ("revoke", "token_revoked"),
        ("expire", "token_expired"),
        ("sign", "signature_missing"),
        ("domains", "domain_denied"),
    ] {
        let (id, value) = house.secret_token(json!({})).await;
        let entered = house.door.sign_in_with_token(&value, &Peer::at(1).asker()).await.unwrap();
        assert_eq!(house.who(&entered.cookie).await, Some((id.clone(), Role::Admin)));
        let path = format!("/v1/tokens/{id}");
        match what {
            "disable" => house.edit_token(&id, json!({"status": "disabled"})).await,
            "revoke" => assert_eq!(house.root("DELETE", &path, Value::Null).await.0, 200),
            "expire" => {
                let id = crate::policy::TokenId::parse(&id).unwrap();
                let stored = house.store.get_token(house.account(), &id).await.unwrap();
                let mut policy = stored.unwrap().policy;
                policy.expires_at = Some(Timestamp::now());
                house.store.put_policy(&policy, &crate::store::trail::a_note()).await.unwrap();
            }
            "sign" => house.edit_token(&id, json!({"signed_requests": true})).await,
            _ => house.edit_token(&id, json!({"allowed_domains": ["192.0.2.0/24"]})).await,
        }
        assert_eq!(house.who(&entered.cookie).await, None, "{what}");
        let refused = house.door.sign_in_with_token(&value, &Peer::at(4).asker()).await.unwrap_err();
        let Refused::Token(problem) = &refused else { panic!("{what}: {refused:?}") };
        assert_eq!(problem.code(), why);
    }
}

#[tokio::test]
async fn sessions_of_a_token_end_when_its_value_is_replaced() {
    let house = House::open().await;
    for (grace, stays) in [("1h", true), ("0s", false)] {
        let (id, value) = house.secret_token(json!({})).await;
        let entered = house.door.sign_in_with_token(&value, &Peer::at(1).asker()).await.unwrap();
        let rotate = format!("/v1/tokens/{id}/rotate");
        let (status, rotated) = house.root("POST", &rotate, json!({"grace": grace})).await;
        assert_eq!(status, 200, "{rotated}");
        assert_eq!(house.who(&entered.cookie).await.is_some(), stays, "{grace}");
        let value = rotated["token"].as_str().unwrap();
        assert!(house.door.sign_in_with_token(value, &Peer::at(1).asker()).await.is_ok());
    }
}

#[tokio::test]
async fn tokens_open_the_door_by_the_rules_of_the_api() {
    let house = House::open().await;
    let (_, near) = house.secret_token(json!({"allowed_domains": ["127.0.0.5"]})).await;
    let (_, page) = house.secret_token(json!({"allowed_domains": ["admin.example.com"]})).await;
    let report = json!({"allowed_domains": ["admin.example.com"], "domain_mode": "report"});
    let (_, report) = house.secret_token(report).await;
    let (_, public) = house.root("POST", "/v1/tokens", json!({})).await;
    let public = public["token"].as_str().unwrap();
    let (here, there, mut from_page) = (Peer::at(5), Peer::at(6), Peer::at(6));
    from_page.headers.insert(header::ORIGIN, HeaderValue::from_static("https://admin.example.com"));
    for (value, peer, opens) in [
        (SECRET, &there, true),
        (&near, &here, true),
        (&near, &there, false),
        (&page, &from_page, true),
        (&page, &there, false),
        (&report, &there, true),
        (public, &here, false),
        ("sk_ffffffffffffffffffffffffffffffff", &here, false),
        ("", &here, false),
    ] {
        let entered = house.door.sign_in_with_token(value, &peer.asker()).await;
        assert_eq!(entered.is_ok(), opens, "{entered:?}");
        if let Ok(entered) = entered {
            assert!(house.door.session(&entered.cookie, &peer.asker()).await.unwrap().is_some());
        }
    }
    // Who opens a bookmark names no page, and stays; another page's request does not get in.
    let entered = house.door.sign_in_with_token(&page, &from_page.asker()).await.unwrap();
    assert!(house.door.session(&entered.cookie, &there.asker()).await.unwrap().is_some());
    let mut elsewhere = Peer::at(6);
    elsewhere.headers.insert(header::ORIGIN, HeaderValue::from_static("https://evil.test"));
    assert!(house.door.session(&entered.cookie, &elsewhere.asker()).await.unwrap().is_none());
    // The address is looked at with each request.
    let entered = house.door.sign_in_with_token(&near, &here.asker()).await.unwrap();
    assert!(house.door.session(&entered.cookie, &there.asker()).await.unwrap().is_none());
    assert!(house.door.session(&entered.cookie, &here.asker()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_viewer_writes_nothing_whatever_the_api_offers() {
    let house = House::open().await;
    let (id, cookie) = house.join("Ada", "viewer").await;
    let (viewer, _) = house.caller(&cookie).await.unwrap();
    let (_, cookie) = house.join("Grace", "admin").await;
    let (admin, _) = house.caller(&cookie).await.unwrap();
    let api = serde_json::to_value(crate::admin::openapi()).unwrap();
    let (mut writes, mut reads) = (0, 0);
    for (path, item) in api["paths"].as_object().unwrap() {
        let id = if path.contains("/members/") { id.as_str() } else { "tok_00000000000000000000000001" };
        let real = path.replace("{id}", id);
        for method in item.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            let (status, answer) = house.call(&viewer, &method, &real, json!({"no such field": 1})).await;
            let denied = (status.as_u16(), answer["code"].as_str()) == (403, Some("role_denied"));
            let is_write = method != "GET" && path != "/v1/explain";
            assert_eq!(denied, is_write, "{method} {path}: {status} {answer}");
            if is_write {
                writes += 1;
                let (status, _) = house.call(&admin, &method, &real, json!({"no such field": 1})).await;
                assert_ne!(status, 403, "{method} {path}");
            } else {
                reads += 1;
            }
        }
    }
    assert!(writes >= 11 && reads >= 12, "{writes} {reads}");
}

#[tokio::test]
async fn nobody_takes_their_own_membership_away_but_others_can() {
    let house = House::open().await;
    let (id, cookie) = house.join("Ada", "admin").await;
    let (ada, _) = house.caller(&cookie).await.unwrap();
    let (_, cookie) = house.join("Grace", "admin").await;
    let (grace, _) = house.caller(&cookie).await.unwrap();
    let path = format!("/v1/members/{id}");
    let link = format!("{path}/invite");
    for (method, path, body) in [
        ("PATCH", &path, json!({"role": "viewer"})),
        ("DELETE", &path, Value::Null),
        ("POST", &link, Value::Null),
    ] {
        let (status, answer) = house.call(&ada, method, path, body).await;
        assert_eq!((status.as_u16(), &answer["code"]), (409, &json!("own_membership")), "{method}");
    }
    assert_eq!(house.call(&ada, "PATCH", &path, json!({"role": "admin", "name": "Ada L"})).await.0, 200);
    assert_eq!(house.call(&grace, "PATCH", &path, json!({"role": "viewer"})).await.0, 200);
    assert_eq!(house.call(&grace, "DELETE", &path, Value::Null).await.0, 200);
}

#[tokio::test]
async fn the_trail_tells_who_came_and_went_and_no_secret() {
    let house = House::open().await;
    let (id, secret) = house.invite("Ada", "admin").await;
    let peer = Peer::at(1);
    let first = house.door.accept_invitation(&id, &secret, PASSPHRASE, &peer.asker()).await.unwrap().cookie;
    let second = house.sign_in("Ada", PASSPHRASE).await.unwrap();
    assert!(is_wrong(&house.sign_in("ada", "my own passphrase").await));
    assert!(is_wrong(&house.sign_in("typed into the wrong field", PASSPHRASE).await));
    let third = house.door.change_passphrase(&second, PASSPHRASE, "another passphrase", &peer.asker()).await;
    let third = third.unwrap().cookie;
    house.door.sign_out(&third, &peer.asker()).await.unwrap();
    let token = house.door.sign_in_with_token(SECRET, &peer.asker()).await.unwrap().cookie;
    house.door.sign_out(&token, &peer.asker()).await.unwrap();
    let wrong = format!("sk_{}", "9".repeat(32));
    assert!(is_wrong(&house.door.sign_in_with_token(&wrong, &peer.asker()).await));
    assert!(is_over(&house.door.accept_invitation(&id, &secret, PASSPHRASE, &peer.asker()).await));
    let (_, again) = house.root("POST", &format!("/v1/members/{id}/invite"), Value::Null).await;
    let (_, again) = link(&again);
    house.root("DELETE", &format!("/v1/members/{id}"), Value::Null).await;
    let root = "tok_00000000000000000000000001";
    assert_eq!(
        house.told().await,
        [
            format!("{root} member.invite {id} Ada admin invited"),
            format!("Ada member.accept {id} active"),
            format!("Ada session.begin {id} invitation"),
            format!("Ada session.begin {id} passphrase"),
            format!("tollgate session.refused {id} passphrase wrong_passphrase"),
            "tollgate session.refused typ… passphrase unknown_name".to_owned(),
            format!("Ada member.passphrase {id}"),
            format!("Ada session.begin {id} passphrase"),
            format!("Ada session.end {id}"),
            format!("{root} session.begin {root} token"),
            format!("{root} session.end {root}"),
            "tollgate session.refused a token token unknown_token".to_owned(),
            format!("tollgate session.refused {id} invitation invitation_over"),
            format!("{root} member.link {id} invited"),
            format!("{root} member.remove {id} - - -"),
        ]
    );
    let trail = format!("{:?}", house.trail().await);
    let values =
        [secret, again, first, second, third, token, wrong, SECRET.to_owned(), PASSPHRASE.to_owned()];
    for value in &values {
        assert!(!trail.contains(&value[value.len() / 2..]), "{value}: {trail}");
    }
    for piece in ["argon2", "my own", "another", "typed"] {
        assert!(!trail.contains(piece), "{piece}: {trail}");
    }
}
