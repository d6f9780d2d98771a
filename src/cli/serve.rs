//! `tollgate serve`: runs the gate until it is told to stop.

use super::{Global, Output};
use crate::config;

/// Loads the configuration and serves.
pub(super) fn run(global: &Global) -> anyhow::Result<Output> {
    let config = config::load(&global.config, &|name| std::env::var(name).ok())?;
    crate::server::serve(config)?;
    Ok(Output::default())
}
