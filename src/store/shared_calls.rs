//! Asks that share calls: what comes while a call is under way goes together in the next one.
//!
//! A lone ask goes out at once. A call takes all that wait, up to a bound, in their order. A call that is late holds nobody up:
//! the next ask does not wait for it. Each key has a queue of its own. Knows nothing of what is asked.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How asks share calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sharing {
    /// Asks that share a call at most.
    pub(crate) batch: usize,
    /// Calls under way at once: more than one where a full call waits, or the last one is late.
    pub(crate) flights: usize,
    /// A call that is under way for so long is late.
    pub(crate) late: Duration,
    /// Asks that wait for a call at most.
    pub(crate) waiting: usize,
    /// Where several shared a call there is load, and the next one waits for so long, so that more share it.
    pub(crate) gather: Duration,
    /// Whether answers are told in turn with whatever else is to be done, instead of all at once.
    pub(crate) in_turn: bool,
}

/// Who makes the calls.
pub(crate) trait Caller: Sized + Send + Sync + 'static {
    /// What asks have in common that may share a call.
    type Key: Clone + Eq + Hash + Send + Sync + 'static;
    /// What is asked for.
    type Ask: Send + 'static;
    /// What came of it.
    type Answer: Send + 'static;

    /// The queues.
    fn shared(&self) -> &SharedCalls<Self>;

    /// Makes one call. Where it says more or less than was asked, all learn that nobody answers.
    fn call(
        &self,
        key: &Self::Key,
        asks: Vec<Self::Ask>,
    ) -> impl Future<Output = Called<Self::Answer>> + Send;
}

/// How a call went.
pub(crate) enum Called<A> {
    /// What came of each ask, in their order.
    Answered(Vec<A>),
    /// Nobody answers. This is told to everybody who waits, those behind it too: they would learn the same, only later.
    Failed(Box<dyn Fn() -> A + Send>),
}

/// One ask that waits.
struct Waiting<C: Caller> {
    ask: C::Ask,
    answer: oneshot::Sender<C::Answer>,
}

/// Asks of one key.
struct Queue<C: Caller> {
    waiting: VecDeque<Waiting<C>>,
    flights: usize,
    /// When the last call began.
    called_at: Option<Instant>,
}

/// The queues of all keys.
pub(crate) struct SharedCalls<C: Caller> {
    sharing: Sharing,
    queues: Mutex<HashMap<C::Key, Queue<C>>>,
}

impl<C: Caller> fmt::Debug for SharedCalls<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedCalls").field("sharing", &self.sharing).finish_non_exhaustive()
    }
}

impl<C: Caller> SharedCalls<C> {
    /// Nobody waits yet.
    pub(crate) fn new(sharing: Sharing) -> Self {
        Self { sharing, queues: Mutex::default() }
    }

    /// Asks. The answer is told there; never, where the call breaks off. `None`: too many wait already. Calls are made on
    /// `runtime`; an ask whose receiver is dropped before its call begins is not made.
    pub(crate) fn ask(
        owner: &Arc<C>,
        runtime: &Handle,
        key: &C::Key,
        ask: C::Ask,
    ) -> Option<oneshot::Receiver<C::Answer>> {
        let Self { sharing, queues } = owner.shared();
        let (answer, told) = oneshot::channel();
        let begins = {
            let mut queues = queues.lock();
            let queue = queues.entry(key.clone()).or_insert_with(|| Queue {
                waiting: VecDeque::new(),
                flights: 0,
                called_at: None,
            });
            if queue.waiting.len() >= sharing.waiting {
                return None;
            }
            queue.waiting.push_back(Waiting { ask, answer });
            let late = || queue.called_at.is_some_and(|at| at.elapsed() >= sharing.late);
            let more = || queue.waiting.len() >= sharing.batch || late();
            let begins = queue.flights == 0 || (queue.flights < sharing.flights && more());
            if begins {
                queue.flights += 1;
                queue.called_at = Some(Instant::now());
            }
            begins
        };
        if begins {
            runtime.spawn(Flight { owner: owner.clone(), key: key.clone(), ended: false }.run());
        }
        Some(told)
    }

    /// How many wait for a key's next call, and how many calls are under way.
    #[cfg(test)]
    pub(crate) fn extent(&self, key: &C::Key) -> (usize, usize) {
        self.queues.lock().get(key).map_or((0, 0), |queue| (queue.waiting.len(), queue.flights))
    }
}

/// One of the calls that may be under way. Dropped before its end, by a panic or with its runtime, it leaves its place to
/// another.
struct Flight<C: Caller> {
    owner: Arc<C>,
    key: C::Key,
    ended: bool,
}

impl<C: Caller> Flight<C> {
    async fn run(mut self) {
        let sharing = self.owner.shared().sharing;
        while !self.ended {
            let (asks, told) = self.next_batch();
            let (shared, full) = (told.len() > 1, told.len() == sharing.batch);
            if told.is_empty() {
                continue;
            }
            match self.owner.call(&self.key, asks).await {
                Called::Answered(answers) if answers.len() == told.len() => {
                    for (told, answer) in told.into_iter().zip(answers) {
                        // Whoever has left misses the answer.
                        let _ = told.send(answer);
                        if sharing.in_turn {
                            tokio::task::yield_now().await;
                        }
                    }
                }
                Called::Failed(answer) => {
                    let behind = self.queue(|queue| std::mem::take(&mut queue.waiting)).unwrap_or_default();
                    for told in told.into_iter().chain(behind.into_iter().map(|waiting| waiting.answer)) {
                        let _ = told.send(answer());
                    }
                }
                // Nobody can say whose answers these are.
                Called::Answered(_) => drop(told),
            }
            if shared && !full && !sharing.gather.is_zero() {
                tokio::time::sleep(sharing.gather).await;
            }
        }
    }

    fn queue<T>(&self, then: impl FnOnce(&mut Queue<C>) -> T) -> Option<T> {
        self.owner.shared().queues.lock().get_mut(&self.key).map(then)
    }

    /// The next asks, in their order, and where their answers are told. None: this has ended.
    fn next_batch(&mut self) -> (Vec<C::Ask>, Vec<oneshot::Sender<C::Answer>>) {
        let SharedCalls { sharing, queues } = self.owner.shared();
        let (mut asks, mut told) = (Vec::new(), Vec::new());
        let mut queues = queues.lock();
        if let Some(queue) = queues.get_mut(&self.key) {
            while asks.len() < sharing.batch
                && let Some(waiting) = queue.waiting.pop_front()
            {
                if !waiting.answer.is_closed() {
                    asks.push(waiting.ask);
                    told.push(waiting.answer);
                }
            }
            queue.called_at = Some(Instant::now());
        }
        if asks.is_empty() {
            self.ended = true;
            land(&mut queues, &self.key);
        }
        (asks, told)
    }
}

impl<C: Caller> Drop for Flight<C> {
    fn drop(&mut self) {
        if !self.ended {
            land(&mut self.owner.shared().queues.lock(), &self.key);
        }
    }
}

/// A flight is over. With the last one goes the queue; whoever waits in it still learns that nobody answers.
fn land<C: Caller>(queues: &mut HashMap<C::Key, Queue<C>>, key: &C::Key) {
    if let Some(queue) = queues.get_mut(key) {
        queue.flights = queue.flights.saturating_sub(1);
        if queue.flights == 0 {
            queues.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
