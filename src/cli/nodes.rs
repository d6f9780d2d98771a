//! `tollgate nodes`: the nodes, which of them live, and by which change each acts.

use serde_json::Value;

use super::client::{Call, Client};
use super::token::plain;
use super::{Global, Output, table};

/// Asks, and shows the answer.
pub(super) fn run(global: &Global) -> anyhow::Result<Output> {
    let answer = Client::new(global)?.call("GET", "/v1/nodes", &Call::default())?;
    if global.json { Output::json(&answer) } else { Ok(Output::text(show(&answer))) }
}

fn show(answer: &Value) -> String {
    let epoch = answer.get("epoch").map(plain).unwrap_or_default();
    let nodes = answer.get("nodes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if nodes.is_empty() {
        return format!("No node has reported; the last change is epoch {epoch}.\n");
    }
    let lines = nodes.iter().map(|node| {
        let text = |name: &str| node.get(name).map(plain).unwrap_or_default();
        let in_step = node.get("in_step").and_then(Value::as_bool) == Some(true);
        let in_step = if in_step { "yes".to_owned() } else { format!("no, the last change is {epoch}") };
        let live = if node.get("live").and_then(Value::as_bool) == Some(true) { "yes" } else { "silent" };
        let live = live.to_owned();
        [text("name"), text("node"), live, text("epoch"), in_step, text("leased"), text("seen_at")]
    });
    table::rows(["NAME", "NODE", "LIVE", "EPOCH", "IN STEP", "LEASED", "SEEN AT"], lines)
}
