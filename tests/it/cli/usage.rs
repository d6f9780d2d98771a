//! `tollgate usage` and the history in `tollgate token usage`.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use tollgate::policy::{AccountId, Pool};
use tollgate::store::Store as _;

use super::tokens::words;
use super::tool::run;
use crate::admin::books;
use crate::admin::desk::{Desk, FIRST_ID};

/// A token that has used something in this hour and in the same hour yesterday, and was refused something.
fn used(desk: &Desk) -> (String, [i64; 2]) {
    let id = desk.create(json!({}))["id"].as_str().unwrap().to_owned();
    let hour = books::hour(Timestamp::now());
    let hours = [hour - 86_400, hour];
    books::spend(
        desk,
        &id,
        Pool::Core,
        vec![
            books::cell(hours[0], "MY/CARS", 5),
            books::cell(hours[1], "MY/CARS", 6),
            books::cell(hours[1], "", 7),
        ],
    );
    books::spend(desk, &id, Pool::Premium, vec![books::cell(hours[1], "CORE/QUOTES", 8)]);
    books::refuse(desk, Some(&id), hours[1], "domain_denied", 3);
    (id, hours)
}

fn time(second: i64) -> String {
    Timestamp::from_second(second).unwrap().to_string()
}

#[test]
fn the_history_is_shown_in_tables() {
    let desk = Desk::start();
    let (id, hours) = used(&desk);
    books::refuse(&desk, None, hours[1], "token_invalid", 9);
    let shown = run(&desk, &["token", "usage", &id, "--by", "dataset"]).expect(0).out;
    assert_eq!(words(&shown, "DATASET"), ["DATASET", "POOL", "REQUESTS", "CREDITS", "BYTES"]);
    assert_eq!(words(&shown, "(none)"), ["(none)", "core", "1", "7", "70"]);
    assert_eq!(words(&shown, "CORE/QUOTES"), ["CORE/QUOTES", "premium", "1", "8", "80"]);
    assert_eq!(words(&shown, "MY/CARS"), ["MY/CARS", "core", "2", "11", "110"]);
    assert_eq!(words(&shown, "TOTAL"), ["TOTAL", "REQUESTS", "CREDITS", "BYTES"]);
    assert_eq!(words(&shown, "core "), ["core", "3", "18", "180"]);
    assert_eq!(words(&shown, "premium "), ["premium", "1", "8", "80"]);
    assert_eq!(words(&shown, "domain_denied"), ["domain_denied", "3"]);
    assert!(!shown.contains("token_invalid"), "{shown}");

    let (first, last) = (time(hours[0]), time(hours[1]));
    let shown = run(&desk, &["token", "usage", &id, "--by", "hour", "--to", &last]).expect(0).out;
    assert_eq!(words(&shown, &first), [first.as_str(), "core", "1", "5", "50"]);
    assert!(!shown.lines().any(|line| line.starts_with(&last)) && !shown.contains("REFUSED"), "{shown}");

    let shown = run(&desk, &["usage", "--by", "token", "--from", &last]).expect(0).out;
    assert_eq!(words(&shown, &id), [id.as_str(), "core", "2", "13", "130"]);
    assert_eq!(words(&shown, "token_invalid"), ["token_invalid", "9"]);
    let shown = run(&desk, &["usage"]).expect(0).out;
    assert_eq!(words(&shown, "DAY")[0], "DAY");
    assert_eq!(words(&shown, &first[..10])[..4], [&first[..10], "core", "1", "5"]);

    let shown = run(&desk, &["token", "usage", &id, "--to", "2020-01-01"]).expect(0).out;
    assert_eq!(shown, "Nothing was used from 2019-12-02T00:00:00Z to 2020-01-01T00:00:00Z.\n");
    let shown = run(&desk, &["token", "usage", FIRST_ID, "--by", "operation"]).expect(0).out;
    assert!(shown.starts_with("Nothing was used from "), "{shown}");
}

#[test]
fn refusals_are_shown_by_time_if_asked() {
    let desk = Desk::start();
    let (id, hours) = used(&desk);
    books::refuse(&desk, None, hours[0], "token_invalid", 9);
    let (first, last) = (time(hours[0]), time(hours[1]));
    let shown = run(&desk, &["token", "usage", &id, "--refusals-by", "hour"]).expect(0).out;
    assert_eq!(words(&shown, "HOUR"), ["HOUR", "REFUSED", "COUNT"]);
    assert_eq!(words(&shown, &last), [last.as_str(), "domain_denied", "3"]);
    let shown = run(&desk, &["usage", "--by", "month", "--refusals-by", "day"]).expect(0).out;
    assert_eq!(words(&shown, "MONTH")[..2], ["MONTH", "POOL"]);
    assert_eq!(words(&shown, &format!("{}  ", &first[..10])), [&first[..10], "token_invalid", "9"]);
    let csv = run(&desk, &["usage", "--refusals-by", "hour", "--csv"]).expect(0).out;
    assert_eq!(csv, format!("hour,code,count\r\n{first},token_invalid,9\r\n{last},domain_denied,3\r\n"));
    run(&desk, &["usage", "--refusals-by", "dataset"]).expect(2);
}

#[test]
fn programs_get_the_answer_of_the_api_or_rows_of_csv() {
    let desk = Desk::start();
    let (id, hours) = used(&desk);
    for by in ["day", "hour", "month", "dataset", "operation", "token"] {
        let answer = desk.call("GET", &format!("/v1/usage?by={by}"), Value::Null).expect(200).json();
        assert_eq!(run(&desk, &["usage", "--by", by, "--json"]).expect(0).json(), answer, "{by}");
        if by != "token" {
            let shown = run(&desk, &["--json", "token", "usage", &id, "--by", by]).expect(0).json();
            assert_eq!(shown, answer, "{by}");
        }
    }
    let csv = run(&desk, &["token", "usage", &id, "--by", "dataset", "--csv"]).expect(0).out;
    assert_eq!(
        csv,
        "dataset,pool,requests,credits,bytes\r\n,core,1,7,70\r\nCORE/QUOTES,premium,1,8,80\r\n\
         MY/CARS,core,2,11,110\r\n"
    );
    let csv = run(&desk, &["usage", "--by", "token", "--csv"]).expect(0).out;
    assert_eq!(
        csv,
        format!("token_id,pool,requests,credits,bytes\r\n{id},core,3,18,180\r\n{id},premium,1,8,80\r\n")
    );
    let csv = run(&desk, &["token", "usage", &id, "--csv", "--to", &time(hours[1])]).expect(0).out;
    let day = time(hours[0])[..10].to_owned();
    assert_eq!(csv, format!("day,pool,requests,credits,bytes\r\n{day},core,1,5,50\r\n"));
    let csv = run(&desk, &["usage", "--csv", "--to", "2020-01-01"]).expect(0).out;
    assert_eq!(csv, "day,pool,requests,credits,bytes\r\n");
}

#[test]
fn without_flags_a_tokens_usage_is_what_it_is_now() {
    let desk = Desk::start();
    let (id, _) = used(&desk);
    books::lease(&desk, &id, Pool::Core, 100);
    let shown = run(&desk, &["token", "usage", &id]).expect(0).out;
    assert_eq!(words(&shown, "core ")[..7], ["core", "18", "100", "0", "no", "limit", "month"]);
    assert_eq!(words(&shown, "premium ")[..4], ["premium", "8", "0", "0"]);
    let json = run(&desk, &["token", "usage", &id, "--json"]).expect(0).json();
    assert_eq!(json, json!({"id": id, "usage": desk.read(&id)["usage"]}));
}

#[test]
fn what_lost_nodes_may_not_have_spent_is_shown_of_a_token_and_of_the_account() {
    let desk = Desk::start();
    let ids = [(); 2].map(|()| desk.create(json!({}))["id"].as_str().unwrap().to_owned());
    for (id, credits) in ids.iter().zip([40, 2]) {
        books::lease_for(&desk, id, Pool::Core, credits, Duration::from_millis(1));
    }
    books::lease(&desk, &ids[0], Pool::Core, 100);
    let deadline = Instant::now() + Duration::from_secs(20);
    let stranded = |command: &[&str]| {
        let shown = run(&desk, command).expect(0).out;
        assert_eq!(words(&shown, "POOL")[..4], ["POOL", "USED", "LEASED", "STRANDED"]);
        let table = shown.split_once("POOL").unwrap().1;
        words(table, "core ")[..4].join(" ")
    };
    while stranded(&["account", "show"]) != "core 42 100 42" {
        assert!(Instant::now() < deadline, "the leases never expire");
        desk.block_on(desk.store.expire(&AccountId::default_account())).unwrap();
    }
    assert_eq!(stranded(&["token", "usage", &ids[0]]), "core 40 100 40");
    assert_eq!(stranded(&["token", "usage", &ids[1]]), "core 2 0 2");
}
