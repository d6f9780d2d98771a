//! `tollgate account`: the account's budget, and what its tokens have used together.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::{Call, Client};
use super::flags::{limit_json, parse_limit};
use super::token::WriteTerms;
use super::{Global, Misuse, Output, table};
use crate::policy::Limit;

#[derive(Debug, Subcommand)]
pub(super) enum AccountCommand {
    /// Show the account and what is used
    Show,
    /// Edit the account's budget
    Edit(BudgetArgs),
}

#[derive(Debug, Args)]
pub(super) struct BudgetArgs {
    /// Core credits all tokens may use together, like 1000000/month
    #[arg(long, value_name = "CREDITS/PERIOD", value_parser = parse_limit, conflicts_with = "no_core_budget")]
    core_budget: Option<Limit>,
    /// Any number of core credits
    #[arg(long)]
    no_core_budget: bool,
    /// Premium credits all tokens may use together
    #[arg(long, value_name = "CREDITS/PERIOD", value_parser = parse_limit, conflicts_with = "no_premium_budget")]
    premium_budget: Option<Limit>,
    /// Any number of premium credits
    #[arg(long)]
    no_premium_budget: bool,
    #[command(flatten)]
    terms: WriteTerms,
}

/// Runs one of the account's commands.
pub(super) fn run(global: &Global, command: AccountCommand) -> anyhow::Result<Output> {
    let shown =
        |account: &Value| if global.json { Output::json(account) } else { Ok(Output::text(show(account))) };
    match command {
        AccountCommand::Show => shown(&Client::new(global)?.call("GET", "/v1/account", &Call::default())?),
        AccountCommand::Edit(args) => {
            let body = json!({"budget": budget(&args)?});
            let call = args.terms.call(Some(&body));
            let account = Client::new(global)?.call("PATCH", "/v1/account", &call)?;
            Ok(args.terms.conclude(global, &account, shown(&account)?))
        }
    }
}

fn budget(args: &BudgetArgs) -> Result<Value, Misuse> {
    let mut budget = Map::new();
    let pools = [
        ("core", args.core_budget, args.no_core_budget),
        ("premium", args.premium_budget, args.no_premium_budget),
    ];
    for (pool, limit, none) in pools {
        match (limit, none) {
            (Some(limit), _) => drop(budget.insert(pool.to_owned(), limit_json(limit))),
            (None, true) => drop(budget.insert(pool.to_owned(), Value::Null)),
            (None, false) => {}
        }
    }
    if budget.is_empty() {
        return Err(Misuse(
            "nothing to change; give --core-budget, --premium-budget or --no-…-budget".into(),
        ));
    }
    Ok(Value::Object(budget))
}

fn show(account: &Value) -> String {
    let text = |name: &str| account.get(name).map(super::token::plain).unwrap_or_default();
    let budget = |pool: &str| super::token::limit(account.get("budget").and_then(|budget| budget.get(pool)));
    let pairs = table::pairs([
        ("account", text("id")),
        ("created", text("created_at")),
        ("core budget", budget("core")),
        ("premium budget", budget("premium")),
        ("version", text("version")),
    ]);
    format!("{pairs}\n{}", super::token::usage_table(account.get("usage")))
}
