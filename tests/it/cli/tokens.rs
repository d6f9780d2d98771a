//! What the commands do when all goes well.

use serde_json::{Value, json};

use super::tool::{command, config, run, run_in};
use crate::admin::books;
use crate::admin::desk::{Desk, FIRST_ID, SECRET};
use tollgate::policy::Pool;

/// Words of a line, however it is spaced.
pub(super) fn words(text: &str, start: &str) -> Vec<String> {
    let line = text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {text}"));
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn every_flag_of_create_arrives_in_its_field() {
    let desk = Desk::start();
    let before = jiff::Timestamp::now();
    let args = [
        "token",
        "create",
        "--json",
        "--nickname",
        "Customer XYZ",
        "--expires-in",
        "90d",
        "--signed-requests",
        "--replay-protection",
        "off",
        "--core-access",
        "false",
        "--premium-access",
        "true",
        "--dataset",
        "MY/CARS:read,write",
        "--dataset",
        "MY/*",
        "--allowed-domain",
        "www.example.com",
        "--allowed-domain",
        "a.example.org *.b.example.org",
        "--domain-mode",
        "report",
        "--core-credit-limit",
        "100000/month",
        "--premium-credit-limit",
        "7",
        "--rate-limit",
        "50/s",
        "--burst",
        "100",
    ];
    let made = run(&desk, &args).expect(0).json();
    let expires: jiff::Timestamp = made["expires_at"].as_str().unwrap().parse().unwrap();
    let days = (expires.duration_since(before).as_secs() + 30) / 86_400;
    assert_eq!(days, 90, "{expires}");
    for (name, value) in [
        ("type", json!("publishable")),
        ("nickname", json!("Customer XYZ")),
        ("signed_requests", json!(true)),
        ("replay_protection", json!(false)),
        ("core_access", json!(false)),
        ("premium_access", json!(true)),
        (
            "datasets",
            json!([{"dataset": "MY/CARS", "operations": ["read", "write"]},
                            {"dataset": "MY/*", "operations": ["read"]}]),
        ),
        ("allowed_domains", json!(["www.example.com", "a.example.org", "*.b.example.org"])),
        ("domain_mode", json!("report")),
        (
            "credit_limit",
            json!({"core": {"credits": 100_000, "period": "month"},
                                "premium": {"credits": 7, "period": "none"}}),
        ),
        ("rate_limit", json!({"requests_per_second": 50, "burst": 100})),
        ("version", json!(1)),
    ] {
        assert_eq!(made[name], value, "{name}");
    }
    let secret = run(
        &desk,
        &[
            "token",
            "create",
            "--type",
            "secret",
            "--expires-at",
            "2199-01-01T00:00:00Z",
            "--rate-limit",
            "5/s",
            "--json",
        ],
    )
    .expect(0)
    .json();
    assert_eq!((&secret["type"], &secret["expires_at"]), (&json!("secret"), &json!("2199-01-01T00:00:00Z")));
    assert_eq!(secret["rate_limit"]["burst"], 5);
    assert!(secret["token"].as_str().unwrap().starts_with("sk_"));
}

#[test]
fn every_flag_of_edit_sets_or_clears_its_field() {
    let desk = Desk::start();
    let id = run(&desk, &["token", "create", "--json"]).expect(0).json()["id"].as_str().unwrap().to_owned();
    books::report(&desk, 1, books::FAR_AHEAD);
    // (flags, field, what it is then)
    let table: [(&[&str], &str, Value); 20] = [
        (&["--nickname", "New name"], "nickname", json!("New name")),
        (&["--status", "disabled"], "status", json!("disabled")),
        (&["--status", "active"], "status", json!("active")),
        (&["--expires-at", "2199-01-01T00:00:00Z"], "expires_at", json!("2199-01-01T00:00:00Z")),
        (&["--no-expiry"], "expires_at", Value::Null),
        (&["--signed-requests", "true"], "signed_requests", json!(true)),
        (&["--signed-requests", "false"], "signed_requests", json!(false)),
        (&["--replay-protection", "off"], "replay_protection", json!(false)),
        (&["--replay-protection", "on"], "replay_protection", json!(true)),
        (
            &["--dataset", "MY/CARS:delete"],
            "datasets",
            json!([{"dataset": "MY/CARS", "operations": ["delete"]}]),
        ),
        (&["--clear-datasets"], "datasets", json!([])),
        (&["--allowed-domain", "www.example.com"], "allowed_domains", json!(["www.example.com"])),
        (&["--clear-allowed-domains"], "allowed_domains", json!([])),
        (
            &["--core-credit-limit", "5/day", "--premium-credit-limit", "6/hour"],
            "credit_limit",
            json!({"core": {"credits": 5, "period": "day"}, "premium": {"credits": 6, "period": "hour"}}),
        ),
        (
            &["--no-core-credit-limit"],
            "credit_limit",
            json!({"core": null, "premium": {"credits": 6, "period": "hour"}}),
        ),
        (
            &["--core-credit-limit", "1", "--no-premium-credit-limit"],
            "credit_limit",
            json!({"core": {"credits": 1, "period": "none"}, "premium": null}),
        ),
        (&["--rate-limit", "9/s"], "rate_limit", json!({"requests_per_second": 9, "burst": 9})),
        (&["--burst", "20", "--wait"], "rate_limit", json!({"requests_per_second": 9, "burst": 20})),
        (&["--no-rate-limit", "--wait=250ms"], "rate_limit", Value::Null),
        (&["--core-access", "false"], "core_access", json!(false)),
    ];
    for (at, (flags, field, value)) in table.into_iter().enumerate() {
        let args = [&["token", "edit", &id, "--json"], flags].concat();
        let token = run(&desk, &args).expect(0).json();
        assert_eq!((&token[field], &token["version"]), (&value, &json!(at + 2)), "{flags:?}");
        assert_eq!(desk.read(&id)[field], value, "{flags:?}");
    }
}

#[test]
fn people_read_tables_without_lines_where_there_is_no_terminal() {
    let desk = Desk::start();
    let args = [
        "token",
        "create",
        "--nickname",
        "Customer XYZ",
        "--dataset",
        "MY/CARS:read,write",
        "--allowed-domain",
        "www.example.com",
        "--core-credit-limit",
        "100000/month",
        "--rate-limit",
        "50/s",
    ];
    let created = run(&desk, &args).expect(0);
    assert!(created.out.is_ascii(), "{}", created.out);
    let id = words(&created.out, "id")[1].clone();
    assert!(words(&created.out, "token")[1].starts_with("pk_"), "{}", created.out);
    let shown = run(&desk, &["token", "show", &id]).expect(0).out;
    for (start, expected) in [
        ("nickname", &["Customer", "XYZ"][..]),
        ("expires", &["never"]),
        ("data sets", &["sets", "MY/CARS:read,write"]),
        ("allowed domains", &["domains", "www.example.com"]),
        ("core credits", &["credits", "100000/month"]),
        ("premium credits", &["credits", "no", "limit"]),
        ("rate limit", &["limit", "50/s,", "burst", "50"]),
    ] {
        assert_eq!(words(&shown, start)[1..], *expected, "{shown}");
    }
    let pools = |text: &str| [words(text, "core "), words(text, "premium ")];
    let usage = run(&desk, &["token", "usage", &id]).expect(0).out;
    let header = ["POOL", "USED", "LEASED", "STRANDED", "REMAINING", "PERIOD", "RESETS", "AT"];
    assert_eq!(words(&usage, "POOL"), header);
    assert_eq!(pools(&usage)[0][..6], ["core", "0", "0", "0", "100000", "month"]);
    assert_eq!(pools(&usage)[1][..7], ["premium", "0", "0", "0", "no", "limit", "month"]);

    let list = run(&desk, &["token", "list"]).expect(0).out;
    let lines: Vec<_> = list.lines().collect();
    assert_eq!(lines.len(), 3, "{list}");
    assert!(lines[0].starts_with("ID"), "{list}");
    assert!(lines[1].starts_with(FIRST_ID) && lines[1].contains("(secret)"), "{list}");
    assert!(lines[2].starts_with(&id) && lines[2].contains("Customer XYZ"), "{list}");
    assert!(!list.contains("sk_"), "{list}");

    let account = run(&desk, &["account", "show"]).expect(0).out;
    assert_eq!(words(&account, "account"), ["account", "default"]);
    assert_eq!(words(&account, "POOL")[..4], ["POOL", "USED", "LEASED", "STRANDED"]);
    let explained = run(&desk, &["explain", "/v1/x"]).expect(0).out;
    assert!(explained.starts_with("It would pass."), "{explained}");
    assert_eq!(words(&explained, "domain"), ["domain", "passed"]);
    let explained = run(&desk, &["explain", "/v1/x", "--method", "POST"]).expect(0).out;
    assert!(explained.starts_with("It would be refused: 403 domain_denied."), "{explained}");
}

#[test]
fn a_list_for_programs_holds_every_page() {
    let desk = Desk::start();
    for _ in 0..3 {
        desk.create(json!({}));
    }
    let list = run(&desk, &["--json", "token", "list"]).expect(0).json();
    assert_eq!((list["tokens"].as_array().unwrap().len(), &list["next_cursor"]), (4, &Value::Null));
    let whole = desk.call("GET", "/v1/tokens", Value::Null).json();
    assert_eq!(list, whole);
}

#[test]
fn a_list_is_searched_filtered_and_shown_with_usage() {
    let desk = Desk::start();
    let ids: Vec<_> = ["Cars shop", "Boats shop", "Cars"]
        .map(|nickname| {
            let limit = json!({"core": {"credits": 100, "period": "month"}});
            let token = desk.create(json!({"nickname": nickname, "credit_limit": limit}));
            token["id"].as_str().unwrap().to_owned()
        })
        .into();
    desk.call("DELETE", &format!("/v1/tokens/{}", ids[2]), Value::Null).expect(200);
    let hour = books::hour(jiff::Timestamp::now());
    books::spend(&desk, &ids[0], Pool::Core, vec![books::cell(hour, "MY/CARS", 12)]);
    let listed = |args: &[&str]| {
        let shown = run(&desk, &[&["token", "list"], args].concat()).expect(0).out;
        shown.lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&["--search", "CARS"]), [ids[0].as_str(), &ids[2]]);
    assert_eq!(listed(&["--search", "shop cars"]), [ids[0].as_str()]);
    assert_eq!(listed(&["--search", "cars", "--status", "revoked"]), [ids[2].as_str()]);
    assert_eq!(listed(&["--type", "secret"]), [FIRST_ID]);
    let shown = run(&desk, &["token", "list", "--usage", "--status", "active", "--type", "publishable"]);
    let shown = shown.expect(0).out;
    assert_eq!(words(&shown, "ID")[4..], ["CORE", "USED", "PREMIUM", "USED", "LAST", "USED"]);
    assert_eq!(words(&shown, &ids[0])[3..9], ["Cars", "shop", "12", "of", "100/month", "0"]);
    assert!(words(&shown, &ids[0])[9].ends_with('Z'), "{shown}");
    assert_eq!(words(&shown, &ids[1])[5..], ["0", "of", "100/month", "0", "never"]);
    let shown = run(&desk, &["token", "show", &ids[0]]).expect(0).out;
    assert_eq!(words(&shown, "last refused"), ["last", "refused", "never"]);
    let json = run(&desk, &["token", "list", "--usage", "--search", "boats", "--json"]).expect(0).json();
    assert_eq!(json["tokens"], json!([desk.read(&ids[1])]));
    run(&desk, &["token", "list", "--status", "sleepy"]).expect(2);
    let refused = run(&desk, &["token", "list", "--search", SECRET]).expect(1).says(&["secret"]);
    assert!(!refused.err.contains(&SECRET[3..]), "{}", refused.err);
}

#[test]
fn values_are_rotated_revealed_and_revoked() {
    let desk = Desk::start();
    let token = desk.create(json!({"type": "secret"}));
    let id = token["id"].as_str().unwrap();
    let revealed = run(&desk, &["token", "reveal", id]).expect(0).out;
    assert_eq!(revealed.trim_end(), token["token"].as_str().unwrap());
    let rotated =
        run(&desk, &["token", "rotate", id, "--grace", "24h", "--if-version", "1", "--json"]).expect(0);
    assert!(rotated.err.contains("secret-token"), "it says where the old value may stand: {}", rotated.err);
    let rotated = rotated.json();
    assert_ne!(rotated["token"], token["token"]);
    let made = run(&desk, &["token", "signing-secret", id]).expect(0).says(&["keep the secret now"]);
    assert!(made.out.starts_with("ss_") && made.out.trim_end().len() == 35, "{made:?}");
    let made = run(&desk, &["token", "signing-secret", id, "--json"]).expect(0).json();
    assert!(made["signing_secret"].as_str().unwrap().starts_with("ss_"), "{made}");
    run(&desk, &["token", "signing-secret", id, "--if-version", "1"]).expect(1);
    let revealed = run(&desk, &["token", "reveal", id, "--json"]).expect(0).json();
    assert_eq!(revealed, json!({"token": rotated["token"]}));
    let revoked = run(&desk, &["token", "revoke", id]).expect(0).out;
    assert_eq!(revoked, format!("{id} is revoked\n"));
    assert_eq!(desk.read(id)["status"], "revoked");
    let usage = run(&desk, &["token", "usage", id, "--json"]).expect(0).json();
    assert_eq!((&usage["id"], &usage["usage"]["core"]["used"]), (&json!(id), &json!(0)));
}

#[test]
fn a_budget_is_edited_pool_by_pool() {
    let desk = Desk::start();
    let edit = |args: &[&str]| run(&desk, &[&["account", "edit", "--json"], args].concat()).expect(0).json();
    let core = json!({"credits": 1_000_000, "period": "month"});
    assert_eq!(edit(&["--core-budget", "1000000/month"])["budget"], json!({"core": core, "premium": null}));
    let premium = json!({"credits": 5, "period": "hour"});
    let account = edit(&["--premium-budget", "5/hour", "--if-version", "2"]);
    assert_eq!(account["budget"], json!({"core": core, "premium": premium}));
    let account = edit(&["--no-core-budget"]);
    assert_eq!(account["budget"], json!({"core": null, "premium": premium}));
    assert_eq!(run(&desk, &["account", "show", "--json"]).expect(0).json(), account);
}

#[test]
fn a_question_is_asked_with_all_its_headers() {
    let desk = Desk::start();
    let args = [
        "explain",
        "--json",
        "https://gate.example/v1/x?y=1",
        "--method",
        "GET",
        "--origin",
        "https://www.example.com",
        "--referer",
        "https://www.example.com/app",
        "--header",
        "X-API-Key: abc",
        "--header",
        "x-many: 1",
        "--header",
        "x-many: 2",
        "--client",
        "192.0.2.7",
        "--token-id",
        FIRST_ID,
    ];
    let answer = run(&desk, &args).expect(0).json();
    assert_eq!((&answer["pass"], &answer["token_id"]), (&json!(true), &json!(FIRST_ID)));
    let asked = desk.asked.lock();
    let headers: Vec<_> = asked[0].headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    assert_eq!(
        headers,
        [
            "Origin: https://www.example.com",
            "Referer: https://www.example.com/app",
            "X-API-Key: abc",
            "x-many: 1",
            "x-many: 2"
        ]
    );
    assert_eq!(asked[0].client, Some("192.0.2.7".parse().unwrap()));
}

#[test]
fn address_and_token_come_from_the_configuration_when_nobody_gives_them() {
    let desk = Desk::start();
    let folder = tempfile::tempdir().unwrap();
    let port = desk.url.rsplit(':').next().unwrap();
    // Listening everywhere, it is called on this machine.
    std::fs::write(folder.path().join("proxy.yaml"), config(&format!("0.0.0.0:{port}"))).unwrap();
    run_in(folder.path(), &["token", "list"]).expect(1).says(&["state/secret-token", "tollgate serve"]);
    std::fs::create_dir(folder.path().join("state")).unwrap();
    std::fs::write(folder.path().join("state/secret-token"), format!("{SECRET}\n")).unwrap();
    let list = run_in(folder.path(), &["token", "list", "--json"]).expect(0).json();
    assert_eq!(list["tokens"][0]["id"], FIRST_ID);
    std::fs::rename(folder.path().join("proxy.yaml"), folder.path().join("other.yaml")).unwrap();
    run_in(folder.path(), &["token", "list"]).expect(1).says(&[
        "proxy.yaml",
        "--admin",
        "TOLLGATE_SECRET_TOKEN",
    ]);
    run_in(folder.path(), &["--config", "other.yaml", "token", "list"]).expect(0);
    run_in(folder.path(), &["token", "list", "--config", "other.yaml"]).expect(0);
}

#[test]
fn completions_and_help_need_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = run_in(folder.path(), &["completions", shell]).expect(0).out;
        assert!(script.contains("--core-credit-limit") || script.contains("core-credit-limit"), "{shell}");
    }
    assert!(run_in(folder.path(), &["--help"]).expect(0).out.contains("explain"));
    assert!(run_in(folder.path(), &["--version"]).expect(0).out.starts_with("tollgate "));
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = command(folder.path(), &["completions", "bash"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
