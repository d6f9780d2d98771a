//! `tollgate token edit --all`: one edit of many tokens. First it is asked what would be changed, and shown; then those tokens are
//! edited that would be. What is so already is left alone, so a command that broke off is given again.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use clap::Args;
use serde_json::{Value, json};

use super::client::{Call, Client, patiently};
use super::token::{Kind, WriteTerms, each_page, plain, query, states};
use super::{Global, Misuse, Output, table};

/// Tokens of one call.
const AT_ONCE: usize = 500;
/// How often tokens are sent again that the store did not take.
const ROUNDS: usize = 5;
/// The most kinds of changes that are counted by themselves.
const MOST_KEPT: usize = 1000;
/// The most kinds of changes that are shown.
const MOST_SHOWN: usize = 30;

/// Which tokens, and whether to ask.
#[derive(Debug, Args)]
pub(super) struct EditAllArgs {
    /// Edit many tokens instead of one: all but those that are revoked, or those that the next flags choose
    #[arg(long)]
    all: bool,
    /// Only tokens with these words in nickname, id or publishable value
    #[arg(long, value_name = "TEXT", requires = "all")]
    search: Option<String>,
    /// Only tokens that are in this state now
    #[arg(long, value_name = "STATUS", requires = "all", value_parser = states())]
    if_status: Option<String>,
    /// Only tokens of this type
    #[arg(long, value_name = "TYPE", requires = "all")]
    if_type: Option<Kind>,
    /// Show what would be changed, and change nothing
    #[arg(long, requires = "all")]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short = 'y', requires = "all")]
    yes: bool,
}

impl EditAllArgs {
    /// What was said that only makes sense beside `--all`. clap lets such flags by where a token's id is named.
    pub(super) fn check_absent(&self) -> Result<(), Misuse> {
        let chooses = self.search.is_some() || self.if_status.is_some() || self.if_type.is_some();
        if chooses || self.dry_run || self.yes {
            let what =
                "--search, --if-status, --if-type, --dry-run and --yes are for --all, not for one token";
            return Err(Misuse(what.into()));
        }
        Ok(())
    }
}

/// What would be done, or was.
#[derive(Default)]
struct Survey {
    counts: BTreeMap<String, usize>,
    /// Revoked tokens that were left out.
    revoked: usize,
    secret: usize,
    /// Those that would be changed.
    ids: Vec<String>,
    /// How many tokens have this change: field, from, to.
    changes: BTreeMap<(String, String, String), usize>,
    /// Changes of kinds that are not counted by themselves any more.
    further: usize,
    problems: Vec<String>,
    outcomes: Vec<Value>,
}

impl Survey {
    fn count(&self, outcome: &str) -> usize {
        self.counts.get(outcome).copied().unwrap_or(0)
    }

    fn add(&mut self, outcome: &Value, keep: bool) {
        let text = |name: &str| outcome.get(name).map(plain).unwrap_or_default();
        *self.counts.entry(text("outcome")).or_default() += 1;
        if text("outcome") == "updated" {
            self.ids.push(text("id"));
        }
        for change in outcome.get("changes").and_then(Value::as_array).into_iter().flatten() {
            let part = |name: &str| change.get(name).map(Value::to_string).unwrap_or_default();
            let field = change.get("field").map(plain).unwrap_or_default();
            let kind = (field, part("from"), part("to"));
            if self.changes.len() < MOST_KEPT || self.changes.contains_key(&kind) {
                *self.changes.entry(kind).or_default() += 1;
            } else {
                self.further += 1;
            }
        }
        for error in outcome.get("errors").and_then(Value::as_array).into_iter().flatten() {
            let of = |name: &str| error.get(name).map(plain).unwrap_or_default();
            self.problems.push(format!("  {} {}: {}", text("id"), of("pointer"), of("detail")));
        }
        if keep {
            self.outcomes.push(outcome.clone());
        }
    }

    fn json(&self, dry_run: bool) -> anyhow::Result<Output> {
        let counts = ["updated", "unchanged", "refused", "failed"].map(|name| (name, self.count(name)));
        let mut all = json!({"dry_run": dry_run, "left_out_revoked": self.revoked, "tokens": self.outcomes});
        for (name, count) in counts {
            all.as_object_mut().map(|all| all.insert(name.to_owned(), json!(count)));
        }
        Output::json(&all)
    }
}

/// Shows what would be changed, asks, and changes it.
pub(super) fn run(
    global: &Global,
    args: &EditAllArgs,
    fields: &Value,
    terms: &WriteTerms,
) -> anyhow::Result<Output> {
    if terms.names_version() {
        return Err(Misuse("--if-version is of one token; it cannot stand beside --all".into()).into());
    }
    let client = Client::new(global)?;
    let plan = survey(&client, args, fields, global.json && args.dry_run)?;
    let would = plan.ids.len();
    if args.dry_run {
        let failed = plan.count("refused") + plan.count("failed") > 0;
        let mut output = if global.json { plan.json(true)? } else { Output::text(show(&plan)) };
        output.notes.extend(plan.problems);
        output.failed = failed;
        return Ok(output);
    }
    if would == 0 {
        let failed = plan.count("refused") > 0;
        let mut output = if global.json { plan.json(false)? } else { Output::text(show(&plan)) };
        output.notes.extend(plan.problems);
        output.failed = failed;
        return Ok(output);
    }
    if !args.yes {
        eprint!("{}", show(&plan));
        plan.problems.iter().for_each(|problem| eprintln!("{problem}"));
        if !confirm(would)? {
            return Ok(Output {
                notes: vec!["nothing was changed".to_owned()],
                failed: true,
                ..Output::default()
            });
        }
    }
    edit(global, &client, &plan, fields, terms)
}

/// Asks what would come of the edit.
fn survey(client: &Client, args: &EditAllArgs, fields: &Value, keep: bool) -> anyhow::Result<Survey> {
    let mut plan = Survey::default();
    let wanted = query(args.search.as_deref(), args.if_status.as_deref(), args.if_type);
    each_page(client, wanted, |page| {
        let mut ids = Vec::with_capacity(page.len());
        for token in page {
            let text = |name: &str| token.get(name).map(plain).unwrap_or_default();
            if text("status") == "revoked" && args.if_status.is_none() {
                plan.revoked += 1;
                continue;
            }
            plan.secret += usize::from(text("type") == "secret");
            ids.push(text("id"));
        }
        let answer = send(client, &ids, fields, vec![("dry_run", "true".to_owned())])?;
        outcomes(&answer).for_each(|outcome| plan.add(outcome, keep));
        Ok(())
    })?;
    Ok(plan)
}

fn send(
    client: &Client,
    ids: &[String],
    fields: &Value,
    query: Vec<(&str, String)>,
) -> anyhow::Result<Value> {
    let body = json!({"ids": ids, "fields": fields});
    let call = Call { query, ..Call::with_body(&body) };
    patiently(|| client.call("PATCH", "/v1/tokens", &call))
}

fn outcomes(answer: &Value) -> impl Iterator<Item = &Value> {
    answer.get("outcomes").and_then(Value::as_array).into_iter().flatten()
}

/// Edits those that would be changed, and no others.
fn edit(
    global: &Global,
    client: &Client,
    plan: &Survey,
    fields: &Value,
    terms: &WriteTerms,
) -> anyhow::Result<Output> {
    let mut done = Survey { revoked: plan.revoked, ..Survey::default() };
    let mut last = Value::Null;
    let bunches = plan.ids.chunks(AT_ONCE);
    let count = bunches.len();
    for (at, bunch) in bunches.enumerate() {
        let mut left = bunch.to_vec();
        for round in 1.. {
            let wait = if at + 1 == count { terms.wait() } else { None };
            last = match send(client, &left, fields, wait.into_iter().collect()) {
                Ok(answer) => answer,
                Err(error) => {
                    let so_far = done.count("updated");
                    return Err(error.context(format!(
                        "stopped after {so_far} of {} tokens; give the command again to edit the rest",
                        plan.ids.len()
                    )));
                }
            };
            let failed = |outcome: &&Value| outcome.get("outcome").map(plain).as_deref() == Some("failed");
            left = outcomes(&last).filter(failed).filter_map(|it| it.get("id").map(plain)).collect();
            let over = left.is_empty() || round == ROUNDS;
            let told = outcomes(&last).filter(|outcome| over || !failed(outcome));
            told.for_each(|outcome| done.add(outcome, global.json));
            if over {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
    }
    done.problems.splice(0..0, plan.problems.iter().cloned());
    *done.counts.entry("refused".to_owned()).or_default() += plan.count("refused");
    *done.counts.entry("unchanged".to_owned()).or_default() += plan.count("unchanged");
    let failed = done.count("refused") + done.count("failed");
    let mut output = if global.json { done.json(false)? } else { Output::text(summary(&done)) };
    output.failed = failed > 0;
    output.notes.append(&mut done.problems);
    if done.count("failed") > 0 {
        output.notes.push("some tokens were not edited; give the command again to edit the rest".to_owned());
    }
    Ok(terms.conclude(global, &last, output))
}

fn summary(done: &Survey) -> String {
    let count = |name| done.count(name);
    format!(
        "{} tokens edited, {} were so already, {} refused, {} failed.\n",
        count("updated"),
        count("unchanged"),
        count("refused"),
        count("failed")
    )
}

fn show(plan: &Survey) -> String {
    let total: usize = plan.counts.values().sum();
    let mut text = format!(
        "{total} tokens match ({} of them secret): {} would be edited, {} are so already, {} would be refused.\n",
        plan.secret,
        plan.ids.len(),
        plan.count("unchanged"),
        plan.count("refused") + plan.count("failed")
    );
    if plan.revoked > 0 {
        text.push_str(&format!("{} revoked tokens are left out.\n", plan.revoked));
    }
    if plan.changes.is_empty() {
        return text;
    }
    let rows = plan.changes.iter().take(MOST_SHOWN);
    let rows =
        rows.map(|((field, from, to), count)| [field.clone(), from.clone(), to.clone(), count.to_string()]);
    text.push('\n');
    text.push_str(&table::rows(["FIELD", "FROM", "TO", "TOKENS"], rows));
    let more: usize = plan.changes.values().skip(MOST_SHOWN).sum();
    if more + plan.further > 0 {
        let more = more + plan.further;
        text.push_str(&format!("and {more} changes of other values; --dry-run --json shows each token\n"));
    }
    text
}

fn confirm(count: usize) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Misuse("nobody is there to be asked; look with --dry-run, then give --yes".into()).into());
    }
    eprint!("Edit {count} tokens? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
