//! The public clients of the original service, installed by their own installers, through Tollgate to the sample
//! service: they notice nothing. Installed once, under `target/tmp/clients`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{DATA, limited};
use crate::harness::client::Ask;
use crate::harness::gate::{Gate, Plan};
use crate::harness::installed::{installed, run};
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

const ROUTES: &str = r#"
  - {path: "/{version}/data/CORE/{dataset}/**", upstream: datasets, access: core, dataset: "CORE/{dataset}"}
  - {path: "/{version}/data/{workspace}/{dataset}/**", upstream: datasets, access: dataset, dataset: "{workspace}/{dataset}"}
  - {path: "/{version}/record/{workspace}/{dataset}", upstream: datasets, access: dataset, dataset: "{workspace}/{dataset}"}
  - {path: "/{version}/datasets/{workspace}", upstream: datasets, access: core}
  - {path: "/{version}/time-series/{id}/**", upstream: datasets, access: core, dataset: "CORE/{id}"}
  - {path: "/{version}/stock/**", upstream: datasets, access: core}
  - {path: "/{version}/stocksUS1Second", upstream: datasets, access: premium}
"#;

/// The sample service, on a port of its own.
struct Sample {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Sample {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let output = directory.path().join("output");
        let binaries = Path::new(env!("CARGO_BIN_EXE_tollgate")).parent().expect("a folder");
        let child = Command::new(binaries.join("examples/dataset_service"))
            .args(["--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(fs::File::create(&output).expect("a file"))
            .spawn()
            .expect("the sample service");
        let told = || {
            let text = fs::read_to_string(&output).unwrap_or_default();
            text.lines().find_map(|line| line.strip_prefix("listening on ")?.parse().ok())
        };
        wait_for("the sample service", || async { told().is_some() }).await;
        Self { child, address: told().expect("an address"), _directory: directory }
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn iexjs() -> PathBuf {
    installed("iexjs-0.10.0", |folder| {
        fs::write(folder.join("package.json"), "{\"private\": true}").expect("a package");
        let packages = ["install", "--no-audit", "--no-fund", "--save-exact", "@apperate/iexjs@0.10.0"];
        run(Command::new("npm").args(packages).current_dir(folder));
    })
}

fn pyex() -> PathBuf {
    installed("pyEX-0.5.0", |folder| {
        run(Command::new("python3").args(["-m", "venv", "."]).current_dir(folder));
        for packages in ["pip<24.1", "pyEX==0.5.0"] {
            let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", packages];
            run(Command::new(folder.join("bin/python")).args(install));
        }
    })
}

struct World {
    gate: Gate,
    _sample: Sample,
    /// What a client's script is told.
    told: Value,
    good: String,
}

async fn world(installed: &Path) -> World {
    let sample = Sample::start().await;
    let nobody = Upstream::start().await;
    let plan = Plan::new(&nobody).servers(&[sample.address]).routes(ROUTES).extra("dialect: iex");
    let mut gate = plan.start().await;
    let cars = json!([{"dataset": "MY/CARS", "operations": ["read", "write"]}]);
    let good = gate.token(json!({"premium_access": true, "datasets": cars})).await;
    let domain = gate.token(json!({"allowed_domains": ["www.example.com"]})).await;
    let exhausted = gate.token(limited(0)).await;
    let throttled = gate.token(json!({"rate_limit": {"requests_per_second": 1, "burst": 1}})).await;
    // Something to count.
    assert_eq!(gate.ask(Ask::get(&good.on(DATA))).await.status, 200);
    gate.wait_used(&good, 1).await;
    let told = json!({
        "base": format!("http://{}", gate.address), "installed": installed, "secret": gate.secret(),
        "good": good.value, "domain": domain.value, "exhausted": exhausted.value, "throttled": throttled.value,
        "unknown": "pk_00000000000000000000000000000000",
    });
    World { gate, _sample: sample, told, good: good.id }
}

/// What both clients are given, and are refused.
fn assert_served(world: &World, told: &Value) {
    let value = |step: &str| {
        assert!(told[step]["value"] != Value::Null, "{step}: {}", told[step]);
        &told[step]["value"]
    };
    assert_eq!(value("quote")["symbol"], "AAPL");
    assert!(value("chart").as_array().is_some_and(|days| days.len() > 10), "{}", told["chart"]);
    let batch = value("batch");
    assert_eq!(
        (&batch["AAPL"]["quote"]["symbol"], &batch["MSFT"]["quote"]["symbol"]),
        (&json!("AAPL"), &json!("MSFT"))
    );
    assert!(batch["MSFT"]["chart"].is_array(), "{batch}");
    assert_eq!(value("batch_of_one")["quote"]["symbol"], "AAPL");
    assert_eq!(value("read").as_array().map(Vec::len), Some(2));
    value("write");
    assert_eq!(value("written")[0]["year"], 2008);
    let events = value("stream").as_array().expect("events");
    assert!(events.len() == 2 && events[0][0]["symbol"] == "AAPL", "{events:?}");
    assert_eq!(value("status")["status"], "up");

    let metadata = value("metadata");
    let messages = value("messages");
    assert!(metadata["messagesUsed"].as_u64().is_some_and(|used| used >= 1), "{metadata}");
    assert!(messages["tokenUsage"][&world.good].is_string(), "{messages}");
    assert_eq!(value("usage")["rules"], json!([]));
    assert!(value("usage")["messages"]["dailyUsage"].is_object());
    assert_eq!(value("budget")["overageCircuitBreaker"], 1_000_000);
    assert_eq!(value("pay_as_you_go")["payAsYouGoEnabled"], true);

    let quota = "You have exceeded your allotted message quota. Please enable pay-as-you-go to regain access";
    let domain = "The referer in the request header is not allowed. Please check the associated domain(s) for this API key";
    for (step, status, text) in [
        ("unknown", 403, "The API key provided is not valid."),
        ("domain", 401, domain),
        ("exhausted", 402, quota),
        ("throttled", 429, "Too Many Requests"),
        ("no_leave", 451, "The requested data requires permission to access."),
    ] {
        assert_eq!(told[step]["error"], format!("Response {status} - {text}"), "{step}: {}", told[step]);
    }
    // What they were refused cost nothing.
    let used = world.gate.access_log().into_iter().filter(|line| line["status"].as_u64() >= Some(400));
    assert!(used.map(|line| line["credits"].as_u64()).all(|credits| credits == Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn iexjs_from_its_registry_notices_nothing() {
    let folder = iexjs();
    let world = world(&folder).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/dialect_iex/iexjs.js");
    let told = run(Command::new("node").arg(script).arg(world.told.to_string()));
    let told: Value = serde_json::from_str(&told).expect("what each step gave");
    assert_served(&world, &told);
    assert_eq!(told["read_core"]["value"].as_array().map(Vec::len), Some(2), "{}", told["read_core"]);
    assert!(told["list"]["value"].is_array(), "{}", told["list"]);
    assert_eq!(told["domain_read"]["error"], told["domain"]["error"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pyex_from_its_registry_notices_nothing() {
    let folder = pyex();
    let world = world(&folder).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/dialect_iex/pyex.py");
    let told = run(Command::new(folder.join("bin/python")).arg(script).arg(world.told.to_string()));
    let (_, told) = told.split_once("RESULT ").expect("a result");
    let told: Value = serde_json::from_str(told).expect("what each step gave");
    assert_served(&world, &told);
    assert_eq!(told["read_limited"]["value"].as_array().map(Vec::len), Some(1), "{}", told["read_limited"]);
    assert_eq!(
        told["budget_in_body"]["value"]["overageCircuitBreaker"], 2_000_000,
        "{}",
        told["budget_in_body"]
    );
}
