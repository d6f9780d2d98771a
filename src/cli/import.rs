//! `tollgate token import`: tokens from a file. All of it is judged first (a dry run of the admin API), and only then written, in
//! bunches. A command that broke off is given again: what is there already is left alone.
//!
//! [`source`] reads the file, [`kong`], [`tyk`] and [`apisix`] turn dumps of other gateways into tokens, [`mapping`] keeps which
//! new value belongs to which old key, [`tally`] counts and tells.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::client::{Call, Client, patiently};
use super::token::plain;
use super::{Global, Misuse, Output};

mod mapping;
mod source;
mod tally;

use mapping::Mapping;
use source::{Item, Known, Source};
use tally::Tally;

/// Lines of one call.
const AT_ONCE: usize = 500;
/// Bytes of one call, more or less.
const BYTES_AT_ONCE: usize = 1024 * 1024;
/// How often lines are sent again that the store did not take.
const ROUNDS: usize = 5;

/// What is to be imported, and how.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
pub(super) struct ImportArgs {
    /// The file; - for the standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What the file is
    #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
    format: Format,
    /// Show what would be made, changed and left, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// What to do about a token that is there and is not as the file says
    #[arg(long, value_name = "WHAT", default_value = "fail")]
    on_conflict: OnConflict,
    /// Write what can be taken, even if some cannot
    #[arg(long)]
    keep_going: bool,
    /// A file to be made (mode 0600) that says which token, with which new value, stands for which entry of FILE
    #[arg(long, value_name = "FILE")]
    mapping: Option<PathBuf>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One token a line, as `token export` prints them
    Jsonl,
    /// A declarative configuration of Kong, as `deck gateway dump` writes it
    Kong,
    /// Keys of Tyk, as its gateway API shows them
    Tyk,
    /// Consumers of APISIX, from its admin API or an apisix.yaml
    Apisix,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OnConflict {
    /// Refuse it
    Fail,
    /// Leave the token as it is
    Skip,
    /// Edit the token
    Update,
}

impl OnConflict {
    fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Skip => "skip",
            Self::Update => "update",
        }
    }
}

/// Judges all, then writes all.
pub(super) fn run(global: &Global, args: &ImportArgs) -> anyhow::Result<Output> {
    let client = Client::new(global)?;
    let mut source = Source::open(&args.file, args.format)?;
    let mut judged = Tally::new(true, global.json && args.dry_run);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let shown = args.dry_run && !global.json;
    pass(&client, args, &mut source, true, |item, outcome| {
        judged.add(item, outcome);
        if shown { tally::show(&mut out, item, outcome) } else { Ok(true) }
    })?;
    std::io::Write::flush(&mut out)?;
    drop(out);
    if args.dry_run {
        return judged.conclude(global.json, &source.warnings);
    }
    if judged.refused() > 0 && !args.keep_going {
        judged.nothing_written();
        return judged.conclude(global.json, &source.warnings);
    }
    let mut mapping = match &args.mapping {
        Some(path) => Some(Mapping::create(path)?),
        None if judged.new_values > 0 => {
            let what = format!(
                "{} tokens get new values; give --mapping FILE, which then says which (nothing was written)",
                judged.new_values
            );
            return Err(Misuse(what).into());
        }
        None => None,
    };
    let mut written = Tally::new(false, global.json);
    let done = pass(&client, args, &mut source, false, |item, outcome| {
        written.add(item, outcome);
        if let Some(mapping) = &mut mapping {
            mapping.add(item, outcome)?;
        }
        Ok(args.keep_going || !tally::is(outcome, "failed"))
    });
    if let Some(mapping) = mapping {
        mapping.close()?;
    }
    done.with_context(|| {
        let so_far = written.done();
        format!("stopped after {so_far} lines; give the command again (with another --mapping): those are left alone")
    })?;
    written.conclude(global.json, &source.warnings)
}

/// Sends all items in bunches, and tells what came of each, until nobody wants to hear more.
fn pass(
    client: &Client,
    args: &ImportArgs,
    source: &mut Source,
    dry_run: bool,
    mut tell: impl FnMut(&Item, &Value) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let (mut bunch, mut bytes, mut known) = (Vec::new(), 0, Known::default());
    let mut items = source.items()?;
    loop {
        let next = items.next().transpose()?;
        let more = next.is_some();
        if let Some(item) = next {
            if let Some(why) = known.meet(&item) {
                // It is never sent: what comes second would be taken for an edit of what came first.
                let refused = json!({"outcome": "refused", "errors": [{"detail": why}]});
                if tell(&item, &refused)? {
                    continue;
                }
                return Ok(());
            }
            bytes += item.body.len();
            bunch.push(item);
        }
        if !bunch.is_empty() && (!more || bunch.len() == AT_ONCE || bytes >= BYTES_AT_ONCE) {
            for (item, outcome) in bunch.iter().zip(send(client, args, &bunch, dry_run)?) {
                if !tell(item, &outcome)? {
                    return Ok(());
                }
            }
            bunch.clear();
            bytes = 0;
        }
        if !more {
            return Ok(());
        }
    }
}

/// Sends a bunch, and what the store did not take of it again. What came of each item, in their order.
fn send(client: &Client, args: &ImportArgs, bunch: &[Item], dry_run: bool) -> anyhow::Result<Vec<Value>> {
    let query = vec![
        ("dry_run", dry_run.to_string()),
        ("on_conflict", args.on_conflict.name().to_owned()),
        // All was judged before; what is refused now was changed meanwhile, or is to be left out.
        ("keep_going", "true".to_owned()),
    ];
    let mut outcomes = vec![Value::Null; bunch.len()];
    let mut left: Vec<usize> = (0..bunch.len()).collect();
    for round in 1..=ROUNDS {
        let lines: String =
            left.iter().filter_map(|at| bunch.get(*at)).map(|item| item.body.clone() + "\n").collect();
        let call = Call { lines: Some(&lines), query: query.clone(), ..Call::default() };
        let mut answer = patiently(|| client.call("POST", "/v1/tokens/import", &call))?;
        let told = answer.get_mut("outcomes").map(Value::take);
        let Some(Value::Array(told)) =
            told.filter(|told| told.as_array().is_some_and(|t| t.len() == left.len()))
        else {
            anyhow::bail!("the admin API did not tell what came of each line; is it of another version?");
        };
        let mut failed = Vec::new();
        for (at, outcome) in left.iter().zip(told) {
            if tally::is(&outcome, "failed") {
                failed.push(*at);
            }
            if let Some(place) = outcomes.get_mut(*at) {
                *place = outcome;
            }
        }
        left = failed;
        if left.is_empty() || round == ROUNDS {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    Ok(outcomes)
}

/// The id that came back.
fn id_of(outcome: &Value) -> String {
    outcome.get("id").map(plain).unwrap_or_default()
}
