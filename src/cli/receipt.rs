//! `--wait`: returns when a change is in force on every node, or says where it is not.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::Output;
use super::flags::parse_duration;
use super::token::plain;
use crate::config::units::format_duration;

#[derive(Debug, Args)]
pub(super) struct Wait {
    /// Return only when the change is in force on every node; fail if it is not after this time
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "5s", require_equals = true,
          value_parser = parse_duration)]
    wait: Option<Duration>,
}

impl Wait {
    /// The query parameter, if somebody wants to wait.
    pub(super) fn parameter(&self) -> Option<(&'static str, String)> {
        self.wait.map(|wait| ("wait", format_duration(wait)))
    }

    /// Adds to a command's output how the waiting went. JSON holds the receipt already.
    pub(super) fn conclude(&self, json: bool, answer: &Value, mut output: Output) -> Output {
        let Some(wait) = self.wait else { return output };
        let receipt = answer.get("receipt").unwrap_or(&Value::Null);
        if receipt.get("in_force").and_then(Value::as_bool) != Some(true) {
            output.failed = true;
            output.notes.push(lament(receipt, wait));
        } else if !json {
            let nodes = receipt.get("nodes").map(plain).unwrap_or_default();
            output.text.push_str(&praise(&nodes));
        }
        output
    }
}

fn praise(nodes: &str) -> String {
    if nodes == "1" {
        "In force on the only node.\n".to_owned()
    } else {
        format!("In force on all {nodes} nodes.\n")
    }
}

fn lament(receipt: &Value, wait: Duration) -> String {
    let wait = format_duration(wait);
    let text = |value: &Value, name: &str| value.get(name).map(plain).unwrap_or_default();
    let missing = receipt.get("missing").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let (nodes, epoch) = (text(receipt, "nodes"), text(receipt, "epoch"));
    if missing.is_empty() {
        return format!("the change is stored, but in {wait} no node said that it is in force there");
    }
    let count = missing.len();
    let mut said = vec![format!(
        "the change is stored, but after {wait} it is not in force on {count} of {nodes} nodes:"
    )];
    said.extend(missing.iter().map(|node| {
        let (name, id, at) = (text(node, "name"), text(node, "node"), text(node, "epoch"));
        let of = if epoch.is_empty() { String::new() } else { format!(", the change is epoch {epoch}") };
        let silent = node.get("silent").and_then(Value::as_bool) == Some(true);
        let last = if silent {
            format!("; silent since {}, gone or cut off", text(node, "seen_at"))
        } else {
            String::new()
        };
        format!("  {name} ({id}) acts by epoch {at}{of}{last}")
    }));
    said.join("\n")
}
