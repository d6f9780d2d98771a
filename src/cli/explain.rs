//! `tollgate explain`: would this request pass, and why.

use std::net::IpAddr;

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::{Call, Client};
use super::token::parse_id;
use super::{Global, Misuse, Output, table};
use crate::policy::TokenId;

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A path with its query, or a whole URL
    #[arg(value_name = "URL")]
    target: String,
    /// The request's method
    #[arg(long, default_value = "GET")]
    method: String,
    /// The origin of the page that asks
    #[arg(long)]
    origin: Option<String>,
    /// The page that asks
    #[arg(long, value_name = "URL")]
    referer: Option<String>,
    /// Any other header, as `Name: value`; repeatable
    #[arg(long, value_name = "HEADER")]
    header: Vec<String>,
    /// The client's own address
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// The token to judge by, instead of one that stands in the request
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    token_id: Option<TokenId>,
}

/// Asks, and shows the answer. A refusal is an answer, too: the exit code is 0.
pub(super) fn run(global: &Global, args: &ExplainArgs) -> anyhow::Result<Output> {
    let question = question(args)?;
    let answer = Client::new(global)?.call("POST", "/v1/explain", &Call::with_body(&question))?;
    if global.json { Output::json(&answer) } else { Ok(Output::text(show(&answer))) }
}

fn question(args: &ExplainArgs) -> anyhow::Result<Value> {
    let mut headers = Map::new();
    let named = [("Origin", &args.origin), ("Referer", &args.referer)];
    let mut all: Vec<(String, String)> =
        named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect();
    for header in &args.header {
        // The header may hold a token, so it is not repeated.
        let (name, value) =
            header.split_once(':').ok_or_else(|| Misuse("write --header as `Name: value`".to_owned()))?;
        all.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    for (name, value) in all {
        let values = headers.entry(name).or_insert_with(|| json!([]));
        if let Some(values) = values.as_array_mut() {
            values.push(Value::String(value));
        }
    }
    Ok(json!({
        "method": args.method, "target": args.target, "headers": headers,
        "client": args.client.map(|client| client.to_string()),
        "token_id": args.token_id.as_ref().map(TokenId::as_str),
    }))
}

fn show(answer: &Value) -> String {
    let text = |value: &Value, name: &str| match value.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        Some(other) => other.to_string(),
    };
    let pass = answer.get("pass").and_then(Value::as_bool).unwrap_or(false);
    let mut shown = if pass {
        "It would pass.\n".to_owned()
    } else {
        let (status, code) = (text(answer, "status"), text(answer, "code"));
        format!("It would be refused: {status} {code}. {}\n", text(answer, "detail"))
    };
    let about = [
        ("route", "route"),
        ("token", "token_id"),
        ("data sets", "datasets"),
        ("operation", "operation"),
        ("pool", "pool"),
        ("price", "price"),
        ("credits", "credits"),
    ];
    let about = about.map(|(label, name)| (label, text(answer, name)));
    shown.push_str(&table::pairs(about.into_iter().filter(|(_, value)| !value.is_empty())));
    let checks = answer.get("checks").and_then(Value::as_array).into_iter().flatten();
    let checks = checks.map(|step| ["check", "outcome", "code", "detail"].map(|name| text(step, name)));
    shown.push('\n');
    shown.push_str(&table::rows(["CHECK", "OUTCOME", "CODE", "DETAIL"], checks));
    shown
}
