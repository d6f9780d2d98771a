//! Under systemd: what it is told, and the sockets it gives.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::client::Ask;
use crate::harness::gate::Plan;
use crate::harness::redis_server::RedisServer;
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_hears_of_start_reload_upgrade_and_stop() {
    let (upstream, redis) = (Upstream::start().await, RedisServer::start());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    let hear = || {
        let mut buffer = [0; 512];
        let length = systemd.recv(&mut buffer).expect("a word");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut gate = Plan::new(&upstream)
        .store(&format!("url: \"{}\", timeout: 10s", redis.url()))
        .env("NOTIFY_SOCKET", path.to_str().unwrap())
        .start()
        .await;
    assert_eq!(hear(), "READY=1");
    gate.signal("HUP");
    let reloading = hear();
    let (state, since) = reloading.split_once("\nMONOTONIC_USEC=").expect("two lines");
    assert!(state == "RELOADING=1" && since.parse::<u64>().is_ok_and(|since| since > 0), "{reloading}");
    assert_eq!(hear(), "READY=1");
    gate.upgrade().await;
    let mut both = [hear(), hear()];
    both.sort();
    assert_eq!(both, [format!("MAINPID={}", gate.pid()), "READY=1".to_owned()]);
    gate.stop();
    assert_eq!(hear(), "STOPPING=1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_systemd_are_taken_by_their_addresses_and_handed_on() {
    // What systemd does: it listens, and between fork and exec makes the socket file 3 and says that it is meant.
    const LAUNCH: &str = "import os, socket, sys\n\
        given = socket.create_server(('127.0.0.1', 0))\n\
        text = open(sys.argv[1]).read().replace('PORT', str(given.getsockname()[1]))\n\
        open(sys.argv[1], 'w').write(text)\n\
        given.fileno() == 3 or os.dup2(given.fileno(), 3)\n\
        os.set_inheritable(3, True)\n\
        os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n\
        os.execv(sys.argv[2], sys.argv[2:])\n";
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("proxy.yaml");
    let text = Plan::new(&upstream).yaml().replacen("\"127.0.0.1:0\"", "\"127.0.0.1:PORT\"", 1);
    fs::write(&config, text).unwrap();
    let events = fs::File::create(folder.path().join("events")).unwrap();
    let mut child = Command::new("python3")
        .args(["-c", LAUNCH])
        .arg(&config)
        .args([env!("CARGO_BIN_EXE_tollgate"), "serve", "--config"])
        .arg(&config)
        .arg("--pid-file")
        .arg(folder.path().join("pid"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(events)
        .spawn()
        .unwrap();
    let pid = || fs::read_to_string(folder.path().join("pid")).unwrap_or_default().trim().to_owned();
    let first = child.id().to_string();
    wait_for("the gate to serve", || async { pid() == first }).await;
    let text = fs::read_to_string(&config).unwrap();
    let address = text.split("address: \"").nth(1).unwrap().split('"').next().unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let refused = Ask::get("/v1/free/x").send(address).await;
    assert_eq!((refused.status, refused.code()), (401, "token_missing".to_owned()));
    let kill = |name: &str, pid: &str| {
        Command::new("kill").args([&format!("-{name}"), pid]).status().unwrap();
    };
    let old = pid();
    kill("USR2", &old);
    wait_for("the new process to serve", || async { !pid().is_empty() && pid() != old }).await;
    assert_eq!(Ask::get("/v1/free/x").send(address).await.status, 401);
    wait_for("the old process to end", || {
        let ended = matches!(child.try_wait(), Ok(Some(_)));
        async move { ended }
    })
    .await;
    kill("TERM", &pid());
    // The file goes with the process.
    wait_for("the new process to end", || async { pid().is_empty() }).await;
    let said = fs::read_to_string(folder.path().join("events")).unwrap();
    assert!(said.matches(&format!("listening for requests address={address}")).count() == 2, "{said}");
}
