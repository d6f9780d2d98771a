//! `tollgate check`: validates configuration files, and says everything that is wrong with them. That a certificate ends
//! soon is no mistake of the file: it is said, and the file is good.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Global, Output};
use crate::config::{self, Config, ConfigError};
use crate::server::expiry;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The files; without any, the one that --config names
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Checks every file; one bad one is enough to fail.
pub(super) fn run(global: &Global, args: &CheckArgs) -> Output {
    let files = if args.files.is_empty() { std::slice::from_ref(&global.config) } else { &args.files };
    let mut output = Output::default();
    let mut reports = Vec::new();
    for file in files {
        let result = config::load(file, &|name| std::env::var(name).ok());
        output.failed |= result.is_err();
        if global.json {
            reports.push(report(file, result.as_ref()));
            continue;
        }
        match result {
            Ok(config) => {
                output.text.push_str(&praise(file, &config));
                let warnings = expiry::complaints(&config, Timestamp::now());
                let place = file.display();
                output.notes.extend(warnings.iter().map(|warning| format!("{place}: warning: {warning}")));
            }
            Err(error) => output.notes.push(format!("{:#}", anyhow::Error::from(error))),
        }
    }
    if global.json {
        output.text = format!("{:#}\n", Value::Array(reports));
    }
    output
}

fn praise(file: &Path, config: &Config) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let routes = count(config.routes.iter().count(), "route");
    let upstreams = count(config.upstreams.len(), "upstream");
    format!("{}: OK, {routes}, {upstreams}\n", file.display())
}

fn report(file: &Path, result: Result<&Config, &ConfigError>) -> Value {
    let file = file.display().to_string();
    match result {
        Ok(config) => json!({
            "file": file, "ok": true, "routes": config.routes.iter().count(), "upstreams": config.upstreams.len(),
            "problems": [], "warnings": expiry::complaints(config, Timestamp::now()),
        }),
        Err(ConfigError::Invalid(problems)) => {
            let all: Vec<_> = problems
                .iter()
                .map(|problem| {
                    json!({"line": problem.line, "column": problem.column, "key": problem.key,
                           "message": problem.message})
                })
                .collect();
            json!({"file": file, "ok": false, "problems": all})
        }
        Err(error @ ConfigError::Read { source, .. }) => {
            json!({"file": file, "ok": false, "problems": [{"message": format!("{error}: {source}")}]})
        }
    }
}
