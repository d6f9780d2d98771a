//! `tollgate usage`, and the history in `tollgate token usage`: what was used and refused in a stretch of time.

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::Value;

use super::client::{Call, Client};
use super::token::plain;
use super::{Global, Misuse, Output, table};

#[derive(Debug, Args)]
pub(super) struct UsageArgs {
    /// What the rows are by
    #[arg(long, value_name = "WHAT", default_value = "day",
          value_parser = PossibleValuesParser::new(["day", "hour", "month", "dataset", "operation", "token"]))]
    by: String,
    #[command(flatten)]
    stretch: Stretch,
}

#[derive(Debug, Args)]
pub(super) struct TokenUsageArgs {
    /// Show the history, by this
    #[arg(long, value_name = "WHAT",
          value_parser = PossibleValuesParser::new(["day", "hour", "month", "dataset", "operation"]))]
    by: Option<String>,
    #[command(flatten)]
    stretch: Stretch,
}

/// Which stretch of the history, and in which form.
#[derive(Debug, Args)]
struct Stretch {
    /// From when, like 2026-11-24 or 2026-11-24T06:00:00Z; by default 30 days before the end
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<String>,
    /// Until when, itself not included; by default the end of today
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<String>,
    /// Show refusals by this, too; with --csv, these instead of what was used
    #[arg(long, value_name = "WHAT", value_parser = PossibleValuesParser::new(["day", "hour", "month"]))]
    refusals_by: Option<String>,
    /// Print the rows as CSV
    #[arg(long)]
    csv: bool,
}

/// Checks a time. The API reads it again, by the same rules.
fn time(text: &str) -> Result<String, &'static str> {
    let read = crate::admin::parse_usage_time(text).map(|_| text.to_owned());
    read.ok_or("write a date like 2026-11-24 (UTC) or a time like 2026-11-24T06:00:00Z")
}

impl TokenUsageArgs {
    /// Whether somebody asks for the history, not for what is used right now.
    pub(super) fn wants_history(&self) -> bool {
        let Stretch { from, to, refusals_by, csv } = &self.stretch;
        self.by.is_some() || from.is_some() || to.is_some() || refusals_by.is_some() || *csv
    }

    /// Shows the history under this path of the API.
    pub(super) fn run(&self, global: &Global, path: &str) -> anyhow::Result<Output> {
        report(global, path, self.by.as_deref().unwrap_or("day"), &self.stretch)
    }
}

/// Shows the account's history.
pub(super) fn run(global: &Global, args: &UsageArgs) -> anyhow::Result<Output> {
    report(global, "/v1/usage", &args.by, &args.stretch)
}

fn report(global: &Global, path: &str, by: &str, stretch: &Stretch) -> anyhow::Result<Output> {
    if stretch.csv && global.json {
        return Err(Misuse("give --csv or --json, not both".into()).into());
    }
    let mut query = vec![("by", by.to_owned())];
    query.extend(stretch.from.clone().map(|from| ("from", from)));
    query.extend(stretch.to.clone().map(|to| ("to", to)));
    query.extend(stretch.refusals_by.clone().map(|by| ("refusals_by", by)));
    let answer = Client::new(global)?.call("GET", path, &Call { query, ..Call::default() })?;
    if global.json {
        return Output::json(&answer);
    }
    let refusals_by = stretch.refusals_by.as_deref();
    Ok(Output::text(match (stretch.csv, refusals_by) {
        (true, Some(by)) => csv([by, "code", "count"], refusals(&answer, by)),
        (true, None) => csv(columns(by), rows(&answer, by)),
        (false, _) => show(&answer, by, refusals_by),
    }))
}

/// What was refused, by time.
fn refusals(answer: &Value, by: &str) -> Vec<[String; 3]> {
    let rows = answer.get("refusals_by").and_then(Value::as_array).into_iter().flatten();
    rows.map(|row| [by, "code", "count"].map(|name| row.get(name).map(plain).unwrap_or_default())).collect()
}

/// The columns of a row, and the fields they show.
fn columns(by: &str) -> [&str; 5] {
    let key = if by == "token" { "token_id" } else { by };
    [key, "pool", "requests", "credits", "bytes"]
}

fn rows(answer: &Value, by: &str) -> Vec<[String; 5]> {
    let rows = answer.get("rows").and_then(Value::as_array).into_iter().flatten();
    rows.map(|row| columns(by).map(|name| row.get(name).map(plain).unwrap_or_default())).collect()
}

fn show(answer: &Value, by: &str, refusals_by: Option<&str>) -> String {
    let text = |value: &Value, name: &str| value.get(name).map(plain).unwrap_or_default();
    let rows = rows(answer, by);
    let mut shown = if rows.is_empty() {
        format!("Nothing was used from {} to {}.\n", text(answer, "from"), text(answer, "to"))
    } else {
        let header = by.to_ascii_uppercase();
        let named = rows.into_iter().map(|[key, rest @ ..]| {
            let [pool, requests, credits, bytes] = rest;
            [if key.is_empty() { "(none)".to_owned() } else { key }, pool, requests, credits, bytes]
        });
        let totals = ["core", "premium"].map(|pool| {
            let totals = answer.get("totals").and_then(|totals| totals.get(pool)).unwrap_or(&Value::Null);
            [pool.to_owned(), text(totals, "requests"), text(totals, "credits"), text(totals, "bytes")]
        });
        let rows = table::rows([&header, "POOL", "REQUESTS", "CREDITS", "BYTES"], named);
        format!("{rows}\n{}", table::rows(["TOTAL", "REQUESTS", "CREDITS", "BYTES"], totals))
    };
    let reasons = answer.get("refusals").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if !reasons.is_empty() {
        let lines = reasons.iter().map(|refusal| [text(refusal, "code"), text(refusal, "count")]);
        shown.push('\n');
        shown.push_str(&table::rows(["REFUSED", "COUNT"], lines));
        if let Some(by) = refusals_by {
            shown.push('\n');
            let header = by.to_ascii_uppercase();
            shown.push_str(&table::rows([&header, "REFUSED", "COUNT"], refusals(answer, by)));
        }
    }
    shown
}

/// Rows as RFC 4180 has them, with a header.
fn csv<const COLUMNS: usize>(header: [&str; COLUMNS], rows: Vec<[String; COLUMNS]>) -> String {
    let mut text = String::new();
    for row in std::iter::once(header.map(str::to_owned)).chain(rows) {
        text.push_str(&row.map(|field| quoted(&field)).join(","));
        text.push_str("\r\n");
    }
    text
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\r', '\n']) {
        return format!("\"{}\"", field.replace('"', "\"\""));
    }
    field.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_csv_are_quoted_where_they_must_be() {
        for (field, written) in
            [("MY/CARS", "MY/CARS"), ("", ""), ("a,b", "\"a,b\""), ("say \"x\"", "\"say \"\"x\"\"\"")]
        {
            assert_eq!(quoted(field), written);
        }
    }
}
