//! Who waits for the next call, and when it is made.
//!
//! A lone ask goes out at once. While a call is under way the next asks gather, and a call takes all that wait, up to [`BATCH`].
//! A call that is late holds nobody up: the next ask does not wait for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Take, Taken};
use crate::store::StoreError;

/// Asks that share a call at most: a script holds up all others while it runs.
const BATCH: usize = 64;
/// Calls under way at once: more than one where a full call waits, or the last one is late.
const FLIGHTS: usize = 4;
/// A call that is under way for so long is late.
const LATE: Duration = Duration::from_millis(5);

type Answer = Result<Taken, StoreError>;

/// One ask that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) take: Take,
    answer: oneshot::Sender<Answer>,
}

impl Waiting {
    /// Whoever has left misses the answer.
    pub(super) fn tell(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}

/// Asks of one kind.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Waiting>,
    flights: usize,
    /// When the last call began.
    called_at: Option<Instant>,
}

impl Queue {
    /// Where the answer is told, and whether a call has to begin for it.
    pub(super) fn enqueue(&mut self, take: Take) -> (oneshot::Receiver<Answer>, bool) {
        let (answer, told) = oneshot::channel();
        self.waiting.push_back(Waiting { take, answer });
        let late = || self.called_at.is_some_and(|at| at.elapsed() >= LATE);
        let full = self.waiting.len() >= BATCH;
        let begins = self.flights == 0 || (self.flights < FLIGHTS && (full || late()));
        if begins {
            self.flights += 1;
            self.called_at = Some(Instant::now());
        }
        (told, begins)
    }

    /// The asks of the next call, in their order. Those that nobody waits for any more are left out.
    pub(super) fn next_batch(&mut self) -> Vec<Waiting> {
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(waiting) = self.waiting.pop_front()
        {
            if !waiting.answer.is_closed() {
                batch.push(waiting);
            }
        }
        self.called_at = Some(Instant::now());
        batch
    }

    /// A call has ended and no other follows. Whether nothing is under way any more: then whoever waits still is told that
    /// nobody asks for it.
    pub(super) fn land(&mut self) -> bool {
        self.flights = self.flights.saturating_sub(1);
        self.flights == 0
    }
}
