//! `tollgate serve`: runs the gate until it is told to stop.

use std::path::PathBuf;

use clap::Args;

use super::{Global, Output};
use crate::config;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Write the id of the process that serves to this file, for scripts
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
}

/// Loads the configuration and serves.
pub(super) fn run(global: &Global, args: ServeArgs) -> anyhow::Result<Output> {
    let config = config::load(&global.config, &|name| std::env::var(name).ok())?;
    crate::server::serve(config, args.pid_file)?;
    Ok(Output::default())
}
