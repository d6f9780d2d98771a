//! Keeps what the directory knows in `state_dir`, so that a start while the store is down serves what it may (law 6).

use std::path::PathBuf;
use std::sync::Weak;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::directory::Directory;
use super::line::Line;
use crate::store::seal::Sealer;
use crate::store::snapshot;

/// How often what is known is written down at most, if something was learned.
const EVERY: Duration = Duration::from_secs(2);
/// How often it is written down at least, so that the file says when the store was heard.
const AT_LEAST: Duration = Duration::from_secs(30);
/// Writing may take this part of the time at most: a large memory is written less often.
const PART: u32 = 50;

/// Where what is known is kept, and what seals it.
pub(super) struct Memory {
    path: PathBuf,
    sealer: Sealer,
}

impl Memory {
    pub(super) fn new(path: PathBuf, sealer: Sealer) -> Self {
        Self { path, sealer }
    }

    /// Takes in what an earlier run knew, unless it is older than the grace time. It is trusted only while the store
    /// cannot be reached, and only for what is left of the grace time.
    pub(super) fn restore(&self, directory: &Directory, line: &Line, grace: Duration) {
        match snapshot::read(&self.path, &self.sealer) {
            Ok(None) => {}
            Ok(Some(known)) => {
                let age = Timestamp::now().duration_since(known.heard_at).max(SignedDuration::ZERO);
                let age = Duration::try_from(age).unwrap_or_default();
                if age <= grace {
                    line.heard(age);
                    directory.restore(known.policies);
                }
            }
            Err(error) => tracing::warn!(%error, "what an earlier run knew is not used"),
        }
    }

    /// Writes down what is known.
    pub(super) fn keep(&self, directory: &Directory, line: &Line) {
        let Some(silence) = line.silence() else { return };
        let heard_at = Timestamp::now().checked_sub(silence).unwrap_or(Timestamp::UNIX_EPOCH);
        if let Err(error) = snapshot::write(&self.path, &self.sealer, heard_at, &directory.snapshot()) {
            tracing::warn!(%error, "what is known cannot be written down");
        }
    }

    /// Writes down what is known now and then, as long as there is a directory, if anything was learned or the store
    /// was heard since.
    pub(super) async fn run(self: std::sync::Arc<Self>, directory: Weak<Directory>, line: Weak<Line>) {
        let (mut written, mut learned, mut pause) = (Instant::now(), 0, EVERY);
        loop {
            tokio::time::sleep(pause).await;
            let (Some(directory), Some(line)) = (directory.upgrade(), line.upgrade()) else { return };
            // While the store is silent nothing new is learned, and the file says truly when it was heard.
            let heard = line.silence().is_some_and(|silence| silence < EVERY);
            let news = directory.learned();
            if !heard || (news == learned && written.elapsed() < AT_LEAST) {
                continue;
            }
            let begun = Instant::now();
            let memory = self.clone();
            let _ = tokio::task::spawn_blocking(move || memory.keep(&directory, &line)).await;
            (written, learned) = (Instant::now(), news);
            pause = EVERY.max(begun.elapsed() * PART);
        }
    }
}
