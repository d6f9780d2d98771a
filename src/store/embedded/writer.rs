//! The one thread that writes: it takes all steps that wait, runs them in one transaction, and answers when the
//! commit is on the disk. While one batch is being written the next one gathers, so many callers share an `fsync`.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{broadcast, oneshot};

use super::super::{Event, Retention, StoreError};
use super::Clock;
use super::file::StoreFile;
use super::steps::Tables;
use super::tables::Stopped;

/// Steps of one transaction at most, so that the first of them does not wait for ever.
const MAX_BATCH: usize = 1024;

/// How often what is over is swept away.
const SWEEP_EVERY: SignedDuration = SignedDuration::from_mins(10);

/// How many leases that are over are forgotten with each transaction, beside two for each step: more than can come new.
const FORGOTTEN: usize = 64;

/// A step that waits for its turn, and then for its commit.
trait Job: Send {
    /// Runs the step. An error means that the file failed.
    fn run(&mut self, tables: &mut Tables<'_>, now: Timestamp) -> Result<(), redb::Error>;

    /// Tells the caller: the step's outcome, or why nothing was written.
    fn answer(self: Box<Self>, committed: Result<(), &str>);
}

struct Call<T, F> {
    step: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    caller: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Call<T, F>
where
    T: Send,
    F: FnOnce(&mut Tables<'_>, Timestamp) -> Result<T, Stopped> + Send,
{
    fn run(&mut self, tables: &mut Tables<'_>, now: Timestamp) -> Result<(), redb::Error> {
        let Some(step) = self.step.take() else { return Ok(()) };
        self.outcome = Some(match step(tables, now) {
            Ok(done) => Ok(done),
            Err(Stopped::Answer(error)) => Err(error),
            Err(Stopped::Failed(error)) => return Err(error),
        });
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), &str>) {
        let unwritten = |why: &str| Err(StoreError::Unavailable(why.to_owned()));
        let outcome = match (committed, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => unwritten("the step was not run"),
            (Err(why), _) => unwritten(why),
        };
        // A caller that has gone away misses the answer; what was committed stands.
        let _ = self.caller.send(outcome);
    }
}

/// The way to the writing thread. Dropping it waits until all that was queued is written.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(
        file: Arc<StoreFile>,
        clock: Clock,
        retention: Retention,
        events: broadcast::Sender<Event>,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel();
        let write = move || write_all(&file, &clock, retention, &events, &jobs);
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(write)?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues a step, and waits until it is on the disk.
    pub(super) async fn run<T, F>(&self, step: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables<'_>, Timestamp) -> Result<T, Stopped> + Send + 'static,
    {
        let gone = || StoreError::Unavailable("the store's writer has stopped; restart Tollgate".to_owned());
        let (caller, told) = oneshot::channel();
        let job = Box::new(Call { step: Some(step), outcome: None, caller });
        self.queue.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        told.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported where it happened.
            let _ = thread.join();
        }
    }
}

fn write_all(
    file: &StoreFile,
    clock: &Clock,
    retention: Retention,
    events: &broadcast::Sender<Event>,
    jobs: &Receiver<Box<dyn Job>>,
) {
    let mut swept: Option<Timestamp> = None;
    while let Ok(first) = jobs.recv() {
        let mut batch: Vec<_> = std::iter::once(first).chain(jobs.try_iter()).take(MAX_BATCH).collect();
        let now = clock.now();
        let sweep = swept.is_none_or(|last| now.duration_since(last).abs() >= SWEEP_EVERY);
        let mut happened = Vec::new();
        let committed = file.write(|tables| {
            if sweep {
                tables.sweep(retention, now)?;
            }
            tables.forget_leases(FORGOTTEN + 2 * batch.len(), now)?;
            batch.iter_mut().try_for_each(|job| job.run(tables, clock.now())).map_err(Stopped::Failed)?;
            happened = std::mem::take(&mut tables.events);
            Ok(())
        });
        if let Err(why) = &committed {
            tracing::error!(error = %why, steps = batch.len(), "the store's file cannot be written");
        } else {
            swept = if sweep { Some(now) } else { swept };
            // Before the callers hear of it. Where nobody listens, nothing is told.
            happened.drain(..).for_each(|event| drop(events.send(event)));
        }
        for job in batch {
            job.answer(committed.as_ref().copied().map_err(String::as_str));
        }
    }
}
