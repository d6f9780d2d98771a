//! Imports and edits through a real node, on both stores.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::parse;
use crate::cli::tool::{Done, command};
use crate::harness::client::Ask;
use crate::harness::gate::{Gate, Plan};
use crate::harness::redis_server::RedisServer;
use crate::harness::upstream::Upstream;

/// How many tokens are made.
const MANY: usize = 600;

fn tollgate(gate: &Gate, folder: &tempfile::TempDir, args: &[&str]) -> Done {
    let mut command = command(folder.path(), args);
    command.args(["--admin", &format!("http://{}", gate.admin)]).env("TOLLGATE_SECRET_TOKEN", gate.secret());
    Done::new(command.output().unwrap())
}

fn lines(from: usize) -> String {
    let mut text = String::new();
    for n in from..from + MANY {
        let limits = json!({"core": {"credits": n, "period": "month"}});
        let _ = writeln!(
            text,
            "{}",
            json!({"token": format!("pk_{n:032x}"), "nickname": format!("n{n}"), "credit_limit": limits})
        );
    }
    text
}

/// Imports, breaks off and repeats, edits all, exports: on a store.
async fn comes_and_goes(store: Option<&str>) {
    let upstream = Upstream::start().await;
    let mut plan = Plan::new(&upstream);
    if let Some(store) = store {
        plan = plan.store(store);
    }
    let gate = plan.start().await;
    let folder = tempfile::tempdir().unwrap();
    let text = lines(1);
    std::fs::write(
        folder.path().join("half.jsonl"),
        text.lines().take(MANY / 2).collect::<Vec<_>>().join("\n"),
    )
    .unwrap();
    std::fs::write(folder.path().join("all.jsonl"), &text).unwrap();
    // As if the first command had been broken off in the middle.
    tollgate(&gate, &folder, &["token", "import", "half.jsonl"]).expect(0);
    let done = tollgate(&gate, &folder, &["token", "import", "all.jsonl"]).expect(0);
    assert_eq!(done.out, format!("{} created, {} unchanged\n", MANY / 2, MANY / 2));

    let ask = format!("/v1/data/CORE/QUOTES/AAPL?token=pk_{MANY:032x}");
    assert_eq!(gate.ask(Ask::get(&ask)).await.status, 200, "a token that was imported works");

    let edit =
        ["token", "edit", "--all", "--if-type", "publishable", "--core-access", "false", "--yes", "--wait"];
    let done = tollgate(&gate, &folder, &edit).expect(0);
    assert!(done.out.starts_with(&format!("{MANY} tokens edited")), "{}", done.out);
    assert!(done.out.contains("In force on the only node"), "{}", done.out);
    assert_eq!(gate.ask(Ask::get(&ask)).await.status, 403, "the edit is in force");

    let exported = tollgate(&gate, &folder, &["token", "export", "--type", "publishable"]).expect(0);
    let tokens = parse(&exported.out);
    assert_eq!(tokens.len(), MANY);
    let wrong: Vec<&Value> = tokens
        .iter()
        .filter(|token| {
            token["core_access"] != false
                || token["version"] != 2
                || format!("n{}", token["credit_limit"]["core"]["credits"])
                    != token["nickname"].as_str().unwrap()
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    std::fs::write(folder.path().join("again.jsonl"), &exported.out).unwrap();
    let done = tollgate(&gate, &folder, &["token", "import", "again.jsonl"]).expect(0);
    assert_eq!(done.out, format!("0 created, {MANY} unchanged\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tokens_come_and_go_on_the_embedded_store() {
    comes_and_goes(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tokens_come_and_go_on_redis() {
    let redis = RedisServer::start();
    comes_and_goes(Some(&format!("url: \"{}\", timeout: 10s", redis.url()))).await;
}
