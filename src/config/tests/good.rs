//! Files that load, and what they say.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;

use super::super::{
    AccessLog, AccessLogSampling, Balance, BruteForce, CertificateFiles, Config, Dialect, Forwarded, HashBy,
    HostHeader, Limits, MetricsAccess, RedisTopology, Server, StoreUrl, TlsFiles, TlsVersion, TraceParents,
    WeightedServer,
};
use super::{env, parse, parse_file, yaml_files};
use crate::policy::route::{Access, Items, Route};
use crate::policy::signature::SignatureBody;
use crate::policy::{Credits, LeakedSecret, Operation, OutsideBrowser, Price};

const FOLDER: &str = "tests/config/good";

fn good(name: &str) -> Config {
    parse_file(&Path::new(FOLDER).join(name)).unwrap_or_else(|problems| panic!("{problems}"))
}

fn routes(config: &Config) -> Vec<&Route> {
    config.routes.iter().collect()
}

fn operations(route: &Route) -> String {
    let served = route.methods.allow();
    let with_operation = |name: &str| {
        let method = Method::from_bytes(name.as_bytes()).expect("a method");
        format!("{name}:{}", route.methods.operation(&method).expect("an operation"))
    };
    served.split(", ").map(with_operation).collect::<Vec<_>>().join(" ")
}

#[test]
fn loads_every_good_file() {
    let files = yaml_files(FOLDER);
    assert!(files.len() >= 4);
    for path in files {
        if let Err(problems) = parse_file(&path) {
            panic!("{problems}");
        }
    }
}

#[test]
fn fills_in_every_default() {
    let config = good("minimal.yaml");
    assert_eq!(config.path, Path::new("tests/config/good/minimal.yaml"));
    assert_eq!(config.state_dir, Path::new("tests/config/good/state"));
    assert_eq!(config.secret_token_path(), Path::new("tests/config/good/state/secret-token"));
    assert_eq!(config.master_key_path(), Path::new("tests/config/good/state/master-key"));
    assert_eq!((config.threads, &config.admin, config.metrics), (None, &None, MetricsAccess::Open));
    assert_eq!(config.authz, None);
    assert_eq!(config.limits, Limits::default());
    let plain = (false, false, None);
    let listener = &config.listeners[0];
    assert_eq!((listener.http2, listener.proxy_protocol, listener.tls.clone()), plain);
    let path = PathBuf::from("tests/config/good/state/tollgate.redb");
    assert_eq!(config.store.url, StoreUrl::Embedded { path });
    assert_eq!(config.store.timeout, Duration::from_secs(1));
    assert_eq!(config.store.prefix, "tg:");
    assert_eq!(config.dialect, Dialect::Standard);
    assert!(config.master_key.is_none() && config.trusted_proxies.is_empty());
    assert_eq!((config.leaked_secret, config.outside_browser), (LeakedSecret::Flag, OutsideBrowser::Ignore));
    assert_eq!(config.forwarded, Forwarded::XForwarded);
    assert_eq!(config.cors.max_age, Duration::from_mins(10));
    let headers =
        [("Content-Type", true), ("X-IEX-Date", true), ("x-anything", true), ("x", false), ("cookie", false)];
    for (header, allowed) in headers {
        assert_eq!(config.cors.allows(header), allowed, "{header}");
    }
    assert_eq!(config.access_log, AccessLog::Stdout);
    assert_eq!((config.shutdown_delay, config.shutdown_grace), (Duration::ZERO, Duration::from_secs(10)));
    assert_eq!(config.reclaim_window, Duration::from_hours(24));
    assert_eq!(config.brute_force, BruteForce { failures: 300, window: Duration::from_mins(1) });
    assert_eq!(config.usage_retention, Duration::from_hours(400 * 24));
    let upstream = &config.upstreams["datasets"];
    let server = Server { host: "localhost".to_owned(), port: 9000 };
    assert_eq!(upstream.servers, [WeightedServer { server, weight: 1 }]);
    assert_eq!(upstream.resolve_interval, Duration::from_secs(30));
    assert_eq!(upstream.balance, Balance::RoundRobin);
    assert!(upstream.health.is_none() && upstream.circuit.is_none() && upstream.retries.is_none());
    assert!(upstream.tls.is_none() && !upstream.http2);
    assert_eq!((upstream.max_requests, upstream.request_timeout), (None, None));
    assert_eq!(upstream.connect_timeout, Duration::from_secs(2));
    let others = [upstream.read_timeout, upstream.write_timeout, upstream.idle_timeout];
    assert_eq!(others, [Duration::from_mins(1); 3]);
    assert_eq!((upstream.keep_alive, upstream.host), (128, HostHeader::Keep));
    let [route] = routes(&config)[..] else { panic!("one route") };
    assert_eq!(
        (&route.price, route.signed, route.keep_encoded_slash),
        (&Price::flat(Credits(1)), false, false)
    );
    assert_eq!((route.signature_body, route.max_signed_body), (SignatureBody::Strict, 1_048_576));
    assert_eq!(config.signature_max_skew, Duration::from_mins(5));
    assert!(route.dataset.is_none() && route.batch_separator_param.is_none());
    assert_eq!(operations(route), "GET:read HEAD:read POST:write PUT:write PATCH:write DELETE:delete");
}

/// TLS, protocols and limits of `every_key.yaml`.
fn reads_listeners(config: &Config) {
    let [first, second] = &config.listeners[..] else { panic!("two listeners") };
    let tls = first.tls.as_ref().expect("TLS");
    let pair = |cert: &str, key: &str| CertificateFiles { cert: cert.into(), key: key.into() };
    let pairs = [
        pair("tests/config/good/tls/a.pem", "tests/config/good/tls/a.key"),
        pair("/etc/tollgate/b.pem", "/etc/tollgate/b.key"),
    ];
    assert_eq!((&tls.certificates[..], tls.min_version), (&pairs[..], TlsVersion::V1_3));
    assert_eq!(tls.client_ca.as_deref(), Some(Path::new("tests/config/good/tls/clients.pem")));
    assert_eq!((first.http2, first.proxy_protocol), (false, true));
    let tls = second.tls.as_ref().expect("TLS");
    assert_eq!((tls.certificates.len(), tls.min_version, second.http2), (1, TlsVersion::V1_2, true));
    let admin = config.admin.as_ref().and_then(|admin| admin.tls.as_ref());
    assert_eq!(admin.map(|tls| tls.certificates.len()), Some(1));
    let limits = Limits {
        request_header_size: 16 << 10,
        request_headers: 50,
        uri_length: 4 << 10,
        request_body: 1 << 20,
        header_timeout: Duration::from_secs(5),
        body_timeout: Duration::from_secs(6),
        write_timeout: Duration::from_secs(7),
        keepalive_timeout: Duration::from_secs(8),
        keepalive_requests: 1000,
        connections: 5000,
        connections_per_address: 100,
        http2_streams: 50,
    };
    assert_eq!(config.limits, limits);
}

#[test]
fn reads_every_key() {
    let config = good("every_key.yaml");
    assert_eq!(config.dialect, Dialect::Iex);
    assert_eq!(config.state_dir, Path::new("/var/lib/tollgate"));
    assert_eq!(config.threads.map(usize::from), Some(256));
    let listeners: Vec<_> = config.listeners.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!(listeners, ["0.0.0.0:8080", "[::1]:8443"]);
    assert_eq!(config.metrics, MetricsAccess::Secret);
    let authz = config.authz.as_ref().expect("authz");
    let trusted: Vec<_> = authz.trusted.iter().map(ToString::to_string).collect();
    assert_eq!(
        (authz.address.to_string().as_str(), authz.settle_within),
        ("[::1]:8082", Duration::from_mins(5))
    );
    assert_eq!(trusted, ["10.1.0.0/16", "192.0.2.7/32"]);
    assert_eq!(
        config.admin.as_ref().map(|admin| admin.address.to_string()),
        Some("127.0.0.1:9090".to_owned())
    );
    reads_listeners(&config);
    let StoreUrl::Redis(redis) = &config.store.url else { panic!("Redis") };
    let RedisTopology::Sentinel { sentinels, master } = &redis.topology else { panic!("Sentinel") };
    let sentinels: Vec<_> = sentinels.iter().map(ToString::to_string).collect();
    assert_eq!(sentinels, ["[fd00::1]:26380", "sentinel.internal:26379"]);
    assert_eq!((master.as_str(), redis.db, redis.username.as_deref()), ("tollgate", 3, Some("gate")));
    let tls = redis.tls.as_ref().expect("TLS");
    assert_eq!(tls.ca.as_deref(), Some(Path::new("tests/config/good/tls/ca.pem")));
    let identity = ("tests/config/good/tls/gate.pem".into(), "/etc/tollgate/gate.key".into());
    assert_eq!(tls.identity, Some(identity));
    assert_eq!(redis.password.as_ref().map(super::super::Secret::expose), Some("s3cret-value"));
    assert_eq!((config.store.timeout, config.store.prefix.as_str()), (Duration::from_secs(1), "gate-1:"));
    assert_eq!(config.master_key.as_ref().map(super::super::Secret::expose), Some("s3cret-value"));
    let trusted: Vec<_> = config.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(trusted, ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"]);
    assert_eq!((config.leaked_secret, config.forwarded), (LeakedSecret::Refuse, Forwarded::Both));
    assert_eq!(config.outside_browser, OutsideBrowser::Report);
    assert_eq!(config.cors.allow_headers, ["accept", "x-custom-*"]);
    assert_eq!(config.cors.max_age, Duration::ZERO);
    assert_eq!(config.access_log, AccessLog::File("tests/config/good/logs/access.log".into()));
    let slow = Some(Duration::from_secs(2));
    let sampling = AccessLogSampling { sample: 0.25, refused: false, errors: true, slow };
    assert_eq!(config.access_log_sampling, Some(sampling));
    let tracing = config.tracing.as_ref().expect("tracing");
    assert_eq!(tracing.url, "https://collector.internal:4318/base/v1/traces");
    assert_eq!((tracing.sample, tracing.parents, tracing.client_address), (1.0, TraceParents::Always, false));
    assert_eq!((tracing.service_name.as_str(), tracing.timeout), ("edge", Duration::from_millis(500)));
    let headers: Vec<_> =
        tracing.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("x-api-key", "s3cret-value")]);
    assert_eq!(
        (config.shutdown_delay, config.shutdown_grace),
        (Duration::from_secs(5), Duration::from_mins(1))
    );
    assert_eq!((config.outage_grace, config.policies), (Duration::from_hours(1), 5000));
    assert_eq!(config.reclaim_window, Duration::from_mins(90));
    assert_eq!(config.brute_force, BruteForce { failures: 5, window: Duration::from_secs(10) });
    assert_eq!(config.usage_retention, Duration::from_hours(31 * 24));
    assert_eq!(config.store.wait_replicas, 2);
    assert!(!format!("{config:?}").contains("s3cret"), "a secret is not shown");

    let upstream = &config.upstreams["quotes"];
    let servers: Vec<_> =
        upstream.servers.iter().map(|entry| (entry.server.to_string(), entry.weight)).collect();
    assert_eq!(servers, [("quotes_1.internal:80".to_owned(), 1), ("[2001:db8::1]:8080".to_owned(), 3)]);
    assert_eq!(upstream.servers[1].server.host, "2001:db8::1");
    reads_care(upstream);
    assert_eq!(config.upstreams["unused"].balance, Balance::LeastConnections);
    assert!(config.upstreams["unused"].tls.as_ref().is_some_and(|tls| tls.trust_anyone));
    assert_eq!(upstream.connect_timeout, Duration::from_millis(250));
    assert_eq!(upstream.read_timeout, Duration::from_hours(1));
    assert_eq!(upstream.write_timeout, Duration::from_mins(5));
    assert_eq!(upstream.idle_timeout, Duration::from_secs(90));
    assert_eq!((upstream.keep_alive, upstream.host), (0, HostHeader::Server));
    assert_eq!(config.upstreams.len(), 2);

    let [files, search, root] = routes(&config)[..] else { panic!("three routes") };
    let rewrite = files.rewrite.as_ref().expect("a rewriting");
    assert_eq!(rewrite.path.apply("/files/a/b?x"), "/internal/a/b?x");
    assert_eq!(rewrite.host.as_deref(), Some("files.internal:8080"));
    assert_eq!(rewrite.request.set[0].1, "s3cret-value");
    assert_eq!(
        (rewrite.request.remove.len(), rewrite.response.set.len(), rewrite.response.remove.len()),
        (1, 1, 2)
    );
    assert_eq!(search.rewrite.as_ref().expect("a rewriting").path.apply("/search"), "/find");
    assert!(root.rewrite.is_none());
    assert_eq!(
        (files.path.to_string(), files.upstream.as_str()),
        ("/files/{workspace}/**".to_owned(), "quotes")
    );
    assert_eq!(files.access, Access::Premium);
    assert_eq!(files.dataset.as_ref().map(ToString::to_string), Some("{workspace}/{query.id}".to_owned()));
    assert_eq!(files.batch_separator_param.as_deref(), Some("sep"));
    assert_eq!(files.price, Price::flat(Credits(9_007_199_254_740_991)));
    assert_eq!((files.signed, files.keep_encoded_slash), (true, true));
    assert_eq!((files.signature_body, files.max_signed_body), (SignatureBody::Lenient, 2 << 20));
    assert_eq!((search.signature_body, search.max_signed_body), (SignatureBody::Strict, 64 << 10));
    assert_eq!(config.signature_max_skew, Duration::from_secs(30));
    assert_eq!(operations(files), "GET:read POST:read QUERY:read");
    let expected = "GET:read HEAD:read POST:read PUT:write PATCH:write DELETE:write REPORT:read";
    assert_eq!(operations(search), expected);
    assert_eq!((&search.price, search.access), (&Price::flat(Credits(0)), Access::Core));
    assert_eq!(root.access, Access::Dataset);
    assert_eq!(root.methods.operation(&Method::DELETE), Some(Operation::Delete));
}

fn reads_care(upstream: &super::super::Upstream) {
    assert_eq!(upstream.balance, Balance::Hash(HashBy::Header("x-session".parse().expect("a name"))));
    let health = upstream.health.as_ref().expect("health");
    assert_eq!(
        (health.path.as_deref(), health.host.as_deref()),
        (Some("/health?deep=1"), Some("quotes.internal:81"))
    );
    assert_eq!((health.interval, health.timeout), (Duration::from_secs(1), Duration::from_millis(500)));
    assert_eq!(
        (health.expect.as_slice(), health.unhealthy_after, health.healthy_after),
        ([200, 204].as_slice(), 2, 5)
    );
    let circuit = upstream.circuit.as_ref().expect("a circuit");
    assert_eq!((circuit.failures, circuit.window), (10, Duration::from_mins(1)));
    assert_eq!((circuit.open_for, circuit.statuses.as_slice()), (Duration::from_secs(30), [503].as_slice()));
    let retries = upstream.retries.as_ref().expect("retries");
    assert_eq!((retries.attempts, retries.connect, retries.reset, retries.budget), (2, false, true, 5));
    assert_eq!(
        (retries.statuses.as_slice(), retries.methods.as_slice()),
        ([502, 503].as_slice(), [Method::GET, Method::PUT].as_slice())
    );
    let tls = upstream.tls.as_ref().expect("TLS");
    assert_eq!(tls.ca.as_deref(), Some(Path::new("tests/config/good/tls/upstream-ca.pem")));
    assert!(tls.identity.is_some() && !tls.trust_anyone);
    assert_eq!(tls.server_name.as_deref(), Some("quotes.internal"));
    assert_eq!((upstream.http2, upstream.max_requests), (true, Some(1000)));
    assert_eq!(upstream.resolve_interval, Duration::from_mins(1));
    assert_eq!(upstream.request_timeout, Some(Duration::from_mins(2)));
}

#[test]
fn reads_tracing_and_a_sampled_log_with_their_defaults() {
    let minimal = fs::read_to_string("tests/config/good/minimal.yaml").expect("a good file");
    let read =
        |more: &str| parse(&format!("{more}\n{minimal}"), Path::new("any.yaml"), &env).expect("a good file");
    let plain = read("");
    assert!(plain.tracing.is_none() && plain.access_log_sampling.is_none());
    let tracing = read("tracing: {endpoint: 'http://127.0.0.1:4318/v1/traces'}").tracing.expect("tracing");
    assert_eq!(tracing.url, "http://127.0.0.1:4318/v1/traces");
    assert_eq!(
        (tracing.sample, tracing.parents, tracing.client_address),
        (0.01, TraceParents::Trusted, true)
    );
    assert_eq!((tracing.service_name.as_str(), tracing.timeout), ("tollgate", Duration::from_secs(10)));
    assert!(tracing.headers.is_empty());
    let sampled = read("access_log: {sample: 0.5}");
    let expected = AccessLogSampling { sample: 0.5, refused: true, errors: true, slow: None };
    assert_eq!((sampled.access_log, sampled.access_log_sampling), (AccessLog::Stdout, Some(expected)));
    assert_eq!(read("access_log: {to: off, sample: 1}").access_log, AccessLog::Off);
}

#[test]
fn takes_whole_values_from_the_environment() {
    let config = good("environment.yaml");
    assert_eq!(config.state_dir, Path::new("/var/lib/tollgate"));
    assert_eq!(config.threads.map(usize::from), Some(3));
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:7000");
    let StoreUrl::Redis(redis) = &config.store.url else { panic!("Redis") };
    let server = Server { host: "redis.internal".to_owned(), port: 6379 };
    assert_eq!(redis.topology, RedisTopology::Standalone(server));
    assert_eq!((redis.db, redis.username.as_deref(), &redis.tls), (2, Some("gate"), &None));
    assert_eq!(redis.password.as_ref().map(super::super::Secret::expose), Some("p@ss"));
    assert!(config.master_key.is_none(), "an empty master key is an absent one");
}

#[test]
fn reads_every_form_of_a_redis_url() {
    let minimal = fs::read_to_string("tests/config/good/minimal.yaml").expect("a good file");
    let server = |host: &str, port| Server { host: host.to_owned(), port };
    let sentinel = |sentinels: &[Server]| RedisTopology::Sentinel {
        sentinels: sentinels.to_vec(),
        master: "my.master-1".to_owned(),
    };
    let cluster = |nodes: &[Server]| RedisTopology::Cluster { nodes: nodes.to_vec() };
    let table = [
        ("redis://a", RedisTopology::Standalone(server("a", 6379)), 0, false),
        ("redis://a:7/", RedisTopology::Standalone(server("a", 7)), 0, false),
        ("rediss://[::1]/4", RedisTopology::Standalone(server("::1", 6379)), 4, true),
        ("redis+sentinel://a/my.master-1", sentinel(&[server("a", 26379)]), 0, false),
        (
            "rediss+sentinel://a:1,[::1],b:3/my.master-1/2",
            sentinel(&[server("a", 1), server("::1", 26379), server("b", 3)]),
            2,
            true,
        ),
        ("redis+cluster://a", cluster(&[server("a", 6379)]), 0, false),
        ("rediss+cluster://a:1,b:2/", cluster(&[server("a", 1), server("b", 2)]), 0, true),
    ];
    for (url, topology, db, tls) in table {
        let text = format!("store: {{ url: \"{url}\" }}\n{minimal}");
        let config = parse(&text, Path::new("any.yaml"), &env).unwrap_or_else(|told| panic!("{url}: {told}"));
        let StoreUrl::Redis(redis) = &config.store.url else { panic!("{url}") };
        assert_eq!((&redis.topology, redis.db), (&topology, db), "{url}");
        assert_eq!(redis.tls, tls.then(TlsFiles::default), "{url}");
    }
}

#[test]
fn loads_the_sample_of_the_specification() {
    let config = good("interface.yaml");
    assert_eq!(config.threads.map(usize::from), Some(2));
    let paths: Vec<_> = routes(&config).iter().map(|route| route.path.to_string()).collect();
    assert_eq!(paths, ["/{version}/data/CORE/{dataset}/**", "/{version}/data/{workspace}/{dataset}/**"]);
}

#[test]
fn ships_a_file_that_says_the_defaults() {
    let shipped = parse_file(Path::new("proxy.yaml")).unwrap_or_else(|problems| panic!("{problems}"));
    let minimal = good("minimal.yaml");
    assert_eq!(shipped.state_dir, Path::new("state"));
    assert_eq!(shipped.store.url, StoreUrl::Embedded { path: "state/tollgate.redb".into() });
    assert_eq!(
        (shipped.store.timeout, &shipped.store.prefix),
        (minimal.store.timeout, &minimal.store.prefix)
    );
    assert_eq!((shipped.threads, &shipped.master_key), (minimal.threads, &minimal.master_key));
    assert_eq!((shipped.dialect, &shipped.trusted_proxies), (minimal.dialect, &minimal.trusted_proxies));
    assert_eq!((shipped.leaked_secret, shipped.forwarded), (minimal.leaked_secret, minimal.forwarded));
    assert_eq!((&shipped.cors, &shipped.access_log), (&minimal.cors, &minimal.access_log));
    assert_eq!((&shipped.limits, shipped.shutdown_grace), (&minimal.limits, minimal.shutdown_grace));
    assert_eq!((shipped.outage_grace, shipped.policies), (minimal.outage_grace, minimal.policies));
    assert_eq!(shipped.store.wait_replicas, minimal.store.wait_replicas);
    assert_eq!(shipped.signature_max_skew, minimal.signature_max_skew);
    let bounds = |config: &Config| routes(config)[0].max_signed_body;
    assert_eq!(bounds(&shipped), bounds(&minimal));
    let [shipped_upstream, upstream] = [&shipped, &minimal].map(|config| {
        let mut upstream = config.upstreams["datasets"].clone();
        upstream.servers.clear();
        upstream
    });
    assert_eq!(shipped_upstream, upstream);
    assert_eq!(routes(&shipped).len(), 10);
}

#[test]
fn ships_a_file_that_names_every_key() {
    let text = fs::read_to_string("proxy.yaml").expect("the shipped file");
    let named: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_start_matches([' ', '#', '-']).split([':', ' ']).next())
        .collect();
    for key in super::super::all_keys() {
        assert!(named.contains(&key), "proxy.yaml does not explain `{key}`");
    }
}

#[test]
fn reads_every_form_of_a_price() {
    let config = good("prices.yaml");
    let prices: Vec<_> = routes(&config).iter().map(|route| route.price.to_string()).collect();
    let expected = [
        "2 for each item, at most 50",
        "1 for each item",
        "0 + 3 for each kilobyte",
        "1 + 1 for each kilobyte + 2 for each record, at most 1000",
        "0 + 1 for each event",
        "what the response header x-credits-cost says, else 1, at most 100",
    ];
    assert_eq!(prices, expected);
    let items: Vec<_> = routes(&config).iter().filter_map(|route| route.items.clone()).collect();
    assert_eq!(items, [Items::Query("symbols".to_owned()), Items::Segment(1)]);
}

#[test]
fn a_plugin_needs_no_listeners_and_no_upstreams() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gate.yaml");
    let route = "routes:\n  - {path: /a, upstream: any-name, access: core}\n";
    let load = |more: &str| {
        fs::write(&path, format!("{more}{route}")).expect("a file");
        super::super::load_plugin(&path, &env)
    };
    let config = load("").expect("a configuration");
    assert!(config.listeners.is_empty() && config.upstreams.is_empty());
    assert_eq!(routes(&config).first().map(|route| route.upstream.as_str()), Some("any-name"));
    // What is there is read as ever.
    let mistaken = load("upstreams: {mine: {servers: [localhost:1]}}\n").expect_err("another name");
    assert!(mistaken.to_string().contains("no upstream is named"), "{mistaken}");
    assert!(load("listeners: []\n").is_err());
    assert!(parse(route, &path, &env).is_err(), "a server needs both");
}
