//! Counts what came of the lines of an import, and tells it.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};

use super::id_of;
use super::source::Item;
use crate::cli::Output;
use crate::cli::token::plain;

/// The most mistakes that are told one by one.
const MOST_TOLD: usize = 1000;

/// What came of an import so far.
pub(super) struct Tally {
    dry_run: bool,
    /// Whether each line is told, for programs.
    keep: bool,
    counts: BTreeMap<String, usize>,
    mistakes: Vec<String>,
    lines: Vec<Value>,
    /// Tokens that are made with a new value.
    pub(super) new_values: usize,
}

/// Whether this came of it.
pub(super) fn is(outcome: &Value, what: &str) -> bool {
    outcome.get("outcome").and_then(Value::as_str) == Some(what)
}

impl Tally {
    pub(super) fn new(dry_run: bool, keep: bool) -> Self {
        Self {
            dry_run,
            keep,
            counts: BTreeMap::new(),
            mistakes: Vec::new(),
            lines: Vec::new(),
            new_values: 0,
        }
    }

    fn count(&self, outcome: &str) -> usize {
        self.counts.get(outcome).copied().unwrap_or(0)
    }

    /// Lines that cannot be taken.
    pub(super) fn refused(&self) -> usize {
        self.count("refused") + self.count("failed")
    }

    /// Nothing is written: what could have been is not done.
    pub(super) fn nothing_written(&mut self) {
        self.dry_run = false;
        let left = ["created", "updated"].map(|name| self.counts.remove(name).unwrap_or(0));
        *self.counts.entry("not_done".to_owned()).or_default() += left.iter().sum::<usize>();
        let hint = "nothing was written; mend these lines, or leave them out with --keep-going";
        self.mistakes.push(hint.to_owned());
    }

    /// How many lines were told of.
    pub(super) fn done(&self) -> usize {
        self.counts.values().sum()
    }

    /// Takes note of what came of an item.
    pub(super) fn add(&mut self, item: &Item, outcome: &Value) {
        let what = outcome.get("outcome").and_then(Value::as_str).unwrap_or("failed");
        *self.counts.entry(what.to_owned()).or_default() += 1;
        if what == "created" && outcome.get("new_value").and_then(Value::as_bool) == Some(true) {
            self.new_values += 1;
        }
        let errors = outcome.get("errors").and_then(Value::as_array).into_iter().flatten();
        let errors = errors.map(|error| {
            let text = |name: &str| error.get(name).map(plain).unwrap_or_default();
            (text("pointer"), text("detail"))
        });
        for (pointer, detail) in errors {
            if self.mistakes.len() < MOST_TOLD {
                let at = if pointer.is_empty() { String::new() } else { format!(" {pointer}") };
                self.mistakes.push(format!("{}{at}: {detail}", item.place));
            }
        }
        if self.keep {
            let mut told = outcome.clone();
            if let Some(told) = told.as_object_mut() {
                // Values are for the mapping, not for whoever looks at the screen.
                told.remove("token");
                told.insert("line".to_owned(), json!(item.place));
                told.insert("outcome".to_owned(), json!(what));
            }
            self.lines.push(told);
        }
    }

    /// What there is to say at the end.
    pub(super) fn conclude(mut self, as_json: bool, warnings: &[String]) -> anyhow::Result<Output> {
        let names = ["created", "updated", "unchanged", "skipped", "refused", "failed", "not_done"];
        let counts = names.map(|name| (name, self.count(name)));
        let failed = self.refused() > 0;
        let mut output = if as_json {
            let mut all = json!({"dry_run": self.dry_run, "lines": std::mem::take(&mut self.lines), "warnings": warnings});
            for (name, count) in counts {
                all.as_object_mut().map(|all| all.insert(name.to_owned(), json!(count)));
            }
            Output::json(&all)?
        } else {
            let said = counts.iter().filter(|(name, count)| *count > 0 || *name == "created");
            let said: Vec<_> =
                said.map(|(name, count)| format!("{count} {}", name.replace('_', " "))).collect();
            let head = if self.dry_run { "dry run, nothing was written: " } else { "" };
            let mut output = Output::text(format!("{head}{}\n", said.join(", ")));
            output.notes.extend(warnings.iter().map(|warning| format!("warning: {warning}")));
            output
        };
        let more = self.refused().saturating_sub(MOST_TOLD);
        output.notes.append(&mut self.mistakes);
        if more > 0 {
            output.notes.push(format!("and at least {more} more lines"));
        }
        if self.count("failed") > 0 {
            let hint =
                "the store did not take all; give the command again: what is there already is left alone";
            output.notes.push(hint.to_owned());
        }
        output.failed = failed;
        Ok(output)
    }
}

/// Shows what would be done about an item. `false`: nobody reads any more.
pub(super) fn show(out: &mut impl Write, item: &Item, outcome: &Value) -> anyhow::Result<bool> {
    if is(outcome, "unchanged") || is(outcome, "refused") {
        return Ok(true);
    }
    let what = outcome.get("outcome").map(plain).unwrap_or_default();
    let mut text = format!("{what:9} {}  {}  ({})\n", id_of(outcome), item.name, item.place);
    let changes = outcome.get("changes").and_then(Value::as_array).into_iter().flatten();
    for change in changes {
        let part = |name: &str| change.get(name).map(Value::to_string).unwrap_or_default();
        let field = change.get("field").map(plain).unwrap_or_default();
        let from = if is(outcome, "created") { String::new() } else { format!("{} → ", part("from")) };
        text.push_str(&format!("          {field}: {from}{}\n", part("to")));
    }
    match out.write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        result => Ok(result.map(|()| true)?),
    }
}
