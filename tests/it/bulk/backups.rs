//! Backup and restore: of the embedded store by Tollgate itself, of Redis by its own means. Whatever was charged when the backup
//! was taken counts against the limit after the restore.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};
use tollgate::policy::{AccountId, Token as Value_, TokenId};
use tollgate::store::embedded::{Clock, EmbeddedStore};
use tollgate::store::seal::Sealer;
use tollgate::store::{Listed, Store as _};

use crate::admin::desk::Desk;
use crate::cli::tool::{Done, command, config, run, run_in};
use crate::harness::client::Ask;
use crate::harness::gate::{Gate, Plan, Token, limited};
use crate::harness::redis_server::RedisServer;
use crate::harness::upstream::Upstream;
use crate::harness::{wait_for, wait_long};

/// The limit of the token under load: more than it can come to.
const LIMIT: u64 = 10_000_000;
/// What is left to be spent after a restore.
const LEFT: u64 = 50;

fn tollgate(gate: &Gate, args: &[&str]) -> Done {
    let mut command = command(&gate.path(""), args);
    command.args(["--admin", &format!("http://{}", gate.admin)]).env("TOLLGATE_SECRET_TOKEN", gate.secret());
    Done::new(command.output().unwrap())
}

/// Requests that go on until they are stopped.
struct Load {
    charged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(gate: &Gate, token: &Token) -> Self {
        let (charged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let target = token.on("/v1/data/CORE/QUOTES/AAPL");
        let clients = (0..4).map(|_| {
            let (charged, stop, target, address) =
                (charged.clone(), stop.clone(), target.clone(), gate.address);
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    if Ask::get(&target).send(address).await.status == 200 {
                        charged.fetch_add(1, Ordering::SeqCst);
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
            })
        });
        Self { clients: clients.collect(), charged, stop }
    }

    fn charged(&self) -> u64 {
        self.charged.load(Ordering::SeqCst)
    }

    async fn wait(&self, for_so_many: u64) {
        wait_long("load", || async { self.charged() >= for_so_many }).await;
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
        self.charged.load(Ordering::SeqCst)
    }
}

/// What counts against the limit.
async fn counted(gate: &Gate, token: &Token) -> u64 {
    let answer = gate.admin("GET", &format!("/v1/tokens/{}", token.id), None).await;
    let core = &answer.json()["usage"]["core"];
    core["used"].as_u64().unwrap() + core["leased"].as_u64().unwrap()
}

/// Takes all that is left, `most` at most. How much that was.
async fn drain(gate: &Gate, token: &Token, most: u64) -> u64 {
    let target = token.on("/v1/data/CORE/QUOTES/AAPL");
    let mut taken = 0;
    loop {
        match gate.ask(Ask::get(&target)).await.status {
            200 => taken += 1,
            402 => return taken,
            status => assert_eq!(status, 503, "after {taken}"),
        }
        assert!(taken <= most, "the limit was reset");
    }
}

/// What must hold after a restore of what was `charged` when the backup was begun.
async fn holds(gate: &Gate, token: &Token, charged: u64) {
    let counts = counted(gate, token).await;
    assert!((charged..=LIMIT).contains(&counts), "{charged} were charged, {counts} count");
    // A limit that leaves a little beyond what counts is kept: nothing of what was charged can be spent again.
    let limit = counts + LEFT;
    gate.edit(token, limited(limit)).await;
    let after = drain(gate, token, limit - charged).await;
    assert!(after > 0, "what was not spent can be spent");
    assert!(charged + after <= limit, "{charged} before and {after} after the restore, of {limit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_node_under_load_brings_back_every_charge() {
    let upstream = Upstream::start().await;
    let mut gate = Plan::new(&upstream).start().await;
    let token = gate.token(limited(LIMIT)).await;
    let load = Load::start(&gate, &token);
    load.wait(100).await;
    let charged = load.charged();
    let taken = tollgate(&gate, &["backup", "tollgate.backup"]).expect(0).says(&["master key"]);
    assert!(taken.out.contains(" rows, "), "{}", taken.out);
    let at = load.charged();
    load.wait(at + 50).await;
    let backup = gate.path("tollgate.backup");
    assert_eq!(backup.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    tollgate(&gate, &["backup", "tollgate.backup"]).expect(1).says(&["is there already"]);
    tollgate(&gate, &["restore", "tollgate.backup", "--force"])
        .expect(1)
        .says(&["in use by another process"]);
    load.stop().await;
    gate.kill();
    tollgate(&gate, &["restore", "tollgate.backup"]).expect(1).says(&["--force", "nothing was restored"]);
    let done = tollgate(&gate, &["restore", "tollgate.backup", "--force"]).expect(0);
    assert!(done.out.contains("what was there is in "), "{}", done.out);
    let store = gate.path("state/tollgate.redb");
    assert_eq!(store.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    gate.start_again().await;
    holds(&gate, &token, charged).await;
    elsewhere(&gate, &backup, &token).await;
}

/// The same backup makes a store in an empty place, which opens with its master key and no other.
async fn elsewhere(gate: &Gate, backup: &Path, token: &Token) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("proxy.yaml"), config("127.0.0.1:1")).unwrap();
    let backup = backup.to_str().unwrap();
    run_in(folder.path(), &["restore", backup, "--dry-run"]).expect(0);
    assert!(!folder.path().join("state").exists(), "a dry run makes nothing");
    run_in(folder.path(), &["restore", backup]).expect(0);
    let key = std::fs::read_to_string(gate.path("state/master-key")).unwrap();
    let path = folder.path().join("state/tollgate.redb");
    let store =
        EmbeddedStore::open(&path, Some(Sealer::from_text(key.trim()).unwrap()), Clock::system()).unwrap();
    let account = AccountId::default_account();
    let mut ids = Vec::new();
    for listed in store.list_tokens(&account, None, 10).await.unwrap() {
        let Listed::Token(listed) = listed else { panic!("unreadable") };
        ids.push(listed.policy.id);
    }
    assert_eq!((ids.len(), ids[1].as_str()), (2, token.id.as_str()));
    let secret = store.reveal_token(&account, &ids[0]).await.unwrap().unwrap();
    assert_eq!(secret, Value_::parse(gate.secret().as_bytes()).unwrap());
    let asked = tollgate::store::trail::Asked { limit: 1, ..Default::default() };
    let newest = store.trail(&account, &asked).await.unwrap();
    let tollgate::store::trail::Traced::Entry(entry) = &newest[0] else { panic!("unreadable") };
    assert_eq!((entry.action.as_str(), entry.target.as_str()), ("store.backup", "default"));
    let value = Value_::parse(token.value.as_bytes()).unwrap();
    let found = store.find_token(&value.digest()).await.unwrap().unwrap();
    assert_eq!(found.id, TokenId::parse(&token.id).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_or_foreign_file_is_refused_with_nothing_written() {
    let upstream = Upstream::start().await;
    let gate = Plan::new(&upstream).start().await;
    tollgate(&gate, &["backup", "good"]).expect(0);
    let good = std::fs::read(gate.path("good")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("proxy.yaml"), config("127.0.0.1:1")).unwrap();
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    for (bytes, says) in [
        (&good[..good.len() / 2], "torn"),
        (&good[..good.len() - 1], "torn"),
        (&changed, "checksum"),
        (b"REDIS0011", "not a backup"),
        (b"", "not a backup"),
    ] {
        std::fs::write(folder.path().join("bad"), bytes).unwrap();
        for more in
            [["restore", "bad"].as_slice(), &["restore", "bad", "--dry-run"], &["restore", "bad", "--force"]]
        {
            run_in(folder.path(), more).expect(1).says(&[says, "bad"]);
        }
        assert!(!folder.path().join("state").exists(), "{says}");
    }
    run_in(folder.path(), &["restore", "absent"]).expect(1).says(&["absent"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_redis_under_load_brings_back_every_charge() {
    let upstream = Upstream::start().await;
    let mut redis = RedisServer::start();
    let mut gate =
        Plan::new(&upstream).store(&format!("url: \"{}\", timeout: 10s", redis.url())).start().await;
    tollgate(&gate, &["backup", "b"]).expect(1).says(&["Redis", "BGSAVE"]);
    assert!(!gate.path("b").exists() && !gate.path("b.part").exists());
    let token = gate.token(limited(LIMIT)).await;
    let load = Load::start(&gate, &token);
    load.wait(100).await;
    let charged = load.charged();
    assert!(redis.ask("BGSAVE").starts_with("+Background saving started"));
    wait_for("the snapshot", || async {
        let state = redis.ask("INFO persistence");
        state.contains("rdb_bgsave_in_progress:0") && state.contains("rdb_last_bgsave_status:ok")
    })
    .await;
    let at = load.charged();
    load.wait(at + 50).await;
    load.stop().await;
    // The nodes are stopped before Redis is put back; this one even without a warning.
    gate.kill();
    redis.restart();
    gate.start_again().await;
    holds(&gate, &token, charged).await;
}

#[test]
fn only_an_admin_takes_a_backup_and_a_store_without_one_says_so() {
    let desk = Desk::start();
    // The store of this desk stands for one that has means of its own.
    let told = desk.call("POST", "/v1/backup", Value::Null).expect(409);
    assert_eq!(told.code(), "backup_unsupported");
    desk.call("GET", "/v1/backup", Value::Null).expect(405);
    desk.raw("POST", "/v1/backup", &[], b"").expect(401);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b");
    run(&desk, &["backup", path.to_str().unwrap()]).expect(1).says(&["no backup was taken"]);
    assert_eq!(json!(std::fs::read_dir(folder.path()).unwrap().count()), json!(0));
}
