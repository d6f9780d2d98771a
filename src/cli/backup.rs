//! `tollgate backup` and `tollgate restore`: the embedded store to a file, while it is in use, and back, while it is not.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::client::Client;
use super::{Global, Output};
use crate::config;
use crate::server::backup::{self, Summary};

/// Where a backup goes.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The file to be made (mode 0600); one that is there is not written over
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// What is restored.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Move a store that has something in it aside
    #[arg(long)]
    force: bool,
    /// Only read the backup to its end and say what it is
    #[arg(long)]
    dry_run: bool,
}

/// Takes a backup. The file gets its name when it is whole and on the disk.
pub(super) fn take(global: &Global, args: &BackupArgs) -> anyhow::Result<Output> {
    let shown = args.file.display();
    if args.file.exists() {
        bail!("{shown} is there already; name another file, or move it away");
    }
    let client = Client::new(global)?;
    let mut name = args.file.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let taken = write(&client, &part).and_then(|bytes| Ok((backup::check(&part)?, bytes)));
    let (summary, bytes) = match taken {
        Ok(taken) => taken,
        Err(error) => {
            // It is no backup, and nobody is to take it for one.
            let _ = fs::remove_file(&part);
            return Err(error.context("no backup was taken"));
        }
    };
    give_name(&part, &args.file)?;
    if global.json {
        return Output::json(&json!({"taken_at": summary.taken_at, "rows": summary.rows, "bytes": bytes}));
    }
    let mut output =
        Output::text(format!("{shown}: {} rows, {bytes} bytes, as of {}\n", summary.rows, summary.taken_at));
    output.notes.push(
        "note: secret tokens are sealed in it: without the master key (state_dir/master-key or `master_key`) they cannot be \
         opened. Keep that too, and elsewhere"
            .to_owned(),
    );
    Ok(output)
}

/// Unlike a rename, a link fails where somebody made a file of that name meanwhile; some file systems have none.
fn give_name(part: &Path, file: &Path) -> anyhow::Result<()> {
    let shown = file.display();
    match fs::hard_link(part, file) {
        Ok(()) => fs::remove_file(part).with_context(|| format!("cannot remove {}", part.display())),
        Err(_) if file.exists() => bail!("{shown} is there already; the backup is {}", part.display()),
        Err(_) => fs::rename(part, file).with_context(|| format!("cannot make {shown}")),
    }
}

fn write(client: &Client, part: &Path) -> anyhow::Result<u64> {
    let shown = part.display();
    if let Err(error) = fs::remove_file(part)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("cannot remove {shown}"));
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part);
    let mut file = BufWriter::new(made.with_context(|| format!("cannot make {shown}"))?);
    let bytes = client.download("/v1/backup", &mut file)?;
    file.flush().and_then(|()| file.get_ref().sync_all()).with_context(|| format!("cannot write {shown}"))?;
    let folder = part.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("cannot write {shown}"))?;
    Ok(bytes)
}

/// Restores a backup, or only looks at it.
pub(super) fn restore(global: &Global, args: &RestoreArgs) -> anyhow::Result<Output> {
    let told = |summary: &Summary, text: String| {
        if global.json {
            let moved = summary.moved.as_ref().map(|path| path.display().to_string());
            return Output::json(
                &json!({"taken_at": summary.taken_at, "rows": summary.rows, "moved": moved}),
            );
        }
        Ok(Output::text(text))
    };
    let shown = args.file.display();
    if args.dry_run {
        let summary = backup::check(&args.file)?;
        let text = format!("{shown} is whole: {} rows, as of {}\n", summary.rows, summary.taken_at);
        return told(&summary, text);
    }
    let config = config::load(&global.config, &|name| std::env::var(name).ok())?;
    let summary = backup::restore(&config, &args.file, args.force).context("nothing was restored")?;
    let mut text = format!("restored {} rows, as of {}\n", summary.rows, summary.taken_at);
    if let Some(moved) = &summary.moved {
        text.push_str(&format!("what was there is in {}\n", moved.display()));
    }
    told(&summary, text)
}
