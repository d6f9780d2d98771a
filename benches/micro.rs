//! Small benches of what every request goes through: its target, its page, the verdict. `cargo bench --bench micro`.

use divan::{Bencher, black_box};
use http::Method;
use jiff::Timestamp;
use tollgate::ledger::purse::{Draw, Purse};
use tollgate::policy::cost::Price;
use tollgate::policy::domain::{DomainRules, Page};
use tollgate::policy::query::take_tokens;
use tollgate::policy::route::{Access, DatasetTemplate, Methods, PathTemplate, Route, RouteTable};
use tollgate::policy::signature::{Claim, DEFAULT_MAX_SKEW, RawRequest, SignatureBody, SigningSecret, sign};
use tollgate::policy::tally::{BodyKind, Tally};
use tollgate::policy::target::Target;
use tollgate::policy::{
    AccountId, Credits, Denial, Facts, Grant, LeakedSecret, Policy, Token, TokenId, TokenKind, judge,
};

const HOST: &[u8] = b"api.example.net";
const TARGET: &[u8] = b"/v1/data/MY/CARS/audi/a2?last=5&token=pk_0123456789abcdef0123456789abcdef";
const ORIGIN: &[&[u8]] = &[b"https://www.example.com"];
const REFERER: &[&[u8]] = &[b"https://www.example.com/app/cars?make=audi"];

fn main() {
    // `cargo test` and nextest start every bench too, to look for tests. There are none here.
    if std::env::args().any(|argument| argument == "--bench") {
        divan::main();
    }
}

/// The one canonical form of a target, of several kinds.
#[divan::bench(args = [
    "/v1/data/MY/CARS/audi/a2?last=5&token=pk_0123456789abcdef0123456789abcdef",
    "/v1/data/MY/CARS",
    "//v1/./data/x/../MY/CARS/%61udi?q=a%20b&&c=%2F",
])]
fn target_parse(target: &str) -> bool {
    Target::parse(black_box(target.as_bytes()), Some(HOST)).is_ok()
}

/// Taking the token out of the query.
#[divan::bench]
fn query_take_tokens() -> usize {
    take_tokens(black_box(Some("last=5&token=pk_0123456789abcdef0123456789abcdef"))).0.len()
}

/// From a token's text to its digest.
#[divan::bench]
fn token_digest() -> Option<[u8; 32]> {
    let token = Token::parse(black_box(b"pk_0123456789abcdef0123456789abcdef"))?;
    Some(*token.digest().as_bytes())
}

/// What `Origin` and `Referer` say.
#[divan::bench]
fn page_read() -> Page {
    Page::read(black_box(ORIGIN), black_box(REFERER))
}

/// Whether a page may use a token, by the number of its rules; the last one admits.
#[divan::bench(args = [1, 10, 100])]
fn domain_admit(bencher: Bencher<'_, '_>, rules: usize) {
    let mut texts: Vec<String> = (1..rules).map(|at| format!("shop{at}.example.org")).collect();
    texts.push("*.example.com".to_owned());
    let rules = DomainRules::parse(texts.iter().map(String::as_str)).unwrap_or_default();
    let page = Page::read(ORIGIN, REFERER);
    bencher.bench_local(|| black_box(&rules).admit(black_box(&page), None).is_ok());
}

/// The route of a target, by the number of routes; the last one matches.
#[divan::bench(args = [1, 10, 100])]
fn route_find(bencher: Bencher<'_, '_>, routes: usize) {
    let other = |at| route(&format!("/{{version}}/other{at}/{{dataset}}/**"), None);
    let mut all: Vec<Route> = (1..routes).filter_map(other).collect();
    all.extend(data_route());
    let table = RouteTable::new(all);
    let Ok(target) = Target::parse(TARGET, Some(HOST)) else { return };
    bencher.bench_local(|| black_box(&table).find(black_box(&target)).is_ok());
}

/// The verdict over a request that passes: token, domains, grant, by the number of grants.
#[divan::bench(args = [1, 10, 100])]
fn judge_pass(bencher: Bencher<'_, '_>, grants: usize) {
    let Some(route) = data_route() else { return };
    let Ok(target) = Target::parse(TARGET, Some(HOST)) else { return };
    let Ok(errand) = route.errand(&target, &Method::GET) else { return };
    let page = Page::read(ORIGIN, REFERER);
    let facts = Facts {
        now: Timestamp::UNIX_EPOCH,
        errand: &errand,
        page: &page,
        client: None,
        from_browser: true,
        leaked_secret: LeakedSecret::Flag,
        outside_browser: false,
        signature: Err(Denial::SignatureMissing),
    };
    let policy = policy(grants);
    bencher.bench_local(|| judge(black_box(&facts), black_box(&policy)));
}

/// A signature checked with so many secrets, for a request without a body.
#[divan::bench(args = [1, 2, 4])]
fn verify_signature(bencher: Bencher<'_, '_>, secrets: u8) {
    let token = Token::from_random(TokenKind::Publishable, [1; 16]);
    let secrets: Vec<_> = (0..secrets).map(|n| SigningSecret::from_random([n; 16])).collect();
    let (Some(secret), now) = (secrets.last(), Timestamp::UNIX_EPOCH) else { return };
    let Some(made) = sign("GET", TARGET, "api.example.net", b"", token.expose(), secret, now) else { return };
    let (authorization, dates) = ([made.authorization.as_bytes()], [made.date.as_bytes()]);
    let request = RawRequest {
        method: "GET",
        target: TARGET,
        host: Some(b"api.example.net:8080"),
        authorization: &authorization,
        dates: &dates,
    };
    bencher.bench_local(|| {
        let claim = Claim::read(black_box(&request), &token, now, DEFAULT_MAX_SKEW);
        claim.and_then(|claim| claim.check(&secrets, SignatureBody::Strict, false)).is_ok()
    });
}

/// What a charged request asks of its purse: to draw, to spend, and whether to ask ahead; by the number of leases in hand.
#[divan::bench(args = [1, 4])]
fn purse_draw_and_spend(bencher: Bencher<'_, '_>, leases: u64) {
    let mut purse = Purse::default();
    for at in 0..leases {
        purse.granted(ulid::Ulid::from_parts(1, at.into()), u64::MAX / 8, u64::MAX, u64::MAX);
    }
    let mut now = 0;
    bencher.bench_local(|| {
        now += 100;
        if let Draw::Taken(lease) = purse.draw(black_box(1), now) {
            purse.spend(lease, 1);
        }
        purse.wish_more(None, now)
    });
}

/// The data sets a request is about.
#[divan::bench]
fn route_errand(bencher: Bencher<'_, '_>) {
    let Some(route) = data_route() else { return };
    let Ok(target) = Target::parse(TARGET, Some(HOST)) else { return };
    bencher.bench_local(|| black_box(&route).errand(black_box(&target), &Method::GET).is_ok());
}

/// Counting what a body of 1 MB holds, in chunks of 64 KiB, by its kind.
#[divan::bench(args = [BodyKind::Json, BodyKind::Lines, BodyKind::Events, BodyKind::Frames, BodyKind::Opaque])]
fn tally_megabyte(bencher: Bencher<'_, '_>, kind: BodyKind) {
    let record = r#"{"symbol":"AAPL","open":189.33,"close":191.24,"volume":48087681,"label":"Nov "24"","change":0.0101}"#;
    let (start, unit) = match kind {
        BodyKind::Lines => ("", format!("{record}\n")),
        BodyKind::Events => ("", format!("id: 7\ndata: {record}\n\n")),
        BodyKind::Frames => {
            ("", format!("\u{1}{}{}", char::from(100), record.get(..100).unwrap_or_default()))
        }
        BodyKind::Json | BodyKind::Opaque | BodyKind::Empty => ("[", format!("{record},")),
    };
    let body = start.to_owned() + &unit.repeat(1_000_000 / unit.len());
    bencher.counter(divan::counter::BytesCount::of_str(&body)).bench_local(|| {
        let mut tally = Tally::new(kind);
        for chunk in black_box(&body).as_bytes().chunks(64 * 1024) {
            tally.feed(chunk);
        }
        tally.units()
    });
}

fn policy(grants: usize) -> Policy {
    let id = TokenId::from_ulid(ulid::Ulid::from_parts(1, 1));
    let mut policy =
        Policy::new(id, AccountId::default_account(), TokenKind::Publishable, Timestamp::UNIX_EPOCH);
    policy.allowed_domains = DomainRules::parse(["www.example.com"]).unwrap_or_default();
    let other = (1..grants).map(|at| format!("MY/OTHER{at}")).chain(["MY/CARS".to_owned()]);
    policy.grants = other.filter_map(|dataset| Grant::new(&dataset, ["read"]).ok()).collect();
    policy
}

fn data_route() -> Option<Route> {
    route("/{version}/data/{workspace}/{dataset}/**", Some("{workspace}/{dataset}"))
}

fn route(path: &str, dataset: Option<&str>) -> Option<Route> {
    let path = PathTemplate::parse(path).ok()?;
    let dataset = match dataset {
        Some(text) => Some(DatasetTemplate::parse(text, &path).ok()?),
        None => None,
    };
    let access = if dataset.is_some() { Access::Dataset } else { Access::Core };
    Some(Route {
        path,
        upstream: "datasets".to_owned(),
        access,
        dataset,
        batch_separator_param: None,
        methods: Methods::default(),
        price: Price::flat(Credits(1)),
        items: None,
        signed: false,
        signature_body: tollgate::policy::signature::SignatureBody::Strict,
        max_signed_body: 1024,
        keep_encoded_slash: false,
        rewrite: None,
    })
}
