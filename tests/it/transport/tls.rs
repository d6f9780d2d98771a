use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Authority, Wish, certificate, closes, exchange, get, tls_keys};
use crate::harness::gate::{Plan, limited};
use crate::harness::secure;
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

const OLD_TLS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];

#[tokio::test]
async fn the_name_asked_for_picks_the_certificate_and_upstreams_learn_of_https() {
    let authority = Authority::new();
    let [a, b] = ["a.test", "*.b.test"].map(|name| authority.issue(&name.replace('*', "any"), name));
    let upstream = Upstream::start().await;
    let pairs =
        [&a, &b].map(|(cert, key)| format!("{{cert: \"{}\", key: \"{}\"}}", cert.display(), key.display()));
    let keys = format!("tls: {{ certificates: [{}] }}", pairs.join(", "));
    let mut gate = Plan::new(&upstream).listener_extra(&keys).start().await;
    let token = gate.token(json!({})).await;
    for (name, pair) in [("a.test", &a), ("x.b.test", &b)] {
        let mut stream = Wish::new(&authority, name).open(gate.address).await.expect(name);
        let shown = stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone();
        assert_eq!(shown, certificate(&pair.0), "{name}");
        for _ in 0..2 {
            let answer = exchange(&mut stream, &get(&token.on("/v1/free/x"))).await.expect("an answer");
            assert_eq!(answer.0, 200, "{answer:?}");
        }
    }
    // The first certificate is for all other names, and this client does not take it.
    assert!(Wish::new(&authority, "c.test").open(gate.address).await.is_err());
    assert_eq!(upstream.count(), 4);
    for seen in upstream.seen() {
        assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
        assert!(!format!("{seen:?}").contains(&token.value));
    }
    // Who speaks no TLS is not answered.
    let mut plain = tokio::net::TcpStream::connect(gate.address).await.unwrap();
    assert!(exchange(&mut plain, &get("/")).await.is_err());
    wait_for("the handshakes to be counted", || async {
        gate.metric("tollgate_connections_refused_total{reason=\"handshake\"}").await >= 1
    })
    .await;
}

#[tokio::test]
async fn new_certificates_are_shown_bad_ones_are_not_and_connections_stay() {
    let authority = Authority::new();
    let pair = authority.issue("gate", "a.test");
    let old = certificate(&pair.0);
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).listener_extra(&tls_keys(&pair, "")).start().await;
    let token = gate.token(json!({})).await;
    let ask = get(&token.on("/v1/free/x"));
    let wish = Wish::new(&authority, "a.test");
    let mut standing = wish.open(gate.address).await.expect("a connection");
    assert_eq!(exchange(&mut standing, &ask).await.unwrap().0, 200);

    authority.issue("gate", "a.test");
    let new = certificate(&pair.0);
    assert_ne!(old, new);
    wait_for("the new certificate", || async {
        let stream = wish.open(gate.address).await.expect("a connection");
        stream.get_ref().1.peer_certificates().expect("a certificate")[0] == new
    })
    .await;
    assert_eq!(exchange(&mut standing, &ask).await.unwrap().0, 200, "the old connection stands");

    std::fs::write(&pair.0, "-----BEGIN CERTIFICATE-----\nrubbish\n").unwrap();
    wait_for("the bad certificate to be told of", || async {
        gate.events().contains("new certificates cannot be used; the old ones stay in force")
    })
    .await;
    let mut stream = wish.open(gate.address).await.expect("a connection");
    assert_eq!(stream.get_ref().1.peer_certificates().expect("a certificate")[0], new);
    assert_eq!(exchange(&mut stream, &ask).await.unwrap().0, 200);
}

#[tokio::test]
async fn a_metric_tells_when_the_certificates_in_force_expire_and_the_log_that_one_has() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let authority = secure::Authority::new();
    let sign = |year, name: &str| {
        let (cert, key) = (at(&format!("{name}.pem")), at(&format!("{name}.key")));
        authority.sign_until("a.test", year).write(&cert, &key);
        (cert, key)
    };
    let ((cert, key), (client_cert, client_key)) = (sign(2021, "gate"), sign(2120, "client"));
    let upstream = Upstream::start().await;
    let more = format!(
        "  mutual: {{servers: [\"127.0.0.1:1\"], tls: {{cert: \"{}\", key: \"{}\"}}}}",
        client_cert.display(),
        client_key.display()
    );
    let plan = Plan::new(&upstream).listener_extra(&tls_keys(&(cert.clone(), key), "")).extra(&more);
    let gate = plan.start().await;
    let of = |what: &str, name: &str| {
        format!("tollgate_certificate_expires_timestamp_seconds{{name=\"{name}\",use=\"{what}\"}}")
    };
    let (listener, mutual) = (of("listener", "127.0.0.1:0"), of("upstream", "mutual"));
    let (y2021, y2120, y2121) = (1_609_459_200, 4_733_510_400, 4_765_132_800);
    assert_eq!((gate.metric(&listener).await, gate.metric(&mutual).await), (y2021, y2120));
    let told = format!("the certificate in {} has expired (2021-01-01T00:00:00Z)", cert.display());
    assert!(gate.events().contains(&told), "{}", gate.events());

    sign(2121, "gate");
    sign(2121, "client");
    for series in [&listener, &mutual] {
        wait_for("the new certificate's end", || async { gate.metric(series).await == y2121 }).await;
    }
    // What cannot be used is not in force, and tells nothing.
    std::fs::write(&cert, "rubbish").unwrap();
    wait_for("the bad certificate to be told of", || async {
        gate.events().contains("new certificates cannot be used; the old ones stay in force")
    })
    .await;
    assert_eq!(gate.metric(&listener).await, y2121);
}

#[tokio::test]
async fn clients_show_a_certificate_where_one_is_asked_for_and_old_versions_are_refused() {
    let [authority, stranger] = [Authority::new(), Authority::new()];
    let pair = authority.issue("gate", "a.test");
    let (known, foreign) =
        (authority.issue("client", "client.test"), stranger.issue("client", "client.test"));
    let upstream = Upstream::start().await;
    let more = format!(", min_version: \"1.3\", client_ca: \"{}\"", authority.path("ca.pem").display());
    let mut gate = Plan::new(&upstream).listener_extra(&tls_keys(&pair, &more)).start().await;
    let token = gate.token(json!({})).await;
    let ask = get(&token.on("/v1/free/x"));
    let wish = Wish::new(&authority, "a.test");
    for (what, wish, passes) in [
        ("known", Wish { identity: Some(&known), ..wish }, true),
        ("foreign", Wish { identity: Some(&foreign), ..wish }, false),
        ("none", wish, false),
        ("old", Wish { identity: Some(&known), versions: OLD_TLS, ..wish }, false),
    ] {
        // In TLS 1.3 the client learns of it when it reads.
        let status = match wish.open(gate.address).await {
            Ok(mut stream) => exchange(&mut stream, &ask).await.map_or(0, |answer| answer.0),
            Err(_) => 0,
        };
        assert_eq!(status == 200, passes, "{what}");
    }
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn a_websocket_flows_over_tls_and_is_metered() {
    let authority = Authority::new();
    let pair = authority.issue("gate", "a.test");
    let upstream = Upstream::start().await;
    let routes = "\n  - {path: \"/events/**\", upstream: datasets, access: core, credits: 0, per_event: 1}";
    let plan = Plan::new(&upstream).listener_extra(&tls_keys(&pair, "")).routes(routes);
    let mut gate = plan.start().await;
    let token = gate.token(limited(7)).await;
    let wish = Wish { alpn: &[b"http/1.1"], ..Wish::new(&authority, "a.test") };
    let mut stream = wish.open(gate.address).await.expect("a connection");
    let ask = format!(
        "GET {} HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         X-Test: frames=20\r\n\r\n",
        token.on("/events/x")
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let end = tokio::time::timeout(super::PATIENCE, stream.read_to_end(&mut all)).await;
    // A response that is broken off ends without TLS's own farewell; the WebSocket's has come before.
    let _ = end.expect("an end at the last credit");
    let head = b"HTTP/1.1 101 ";
    assert!(all.starts_with(head), "{all:?}");
    let messages = all.windows(7).filter(|window| *window == b"\x81\x05hello").count();
    assert_eq!(messages, 7);
    assert!(String::from_utf8_lossy(&all).contains("credits_exhausted"), "{all:?}");
    gate.wait_used(&token, 7).await;
}

#[tokio::test]
async fn a_handshake_that_never_comes_ends() {
    let authority = Authority::new();
    let pair = authority.issue("gate", "a.test");
    let upstream = Upstream::start().await;
    let plan =
        Plan::new(&upstream).listener_extra(&tls_keys(&pair, "")).extra("limits: { header_timeout: 300ms }");
    let gate = plan.start().await;
    let mut silent = tokio::net::TcpStream::connect(gate.address).await.unwrap();
    assert!(closes(&mut silent).await);
    // Nor does one wait for ever for the first frame of HTTP/2.
    let wish = Wish { alpn: &[b"h2"], ..Wish::new(&authority, "a.test") };
    let mut stream = wish.open(gate.address).await.expect("a connection");
    assert!(closes(&mut stream).await);
}

/// A process that ends with its test.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_admin_api_speaks_tls() {
    let authority = Authority::new();
    let (cert, key) = authority.issue("gate", "a.test");
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "state_dir: ./state\nlisteners:\n  - address: 127.0.0.1:0\nadmin:\n  address: 127.0.0.1:0\n  tls: {{ cert: \"{}\", key: \"{}\" }}\n\
         store: {{ url: \"embedded:\" }}\nupstreams:\n  u: {{ servers: [\"{}\"] }}\nroutes:\n  - {{ path: /**, upstream: u, access: core }}\n",
        cert.display(),
        key.display(),
        upstream.address()
    );
    std::fs::write(folder.path().join("proxy.yaml"), config).unwrap();
    let events = std::fs::File::create(folder.path().join("events")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(["serve", "--config"]).arg(folder.path().join("proxy.yaml"));
    let _child = Child(command.stdout(std::process::Stdio::null()).stderr(events).spawn().expect("a gate"));
    let mut address = None;
    wait_for("the admin API", || {
        let events = std::fs::read_to_string(folder.path().join("events")).unwrap_or_default();
        let line =
            events.lines().find(|line| line.contains("listening for the admin API")).map(str::to_owned);
        address =
            line.and_then(|line| line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok());
        let found = address.is_some();
        async move { found }
    })
    .await;
    let wish = Wish::new(&authority, "a.test");
    let mut stream = wish.open(address.expect("an address")).await.expect("a connection");
    wait_for("the gate to be ready", || {
        let wish = &wish;
        async move {
            let mut stream = wish.open(address.unwrap()).await.expect("a connection");
            exchange(&mut stream, &get("/readyz")).await.is_ok_and(|answer| answer.0 == 200)
        }
    })
    .await;
    assert_eq!(exchange(&mut stream, &get("/v1/tokens")).await.unwrap().0, 401);
    let secret = std::fs::read_to_string(folder.path().join("state/secret-token")).unwrap();
    let ask =
        format!("GET /v1/tokens HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer {}\r\n\r\n", secret.trim());
    assert_eq!(exchange(&mut stream, ask.as_bytes()).await.unwrap().0, 200);

    // The command line trusts whom it is told to, and nobody else.
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.current_dir(folder.path()).env_remove("TOLLGATE_ADMIN_CA").args(args);
        command.env("TOLLGATE_SECRET_TOKEN", secret.trim());
        command.output().unwrap()
    };
    let url = format!("https://localhost:{}", address.unwrap().port());
    let (local, local_key) = authority.issue("local", "localhost");
    std::fs::copy(&local, &cert).unwrap();
    std::fs::copy(&local_key, &key).unwrap();
    let ca = authority.path("ca.pem");
    let ca = ca.to_str().unwrap();
    wait_for("the new certificate to be in force", || {
        let done = run(&["--admin", &url, "--admin-ca", ca, "token", "list"]);
        async move { done.status.success() }
    })
    .await;
    let refused = run(&["--admin", &url, "token", "list"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("--admin-ca"), "{told}");
    assert!(run(&["--admin", &url, "--admin-ca", ca, "health", "--ready"]).status.success());
    assert!(!run(&["--admin", &url, "health"]).status.success());

    // A session's cookie is kept to TLS.
    let form = format!("token={}", secret.trim());
    let sign_in = format!(
        "POST /console/sign-in HTTP/1.1\r\nHost: localhost\r\nOrigin: https://localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{form}",
        form.len()
    );
    let mut stream = Wish::new(&authority, "localhost").open(address.unwrap()).await.expect("a connection");
    let answer = exchange(&mut stream, sign_in.as_bytes()).await.unwrap();
    assert_eq!(answer.0, 303, "{answer:?}");
    let cookie = answer.1.lines().find(|line| line.starts_with("set-cookie:")).expect("a cookie");
    assert!(cookie.contains("; secure"), "{cookie}");
}
