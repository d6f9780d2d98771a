//! What was used and refused in a stretch of time.

use std::time::{Duration, Instant};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde_json::{Value, json};
use tollgate::policy::{AccountId, Operation, Pool};
use tollgate::store::{Store, UsageCell};

use super::books;
use super::desk::{Desk, FIRST_ID};
use super::moody_store::Mood;

fn get(desk: &Desk, path: &str) -> Value {
    desk.call("GET", path, Value::Null).expect(200).json()
}

/// The start of an hour, some days before today.
fn at(days_ago: i64, hour: i8) -> Timestamp {
    let today = TimeZone::UTC.to_datetime(Timestamp::now()).date();
    let date: Date = today.checked_sub(Span::new().days(days_ago)).unwrap();
    TimeZone::UTC.to_timestamp(date.at(hour, 0, 0, 0)).unwrap()
}

fn day(days_ago: i64) -> String {
    TimeZone::UTC.to_datetime(at(days_ago, 0)).date().to_string()
}

/// A token that has used core and premium data, over two days, several data sets and all operations.
fn busy_token(desk: &Desk) -> String {
    let ever = json!({"credits": 1_000_000, "period": "none"});
    let token = desk.create(json!({"credit_limit": {"core": ever, "premium": ever}}));
    let id = token["id"].as_str().unwrap().to_owned();
    let cell = |days_ago, hour, dataset: &str, operation, requests, credits, bytes| UsageCell {
        hour: at(days_ago, hour).as_second(),
        dataset: dataset.to_owned(),
        operation,
        requests,
        credits,
        bytes,
    };
    let (read, write, delete) = (Operation::Read, Operation::Write, Operation::Delete);
    // Two leases that paid for the same hour, data set and operation: their cells add up.
    books::spend(
        desk,
        &id,
        Pool::Core,
        vec![
            cell(2, 9, "CORE/QUOTES", read, 1, 2, 100),
            cell(2, 10, "CORE/QUOTES", read, 10, 20, 1000),
            cell(1, 0, "MY/CARS", write, 3, 3, 30),
        ],
    );
    books::spend(
        desk,
        &id,
        Pool::Core,
        vec![
            cell(2, 10, "CORE/QUOTES", read, 100, 200, 10_000),
            cell(1, 23, "MY/CARS", delete, 4, 4, 0),
            cell(1, 23, "", read, 5, 0, 50),
        ],
    );
    books::spend(desk, &id, Pool::Premium, vec![cell(1, 0, "CORE/QUOTES", read, 7, 70, 700)]);
    id
}

#[test]
fn rows_are_by_what_was_asked_for_and_in_order() {
    let desk = Desk::start();
    let id = busy_token(&desk);
    let row = |name: &str, key: &str, pool: &str, requests: u64, credits: u64, bytes: u64| json!({name: key, "pool": pool, "requests": requests, "credits": credits, "bytes": bytes});
    let hour = |days_ago, hour| at(days_ago, hour).to_string();
    let table = [
        (
            "day",
            vec![
                row("day", &day(2), "core", 111, 222, 11_100),
                row("day", &day(1), "core", 12, 7, 80),
                row("day", &day(1), "premium", 7, 70, 700),
            ],
        ),
        (
            "hour",
            vec![
                row("hour", &hour(2, 9), "core", 1, 2, 100),
                row("hour", &hour(2, 10), "core", 110, 220, 11_000),
                row("hour", &hour(1, 0), "core", 3, 3, 30),
                row("hour", &hour(1, 0), "premium", 7, 70, 700),
                row("hour", &hour(1, 23), "core", 9, 4, 50),
            ],
        ),
        (
            "dataset",
            vec![
                row("dataset", "", "core", 5, 0, 50),
                row("dataset", "CORE/QUOTES", "core", 111, 222, 11_100),
                row("dataset", "CORE/QUOTES", "premium", 7, 70, 700),
                row("dataset", "MY/CARS", "core", 7, 7, 30),
            ],
        ),
        (
            "operation",
            vec![
                row("operation", "read", "core", 116, 222, 11_150),
                row("operation", "read", "premium", 7, 70, 700),
                row("operation", "write", "core", 3, 3, 30),
                row("operation", "delete", "core", 4, 4, 0),
            ],
        ),
    ];
    let totals = json!({"core": {"requests": 123, "credits": 229, "bytes": 11_180},
                        "premium": {"requests": 7, "credits": 70, "bytes": 700}});
    for (by, rows) in table {
        for path in [format!("/v1/tokens/{id}/usage?by={by}"), format!("/v1/usage?by={by}")] {
            let report = get(&desk, &path);
            assert_eq!(report["rows"], json!(rows), "{path}");
            assert_eq!((&report["totals"], &report["by"]), (&totals, &json!(by)), "{path}");
            assert_eq!(report["refusals"], json!([]), "{path}");
        }
    }
    let by_day = desk.call("GET", &format!("/v1/tokens/{id}/usage"), Value::Null).expect(200);
    assert_eq!(by_day.header("cache-control"), "no-store");
    assert_eq!(by_day.json(), get(&desk, &format!("/v1/tokens/{id}/usage?by=day")));
}

#[test]
fn rows_add_up_to_what_the_ledger_says_is_used() {
    let desk = Desk::start();
    let first = busy_token(&desk);
    let second = busy_token(&desk);
    // What is only leased is no usage, nor is what a lease gives back.
    books::lease(&desk, &first, Pool::Core, 500);
    let half = books::lease(&desk, &second, Pool::Core, 100);
    books::settle(&desk, half, vec![books::cell(at(0, 0).as_second(), "MY/CARS", 50)]);
    let credits = |report: &Value, pool: &str| {
        let rows = report["rows"].as_array().unwrap().iter().filter(|row| row["pool"] == pool);
        rows.map(|row| row["credits"].as_u64().unwrap()).sum::<u64>()
    };
    let mut all = [0, 0];
    for id in [&first, &second] {
        let used = desk.read(id)["usage"].clone();
        for by in ["day", "hour", "dataset", "operation"] {
            let report = get(&desk, &format!("/v1/tokens/{id}/usage?by={by}"));
            for pool in ["core", "premium"] {
                assert_eq!(json!(credits(&report, pool)), used[pool]["used"], "{id} {by} {pool}");
                assert_eq!(report["totals"][pool]["credits"], used[pool]["used"], "{id} {by} {pool}");
            }
        }
        for (sum, pool) in all.iter_mut().zip(["core", "premium"]) {
            *sum += used[pool]["used"].as_u64().unwrap();
        }
    }
    assert_eq!(all, [229 + 279, 70 + 70]);
    for by in ["day", "hour", "month", "dataset", "operation", "token"] {
        let report = get(&desk, &format!("/v1/usage?by={by}"));
        assert_eq!([credits(&report, "core"), credits(&report, "premium")], all, "{by}");
    }
    let by_token = get(&desk, "/v1/usage?by=token");
    let rows = by_token["rows"].as_array().unwrap();
    let who: Vec<_> = rows.iter().map(|row| (&row["token_id"], row["credits"].as_u64().unwrap())).collect();
    let (first, second) = (json!(first), json!(second));
    assert_eq!(who, [(&first, 229), (&first, 70), (&second, 279), (&second, 70)]);
}

#[test]
fn a_stretch_is_cut_at_whole_hours_and_days() {
    let desk = Desk::start();
    let id = desk.create(json!({}))["id"].as_str().unwrap().to_owned();
    // Each hour has its own bit, so a sum tells which hours were counted.
    let hours = [at(3, 22), at(3, 23), at(2, 0), at(2, 1)];
    let cells = (0..).zip(hours).map(|(bit, hour)| books::cell(hour.as_second(), "MY/CARS", 1 << bit));
    books::spend(&desk, &id, Pool::Core, cells.collect());
    for (bit, hour) in (0..).zip(hours) {
        books::refuse(&desk, Some(&id), hour.as_second(), "no_route", 1 << bit);
    }
    let (three, two, one) = (day(3), day(2), day(1));
    let nine_after = |time: Timestamp| (time + jiff::SignedDuration::from_secs(540)).to_string();
    let offset = format!("{two}T01:00:00%2B01:00");
    // (from, to, the hours that count, where it begins and ends)
    let table: [(String, String, u64, Timestamp, Timestamp); 14] = [
        (hours[0].to_string(), at(2, 2).to_string(), 0b1111, hours[0], at(2, 2)),
        (hours[1].to_string(), hours[3].to_string(), 0b0110, hours[1], hours[3]),
        (hours[2].to_string(), hours[3].to_string(), 0b0100, hours[2], hours[3]),
        (nine_after(hours[1]), nine_after(hours[2]), 0b0110, hours[1], hours[3]),
        (nine_after(hours[2]), nine_after(hours[2]), 0b0100, hours[2], hours[3]),
        (format!("{three}T23:59:59.999Z"), format!("{two}T00:00:00.001Z"), 0b0110, hours[1], hours[3]),
        (offset, hours[3].to_string(), 0b0100, hours[2], hours[3]),
        (three.clone(), two.clone(), 0b0011, at(3, 0), hours[2]),
        (two.clone(), one.clone(), 0b1100, hours[2], at(1, 0)),
        (three.clone(), three.clone(), 0, at(3, 0), at(3, 0)),
        (hours[2].to_string(), hours[2].to_string(), 0, hours[2], hours[2]),
        (at(2, 2).to_string(), one.clone(), 0, at(2, 2), at(1, 0)),
        (day(9), day(4), 0, at(9, 0), at(4, 0)),
        (
            "1999-01-01".to_owned(),
            "1999-02-01".to_owned(),
            0,
            "1999-01-01T00:00Z".parse().unwrap(),
            "1999-02-01T00:00Z".parse().unwrap(),
        ),
    ];
    for (from, to, counted, begins, ends) in table {
        for path in [format!("/v1/tokens/{id}/usage"), "/v1/usage".to_owned()] {
            let report = get(&desk, &format!("{path}?by=hour&from={from}&to={to}"));
            assert_eq!(report["totals"]["core"]["credits"], counted, "{path} {from} {to}");
            assert_eq!(
                report["rows"].as_array().unwrap().len(),
                counted.count_ones() as usize,
                "{from} {to}"
            );
            let refused =
                if counted == 0 { json!([]) } else { json!([{"code": "no_route", "count": counted}]) };
            assert_eq!(report["refusals"], refused, "{path} {from} {to}");
            assert_eq!(
                (&report["from"], &report["to"]),
                (&json!(begins.to_string()), &json!(ends.to_string())),
                "{path} {from} {to}"
            );
        }
    }
    // Without an end it is the end of today, without a beginning thirty days before the end.
    let tomorrow = at(-1, 0).to_string();
    for (query, counted, begins, ends) in [
        (String::new(), 0b1111, at(29, 0).to_string(), tomorrow.clone()),
        (format!("?from={two}"), 0b1100, at(2, 0).to_string(), tomorrow.clone()),
        ("?from=1970-01-01".to_owned(), 0b1111, "1970-01-01T00:00:00Z".to_owned(), tomorrow.clone()),
        (format!("?to={two}"), 0b0011, at(32, 0).to_string(), at(2, 0).to_string()),
        (format!("?to={}", hours[3]), 0b0111, at(32, 1).to_string(), hours[3].to_string()),
    ] {
        let report = get(&desk, &format!("/v1/usage{query}"));
        assert_eq!(
            (&report["totals"]["core"]["credits"], &report["from"], &report["to"]),
            (&json!(counted), &json!(begins), &json!(ends)),
            "{query}"
        );
    }
}

#[test]
fn what_just_happened_is_in_the_report() {
    let desk = Desk::start();
    let id = desk.create(json!({}))["id"].as_str().unwrap().to_owned();
    books::spend(&desk, &id, Pool::Core, vec![books::cell(books::hour(Timestamp::now()), "MY/CARS", 5)]);
    assert_eq!(get(&desk, &format!("/v1/tokens/{id}/usage"))["totals"]["core"]["credits"], 5);
}

#[test]
fn refusals_are_counted_by_reason_each_tokens_and_nobodys() {
    let desk = Desk::start();
    let ids = [0, 1].map(|_| desk.create(json!({}))["id"].as_str().unwrap().to_owned());
    let hour = at(1, 5).as_second();
    books::refuse(&desk, Some(&ids[0]), hour, "domain_denied", 3);
    books::refuse(&desk, Some(&ids[0]), hour + 3600, "domain_denied", 4);
    books::refuse(&desk, Some(&ids[0]), hour, "credits_exhausted", 1);
    books::refuse(&desk, Some(&ids[1]), hour, "domain_denied", 10);
    books::refuse(&desk, None, hour, "token_invalid", 100);
    let refusals = |path: &str| get(&desk, path)["refusals"].clone();
    let count = |code: &str, count: u64| json!({"code": code, "count": count});
    assert_eq!(
        refusals(&format!("/v1/tokens/{}/usage", ids[0])),
        json!([count("credits_exhausted", 1), count("domain_denied", 7)])
    );
    assert_eq!(refusals(&format!("/v1/tokens/{}/usage", ids[1])), json!([count("domain_denied", 10)]));
    assert_eq!(refusals(&format!("/v1/tokens/{FIRST_ID}/usage")), json!([]));
    assert_eq!(
        refusals("/v1/usage"),
        json!([count("credits_exhausted", 1), count("domain_denied", 17), count("token_invalid", 100)])
    );
    let report = get(&desk, "/v1/usage?by=token");
    assert_eq!(report["rows"], json!([]), "a refusal is no usage");
}

#[test]
fn months_follow_the_calendar() {
    let desk = Desk::start();
    let ids = [0, 1].map(|_| desk.create(json!({}))["id"].as_str().unwrap().to_owned());
    let today = TimeZone::UTC.to_datetime(Timestamp::now()).date();
    let first = today.first_of_month();
    let start = |date: Date| TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).unwrap().as_second();
    let two_before = first.checked_sub(Span::new().months(2)).unwrap();
    // The last hour of one month and the first of another, and one long before.
    for (id, hour, credits) in [
        (&ids[0], start(two_before), 1),
        (&ids[0], start(first) - 3600, 10),
        (&ids[1], start(first) - 3600, 20),
        (&ids[1], start(first), 100),
    ] {
        books::spend(&desk, id, Pool::Core, vec![books::cell(hour, "MY/CARS", credits)]);
        books::refuse(&desk, Some(id), hour, "no_route", credits);
    }
    books::refuse(&desk, None, start(first), "token_missing", 5);
    let month = |date: Date| date.to_string()[..7].to_owned();
    let last = month(first.yesterday().unwrap());
    let all = [(month(two_before), 1), (last.clone(), 30), (month(first), 100)];
    let of_one = [(month(two_before), 1), (last.clone(), 10)];
    let tomorrow = today.tomorrow().unwrap();
    let query = format!("by=month&refusals_by=month&from={two_before}&to={tomorrow}");
    for (path, expected) in
        [("/v1/usage".to_owned(), &all[..]), (format!("/v1/tokens/{}/usage", ids[0]), &of_one)]
    {
        let report = get(&desk, &format!("{path}?{query}"));
        let rows = report["rows"].as_array().unwrap().iter();
        let told: Vec<_> = rows
            .map(|row| (row["month"].as_str().unwrap().to_owned(), row["credits"].as_u64().unwrap()))
            .collect();
        assert_eq!(told, expected, "{path}");
        let refused =
            report["refusals_by"].as_array().unwrap().iter().filter(|row| row["code"] == "no_route");
        let told: Vec<_> = refused
            .map(|row| (row["month"].as_str().unwrap().to_owned(), row["count"].as_u64().unwrap()))
            .collect();
        assert_eq!(told, expected, "{path}");
    }
    // A month that is cut shows what is in the stretch.
    let report = get(&desk, &format!("/v1/usage?by=month&from={two_before}T01:00:00Z&to={first}"));
    assert_eq!(
        report["rows"],
        json!([{"month": last, "pool": "core", "requests": 2, "credits": 30, "bytes": 300}])
    );
    assert_eq!(report.get("refusals_by"), None);
}

#[test]
fn refusals_are_broken_down_by_time_whatever_the_rows_are_by() {
    let desk = Desk::start();
    let id = desk.create(json!({}))["id"].as_str().unwrap().to_owned();
    books::spend(&desk, &id, Pool::Core, vec![books::cell(at(2, 5).as_second(), "MY/CARS", 5)]);
    books::refuse(&desk, Some(&id), at(2, 5).as_second(), "no_route", 1);
    books::refuse(&desk, Some(&id), at(2, 6).as_second(), "no_route", 2);
    books::refuse(&desk, Some(&id), at(2, 6).as_second(), "domain_denied", 4);
    books::refuse(&desk, Some(&id), at(1, 0).as_second(), "no_route", 8);
    let row =
        |name: &str, time: String, code: &str, count: u64| json!({name: time, "code": code, "count": count});
    let hours = json!([
        row("hour", at(2, 5).to_string(), "no_route", 1),
        row("hour", at(2, 6).to_string(), "domain_denied", 4),
        row("hour", at(2, 6).to_string(), "no_route", 2),
        row("hour", at(1, 0).to_string(), "no_route", 8),
    ]);
    let days = json!([
        row("day", day(2), "domain_denied", 4),
        row("day", day(2), "no_route", 3),
        row("day", day(1), "no_route", 8),
    ]);
    let paths = |by: &str| {
        let of_token = (by != "token").then(|| format!("/v1/tokens/{id}/usage?by={by}"));
        [Some(format!("/v1/usage?by={by}")), of_token].into_iter().flatten()
    };
    for by in ["day", "hour", "month", "dataset", "operation", "token"] {
        for path in paths(by) {
            let plain = get(&desk, &path);
            for (refusals_by, expected) in [("hour", &hours), ("day", &days)] {
                let report = get(&desk, &format!("{path}&refusals_by={refusals_by}"));
                assert_eq!(&report["refusals_by"], expected, "{path} {refusals_by}");
                for name in ["rows", "totals", "refusals"] {
                    assert_eq!(report[name], plain[name], "{path} {refusals_by} {name}");
                }
                assert_eq!(report["totals"]["core"]["credits"], 5, "{path}");
            }
        }
    }
}

#[test]
fn what_a_node_holds_and_what_it_left_behind_is_told() {
    let desk = Desk::start();
    let limit = json!({"core": {"credits": 1000, "period": "none"}});
    let id = desk.create(json!({"credit_limit": limit}))["id"].as_str().unwrap().to_owned();
    let figures = || {
        let core = desk.read(&id)["usage"]["core"].clone();
        let of_account = get(&desk, "/v1/account")["usage"]["core"].clone();
        for name in ["used", "leased", "stranded"] {
            assert_eq!(of_account[name], core[name], "the account's only token in use: {name}");
        }
        ["used", "leased", "stranded", "remaining"].map(|name| core[name].as_u64().unwrap())
    };
    let held = books::lease(&desk, &id, Pool::Core, 100);
    assert_eq!(figures(), [0, 100, 0, 900]);
    let lost = books::lease_for(&desk, &id, Pool::Core, 40, Duration::from_millis(1));
    let deadline = Instant::now() + Duration::from_secs(20);
    while desk.block_on(desk.store.expire(&AccountId::default_account())).unwrap() == 0 {
        assert!(Instant::now() < deadline, "the lease never expires");
    }
    // Closed as spent in full, until its node comes back and says what is true.
    assert_eq!(figures(), [40, 100, 40, 860]);
    assert_eq!(get(&desk, "/v1/usage")["totals"]["core"]["credits"], 0, "nobody knows what it paid for");
    let hour = books::hour(Timestamp::now());
    books::settle(&desk, lost, vec![books::cell(hour, "MY/CARS", 15)]);
    assert_eq!(figures(), [15, 100, 0, 885]);
    books::settle(&desk, held, vec![books::cell(hour, "MY/CARS", 60)]);
    assert_eq!(figures(), [75, 0, 0, 925]);
    assert_eq!(get(&desk, "/v1/usage")["totals"]["core"]["credits"], 75);
}

#[test]
fn parameters_that_make_no_sense_are_named() {
    let desk = Desk::start();
    // (query, the parameters at fault, what is said)
    let table: [(&str, &[&str], &str); 16] = [
        ("refusals_by=dataset", &["refusals_by"], "day, hour, month"),
        ("refusals_by=", &["refusals_by"], "one of"),
        ("from=yesterday", &["from"], "2026-11-24T06:00:00Z"),
        ("from=2026-02-30", &["from"], "a date like"),
        ("to=2026-11-24T06:00:00", &["to"], "a time like"),
        ("to=", &["to"], "a date like"),
        ("from=1790000000", &["from"], "a date like"),
        ("by=week", &["by"], "day, hour, month, dataset, operation"),
        ("by=", &["by"], "one of"),
        ("by=day&by=hour", &["by"], "twice"),
        ("until=2026-11-24", &["until"], "from, to, by"),
        ("by=x&from=y&to=z", &["from", "to", "by"], ""),
        ("from=2026-11-24&to=2026-11-23", &["to"], "before `from`"),
        ("from=2026-11-24T06:00:00Z&to=2026-11-24T05:59:59Z", &["to"], "before `from`"),
        ("from=9000-01-01", &["from"], "later than today"),
        ("from=9999-12-31", &["from"], "a date like"),
    ];
    for (query, at_fault, says) in table {
        for path in [format!("/v1/tokens/{FIRST_ID}/usage"), "/v1/usage".to_owned()] {
            let answer = desk.call("GET", &format!("{path}?{query}"), Value::Null).expect(400);
            assert_eq!(answer.code(), "invalid_parameters", "{query}");
            assert_eq!(answer.pointers(), at_fault, "{query}");
            assert!(answer.text.contains(says), "{query}: {}", answer.text);
        }
    }
    let by_token = format!("/v1/tokens/{FIRST_ID}/usage?by=token");
    assert_eq!(desk.call("GET", &by_token, Value::Null).expect(400).pointers(), ["by"]);
}

#[test]
fn a_token_that_is_nobodys_has_no_usage_and_a_store_in_trouble_says_so() {
    let desk = Desk::start();
    for id in ["tok_00000000020000000000000001", "tok_1", "x"] {
        let answer = desk.call("GET", &format!("/v1/tokens/{id}/usage"), Value::Null).expect(404);
        assert_eq!(answer.code(), "token_not_found", "{id}");
    }
    let id = busy_token(&desk);
    desk.call("DELETE", &format!("/v1/tokens/{id}"), Value::Null).expect(200);
    let report = get(&desk, &format!("/v1/tokens/{id}/usage"));
    assert_eq!(report["totals"]["core"]["credits"], 229, "a revoked token's usage stays known");
    desk.mood(Mood::Down);
    for path in [format!("/v1/tokens/{id}/usage"), "/v1/usage".to_owned()] {
        assert_eq!(desk.call("GET", &path, Value::Null).expect(503).code(), "store_unavailable");
    }
}
