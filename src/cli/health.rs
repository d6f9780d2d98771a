//! `tollgate health`: does the gate live, is it ready? For containers, whose images hold no curl.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::{Global, Output, client};

/// How long an answer may take. Readiness waits a second for the store.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// Ask whether it is ready: started, and its store answers; without this, whether it lives
    #[arg(long)]
    ready: bool,
}

/// Asks the admin address; whatever is not a 200 fails.
pub(super) fn run(global: &Global, args: &HealthArgs) -> anyhow::Result<Output> {
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let (url, status, text) = client::ask_openly(global, path, TIMEOUT)?;
    let answer = serde_json::from_str::<Value>(&text).unwrap_or_default();
    let word = |name: &str| answer.get(name).and_then(Value::as_str);
    let failed = status != 200;
    let mut output = match (global.json, failed) {
        (true, _) => Output::json(&answer)?,
        (false, false) => Output::text(format!("{}\n", word("status").unwrap_or("ok"))),
        (false, true) => Output {
            notes: vec![format!(
                "{url} answers {status}: {}",
                word("detail").unwrap_or("no reason is given")
            )],
            ..Output::default()
        },
    };
    output.failed = failed;
    Ok(output)
}
