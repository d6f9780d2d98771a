//! Members in the admin API, and how they get in to the console.

use http::header::SET_COOKIE;
use serde_json::{Value, json};

use super::desk::{Answer, Desk, SECRET};
use super::moody_store::Mood;

const PASSPHRASE: &str = "correct horse battery";
const NOBODY: &str = "/v1/members/mem_00000000010000000000000001";

fn invite(desk: &Desk, name: &str, role: &str) -> Value {
    desk.call("POST", "/v1/members", json!({"name": name, "role": role})).expect(201).json()
}

/// Posts a form of the console.
fn post(desk: &Desk, path: &str, cookie: &str, fields: &[(&str, &str)]) -> Answer {
    let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let cookie = format!("tollgate_session={cookie}");
    let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Cookie", cookie.as_str())];
    desk.raw("POST", path, &headers, form.as_bytes())
}

fn get(desk: &Desk, path: &str, cookie: &str) -> Answer {
    desk.raw("GET", path, &[("Cookie", &format!("tollgate_session={cookie}"))], b"")
}

/// The session that an answer of the console begins; empty: none.
fn session(answer: &Answer) -> String {
    let cookies = answer.headers.get_all(SET_COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
    let mut values = cookies.filter_map(|cookie| cookie.strip_prefix("tollgate_session="));
    values.next().and_then(|cookie| cookie.split(';').next()).unwrap_or_default().to_owned()
}

/// Takes an invitation up in the console.
fn join(desk: &Desk, member: &Value) -> String {
    let path = member["invitation"]["path"].as_str().unwrap();
    let fields = [("passphrase", PASSPHRASE), ("again", PASSPHRASE)];
    let cookie = session(&post(desk, path, "", &fields).expect(303));
    assert_eq!(cookie.len(), 64);
    cookie
}

/// The word that stands in each form of a session.
fn csrf(desk: &Desk, cookie: &str) -> String {
    let page = get(desk, "/console/passphrase", cookie).expect(200).text;
    let at = page.split("name=\"csrf\" value=\"").nth(1).expect("no csrf word in the page");
    at.split('"').next().unwrap().to_owned()
}

#[test]
fn an_invitation_is_answered_with_its_link_and_shown_only_once() {
    let desk = Desk::start();
    let answer = desk.call("POST", "/v1/members", json!({"name": "  Ada ", "role": "admin"})).expect(201);
    let made = answer.json();
    let id = made["id"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("/v1/members/{id}"));
    assert_eq!((answer.header("etag"), answer.header("cache-control")), ("\"1\"".into(), "no-store".into()));
    let path = made["invitation"]["path"].as_str().unwrap();
    assert!(path.starts_with(&format!("/console/join/{id}/")), "{path}");
    let until: jiff::Timestamp = made["invitation"]["until"].as_str().unwrap().parse().unwrap();
    let created: jiff::Timestamp = made["created_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(until.duration_since(created).as_hours(), 7 * 24);
    let mut shown = made.clone();
    shown.as_object_mut().unwrap().remove("invitation");
    let expected = json!({
        "id": id, "name": "Ada", "role": "admin", "status": "invited",
        "invited_until": made["invitation"]["until"], "created_at": made["created_at"], "version": 1,
    });
    assert_eq!(shown, expected);
    let read = desk.call("GET", &format!("/v1/members/{id}"), Value::Null).expect(200);
    assert_eq!((read.json(), read.header("etag")), (shown.clone(), "\"1\"".to_owned()));
    let second = invite(&desk, "Grace", "viewer");
    let list = desk.call("GET", "/v1/members", Value::Null).expect(200).json();
    assert_eq!(list["members"][0], shown);
    assert_eq!((&list["members"][1]["id"], list["members"].as_array().unwrap().len()), (&second["id"], 2));

    join(&desk, &made);
    let read = desk.call("GET", &format!("/v1/members/{id}"), Value::Null).expect(200).json();
    assert_eq!((&read["status"], &read["invited_until"]), (&json!("active"), &Value::Null));
}

#[test]
fn names_are_unique_whatever_their_case() {
    let desk = Desk::start();
    let ada = invite(&desk, "Ada", "viewer");
    let grace = invite(&desk, "Grace", "viewer");
    let grace = format!("/v1/members/{}", grace["id"].as_str().unwrap());
    for name in ["Ada", "ADA", " ada "] {
        let refused = desk.call("POST", "/v1/members", json!({"name": name, "role": "viewer"})).expect(409);
        assert_eq!((refused.code(), refused.pointers()), ("name_taken".into(), vec!["/name".to_owned()]));
        let refused = desk.call("PATCH", &grace, json!({"name": name})).expect(409);
        assert_eq!((refused.code(), refused.pointers()), ("name_taken".into(), vec!["/name".to_owned()]));
    }
    let path = format!("/v1/members/{}", ada["id"].as_str().unwrap());
    assert_eq!(
        desk.call("PATCH", &path, json!({"name": "ADA"})).expect(200).json()["name"],
        "ADA",
        "its own"
    );
    desk.call("DELETE", &path, Value::Null).expect(200);
    desk.call("PATCH", &grace, json!({"name": "ada"})).expect(200);
}

#[test]
fn whatever_is_wrong_with_a_member_is_named() {
    let desk = Desk::start();
    let path = format!("/v1/members/{}", invite(&desk, "Ada", "viewer")["id"].as_str().unwrap());
    let long = "é".repeat(201);
    for (body, made, edited) in [
        (json!({}), &["/name", "/role"][..], None),
        (json!({"name": "x"}), &["/role"], None),
        (json!({"name": null, "role": null}), &["/name", "/role"], Some(&["/name", "/role"][..])),
        (json!({"name": "  ", "role": "root"}), &["/name", "/role"], Some(&["/name", "/role"])),
        (json!({"name": 7, "role": 7}), &["/name", "/role"], Some(&["/name", "/role"])),
        (json!({"name": long, "role": "admin"}), &["/name"], Some(&["/name"])),
        (json!({"name": "a\u{7}b", "role": "admin"}), &["/name"], Some(&["/name"])),
        (json!({"name": SECRET, "role": "admin"}), &["/name"], Some(&["/name"])),
        (json!({"name": "x", "role": "Admin"}), &["/role"], Some(&["/role"])),
        (json!({"name": "x", "role": "admin", "passphrase": "x"}), &["/passphrase"], Some(&["/passphrase"])),
        (json!([]), &[""], Some(&[""])),
    ] {
        let refused = desk.call("POST", "/v1/members", body.clone()).expect(422);
        assert_eq!(refused.pointers(), made, "{body}");
        assert!(!refused.text.contains(SECRET));
        match edited {
            Some(pointers) => {
                assert_eq!(
                    desk.call("PATCH", &path, body.clone()).expect(422).pointers(),
                    pointers,
                    "{body}"
                );
            }
            None => {
                desk.call("PATCH", &path, body).expect(200);
            }
        }
    }
    assert_eq!(invite(&desk, &"é".repeat(200), "viewer")["version"], 1);
    for (method, path) in [
        ("GET", NOBODY.to_owned()),
        ("PATCH", NOBODY.to_owned()),
        ("DELETE", NOBODY.to_owned()),
        ("POST", format!("{NOBODY}/invite")),
        ("GET", "/v1/members/x".to_owned()),
    ] {
        assert_eq!(
            desk.call(method, &path, Value::Null).expect(404).code(),
            "member_not_found",
            "{method} {path}"
        );
    }
    desk.call("GET", "/v1/members?x=1", Value::Null).expect(400);
}

#[test]
fn writes_that_name_a_version_build_on_it_or_fail() {
    let desk = Desk::start();
    let path = format!("/v1/members/{}", invite(&desk, "Ada", "viewer")["id"].as_str().unwrap());
    let link = format!("{path}/invite");
    let edited =
        desk.call_with("PATCH", &path, json!({"role": "admin"}), &[("If-Match", "\"1\"")]).expect(200);
    assert_eq!((edited.json()["version"].as_u64(), edited.header("etag")), (Some(2), "\"2\"".to_owned()));
    for (method, path, body) in
        [("PATCH", &path, json!({"name": "x"})), ("DELETE", &path, Value::Null), ("POST", &link, Value::Null)]
    {
        let late = desk.call_with(method, path, body, &[("If-Match", "\"1\"")]).expect(412);
        assert_eq!(late.code(), "version_conflict");
    }
    let renewed = desk.call_with("POST", &link, Value::Null, &[("If-Match", "\"2\"")]).expect(200);
    assert_eq!(renewed.header("etag"), "\"3\"");
    desk.call_with("DELETE", &path, Value::Null, &[("If-Match", "\"3\"")]).expect(200);
    desk.call("GET", &path, Value::Null).expect(404);
}

#[test]
fn a_member_joins_signs_in_and_out_in_the_console() {
    let desk = Desk::start();
    let ada = invite(&desk, "Ada", "admin");
    let path = ada["invitation"]["path"].as_str().unwrap();
    let page = desk.raw("GET", path, &[], b"").expect(200);
    assert!(page.text.contains("Ada"), "{}", page.text);
    let first = join(&desk, &ada);
    desk.raw("GET", path, &[], b"").expect(410);
    get(&desk, "/console/passphrase", &first).expect(200);
    let fields = [("name", "ada"), ("passphrase", PASSPHRASE)];
    let second = session(&post(&desk, "/console/sign-in", "", &fields).expect(303));
    get(&desk, "/console/passphrase", &second).expect(200);
    post(&desk, "/console/sign-out", &first, &[("csrf", &csrf(&desk, &second))]).expect(403);
    post(&desk, "/console/sign-out", &first, &[("csrf", &csrf(&desk, &first))]).expect(303);
    assert_eq!(
        get(&desk, "/console/passphrase", &first).expect(303).header("location").split('?').next(),
        Some("/console/sign-in")
    );
    get(&desk, "/console/passphrase", &second).expect(200);
    let wrong = post(&desk, "/console/sign-in", "", &[("name", "ada"), ("passphrase", "not my passphrase")]);
    assert_eq!(session(&wrong.expect(403)), "");
    // A cookie opens pages, never the API itself: other sites can make a browser send cookies.
    get(&desk, "/v1/tokens", &second).expect(401);
}

/// Nobody is signed out by a store that does not answer, nor told that a passphrase were wrong.
#[test]
fn an_outage_of_the_store_is_told_as_an_outage() {
    let desk = Desk::start();
    let ada = invite(&desk, "Ada", "admin");
    let grace = invite(&desk, "Grace", "admin");
    let cookie = join(&desk, &ada);
    let word = csrf(&desk, &cookie);
    desk.mood(Mood::Down);
    let passphrases = [("passphrase", PASSPHRASE), ("again", PASSPHRASE)];
    let own = [("csrf", word.as_str()), ("old", PASSPHRASE), passphrases[0], passphrases[1]];
    let link = grace["invitation"]["path"].as_str().unwrap();
    let told = [
        get(&desk, "/console/passphrase", &cookie),
        post(&desk, "/console/sign-in", "", &[("name", "Ada"), ("passphrase", PASSPHRASE)]),
        post(&desk, "/console/sign-in", "", &[("token", SECRET)]),
        desk.raw("GET", link, &[], b""),
        post(&desk, link, "", &passphrases),
        post(&desk, "/console/passphrase", &cookie, &own),
        post(&desk, "/console/sign-out", &cookie, &[("csrf", &word)]),
        desk.call("GET", "/v1/members", Value::Null),
        desk.call("POST", "/v1/members", json!({"name": "x", "role": "viewer"})),
    ];
    for answer in told {
        let answer = answer.expect(503);
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(session(&answer), "");
        assert!(!answer.text.contains("10.1.2.3"), "{}", answer.text);
    }
    desk.mood(Mood::Well);
    get(&desk, "/console/passphrase", &cookie).expect(200);
    join(&desk, &grace);
}

#[test]
fn what_is_done_to_members_is_in_the_trail() {
    let desk = Desk::start();
    let ada = invite(&desk, "Ada", "viewer");
    let id = ada["id"].as_str().unwrap();
    let path = format!("/v1/members/{id}");
    desk.call("PATCH", &path, json!({"name": "Ada L", "role": "admin"})).expect(200);
    desk.call("PATCH", &path, json!({})).expect(200);
    join(&desk, &ada);
    let renewed = desk.call("POST", &format!("{path}/invite"), Value::Null).expect(200).json();
    desk.call("DELETE", &path, Value::Null).expect(200);
    let page = desk.call("GET", &format!("/v1/audit?target={id}"), Value::Null).expect(200);
    let entry = |entry: &Value| {
        let changes = entry["changes"].as_array().unwrap().iter();
        let change = |change: &Value| {
            (change["field"].as_str().unwrap().to_owned(), json!([change["from"], change["to"]]))
        };
        let changes: serde_json::Map<_, _> = changes.map(change).collect();
        (entry["action"].as_str().unwrap().to_owned(), Value::from(changes))
    };
    let mut told: Vec<_> = page.json()["entries"].as_array().unwrap().iter().map(entry).collect();
    told.reverse();
    let expected = [
        (
            "member.invite",
            json!({"/name": [null, "Ada"], "/role": [null, "viewer"], "/status": [null, "invited"]}),
        ),
        ("member.edit", json!({"/name": ["Ada", "Ada L"], "/role": ["viewer", "admin"]})),
        ("member.edit", json!({})),
        ("member.accept", json!({"/status": ["invited", "active"]})),
        ("session.begin", json!({"/by": [null, "invitation"]})),
        ("member.link", json!({"/status": ["active", "invited"]})),
        (
            "member.remove",
            json!({"/name": ["Ada L", null], "/role": ["admin", null], "/status": ["invited", null]}),
        ),
    ];
    assert_eq!(told, expected.map(|(action, changes)| (action.to_owned(), changes)));
    for member in [&ada, &renewed] {
        let secret = member["invitation"]["path"].as_str().unwrap().rsplit('/').next().unwrap();
        assert!(!page.text.contains(secret), "{}", page.text);
    }
    assert!(!page.text.contains(PASSPHRASE) && !page.text.contains("argon2"), "{}", page.text);
}
