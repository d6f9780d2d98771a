//! `tollgate token export`: all tokens, one JSON object a line, as they come: however many there are, a page is held at a time.

use std::io::{ErrorKind, Write};

use clap::Args;
use serde_json::Value;

use super::client::{Call, Client, patiently};
use super::token::{Selection, each_page, plain};
use super::{Global, Output};

/// Which tokens are printed, and what of them.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    selection: Selection,
    /// Print the values of secret tokens too; each is noted in the trail
    #[arg(long)]
    with_values: bool,
    /// Print what each has used, and when it was last used
    #[arg(long)]
    usage: bool,
}

/// What is left to say at the end.
#[derive(Default)]
struct Said {
    notes: Vec<String>,
    failed: bool,
}

/// Prints page by page.
pub(super) fn run(global: &Global, args: &ExportArgs) -> anyhow::Result<Output> {
    let client = Client::new(global)?;
    let mut query = args.selection.query();
    query.extend(args.usage.then(|| ("usage", "true".to_owned())));
    let (mut said, mut kept) = (Said::default(), 0_usize);
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    let printed = each_page(&client, query, |page| {
        for mut token in page {
            if let Some(problem) = token.get("problem") {
                let id = token.get("id").map(plain).unwrap_or_default();
                said.notes.push(format!("warning: {id} was left out: {}", plain(problem)));
                said.failed = true;
                continue;
            }
            if is_sealed(&token) {
                if args.with_values {
                    reveal(&client, &mut token, &mut said)?;
                } else {
                    kept += 1;
                }
            }
            writeln!(stdout, "{token}")?;
        }
        Ok(stdout.flush()?)
    });
    let over = |error: &anyhow::Error| {
        error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    };
    match printed {
        // Whoever read our output has read enough, as `head` does.
        Err(error) if over(&error) => return Ok(Output::default()),
        printed => printed?,
    }
    if kept > 0 {
        said.notes.push(format!(
            "note: {kept} secret tokens are without their values, and would get new ones by an import; --with-values prints \
             them"
        ));
    }
    Ok(Output { notes: said.notes, failed: said.failed, ..Output::default() })
}

fn is_sealed(token: &Value) -> bool {
    token.get("token").is_none_or(Value::is_null)
}

/// Puts the value of a secret token in. One that cannot be opened stays away, and is told of.
fn reveal(client: &Client, token: &mut Value, said: &mut Said) -> anyhow::Result<()> {
    let id = token.get("id").map(plain).unwrap_or_default();
    let path = format!("/v1/tokens/{id}/reveal");
    match patiently(|| client.call("POST", &path, &Call::default())) {
        Ok(mut revealed) => {
            if let (Some(place), Some(value)) = (token.get_mut("token"), revealed.get_mut("token")) {
                *place = value.take();
            }
            Ok(())
        }
        Err(error) if error.is::<super::client::Away>() => Err(error),
        Err(error) => {
            said.notes.push(format!("warning: {id} is without its value: {error:#}"));
            said.failed = true;
            Ok(())
        }
    }
}
