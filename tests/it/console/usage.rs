//! What the page of usage shows, its files, and the account's budget.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tollgate::ledger::lease::{Ask as Draw, Reserved};
use tollgate::policy::{AccountId, Credits, Operation, Pool, TokenId};
use tollgate::store::redis::{RedisSettings, RedisStore};
use tollgate::store::{LeaseId, LeaseKey, NodeId, Reserve, Settlement, Store, UsageCell};

use super::MAX_PAGE;
use super::visitor::{Visitor, field, link};
use crate::harness::client::Ask;
use crate::harness::gate::{Gate, Plan};
use crate::harness::redis_server::RedisServer;
use crate::harness::upstream::Upstream;

/// A gate through which a token with a troublesome name has used 12 credits, and was refused once.
async fn used(plan: Plan) -> (Gate, String) {
    let mut gate = plan.start().await;
    let rules = json!(["www.example.com"]);
    let token = gate.token(json!({"nickname": "=Customer, \"XYZ\"", "allowed_domains": rules})).await;
    for path in ["/v1/data/CORE/QUOTES/AAPL", "/v1/data/CORE/QUOTES/MSFT", "/v1/ten/x"] {
        let ask = Ask::get(&token.on(path)).header("Origin", "https://www.example.com");
        assert_eq!(gate.ask(ask).await.status, 200, "{path}");
    }
    let refused = Ask::get(&token.on("/v1/ten/x")).header("Origin", "https://evil.test");
    assert_eq!(gate.ask(refused).await.status, 403);
    gate.wait_used(&token, 12).await;
    let id = &token.id;
    crate::harness::wait_for("the refusal to be counted", || async {
        let usage = gate.admin("GET", &format!("/v1/tokens/{id}/usage"), None).await.json();
        usage["refusals"][0]["count"] == json!(1)
    })
    .await;
    (gate, token.id)
}

#[tokio::test]
async fn usage_is_shown_over_time_and_side_by_side_with_its_refusals() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    for plan in
        [Plan::new(&upstream), Plan::new(&upstream).store(&format!("url: \"{}\", timeout: 10s", redis.url()))]
    {
        let (gate, id) = used(plan).await;
        let visitor = Visitor::with_token(&gate).await;
        let token = format!("/console/usage?token={id}");
        for (path, told) in [
            ("/console/usage", "Core credits by day"),
            ("/console/usage?last=24h", "Core credits by hour"),
            ("/console/usage?last=year", "Core credits by month"),
            ("/console/usage?by=dataset", ">CORE/QUOTES<"),
            ("/console/usage?by=operation", ">read<"),
            ("/console/usage?by=token", "=Customer, &#34;XYZ&#34;"),
            (&token, "Usage of <a href=\"/console/tokens/"),
        ] {
            let page = visitor.get(path).await.text();
            assert!(page.contains(told), "{path}: {page}");
            assert!(page.contains("<dt>Core credits</dt><dd>12</dd>"), "{path}: {page}");
            assert!(page.contains("domain denied") && page.contains("role=\"img\""), "{path}: {page}");
            // For wide windows and for phones, of the credits and of what was refused.
            assert_eq!(page.matches("<svg class=\"slim\"").count(), 2, "{path}");
        }
    }
}

#[tokio::test]
async fn files_have_names_and_no_cell_is_a_formula() {
    let upstream = Upstream::start().await;
    let (gate, id) = used(Plan::new(&upstream)).await;
    let visitor = Visitor::with_token(&gate).await;
    let page = visitor.get("/console/usage?last=7d&by=token").await.text();
    let csv = visitor.get(&link(&page, "Download CSV").unwrap()).await;
    assert_eq!((csv.status, csv.header("content-type")), (200, Some("text/csv; charset=utf-8")));
    let named = csv.header("content-disposition").unwrap();
    assert!(
        named.starts_with("attachment; filename=\"tollgate-usage-2") && named.ends_with("-by-token.csv\""),
        "{named}"
    );
    let row = format!("{id},\"'=Customer, \"\"XYZ\"\"\",core,3,12,");
    let text = csv.text();
    assert!(
        text.starts_with("token_id,name,pool,requests,credits,bytes\r\n") && text.contains(&row),
        "{text}"
    );

    let refused = visitor.get(&link(&page, "Refusals as CSV").unwrap()).await;
    assert_eq!(refused.text(), "reason,requests\r\ndomain_denied,1\r\n");

    let json = visitor.get(&link(&page, "Download JSON").unwrap()).await;
    assert!(json.header("content-disposition").unwrap().ends_with(".json\""));
    let row = &json.json()["rows"][0];
    assert_eq!((&row["token_id"], &row["credits"]), (&json!(id), &json!(12)));
    assert_eq!(json.json()["refusals"], json!([{"code": "domain_denied", "count": 1}]));
}

#[tokio::test]
async fn a_year_of_usage_stays_a_small_page() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let mut gate =
        Plan::new(&upstream).store(&format!("url: \"{}\", timeout: 10s", redis.url())).start().await;
    let token = gate.token(json!({"nickname": "Busy"})).await;
    spend_for_a_year(&redis, &token.id).await;
    let visitor = Visitor::with_token(&gate).await;
    let now = Timestamp::now();
    let day =
        |days: i64| (now - jiff::SignedDuration::from_hours(24 * days)).strftime("%Y-%m-%d").to_string();
    for path in [
        "/console/usage?last=year&by=dataset".to_owned(),
        "/console/usage?last=year".to_owned(),
        format!("/console/usage?by=day&from={}&to={}", day(364), day(0)),
        format!("/console/usage?by=hour&from={}&to={}", day(13), day(0)),
    ] {
        let page = visitor.get(&path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.text());
        assert!(page.body.len() < MAX_PAGE, "{path}: {} bytes", page.body.len());
        if path.contains("from=") {
            assert!(page.text().contains("<polygon"), "{path}");
            let more = visitor.get(&link(&page.text(), "More").unwrap()).await;
            assert!(more.status == 200 && link(&more.text(), "Back").is_some(), "{}", more.text());
        }
    }
}

/// Two data sets in each twelfth hour, from both pools, and all hours of the last days.
async fn spend_for_a_year(redis: &RedisServer, token: &str) {
    let store = RedisStore::connect(&RedisSettings::new(&redis.url()), None).unwrap();
    let now = Timestamp::now().as_second().div_euclid(3600) * 3600;
    let hours = (0..365 * 24).filter(|hour| hour % 12 == 0 || *hour < 13 * 24);
    let cells: Vec<_> = hours
        .map(|hour| UsageCell {
            hour: now - hour * 3600,
            dataset: format!("MY/CARS-{}", hour % 40),
            operation: Operation::Read,
            requests: 3,
            credits: u64::try_from(hour * 7919 % 100_000).unwrap() + 1,
            bytes: 4_321_000,
        })
        .collect();
    for (serial, chunk) in cells.chunks(100).enumerate() {
        for (at, pool) in Pool::ALL.into_iter().enumerate() {
            let lease = LeaseId(ulid::Ulid::from_parts(serial as u64, at as u128));
            let (account, token) = (AccountId::default_account(), TokenId::parse(token).unwrap());
            let key = LeaseKey { lease, account, token, pool };
            let spent = Credits(chunk.iter().map(|cell| cell.credits).sum());
            let ask = Draw { want: spent, need: spent };
            let node = NodeId(ulid::Ulid::from_parts(1, 1));
            let reserve = Reserve { key: key.clone(), node, ask, life: Duration::from_hours(1) };
            assert!(matches!(store.reserve(&reserve).await.unwrap(), Reserved::Granted(_)));
            store.settle(&[Settlement { key, spent, cells: chunk.to_vec() }]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_budget_is_set_and_removed_and_a_receipt_says_where_it_is_in_force() {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    let visitor = Visitor::with_token(&gate).await;
    let page = visitor.get("/console/usage").await.text();
    let version = field(&page, "version");
    let set = [
        ("version", version.as_str()),
        ("action", "set-core"),
        ("core-credits", "1,000"),
        ("core-period", "day"),
    ];
    let page = visitor.post_and_follow("/console/usage/budget", &set).await;
    assert!(page.contains("The core budget is set. In force now, on the one node there is."), "{page}");
    assert!(page.contains("0 of 1,000 credits used today") && page.contains("Remove core budget"), "{page}");
    let budget = || async { gate.admin("GET", "/v1/account", None).await.json()["budget"].clone() };
    assert_eq!(budget().await, json!({"core": {"credits": 1000, "period": "day"}, "premium": null}));

    let page = visitor.post_and_follow("/console/usage/budget", &set).await;
    assert!(page.contains("Somebody else changed the budget meanwhile"), "{page}");

    for (typed, told) in
        [("many", "expected"), ("", "type how many credits"), ("99999999999999999999", "expected")]
    {
        let fields = [
            ("action", "set-core"),
            ("core-credits", typed),
            ("core-period", "month"),
            ("premium-credits", "77"),
        ];
        let refused = visitor.post_form("/console/usage/budget", &fields).await;
        let text = refused.text();
        assert!(
            refused.status == 422 && text.contains(told) && text.contains("nothing was changed"),
            "{text}"
        );
        assert_eq!(
            (field(&text, "core-credits").as_str(), field(&text, "premium-credits").as_str()),
            (typed, "77")
        );
    }
    assert_eq!(budget().await["core"], json!({"credits": 1000, "period": "day"}));
    let page = visitor.post_and_follow("/console/usage/budget", &[("action", "remove-core")]).await;
    assert!(page.contains("The core budget is removed."), "{page}");
    assert_eq!(budget().await, json!({"core": null, "premium": null}));
    let page = visitor.post_and_follow("/console/usage/budget", &[("action", "other")]).await;
    assert!(page.contains("Nothing was changed"), "{page}");
}
