//! Redis servers that stand together: a master with a replica and sentinels, a cluster, servers that speak TLS or know their
//! users. All from the system's `redis-server` and `redis-cli`, on free ports, gone when dropped.

use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long servers may take to start, to find each other, to elect a new master.
const DEADLINE: Duration = Duration::from_secs(20);

/// One process of `redis-server`.
pub(crate) struct Node {
    port: u16,
    _folder: TempDir,
    args: Vec<String>,
    cli: Vec<String>,
    process: Option<Child>,
}

impl Node {
    /// Starts one with these arguments; `{port}`, `{bus}` and `{folder}` in them are filled in. `cli`: how `redis-cli` gets
    /// in.
    pub(crate) fn start(args: &[&str], cli: &[&str]) -> Self {
        let started = Instant::now();
        // A free port may be somebody else's by the time the server asks for it; then it is tried with another.
        loop {
            let folder = tempfile::tempdir().expect("a folder for Redis");
            let port = free_port();
            let bus = free_port().to_string();
            let fill = |text: &&str| {
                let folder = folder.path().to_str().expect("a path");
                text.replace("{port}", &port.to_string()).replace("{bus}", &bus).replace("{folder}", folder)
            };
            let args = args.iter().map(fill).collect();
            let cli = cli.iter().map(|text| (*text).to_owned()).collect();
            let mut node = Self { port, _folder: folder, args, cli, process: None };
            if node.run() {
                return node;
            }
            assert!(started.elapsed() < DEADLINE, "redis-server does not start: {:?}", node.args);
        }
    }

    fn run(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        command.args(&self.args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command.spawn().expect("redis-server can be run");
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            if process.try_wait().expect("Redis can be watched").is_some() {
                return false;
            }
            if self.cli(&["PING"]).contains("PONG") {
                self.process = Some(process);
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = process.kill();
        let _ = process.wait();
        false
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What `redis-cli` prints.
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string()]).args(&self.cli).args(args);
        let output =
            command.stdin(Stdio::null()).stderr(Stdio::null()).output().expect("redis-cli can be run");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until `redis-cli` prints this text.
    pub(crate) fn wait_cli(&self, args: &[&str], text: &str) {
        let started = Instant::now();
        loop {
            let printed = self.cli(args);
            if printed.contains(text) {
                return;
            }
            assert!(started.elapsed() < DEADLINE, "{args:?}: no {text:?} in {printed}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the process as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again where it was, with more arguments.
    pub(crate) fn start_again(&mut self, more: &[&str]) {
        self.args.extend(more.iter().map(|text| (*text).to_owned()));
        assert!(self.run(), "redis-server does not start again: {:?}", self.args);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

const PLAIN: [&str; 12] = [
    "--port",
    "{port}",
    "--bind",
    "127.0.0.1",
    "--save",
    "",
    "--dir",
    "{folder}",
    "--repl-diskless-sync-delay",
    "0",
    "--repl-ping-replica-period",
    "1",
];

fn plain(more: &[&str]) -> Node {
    Node::start(&[&PLAIN[..], more].concat(), &[])
}

/// A server that takes its users from a file.
pub(crate) fn start_with_users(file: &str) -> Node {
    plain(&["--aclfile", file])
}

/// A master, its replica, and three sentinels.
pub(crate) struct Watched {
    pub(crate) master: Node,
    pub(crate) replica: Node,
    sentinels: Vec<Node>,
    /// Sentinels rewrite their files while they run.
    _conf: TempDir,
}

impl Watched {
    pub(crate) fn start() -> Self {
        let master = plain(&[]);
        let replica = plain(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
        replica.wait_cli(&["INFO", "replication"], "master_link_status:up");
        let conf = tempfile::tempdir().expect("a folder");
        let sentinels: Vec<_> = (0..3)
            .map(|one| {
                // A sentinel writes what it learns into this file.
                let file = conf.path().join(format!("{one}.conf"));
                let text = format!(
                    "sentinel monitor tollgate 127.0.0.1 {} 2\nsentinel down-after-milliseconds tollgate 500\n\
                     sentinel failover-timeout tollgate 3000\n",
                    master.port()
                );
                fs::write(&file, text).expect("a configuration");
                let file = file.to_str().expect("a path");
                Node::start(&[file, "--sentinel", "--port", "{port}", "--dir", "{folder}"], &[])
            })
            .collect();
        for sentinel in &sentinels {
            sentinel.wait_cli(&["SENTINEL", "ckquorum", "tollgate"], "OK 3 usable");
            sentinel.wait_cli(&["SENTINEL", "master", "tollgate"], "num-slaves\n1\n");
        }
        Self { master, replica, sentinels, _conf: conf }
    }

    pub(crate) fn url(&self) -> String {
        let ports: Vec<_> = self.sentinels.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+sentinel://{}/tollgate", ports.join(","))
    }
}

/// Three masters, and a replica of the one that keeps a key.
pub(crate) struct Cluster {
    pub(crate) masters: Vec<Node>,
    pub(crate) replica: Node,
    /// Which of the masters keeps the key.
    pub(crate) home: usize,
}

impl Cluster {
    pub(crate) fn start(key: &str) -> Self {
        let node = || {
            plain(&[
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                "{bus}",
                "--cluster-node-timeout",
                "1000",
                "--cluster-replica-validity-factor",
                "0",
                "--cluster-require-full-coverage",
                "no",
            ])
        };
        let masters: Vec<_> = (0..3).map(|_| node()).collect();
        let addresses: Vec<_> = masters.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        let mut create = vec!["--cluster", "create"];
        create.extend(addresses.iter().map(String::as_str));
        create.push("--cluster-yes");
        let printed = masters[0].cli(&create);
        assert!(printed.contains("All 16384 slots covered"), "{printed}");
        for node in &masters {
            node.wait_cli(&["CLUSTER", "INFO"], "cluster_state:ok");
            node.wait_cli(&["CLUSTER", "INFO"], "cluster_slots_ok:16384");
        }
        let keeps = |node: &Node| node.cli(&["EXISTS", key]).trim() == "0";
        let home = masters.iter().position(keeps).expect("a master that keeps the key");
        let replica = node();
        let id = masters[home].cli(&["CLUSTER", "MYID"]).trim().to_owned();
        let add = [
            "--cluster",
            "add-node",
            &format!("127.0.0.1:{}", replica.port()),
            &addresses[home],
            "--cluster-slave",
            "--cluster-master-id",
            &id,
        ];
        let printed = masters[home].cli(&add);
        assert!(printed.contains("New node added correctly"), "{printed}");
        replica.wait_cli(&["INFO", "replication"], "master_link_status:up");
        for node in &masters {
            node.wait_cli(&["CLUSTER", "INFO"], "cluster_known_nodes:4");
            node.wait_cli(&["CLUSTER", "NODES"], &format!("slave {id}"));
        }
        Self { masters, replica, home }
    }

    /// Moves a slot from one master to another, key by key, as `redis-cli --cluster reshard` does. One key goes first, and
    /// then `between` happens.
    pub(crate) async fn move_slot(
        &self,
        from: &Node,
        to: &Node,
        first: &str,
        between: impl Future<Output = ()>,
    ) {
        let slot = from.cli(&["CLUSTER", "KEYSLOT", first]).trim().to_owned();
        let id = |node: &Node| node.cli(&["CLUSTER", "MYID"]).trim().to_owned();
        let (from_id, to_id) = (id(from), id(to));
        let set = |node: &Node, how: &[&str]| {
            let printed = node.cli(&[&["CLUSTER", "SETSLOT", &slot], how].concat());
            assert_eq!(printed.trim(), "OK", "{how:?}");
        };
        let port = to.port().to_string();
        let migrate = |keys: &[&str]| {
            let printed =
                from.cli(&[&["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"], keys].concat());
            assert!(printed.contains("OK") || printed.contains("NOKEY"), "{printed}");
        };
        set(to, &["IMPORTING", &from_id]);
        set(from, &["MIGRATING", &to_id]);
        migrate(&[first]);
        between.await;
        loop {
            let keys = from.cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "3"]);
            let keys: Vec<_> = keys.lines().map(str::trim).filter(|key| !key.is_empty()).collect();
            if keys.is_empty() {
                break;
            }
            migrate(&keys);
        }
        for node in [to, from].into_iter().chain(&self.masters) {
            set(node, &["NODE", &to_id]);
        }
    }

    /// All masters but the one that keeps the key: the others are to be learnt.
    pub(crate) fn url(&self) -> String {
        let others = self.masters.iter().enumerate().filter(|(index, _)| *index != self.home);
        let ports: Vec<_> = others.map(|(_, node)| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://{}", ports.join(","))
    }
}

/// Certificates made for one test.
pub(crate) struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Makes an authority, and with it certificates for 127.0.0.1 and for a client.
    pub(crate) fn make() -> Self {
        let made = Self { folder: tempfile::tempdir().expect("a folder") };
        fs::write(made.folder.path().join("server.ext"), "subjectAltName=IP:127.0.0.1\n").expect("a file");
        fs::write(made.folder.path().join("gate.ext"), "extendedKeyUsage=clientAuth\n").expect("a file");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        made.openssl(&format!("req -x509 {key} -days 2 -subj /CN=authority -keyout ca.key -out ca.pem"));
        for name in ["server", "gate"] {
            made.openssl(&format!("req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
            made.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.pem"
            ));
        }
        made
    }

    fn openssl(&self, args: &str) {
        let mut command = Command::new("openssl");
        let output = command.args(args.split(' ')).current_dir(self.folder.path()).output();
        let output = output.expect("openssl can be run");
        assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        path_text(&self.path(name))
    }

    /// A server that speaks only TLS, and only to who shows a certificate.
    pub(crate) fn start_server(&self) -> Node {
        let [ca, cert, key] = ["ca.pem", "server.pem", "server.key"].map(|name| self.text(name));
        let server = [
            "--port",
            "0",
            "--tls-port",
            "{port}",
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            "{folder}",
            "--tls-ca-cert-file",
            &ca,
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-auth-clients",
            "yes",
        ];
        let cli =
            ["--tls", "--cacert", &ca, "--cert", &self.text("gate.pem"), "--key", &self.text("gate.key")];
        Node::start(&server, &cli)
    }

    /// The `tls` mapping of a gate.
    pub(crate) fn yaml(&self) -> String {
        let [ca, cert, key] = ["ca.pem", "gate.pem", "gate.key"].map(|name| self.text(name));
        format!("{{ ca: \"{ca}\", cert: \"{cert}\", key: \"{key}\" }}")
    }
}

fn path_text(path: &Path) -> String {
    path.to_str().expect("a path").to_owned()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its number").port()
}
