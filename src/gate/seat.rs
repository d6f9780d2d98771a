//! A process's seat in `state_dir`: the node's name and the journal.
//!
//! Two processes never share a journal (`ledger.md`). Usually there is one process, and so one seat. While one process
//! hands over to the next, both serve the same `state_dir`: the next takes a seat that nobody holds, with a name and a
//! journal of its own, and the one before settles its own. What it leaves there, however it ends, is settled by whoever finds
//! the seat free: the next process as soon as the system has taken the lock back, or else the next start.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::meter::Meter;
use super::{GateError, identity};
use crate::ledger::journal::{Journal, JournalError, Recovered};
use crate::store::NodeId;

/// How many processes may hand over one after the other before the first has ended.
const SEATS: usize = 8;
/// How often it is looked whether a seat is free by now.
const LOOK: Duration = Duration::from_millis(250);

/// A seat that is taken.
pub(super) struct Seat {
    pub(super) node: NodeId,
    pub(super) journal: Arc<Journal>,
    /// What an earlier run left in it.
    pub(super) recovered: Vec<Recovered>,
    /// Which one it is.
    pub(super) at: usize,
    /// How many journals were found there that cannot be trusted.
    pub(super) aside: usize,
}

/// The directory of a seat: the first one is `state_dir` itself.
fn place(state_dir: &Path, at: usize) -> PathBuf {
    if at == 0 { state_dir.to_owned() } else { state_dir.join(format!("seat-{}", at + 1)) }
}

impl Seat {
    /// Takes the first free seat. Unless this process succeeds another one, all must be free: a seat that is held is then a
    /// second process that was started on the same `state_dir` by mistake.
    pub(super) fn take(state_dir: &Path, succeeds: bool) -> Result<Self, GateError> {
        if !succeeds {
            for journal in (1..SEATS).map(|at| place(state_dir, at).join("journal")) {
                if journal.exists() {
                    Journal::check_free(&journal)?;
                }
            }
            return Self::sit(state_dir, 0);
        }
        let mut held = None;
        for at in 0..SEATS {
            match Self::sit(state_dir, at) {
                Err(GateError::Journal(error @ JournalError::InUse(_))) => held = Some(error.into()),
                other => return other,
            }
        }
        Err(held.unwrap_or_else(|| JournalError::InUse(state_dir.to_owned()).into()))
    }

    fn sit(state_dir: &Path, at: usize) -> Result<Self, GateError> {
        let place = place(state_dir, at);
        let node = identity::node(&place)?;
        let (journal, recovered, aside) = Journal::open(&place.join("journal"), node.0)?;
        for file in &aside {
            tracing::error!(path = %file.path.display(), why = %file.why, "a journal was set aside; it is not trusted");
        }
        Ok(Self { node, journal: Arc::new(journal), recovered, at, aside: aside.len() })
    }
}

/// Settles what is left in all other seats, each as soon as it is free, as long as there is a meter.
pub(super) async fn settle_others(state_dir: PathBuf, mine: usize, meter: Weak<Meter>) {
    let is_there = |at: &usize| place(&state_dir, *at).join("journal").exists();
    let mut waiting: Vec<usize> = (0..SEATS).filter(|at| *at != mine).filter(is_there).collect();
    while !waiting.is_empty() {
        let mut held = Vec::new();
        for at in waiting {
            match Seat::sit(&state_dir, at) {
                Ok(seat) if seat.recovered.is_empty() => {}
                Ok(Seat { journal, recovered, .. }) => {
                    let Some(meter) = meter.upgrade() else { return };
                    tracing::info!(
                        leases = recovered.len(),
                        "settling what another process of this node left"
                    );
                    meter.settle_left(journal, recovered).await;
                }
                Err(GateError::Journal(JournalError::InUse(_))) => held.push(at),
                Err(error) => {
                    tracing::error!(%error, "what another process of this node left is not settled");
                }
            }
        }
        waiting = held;
        if !waiting.is_empty() {
            tokio::time::sleep(LOOK).await;
            if meter.strong_count() == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_unless_it_succeeds_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = Seat::take(folder.path(), false).unwrap();
        let refused = Seat::take(folder.path(), false).err();
        assert!(matches!(refused, Some(GateError::Journal(JournalError::InUse(_)))));

        let second = Seat::take(folder.path(), true).unwrap();
        assert_eq!((first.at, second.at), (0, 1));
        assert_ne!(first.node, second.node);
        drop(first);
        // The first seat is free, but a process sits on the second: a start by mistake all the same.
        assert!(Seat::take(folder.path(), false).is_err());
        let third = Seat::take(folder.path(), true).unwrap();
        assert_eq!(third.at, 0);
        drop((second, third));
        assert_eq!(Seat::take(folder.path(), false).unwrap().at, 0);
    }
}
