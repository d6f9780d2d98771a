//! Web pages read data sets through the gate, in a real browser: what it sends, what it keeps from a page, and what
//! reaches the upstream (`policy.md`, "CORS" and "Allowed domains").

use std::cell::Cell;

use serde_json::{Value, json};

use crate::harness::browser::{Browser, Fetch, Withheld};
use crate::harness::client::Answer;
use crate::harness::gate::{Gate, Plan, Token, limited};
use crate::harness::upstream::{Seen, Upstream};
use crate::harness::wait_for;

const DATA: &str = "/v1/data/CORE/QUOTE/AAPL";
const ALLOWED: &str = "www.example.com";
const OTHER: &str = "evil.example";

struct World {
    upstream: Upstream,
    gate: Gate,
    browser: Browser,
    /// How many lines of the access log a test has looked at.
    read: Cell<usize>,
}

impl World {
    async fn start() -> Self {
        let upstream = Upstream::start().await;
        let (gate, browser) = tokio::join!(Plan::new(&upstream).start(), Browser::start());
        Self { upstream, gate, browser, read: Cell::new(0) }
    }

    /// Where pages find the gate: on a site that is none of theirs.
    fn url(&self, target: &str) -> String {
        format!("http://api.example.net:{}{target}", self.gate.address.port())
    }

    /// A call of `fetch` with the token in the query.
    fn get(&self, token: &Token, path: &str) -> Fetch {
        Fetch::get(&self.url(&token.on(path)))
    }

    /// Fetches from the page that is open. The gate's answer, and the requests that reached the upstream meanwhile.
    async fn fetch(&self, fetch: &Fetch) -> (Result<Answer, Withheld>, Vec<Seen>) {
        let before = self.upstream.count();
        let outcome = self.browser.fetch(fetch).await;
        (outcome, self.upstream.seen().split_off(before))
    }

    /// The page is told nothing, and nothing reaches the upstream.
    async fn assert_withheld(&self, fetch: &Fetch, what: &str) {
        let (outcome, seen) = self.fetch(fetch).await;
        assert_eq!(outcome.map(|answer| answer.status), Err(Withheld("TypeError".to_owned())), "{what}");
        assert!(seen.is_empty(), "{what}: the upstream saw {seen:?}");
    }

    /// The page reads a refusal, and nothing reaches the upstream.
    async fn assert_refused(&self, fetch: &Fetch, status: u16, code: &str) -> Answer {
        let (outcome, seen) = self.fetch(fetch).await;
        let answer = outcome.unwrap_or_else(|_| panic!("{code} could not be read"));
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{code}");
        assert_eq!(answer.json()["request_id"].as_str(), answer.header("x-request-id"), "{code}");
        assert!(seen.is_empty(), "{code}: the upstream saw {seen:?}");
        answer
    }

    /// The page reads the upstream's answer, and the upstream saw the one request.
    async fn assert_read(&self, fetch: &Fetch, what: &str) -> (Answer, Seen) {
        let (outcome, mut seen) = self.fetch(fetch).await;
        let answer = outcome.unwrap_or_else(|withheld| panic!("{what}: {withheld:?}"));
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        assert_eq!(seen.len(), 1, "{what}: the upstream saw {seen:?}");
        (answer, seen.remove(0))
    }

    /// The next lines of the access log, as soon as there are so many, by verdict: a preflight and the request it was
    /// for may be logged in either order. A test accounts for every line, so that none comes to it late.
    async fn next_lines(&self, count: usize) -> Vec<Value> {
        let (from, to) = (self.read.get(), self.read.get() + count);
        let enough = || async { self.gate.access_log().len() >= to };
        wait_for(&format!("{to} lines of access log"), enough).await;
        self.read.set(to);
        let mut lines = self.gate.access_log()[from..to].to_vec();
        lines.sort_by_key(verdict);
        lines
    }

    async fn assert_logged(&self, expected: &[&str], what: &str) {
        let lines = self.next_lines(expected.len()).await;
        assert_eq!(lines.iter().map(verdict).collect::<Vec<_>>(), expected, "{what}");
    }
}

fn verdict(line: &Value) -> String {
    line["verdict"].as_str().expect("a verdict").to_owned()
}

/// One way a page asks for data.
struct Way {
    what: &'static str,
    fetch: Fetch,
    method: &'static str,
    /// Whether the browser asks for leave first.
    preflight: bool,
    /// The token stands in the query, so that the preflight itself is refused elsewhere.
    in_query: bool,
}

/// Every way the CORS protocol knows: simple requests, and such that need a preflight for a header or a method.
/// Each has a path of its own, since browsers remember preflights by address.
fn ways(world: &World, token: &Token) -> Vec<Way> {
    let cars = "/v1/data/MY/CARS";
    let way = |what, fetch, method, preflight, in_query| Way { what, fetch, method, preflight, in_query };
    let bearer = format!("Bearer {}", token.value);
    let record = json!([{"model": "quattro", "doors": 2}]);
    vec![
        way("token in the query", world.get(token, DATA), "GET", false, true),
        way("HEAD", world.get(token, &format!("{cars}/a")).method("HEAD"), "HEAD", false, true),
        way(
            "an API key",
            Fetch::get(&world.url("/v1/data/CORE/QUOTE/1")).header("X-API-Key", &token.value),
            "GET",
            true,
            false,
        ),
        way(
            "a bearer",
            Fetch::get(&world.url("/v1/data/CORE/QUOTE/2")).header("Authorization", &bearer),
            "GET",
            true,
            false,
        ),
        way(
            "a custom header",
            world.get(token, "/v1/data/CORE/QUOTE/3").header("X-Client-Version", "1"),
            "GET",
            true,
            true,
        ),
        way("POST", world.get(token, cars).method("POST").json(&record), "POST", true, true),
        way(
            "PUT",
            Fetch::get(&world.url(&format!("{cars}/b")))
                .method("PUT")
                .json(&record)
                .header("X-API-Key", &token.value),
            "PUT",
            true,
            false,
        ),
        way(
            "PATCH",
            world.get(token, &format!("{cars}/c")).method("PATCH").json(&record),
            "PATCH",
            true,
            true,
        ),
        way("DELETE", world.get(token, &format!("{cars}/d")).method("DELETE"), "DELETE", true, true),
    ]
}

#[tokio::test]
async fn a_page_on_an_allowed_origin_reads_a_data_set_and_the_same_page_elsewhere_does_not() {
    let mut world = World::start().await;
    let grant = json!({"dataset": "MY/CARS", "operations": ["read", "write", "delete"]});
    let token = world.gate.token(json!({"allowed_domains": [ALLOWED], "datasets": [grant]})).await;
    let ways = ways(&world, &token);

    world.browser.visit(ALLOWED, "/").await;
    for way in &ways {
        let (answer, seen) = world.assert_read(&way.fetch, way.what).await;
        let body = if way.method == "HEAD" { "" } else { r#"{"ok":true}"# };
        assert_eq!(answer.text(), body, "{}", way.what);
        assert_eq!(seen.method, way.method, "{}", way.what);
        assert!(!seen.target.contains("token"), "{}: {}", way.what, seen.target);
        assert_eq!(seen.header("x-client-version"), (way.what == "a custom header").then_some("1"));
        world.assert_logged(if way.preflight { &["pass", "preflight"] } else { &["pass"] }, way.what).await;
    }
    assert!(world.upstream.seen().iter().all(|seen| seen.method != "OPTIONS"));

    world.browser.visit(OTHER, "/").await;
    for way in &ways {
        world.assert_withheld(&way.fetch, way.what).await;
        let asked_first = way.preflight && !way.in_query;
        let lines = world.next_lines(if asked_first { 2 } else { 1 }).await;
        assert_eq!(verdict(&lines[0]), "domain_denied", "{}", way.what);
        assert_eq!(lines[0]["token_id"], json!(token.id), "{}", way.what);
        assert!(lines.get(1).is_none_or(|line| verdict(line) == "preflight"), "{}", way.what);
    }
    // Nor do requests help whose answer a page cannot read anyway: they would still cost, and write.
    let blind = world.get(&token, DATA).option("mode", "no-cors");
    let form =
        world.get(&token, "/v1/data/MY/CARS").method("POST").option("mode", "no-cors").option("body", "x");
    for fetch in [blind.clone(), blind.option("referrerPolicy", "no-referrer"), form] {
        let (outcome, seen) = world.fetch(&fetch).await;
        assert_eq!(outcome.map(|opaque| opaque.status), Ok(0), "{fetch:?}");
        assert!(seen.is_empty(), "{fetch:?}: the upstream saw {seen:?}");
    }
    world.browser.load_image(&world.url(&token.on(DATA))).await;
    world.assert_logged(&["domain_denied"; 4], "requests without CORS").await;
    assert_eq!(world.upstream.count(), ways.len());
    world.gate.wait_used(&token, u64::try_from(ways.len()).expect("a figure")).await;
}

#[tokio::test]
async fn a_page_reads_its_credits_and_why_it_was_refused() {
    let mut world = World::start().await;
    let mut fields = limited(2);
    fields["allowed_domains"] = json!([ALLOWED]);
    let token = world.gate.token(fields).await;
    world.browser.visit(ALLOWED, "/").await;

    // All that a script needs it can see, and nothing that the upstream did not mean for it.
    let wish = world.get(&token, DATA).header("X-Test", "header=X-Internal:1");
    let (answer, seen) = world.assert_read(&wish, "the first").await;
    assert_eq!(answer.header("x-credits-used"), Some("1"));
    assert_eq!(answer.header("x-credits-remaining"), Some("1"));
    assert_eq!(answer.header("ratelimit-policy"), Some("\"credits\";q=2;w=2592000"));
    assert!(answer.header("ratelimit").is_some_and(|value| value.starts_with("\"credits\";r=1;t=")));
    assert!(answer.header("x-request-id").is_some_and(|id| !id.is_empty()));
    assert_eq!(answer.header("x-request-id"), seen.header("x-request-id"));
    assert_eq!(answer.header("x-internal"), None);
    let (answer, _) = world.assert_read(&world.get(&token, DATA), "the second").await;
    assert_eq!(answer.header("x-credits-remaining"), Some("0"));

    let refusal = world.assert_refused(&world.get(&token, DATA), 402, "credits_exhausted").await;
    let wait: u64 = refusal.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=31 * 86_400).contains(&wait), "{wait}");
    let refusal = world.assert_refused(&world.get(&token, "/v1/data/MY/CARS"), 403, "dataset_denied").await;
    assert!(refusal.text().contains("MY/CARS"), "{}", refusal.text());
    // The same where a preflight went before.
    let keyed = Fetch::get(&world.url("/v1/data/MY/CARS/audi")).header("X-API-Key", &token.value);
    world.assert_refused(&keyed.method("DELETE"), 403, "dataset_denied").await;

    // On another origin neither refusal can be read: it would tell of a token that is not for that page.
    world.browser.visit(OTHER, "/").await;
    world.assert_withheld(&world.get(&token, DATA), "credits exhausted").await;
    world.assert_withheld(&world.get(&token, "/v1/data/MY/CARS"), "no grant").await;

    // What has nothing to do with a token's policy can be read from anywhere.
    let unknown = Token { id: String::new(), value: "pk_00000000000000000000000000000000".to_owned() };
    world.assert_refused(&world.get(&unknown, DATA), 403, "token_invalid").await;
    world.assert_refused(&Fetch::get(&world.url(DATA)), 401, "token_missing").await;
    world.assert_refused(&world.get(&token, "/v1/elsewhere"), 404, "no_route").await;
}

#[tokio::test]
async fn the_gate_alone_answers_preflights_and_says_who_may_read() {
    let mut world = World::start().await;
    let token = world.gate.token(json!({"allowed_domains": ["*.example.com"]})).await;
    let keyed = |path: &str| Fetch::get(&world.url(path)).header("X-API-Key", &token.value);
    world.browser.visit(ALLOWED, "/").await;

    // A browser remembers a preflight, so the second request goes straight away.
    world.assert_read(&keyed(DATA), "the first").await;
    world.assert_read(&keyed(DATA), "the second").await;
    world.assert_read(&keyed(DATA), "the third").await;
    world.assert_logged(&["pass", "pass", "pass", "preflight"], "a preflight remembered").await;

    // Whatever the upstream says of CORS itself is replaced; two answers side by side a browser would refuse.
    for said in ["Access-Control-Allow-Origin:*", "Access-Control-Allow-Origin:http://other.example"] {
        let wish = keyed("/v1/data/CORE/QUOTE/1").header("X-Test", &format!("header={said}"));
        world.assert_read(&wish, said).await;
    }
    let wish = keyed("/v1/data/CORE/QUOTE/1").header("X-Test", "header=Access-Control-Expose-Headers:*");
    let (answer, _) = world.assert_read(&wish, "exposed").await;
    assert!(answer.header("x-credits-used").is_some());

    // An answer kept in the browser is not given to another origin with the first one's name on it.
    let kept =
        world.get(&token, "/v1/data/CORE/QUOTE/2").header("X-Test", "header=Cache-Control:max-age=600");
    world.assert_read(&kept, "not yet kept").await;
    let (again, seen) = world.fetch(&kept).await;
    assert_eq!((again.map(|answer| answer.status), seen.len()), (Ok(200), 0), "the browser kept nothing");
    world.browser.visit("app.example.com", "/").await;
    world.assert_read(&kept, "kept for another origin").await;

    // The upstream's failure can be read: a page that sees "network error" looks for it in the wrong place.
    let (cut, _) = world.fetch(&keyed("/v1/data/CORE/QUOTE/3").header("X-Test", "cut")).await;
    let cut = cut.expect("to be read");
    assert_eq!((cut.status, cut.code().as_str()), (502, "upstream_unavailable"));

    for (what, fetch) in [
        ("a header that is not on the list", keyed(DATA).header("Foo-Bar", "1")),
        ("a header of the gate's own", keyed(DATA).header("X-Tollgate-Account", "other")),
        ("a method that the route lacks", keyed(DATA).method("PROPFIND")),
        ("a path without a route", keyed("/v1/elsewhere")),
        ("a preflight with an unknown token", {
            Fetch::get(&world.url(&format!("{DATA}?token=pk_{}", "0".repeat(32))))
                .header("X-Client-Version", "1")
        }),
    ] {
        world.assert_withheld(&fetch, what).await;
    }
    assert!(world.upstream.seen().iter().all(|seen| seen.method != "OPTIONS"));
}

#[tokio::test]
async fn allowed_domains_decide_by_what_a_browser_sends() {
    let mut world = World::start().await;
    // (rules, the page's host, its path, whether it reads)
    let table = [
        ("", OTHER, "/", true),
        ("*.example.com", "app.example.com", "/", true),
        ("*.example.com", "a.b.example.com", "/", true),
        ("*.example.com", "example.com", "/", false),
        ("*.example.com", "evilexample.com", "/", false),
        ("*.example.com", OTHER, "/", false),
        ("*.example.com", "www.example.com.evil.example", "/", false),
        (ALLOWED, "www.example.com.evil.example", "/", false),
        (ALLOWED, "example.com", "/", false),
        // A name with a dot behind it is another origin to a browser, and the same host.
        (ALLOWED, "www.example.com.", "/", true),
        ("bücher.example", "xn--bcher-kva.example", "/", true),
        ("localhost:PORT", "localhost", "/", true),
        ("203.0.113.0/24", "203.0.113.9", "/", true),
        ("203.0.113.0/24", "203.0.114.9", "/", false),
        ("www.example.com:PORT", ALLOWED, "/", true),
        ("www.example.com:1", ALLOWED, "/", false),
        ("http://www.example.com", ALLOWED, "/", true),
        ("http://www.example.com:PORT", ALLOWED, "/", true),
        ("https://www.example.com", ALLOWED, "/", false),
        ("http://www.example.com:80", ALLOWED, "/", false),
        ("www.mysite.com *.example.com", "app.example.com", "/user", true),
        // By default a browser tells another site the origin and no path, so a path rule refuses it.
        ("www.example.com/app/stock", ALLOWED, "/app/stock/AAPL", false),
        ("www.example.com/app/stock", ALLOWED, "/app/stock/AAPL?referrer=unsafe-url", true),
        ("www.example.com/app/stock", ALLOWED, "/app/stock?referrer=unsafe-url", true),
        ("www.example.com/app/stock", ALLOWED, "/app/stocks?referrer=unsafe-url", false),
        ("www.example.com/app/stock", ALLOWED, "/app?referrer=unsafe-url", false),
        ("www.example.com/app/stock", OTHER, "/app/stock?referrer=unsafe-url", false),
        // Without a Referer the Origin is enough for a rule without a path.
        (ALLOWED, ALLOWED, "/?referrer=no-referrer", true),
        ("www.example.com/app", ALLOWED, "/app?referrer=no-referrer", false),
    ];
    for (rules, host, path, reads) in table {
        let what = format!("{rules:?} from {host}{path}");
        let rules = rules.replace("PORT", &world.browser.port().to_string());
        let rules: Vec<&str> = rules.split_whitespace().collect();
        let token = world.gate.token(json!({"allowed_domains": rules})).await;
        world.browser.visit(host, path).await;
        // Once without and once with a preflight, for which the token decides too.
        for fetch in [world.get(&token, DATA), world.get(&token, DATA).header("X-Client-Version", "1")] {
            if reads {
                world.assert_read(&fetch, &what).await;
            } else {
                world.assert_withheld(&fetch, &what).await;
            }
        }
    }
}

#[tokio::test]
async fn sandboxed_frames_reports_and_leaks_are_told_apart() {
    let mut world = World::start().await;
    let bound = world.gate.token(json!({"allowed_domains": [ALLOWED]})).await;
    let free = world.gate.token(json!({})).await;
    let reported = world.gate.token(json!({"allowed_domains": [ALLOWED], "domain_mode": "report"})).await;

    // A sandboxed frame has the origin `null`, wherever it came from.
    world.browser.visit(ALLOWED, "/?frame=allow-scripts").await;
    world.assert_read(&world.get(&bound, DATA), "the page around the frame").await;
    world.browser.enter_frame().await;
    assert_eq!(world.browser.origin().await, "null");
    world.assert_withheld(&world.get(&bound, DATA), "a sandboxed frame").await;
    world.assert_logged(&["domain_denied", "pass"], "a sandboxed frame").await;
    world.assert_read(&world.get(&free, DATA), "a sandboxed frame, no list").await;
    let custom = world.get(&free, DATA).header("X-Client-Version", "1");
    let (_, seen) = world.assert_read(&custom, "a sandboxed frame, no list, a preflight").await;
    assert_eq!(seen.header("x-client-version"), Some("1"));
    world.assert_logged(&["pass", "pass", "preflight"], "a sandboxed frame, no list").await;

    // Report: another origin reads, and the log has it.
    world.browser.visit(OTHER, "/").await;
    world.assert_withheld(&world.get(&bound, DATA), "enforced").await;
    world.assert_logged(&["domain_denied"], "enforced").await;
    world.assert_read(&world.get(&reported, DATA), "reported").await;
    let custom = world.get(&reported, DATA).header("X-Client-Version", "1");
    world.assert_read(&custom, "reported, a preflight").await;
    let lines = world.next_lines(3).await;
    assert_eq!(lines.iter().map(verdict).collect::<Vec<_>>(), ["pass", "pass", "preflight"]);
    for line in &lines[..2] {
        assert_eq!((&line["token_id"], &line["notes"]), (&json!(reported.id), &json!(["domain_reported"])));
    }
    world.browser.visit(ALLOWED, "/").await;
    world.assert_read(&world.get(&reported, DATA), "nothing to report").await;
    assert_eq!(world.next_lines(1).await[0].get("notes"), None);

    // A page that tells its whole address tells its own token too; it goes no further than the gate.
    let page = bound.on("/app?referrer=unsafe-url");
    world.browser.visit(ALLOWED, &page).await;
    let (_, seen) = world.assert_read(&world.get(&bound, DATA), "a token in the page's address").await;
    let referer = seen.header("referer").expect("a Referer");
    assert!(referer.contains("/app?referrer=unsafe-url&token="), "{referer}");
    assert!(!referer.contains(&bound.value), "the upstream saw a token");
    world.assert_logged(&["pass"], "a token in the page's address").await;

    // A secret token in a page is answered, and flagged.
    assert_eq!(world.gate.metric("tollgate_secret_from_browser_total").await, 0);
    let secret = Token { id: String::new(), value: world.gate.secret() };
    let bearer = format!("Bearer {}", secret.value);
    world.assert_read(&Fetch::get(&world.url(DATA)).header("Authorization", &bearer), "a secret token").await;
    let lines = world.next_lines(2).await;
    assert_eq!((verdict(&lines[0]), verdict(&lines[1])), ("pass".to_owned(), "preflight".to_owned()));
    assert_eq!(lines[0]["notes"], json!(["secret_from_browser"]));
    assert_eq!(world.gate.metric("tollgate_secret_from_browser_total").await, 1);
    assert!(world.gate.events().contains("most likely leaked"));
    let gate = &world.gate;
    wait_for("the mark", || async move {
        let tokens = gate.admin("GET", "/v1/tokens", None).await.json();
        tokens["tokens"]
            .as_array()
            .expect("tokens")
            .iter()
            .any(|token| token["type"] == "secret" && token["seen_in_browser_at"].is_string())
    })
    .await;
}
