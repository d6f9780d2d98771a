//! When a report was made, on which machine, and of exactly which binary: figures without that are worth nothing.

use std::fs;
use std::process::Command;

use anyhow::Context;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::plan::Plan;

/// When, of what and where.
#[derive(Serialize)]
pub(super) struct Made {
    pub(super) at: String,
    /// The same as a part of a file's name.
    pub(super) name: String,
    /// Of the harness and, unless the binary is a foreign one, of what was measured.
    pub(super) commit: String,
    pub(super) binary: Binary,
    pub(super) machine: String,
    pub(super) cores: usize,
    pub(super) kernel: String,
    pub(super) load_average: String,
    pub(super) quick: bool,
    pub(super) threads: usize,
    pub(super) rounds: usize,
    pub(super) connections: usize,
    pub(super) window_ms: u128,
}

/// The `tollgate` that was measured.
#[derive(Serialize)]
pub(super) struct Binary {
    path: String,
    sha256: String,
    modified: String,
    /// Built elsewhere (`BENCH_TOLLGATE`), so the commit does not tell of it.
    pub(super) foreign: bool,
}

impl Made {
    /// What was measured, in words.
    pub(super) fn measured(&self) -> String {
        let Binary { path, sha256, modified, foreign } = &self.binary;
        let short = sha256.get(..12).unwrap_or_default();
        if *foreign {
            format!(
                "A binary built elsewhere: {path} of {modified} (SHA-256 {short}…); harness and bare Pingora of commit {}",
                self.commit
            )
        } else {
            format!("Commit {} (SHA-256 of the binary {short}…)", self.commit)
        }
    }

    pub(super) fn now(plan: &Plan) -> anyhow::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let now = jiff::Timestamp::now();
        Ok(Self {
            at: now.strftime("%Y-%m-%d %H:%M UTC").to_string(),
            name: now.strftime("%Y%m%dT%H%M%SZ").to_string(),
            commit: commit(),
            binary: Binary::of(plan)?,
            machine: model.map_or("unknown", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            quick: plan.quick,
            threads: plan.threads,
            rounds: plan.rounds,
            connections: plan.connections,
            window_ms: plan.window.as_millis(),
        })
    }
}

impl Binary {
    fn of(plan: &Plan) -> anyhow::Result<Self> {
        let path = plan.tollgate.display().to_string();
        let bytes = fs::read(&plan.tollgate).with_context(|| path.clone())?;
        let modified = jiff::Timestamp::try_from(fs::metadata(&plan.tollgate)?.modified()?)?;
        Ok(Self {
            path,
            sha256: hex::encode(Sha256::digest(&bytes)),
            modified: modified.strftime("%Y-%m-%d %H:%M UTC").to_string(),
            foreign: plan.foreign,
        })
    }
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let (name, changed) = (
        git(&["rev-parse", "--short", "HEAD"]),
        git(&["status", "--porcelain", "src", "benches", "Cargo.lock"]),
    );
    if changed.is_empty() { name } else { format!("{name} and changes") }
}
