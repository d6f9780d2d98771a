use std::path::Path;

use super::*;
use crate::telemetry::Metrics;

/// Answers that a test changes.
#[derive(Default)]
struct Names(Mutex<BTreeMap<String, Vec<&'static str>>>);

impl Names {
    fn set(&self, host: &str, addresses: &[&'static str]) {
        self.0.lock().insert(host.to_owned(), addresses.to_vec());
    }
}

impl Resolver for Names {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let names = self.0.lock();
        let found = names.get(host).ok_or(io::ErrorKind::NotFound)?;
        Ok(found.iter().map(|address| SocketAddr::new(address.parse().unwrap(), port)).collect())
    }
}

fn settings(keys: &str) -> config::Upstream {
    let text = format!(
        "listeners: [{{address: \"127.0.0.1:8080\"}}]\nupstreams: {{data: {{{keys}}}}}\n\
         routes: [{{path: /, upstream: data, access: core}}]\n"
    );
    let config = config::parse(&text, Path::new("proxy.yaml"), &|_| None);
    config.unwrap_or_else(|problems| panic!("{problems}")).upstreams.remove("data").unwrap()
}

fn upstream(keys: &str, names: &Arc<Names>) -> Result<Upstream, UpstreamError> {
    let metrics = Metrics::new().unwrap();
    Upstream::try_new_by("data", settings(keys), metrics.upstreams(), &Handle::current(), names.clone())
}

/// The servers asked by so many requests, in order, without repetition.
fn asked(upstream: &Upstream, requests: usize) -> Vec<String> {
    let pick = |_| upstream.pick(b"", &[]).ok().map(|ticket| ticket.name().to_string());
    let mut asked: Vec<String> = (0..requests).filter_map(pick).collect();
    asked.sort();
    asked.dedup();
    asked
}

#[tokio::test]
async fn all_addresses_of_a_name_are_asked() {
    let names = Arc::new(Names::default());
    names.set("data.internal", &["10.0.0.1", "10.0.0.2"]);
    let upstream = upstream("servers: [\"data.internal:80\", \"10.0.0.9:81\"]", &names).unwrap();
    assert_eq!(asked(&upstream, 6), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:81"]);
}

#[tokio::test]
async fn a_name_nobody_knows_is_an_error_at_the_start() {
    let names = Arc::new(Names::default());
    let error = upstream("servers: [\"data.internal:80\"]", &names).err().expect("an error");
    assert!(
        error.to_string().starts_with("upstream `data`: the server `data.internal:80` cannot be resolved")
    );
}

#[tokio::test]
async fn a_name_that_changes_is_followed_and_one_that_is_lost_keeps_its_addresses() {
    let names = Arc::new(Names::default());
    names.set("data.internal", &["10.0.0.1", "10.0.0.2"]);
    let upstream = upstream("servers: [\"data.internal:80\"]", &names).unwrap();
    let staying = upstream.inner.servers().remove(1);
    names.set("data.internal", &["10.0.0.2", "10.0.0.3"]);
    upstream.inner.refresh();
    assert_eq!(asked(&upstream, 4), ["10.0.0.2:80", "10.0.0.3:80"]);
    let kept = upstream.inner.servers().iter().any(|server| Arc::ptr_eq(server, &staying));
    assert!(kept, "one that stays is the same one, with all that is known of it");
    names.0.lock().clear();
    upstream.inner.refresh();
    assert_eq!(asked(&upstream, 4), ["10.0.0.2:80", "10.0.0.3:80"]);
}

#[tokio::test(start_paused = true)]
async fn names_are_looked_up_each_interval_until_the_upstream_is_dropped() {
    let names = Arc::new(Names::default());
    names.set("data.internal", &["10.0.0.1"]);
    let keys = "servers: [\"data.internal:80\"], resolve_interval: 30s, health: {interval: 1h}";
    let upstream = upstream(keys, &names).unwrap();
    let inner = Arc::downgrade(&upstream.inner);
    names.set("data.internal", &["10.0.0.2"]);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if asked(&upstream, 1) == ["10.0.0.2:80"] {
            break;
        }
    }
    assert_eq!(asked(&upstream, 1), ["10.0.0.2:80"]);
    drop(upstream);
    for _ in 0..10_000 {
        if inner.strong_count() == 0 {
            return;
        }
        tokio::task::yield_now().await;
        std::thread::yield_now();
    }
    panic!("its background work goes on");
}

#[tokio::test]
async fn one_that_is_ill_is_passed_over_and_where_all_are_they_are_asked_all_the_same() {
    let names = Arc::new(Names::default());
    let upstream = upstream("servers: [\"10.0.0.1:80\", \"10.0.0.2:80\"]", &names).unwrap();
    let servers = upstream.inner.servers();
    assert!(!servers[0].note_health(false, 2), "once is nothing");
    assert!(!servers[0].note_health(true, 2));
    assert!(!servers[0].note_health(false, 2), "it has to be in a row");
    assert!(servers[0].note_health(false, 2));
    upstream.inner.arrange();
    assert_eq!(asked(&upstream, 4), ["10.0.0.2:80"]);
    assert!(servers[1].note_health(false, 1));
    upstream.inner.arrange();
    assert_eq!(asked(&upstream, 4), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert!(servers[0].note_health(true, 1));
    upstream.inner.arrange();
    assert_eq!(asked(&upstream, 4), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn places_are_given_back_however_a_request_ends() {
    let names = Arc::new(Names::default());
    let keys = "servers: [\"10.0.0.1:80\"], max_requests: 2, circuit: {failures: 1, open_for: 1h}";
    let upstream = upstream(keys, &names).unwrap();
    let load = || upstream.inner.servers()[0].metrics.in_flight.get();
    let (first, second) = (upstream.enter(), upstream.enter());
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(upstream.enter().err(), Some(NoServer::Busy));
    drop(first);
    assert!(upstream.enter().is_ok());
    let mut ticket = upstream.pick(b"", &[]).ok().expect("a server");
    let other = upstream.pick(b"", &[]).ok().expect("a server");
    assert_eq!(load(), 2);
    ticket.fail("test");
    assert_eq!(load(), 2, "it is still there");
    drop((ticket, other));
    assert_eq!(load(), 0);
    assert_eq!(upstream.pick(b"", &[]).err(), Some(NoServer::AllOpen));
    assert_eq!(load(), 0);
}

#[tokio::test]
async fn what_was_tried_is_asked_again_only_where_there_is_no_other() {
    let names = Arc::new(Names::default());
    for balance in ["round_robin", "least_connections", "hash, hash_by: path"] {
        let keys = format!("servers: [\"10.0.0.1:80\", \"10.0.0.2:80\"], balance: {balance}");
        let upstream = upstream(&keys, &names).unwrap();
        let [one, two]: [SocketAddr; 2] = ["10.0.0.1:80", "10.0.0.2:80"].map(|text| text.parse().unwrap());
        for _ in 0..4 {
            assert_eq!(upstream.pick(b"x", &[one]).ok().map(|ticket| ticket.address()), Some(two));
        }
        assert!(upstream.pick(b"x", &[one, two]).is_ok());
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_told_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("empty.pem"), "").unwrap();
    std::fs::write(path("bad.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    let names = Arc::new(Names::default());
    for (file, why) in [
        ("absent.pem", "No such file"),
        ("empty.pem", "it holds no certificate"),
        ("bad.pem", "it holds a certificate that cannot be read"),
    ] {
        let keys = format!("servers: [\"10.0.0.1:80\"], tls: {{ca: \"{}\"}}", path(file).display());
        let error = upstream(&keys, &names).err().expect("an error").to_string();
        assert!(error.contains(file) && error.contains(why), "{error}");
    }
}
