use super::*;
use crate::console::form::Form;

fn asked(query: &str) -> Asked {
    Asked::read(&Form::parse(query.as_bytes()), "2026-11-24T10:20:30Z".parse().unwrap()).unwrap()
}

fn report(rows: &Value) -> Report {
    serde_json::from_value(json!({ "rows": rows, "refusals": [{ "code": "domain_denied", "count": 3 }] }))
        .unwrap()
}

fn row(name: &str, key: &str, pool: &str, credits: u64) -> Value {
    json!({ name: key, "pool": pool, "requests": 1, "credits": credits, "bytes": 10 })
}

#[test]
fn days_are_added_up_to_months_in_their_order() {
    let report = report(&json!([
        row("day", "2026-11-02", "core", 5),
        row("day", "2026-10-31", "core", 7),
        row("day", "2026-11-30", "core", 1),
        row("day", "2026-11-30", "premium", 2),
    ]));
    let lines = report.lines(By::Month);
    let found: Vec<_> = lines
        .iter()
        .map(|line| (line.key.as_str(), line.core.credits, line.premium.credits, line.sums(None).requests))
        .collect();
    assert_eq!(found, [("2026-10", 7, 0, 1), ("2026-11", 6, 2, 3)]);
    assert_eq!(total(&lines).sums(Some(Pool::Premium)).credits, 2);
    assert_eq!(total(&lines).sums(None), Sums { requests: 4, credits: 15, bytes: 40 });
}

#[test]
fn what_is_compared_stands_by_credits() {
    let report = report(&json!([
        row("dataset", "A", "core", 1),
        row("dataset", "B", "core", 5),
        row("dataset", "C", "premium", 9),
        row("dataset", "", "core", 5),
    ]));
    let keys: Vec<_> = report.lines(By::Dataset).into_iter().map(|line| line.key).collect();
    assert_eq!(keys, ["C", "", "B", "A"]);
}

#[test]
fn every_stretch_has_its_place_also_where_nothing_was_used() {
    let table = [
        (
            "by=hour&from=2026-11-01T22:00:00Z&to=2026-11-02T01:00:00Z",
            3,
            "2026-11-01T22:00:00Z",
            "2026-11-02T00:00:00Z",
        ),
        ("by=day&from=2028-02-28&to=2028-03-01", 3, "2028-02-28", "2028-03-01"),
        ("by=month&from=2025-11-15&to=2026-01-01", 3, "2025-11", "2026-01"),
        ("by=day&from=2026-11-01T12:00:00Z&to=2026-11-03T12:00:00Z", 3, "2026-11-01", "2026-11-03"),
        ("last=24h", 24, "2026-11-23T11:00:00Z", "2026-11-24T10:00:00Z"),
        ("last=year", 12, "2025-12", "2026-11"),
    ];
    for (query, count, first, last) in table {
        let slots = slots(&asked(query));
        let key = |slot: Option<&Slot>| slot.unwrap().key.clone();
        assert_eq!(
            (slots.len(), key(slots.first()), key(slots.last())),
            (count, first.into(), last.into()),
            "{query}"
        );
    }
    let asked = asked("by=day&from=2026-11-01&to=2026-11-03");
    let lines = report(&json!([row("day", "2026-11-02", "core", 5)])).lines(By::Day);
    assert_eq!(values(&slots(&asked), &lines, Pool::Core), [0, 5, 0]);
    assert_eq!(values(&slots(&asked), &lines, Pool::Premium), [0, 0, 0]);
}

#[test]
fn marks_are_few_and_days_begin_at_midnight() {
    let slots = slots(&asked("by=hour&from=2026-11-01T22:00:00Z&to=2026-11-03T22:00:00Z"));
    let found = marks(&slots, By::Hour, 8);
    assert_eq!(found.first(), Some(&(2, "2 Nov".to_owned())));
    assert_eq!(found.get(1), Some(&(8, "06:00".to_owned())));
    for (query, most) in
        [("last=24h", 4), ("last=30d", 10), ("last=year", 5), ("from=2025-11-24&to=2026-11-24", 9)]
    {
        let asked = asked(query);
        let count = marks(&super::slots(&asked), asked.by, most).len();
        assert!((2..=most).contains(&count), "{query}: {count}");
    }
    assert_eq!(marks(&[], By::Day, 5), []);
}

#[test]
fn files_hold_each_pool_and_name_the_tokens() {
    let id = "tok_01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let report = report(&json!([row("token_id", id, "core", 5), row("token_id", id, "premium", 6)]));
    let names = HashMap::from([(id.to_owned(), "=Customer, XYZ".to_owned())]);
    let lines = report.lines(By::Token);
    assert_eq!(
        to_csv(&asked("by=token"), &lines, &names),
        format!(
            "token_id,name,pool,requests,credits,bytes\r\n{id},\"'=Customer, XYZ\",core,1,5,10\r\n\
             {id},\"'=Customer, XYZ\",premium,1,6,10\r\n"
        )
    );
    assert_eq!(to_csv(&asked("by=token&pool=premium"), &lines, &names).lines().count(), 2);
    let json = to_json(&asked("by=token&pool=core"), &lines, &report.refusals, &names);
    assert_eq!(json["rows"].as_array().unwrap().len(), 1);
    assert_eq!(json["rows"][0]["name"], "=Customer, XYZ");
    assert_eq!(json["refusals"][0], json!({ "code": "domain_denied", "count": 3 }));
    assert_eq!(refusals_to_csv(&report.refusals), "reason,requests\r\ndomain_denied,3\r\n");
}
