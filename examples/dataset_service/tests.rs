//! The service over a real socket: routes, statuses, headers, streams. What a filter selects is tested in `select`.

use std::net::SocketAddr;

use axum::body::{Body, Bytes};
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::routes::{Service, router};
use crate::{USAGE, parse_arguments};

/// A service of the test's own on a free port, and a client for it.
struct Bench {
    address: SocketAddr,
    client: Client<HttpConnector, Body>,
}

/// A response read to its end.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.headers[CONTENT_TYPE], "application/json; charset=utf-8");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The values of one field of an array of records.
    fn column(&self, field: &str) -> Vec<Value> {
        self.json().as_array().unwrap().iter().map(|row| row[field].clone()).collect()
    }
}

impl Bench {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = router(Service::shipped().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    async fn send(&self, method: Method, path: &str, body: Body) -> Answer {
        let uri = format!("http://{}{path}", self.address);
        let request = Request::builder().method(method).uri(uri).body(body).unwrap();
        let (parts, body) = self.client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Body::empty()).await
    }

    async fn write(&self, method: Method, path: &str, body: Value) -> Answer {
        self.send(method, path, Body::from(body.to_string())).await
    }
}

#[tokio::test]
async fn reads_by_key_and_subkey_in_any_case_version_and_with_a_slash_at_the_end() {
    let bench = Bench::start().await;
    let cases = [
        ("/v1/data/CORE/QUOTE/AAPL", "latestPrice", json!([430.47])),
        ("/stable/data/core/quote/aapl,MSFT", "symbol", json!(["AAPL", "MSFT"])),
        ("/latest/data/CORE/QUOTE/MSFT%2Caapl/?token=1", "symbol", json!(["MSFT", "AAPL"])),
        ("/v1/data/CORE/QUOTE", "symbol", json!(["AAPL", "FB", "GOOG", "IBM", "MSFT"])),
        ("/v1/data/CORE/HISTORICAL_PRICES/IBM/2013-03-01", "close", json!([202.91])),
        (
            "/v1/data/CORE/HISTORICAL_PRICES/IBM,FB/2013-03-01,2013-02-28",
            "close",
            json!([202.91, 200.83, 27.78, 27.25]),
        ),
        ("/v1/data/my/cars/Land%20Rover/range%20rover?where=year:2008", "displacement", json!([4.2, 4.4])),
        ("/v1/data/MY/WEATHER/New%20York?last=1&filter=date", "date", json!(["2015-12-31"])),
        ("/v1/data/MY/CARS/tollgate", "make", json!([])),
        ("/v1/time-series/historical_prices/goog?limit=1", "date", json!(["2011-03-01"])),
        ("/v1/time-series/QUOTE/FB/", "symbol", json!(["FB"])),
        ("/v1/time-series", "id", json!(["HISTORICAL_PRICES", "QUOTE"])),
    ];
    for (path, field, expected) in cases {
        let answer = bench.get(path).await;
        assert_eq!((answer.status, json!(answer.column(field))), (StatusCode::OK, expected), "{path}");
    }
}

#[tokio::test]
async fn answers_a_batch_of_data_sets_as_an_object_by_data_set() {
    let bench = Bench::start().await;
    let expected = json!({"QUOTE": [{"date": "2013-03-01"}], "HISTORICAL_PRICES": [{"date": "2013-03-01"}]});
    for path in [
        "/v1/data/CORE/quote,historical_prices/ibm?last=1&filter=date",
        "/v1/data/CORE/QUOTE%7CHISTORICAL_PRICES/ibm?last=1&filter=date&batchSeparator=%7C",
        "/v1/data/CORE/QUOTE,quote,HISTORICAL_PRICES/ibm?last=1&filter=date",
    ] {
        assert_eq!(bench.get(path).await.json(), expected, "{path}");
    }
    let path = "/v1/data/CORE/QUOTE/aapl%7Cibm?batchSeparator=|&filter=symbol";
    assert_eq!(bench.get(path).await.column("symbol"), ["AAPL", "IBM"]);
    // With another separator the comma is an ordinary character, so this names one data set that is not there.
    let answer = bench.get("/v1/data/CORE/QUOTE,HISTORICAL_PRICES?batchSeparator=%7C").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn says_what_is_wrong_in_json_with_the_fitting_status() {
    let bench = Bench::start().await;
    let cases = [
        (Method::GET, "/v1/data/MY/BOATS", 404, "no data set MY/BOATS"),
        (Method::GET, "/v1/data/MY/CARS,BOATS", 404, "no data set MY/BOATS"),
        (Method::GET, "/v1/data/MY/,", 404, "no data set MY/,"),
        (Method::GET, "/v1/data/MY/CARS?last=none", 400, "`last` must be a whole number of 1 or more"),
        (Method::GET, "/v1/data/MY/CARS?from=2011-01-01", 400, "this data set has no date to select by"),
        (Method::GET, "/v1/stock/amzn/quote", 404, "no symbol amzn"),
        (Method::GET, "/v1/stock/ibm/chart/3f", 400, "`range` must be like 5d, 2w, 1m, 1y, or ytd or max"),
        (Method::GET, "/v1/stock/ibm/batch?types=news", 400, "`types` may name quote and chart, not news"),
        (Method::GET, "/v1/stocksUS1Second?symbols=ibm,x", 404, "no symbol x"),
        (
            Method::GET,
            "/v1/stocksUS1Second?interval=0",
            400,
            "`interval` must be a whole number of 1 or more",
        ),
        (Method::GET, "/v1/fail/600", 400, "`status` in the path must be a whole number from 200 to 599"),
        (Method::GET, "/v1/data/MY/CARS/%FF", 400, "the path is not readable as UTF-8"),
        (Method::GET, "/v1", 404, "nothing is served at this path"),
        (Method::DELETE, "/v1/status", 405, "this path does not take that method"),
        (Method::POST, "/v1/record/CORE/QUOTE", 400, "the body is not JSON: EOF while parsing"),
        (Method::DELETE, "/v1/data/CORE/QUOTE/AAPL", 403, "CORE/QUOTE is built in and cannot be changed"),
        (Method::DELETE, "/v1/datasets/CORE/QUOTE", 403, "CORE/QUOTE is built in and cannot be changed"),
        (Method::DELETE, "/v1/data/MY/CARS/tollgate", 404, "no records under tollgate"),
        (
            Method::DELETE,
            "/v1/data/MY/CARS/audi?to=2000-01-01",
            400,
            "this data set has no date to select by",
        ),
    ];
    for (method, path, status, sentence) in cases {
        let answer = bench.send(method, path, Body::empty()).await;
        let found = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(answer.status == status && found.starts_with(sentence), "{path}: {} {found}", answer.status);
        assert_eq!(answer.headers.contains_key(ALLOW), status == 405, "{path}");
    }
}

#[tokio::test]
async fn writes_changes_and_deletes_records() {
    let bench = Bench::start().await;
    let car = json!({"make": "Tollgate", "model": "One", "id": "x1", "year": 2026});
    let other = json!({"make": "Tollgate", "model": "Two", "id": "x2", "year": 2026});
    let answer = bench.write(Method::POST, "/v1/record/MY/CARS", json!([car, other])).await;
    assert_eq!(answer.json(), json!({"success": true, "message": "2 records written to MY/CARS"}));
    assert_eq!(bench.get("/v1/data/MY/CARS/tollgate").await.json(), json!([car, other]));

    let newer = json!({"make": "tollgate", "model": "one", "id": "X1", "year": 2027});
    let answer = bench.write(Method::POST, "/v1/data/MY/CARS", newer).await;
    assert_eq!(answer.json()["message"], "1 record written to MY/CARS");
    assert_eq!(bench.get("/v1/data/MY/CARS/tollgate").await.column("year"), [2027, 2026]);

    let answer = bench.write(Method::PATCH, "/v1/data/MY/CARS/Tollgate/Two", json!({"year": 2028})).await;
    assert_eq!(answer.json()["message"], "1 record changed under Tollgate");
    assert_eq!(bench.get("/v1/data/MY/CARS/tollgate/two").await.column("year"), [2028]);

    let answer = bench.write(Method::PUT, "/v1/data/MY/CARS/Tollgate", json!({"model": "Three"})).await;
    assert_eq!(answer.json()["message"], "1 record now under Tollgate");
    assert_eq!(bench.get("/v1/data/MY/CARS/tollgate").await.column("model"), ["Three"]);

    let answer = bench.send(Method::DELETE, "/v1/data/MY/CARS/tollgate/three", Body::empty()).await;
    assert_eq!(answer.json()["message"], "1 record deleted from tollgate");
    assert_eq!(bench.get("/v1/data/MY/CARS/tollgate").await.json(), json!([]));

    let path = "/v1/data/MY/WEATHER/seattle?from=2012-01-02&to=2015-12-31";
    let answer = bench.send(Method::DELETE, path, Body::empty()).await;
    assert_eq!(answer.json()["message"], "1460 records deleted from seattle");
    assert_eq!(bench.get("/v1/data/MY/WEATHER/Seattle").await.column("date"), ["2012-01-01"]);
}

#[tokio::test]
async fn refuses_writes_that_do_not_fit_and_keeps_what_was_there() {
    let bench = Bench::start().await;
    let before = bench.get("/v1/data/MY/CARS").await.body;
    let cases = [
        (Method::POST, "/v1/record/MY/CARS", json!([{"make": "a"}, {"model": "b"}]), 400),
        (Method::POST, "/v1/record/MY/CARS", json!([1]), 400),
        (Method::POST, "/v1/record/MY/CARS,WEATHER", json!([]), 404),
        (Method::POST, "/v1/record/CORE/QUOTE", json!({"symbol": "AAPL"}), 403),
        (Method::PUT, "/v1/data/MY/CARS/audi", json!({"make": "bmw"}), 400),
        (Method::PATCH, "/v1/data/MY/CARS/audi", json!({"make": "bmw"}), 400),
        (Method::PATCH, "/v1/data/MY/CARS/audi", json!([]), 400),
        (Method::PATCH, "/v1/data/MY/CARS/tollgate", json!({"year": 1}), 404),
        (Method::POST, "/v1/datasets/MY", json!({"id": "cars"}), 409),
        (Method::POST, "/v1/datasets/MY", json!({"id": "A,B"}), 400),
        (Method::POST, "/v1/datasets/MY", json!({"key": "x"}), 400),
        (Method::POST, "/v1/datasets/MY", json!({"id": "X", "key": 5}), 400),
        (Method::POST, "/v1/datasets/CORE", json!({"id": "X"}), 403),
        (Method::PATCH, "/v1/datasets/MY/CARS", json!({"idField": null}), 400),
        (Method::PATCH, "/v1/datasets/MY/CARS", json!({"key": "nothing"}), 400),
    ];
    for (method, path, body, status) in cases {
        let answer = bench.write(method.clone(), path, body.clone()).await;
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.json());
    }
    let long = Body::from(vec![b' '; 16 * 1024 * 1024 + 1]);
    let answer = bench.send(Method::POST, "/v1/record/MY/CARS", long).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &json!("the body is longer than a write may be"))
    );
    assert_eq!(bench.get("/v1/data/MY/CARS").await.body, before);
}

#[tokio::test]
async fn creates_describes_changes_and_removes_data_sets() {
    let bench = Bench::start().await;
    let wish = json!({"id": "Trips", "key": "city", "date": "day"});
    let answer = bench.write(Method::POST, "/v1/datasets/Team", wish).await;
    assert_eq!((answer.status, &answer.json()["id"]), (StatusCode::CREATED, &json!("TRIPS")));
    bench
        .write(
            Method::POST,
            "/v1/record/TEAM/TRIPS",
            json!([{"city": "Oslo", "line": 1, "day": "2020-01-01"}]),
        )
        .await;
    let answer = bench.write(Method::PATCH, "/v1/datasets/team/trips", json!({"subkey": "line"})).await;
    let expected = json!({
        "id": "TRIPS", "workspace": "TEAM", "key": "city", "subkey": "line", "date": "day", "idField": null,
        "keys": 1, "records": 1, "readOnly": false,
    });
    assert_eq!(answer.json(), expected);
    assert_eq!(bench.get("/v1/datasets/team/trips").await.json(), expected);
    assert_eq!(bench.get("/v1/data/team/trips/oslo/1?from=2020-01-01").await.column("city"), ["Oslo"]);
    let answer = bench.write(Method::POST, "/v1/datasets/team/stops", json!({})).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let answer = bench.write(Method::POST, "/v1/datasets/team/stops", json!({"key": "stop"})).await;
    assert_eq!(answer.json()["key"], "stop");
    assert_eq!(bench.get("/v1/datasets/TEAM").await.column("id"), ["STOPS", "TRIPS"]);
    assert_eq!(bench.get("/v1/datasets/TEAM?limit=1").await.column("id"), ["STOPS"]);
    let answer = bench.send(Method::DELETE, "/v1/datasets/team/trips", Body::empty()).await;
    assert_eq!(answer.json(), json!({"success": true, "message": "TEAM/TRIPS deleted"}));
    assert_eq!(bench.get("/v1/data/team/trips").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn quotes_charts_and_batches_stocks() {
    let bench = Bench::start().await;
    let quote = bench.get("/v1/stock/aapl/quote/?filter=symbol,latestPrice").await.json();
    assert_eq!(quote, json!({"symbol": "AAPL", "latestPrice": 430.47}));
    assert_eq!(bench.get("/v1/stock/aapl/chart").await.column("date")[0], "2013-02-01");
    assert_eq!(
        bench.get("/v1/stock/aapl/chart/5d?chartLast=2&sort=desc").await.column("close"),
        [430.47, 441.4]
    );
    assert_eq!(bench.get("/v1/stock/aapl/chart/date/20130228").await.column("close"), [441.4]);
    let batch = bench
        .get("/v1/stock/market/batch?symbols=aapl,nope,msft&types=quote,chart&range=5d&last=1")
        .await
        .json();
    assert_eq!(batch.as_object().unwrap().keys().collect::<Vec<_>>(), ["AAPL", "MSFT"]);
    assert_eq!(batch["MSFT"]["quote"]["latestPrice"], 27.95);
    assert_eq!(batch["AAPL"]["chart"].as_array().unwrap().len(), 5);
    let batch = bench.get("/v1/stock/ibm/batch").await.json();
    assert_eq!(batch["quote"]["symbol"], "IBM");
}

#[tokio::test]
async fn streams_ticks_as_events_and_ends_after_as_many_as_asked() {
    let bench = Bench::start().await;
    let answer = bench.get("/v1/stocksUS1Second?symbols=aapl,msft&interval=1&events=3").await;
    assert_eq!(answer.headers[CONTENT_TYPE], "text/event-stream");
    assert!(!answer.headers.contains_key(CONTENT_LENGTH));
    let text = std::str::from_utf8(&answer.body).unwrap();
    assert!(text.ends_with("\n\n"));
    let events: Vec<Value> = text
        .split_terminator("\n\n")
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect();
    let told: Vec<_> = events
        .iter()
        .map(|ticks| (&ticks[0]["date"], &ticks[0]["latestPrice"], &ticks[1]["symbol"]))
        .collect();
    let row = |date: &str, price: f64| (json!(date), json!(price), json!("MSFT"));
    let expected = [row("2011-03-01", 349.31), row("2011-03-02", 352.12), row("2011-03-03", 359.56)];
    assert_eq!(told, expected.iter().map(|(date, price, symbol)| (date, price, symbol)).collect::<Vec<_>>());
}

#[tokio::test]
async fn streams_long_bodies_both_ways() {
    let bench = Bench::start().await;
    for length in [0, 1, 65_536, 1_000_001] {
        let answer = bench.get(&format!("/v1/bytes/{length}")).await;
        assert_eq!(answer.headers[CONTENT_LENGTH], length.to_string());
        assert_eq!(answer.body.len(), length);
        let repeats = answer.body.iter().zip(answer.body.iter().skip(65_536)).all(|(one, two)| one == two);
        assert!(repeats, "{length}");
        let echoed = bench.send(Method::POST, "/v1/echo-length", Body::from(answer.body)).await;
        assert_eq!(echoed.json(), json!({"length": length}));
    }
}

#[tokio::test]
async fn fails_waits_and_lives_as_asked() {
    let bench = Bench::start().await;
    for status in [200, 204, 304, 404, 429, 500, 503, 599] {
        for method in [Method::GET, Method::POST] {
            assert_eq!(bench.send(method, &format!("/v1/fail/{status}"), Body::empty()).await.status, status);
        }
    }
    assert_eq!(bench.get("/v1/fail/503").await.json(), json!({"status": 503}));
    let started = std::time::Instant::now();
    assert_eq!(bench.get("/v1/slow/30").await.json(), json!({"waited": 30}));
    assert!(started.elapsed().as_millis() >= 30);
    assert_eq!(bench.get("/v1/status").await.json(), json!({"status": "up"}));
}

#[tokio::test]
async fn head_tells_what_get_would_without_the_body() {
    let bench = Bench::start().await;
    for path in
        ["/v1/data/MY/CARS/audi", "/v1/stock/ibm/quote", "/v1/bytes/4096", "/v1/data/MY/BOATS", "/v1/status"]
    {
        let (get, head) = (bench.get(path).await, bench.send(Method::HEAD, path, Body::empty()).await);
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.headers[CONTENT_LENGTH], get.body.len().to_string(), "{path}");
        assert_eq!(head.headers[CONTENT_TYPE], get.headers[CONTENT_TYPE], "{path}");
        assert!(head.body.is_empty(), "{path}");
    }
    let stream = bench.send(Method::HEAD, "/v1/stocksUS1Second", Body::empty()).await;
    assert_eq!((stream.status, stream.body.len()), (StatusCode::OK, 0));
}

#[test]
fn reads_its_arguments() {
    let parse = |line: &str| parse_arguments(line.split_whitespace().map(str::to_owned));
    let default = SocketAddr::from(([127, 0, 0, 1], 9000));
    assert_eq!(parse(""), Ok(default));
    assert_eq!(parse("--listen 127.0.0.1:0"), Ok(SocketAddr::from(([127, 0, 0, 1], 0))));
    assert_eq!(parse("--listen=[::1]:9000"), Ok(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 9000))));
    for line in ["--listen", "--listen nowhere", "--listen 127.0.0.1", "--port 1", "9000"] {
        assert!(parse(line).is_err(), "{line}");
    }
    assert!(USAGE.contains(&default.to_string()));
}
