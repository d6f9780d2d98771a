//! The life of a process: what happens, one after the other, and what is done about it.

use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::ServeError;
use super::files::{self, Files};
use super::handover::{Predecessor, Program, Successor, Word};
use super::instance::{Ending, Instance};
use super::notify::{State, tell, watchdog};
use super::pid_file::PidFile;
use super::signals::{Signals, Wish};
use super::sockets::Sockets;
use crate::config::Config;

/// How long a new process may take until it serves, or waits for the store.
const START: Duration = Duration::from_mins(1);
/// How long it may take to serve once it has the store: it reads a large one as a whole.
const START_WITH_STORE: Duration = Duration::from_mins(3);

/// What happens.
enum Event {
    Signal(Wish),
    FilesChanged,
    Successor(Word),
}

/// Starts and runs until the end.
pub(super) fn run(config: Config, pid_file: Option<PathBuf>) -> Result<(), ServeError> {
    let program = Program::this();
    let clock = Builder::new_current_thread().enable_all().build().map_err(ServeError::Runtime)?;
    let signals = {
        let _context = clock.enter();
        Signals::catch().map_err(ServeError::Runtime)?
    };
    let (predecessor, mut sockets) = match Predecessor::find().map_err(ServeError::TakeOver)? {
        Some((predecessor, sockets)) => (Some(predecessor), sockets),
        None => (None, Sockets::of_systemd()),
    };
    let files = Files::new(files_of(&config));
    let instance = Instance::start(config, &mut sockets, predecessor.as_ref())?;
    sockets.drop_unused();
    // Kept to the end, when the file goes.
    let _pid_file = match pid_file {
        None => None,
        Some(path) => Some(PidFile::write(path.clone()).map_err(|source| ServeError::State {
            what: "cannot write the pid file",
            path,
            source,
        })?),
    };
    if let Some(predecessor) = predecessor {
        predecessor.say_ready();
        tracing::info!(pid = std::process::id(), "took over from the process before");
    }
    tell(State::Ready);
    let (look, alive) = {
        let _context = clock.enter();
        (ticks(files::EVERY), watchdog().map(ticks))
    };
    Conductor { program, clock, signals, sockets, files, look, alive }.conduct(instance)
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The configuration's file, and those it names.
fn files_of(config: &Config) -> Vec<PathBuf> {
    std::iter::once(&config.path).chain(&config.files).cloned().collect()
}

struct Conductor {
    program: Program,
    clock: Runtime,
    signals: Signals,
    sockets: Sockets,
    files: Files,
    look: Interval,
    alive: Option<Interval>,
}

impl Conductor {
    fn conduct(mut self, mut instance: Instance) -> Result<(), ServeError> {
        let mut successor: Option<(Successor, std::time::Instant)> = None;
        loop {
            match self.next(successor.as_mut()) {
                Event::Signal(Wish::Stop) => {
                    if let Some((successor, _)) = successor.take() {
                        successor.dismiss();
                    }
                    tell(State::Stopping);
                    self.end(instance, Ending::Stop);
                    tracing::info!("stopped");
                    return Ok(());
                }
                Event::Signal(Wish::Reload) | Event::FilesChanged => self.reload(&mut instance),
                Event::Signal(Wish::Upgrade) if successor.is_some() => {
                    tracing::warn!("an upgrade is under way already");
                }
                Event::Signal(Wish::Upgrade) => {
                    successor = self.begin_upgrade().map(|it| (it, std::time::Instant::now()));
                }
                Event::Successor(Word::Ready) => {
                    let Some((successor, _)) = successor.take() else { continue };
                    self.hand_over(instance, &successor);
                    return Ok(());
                }
                Event::Successor(Word::Waits) => {
                    let Some((successor, _)) = successor.take() else { continue };
                    match self.give_store(instance, successor)? {
                        Some(again) => instance = again,
                        None => return Ok(()),
                    }
                }
                Event::Successor(Word::Gone) => {
                    if let Some((successor, _)) = successor.take() {
                        let ended = successor.dismiss();
                        tracing::error!(%ended, "the upgrade failed: the new process ended, or was too slow, \
                            before it could serve; its words stand above. This one goes on");
                    }
                }
            }
        }
    }

    /// Waits for the next thing to happen.
    fn next(&mut self, mut successor: Option<&mut (Successor, std::time::Instant)>) -> Event {
        let Self { clock, signals, files, look, alive, .. } = self;
        clock.block_on(async {
            loop {
                let tick = async {
                    match alive.as_mut() {
                        Some(alive) => alive.tick().await,
                        None => std::future::pending().await,
                    }
                };
                let word = async {
                    match successor.as_mut() {
                        Some((successor, since)) => {
                            let left = START.saturating_sub(since.elapsed());
                            tokio::time::timeout(left, successor.word()).await.unwrap_or(Word::Gone)
                        }
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    wish = signals.next() => return Event::Signal(wish),
                    word = word => return Event::Successor(word),
                    _ = look.tick() => {
                        if files.have_changed() {
                            return Event::FilesChanged;
                        }
                    }
                    _ = tick => tell(State::Alive),
                }
            }
        })
    }

    fn reload(&mut self, instance: &mut Instance) {
        tell(State::Reloading);
        // Before it is read: what changes while it is read is a change again.
        self.files.mark_read();
        instance.reload();
        self.files.look_at(files_of(instance.config()));
        tell(State::Ready);
    }

    fn begin_upgrade(&self) -> Option<Successor> {
        let path = self.program.path().display();
        match Successor::start(&self.program, &self.sockets) {
            Ok(successor) => {
                tracing::info!(%path, pid = successor.pid(), "upgrade: the new process starts");
                Some(successor)
            }
            Err(error) => {
                tracing::error!(%path, %error, "the upgrade failed: the new process cannot be started; this one goes on");
                None
            }
        }
    }

    /// The new process serves: this one drains and ends.
    fn hand_over(&mut self, instance: Instance, successor: &Successor) {
        tell(State::MainPid(successor.pid()));
        tracing::info!(pid = successor.pid(), "upgrade: the new process serves; this one drains");
        self.end(instance, Ending::HandedOver);
        tracing::info!("stopped: another process has taken over");
    }

    /// The new process waits for the store: this one drains, closes it, and goes on only if the new one then fails.
    /// `None`: it does not fail.
    fn give_store(
        &mut self,
        instance: Instance,
        mut successor: Successor,
    ) -> Result<Option<Instance>, ServeError> {
        let pid = successor.pid();
        tracing::info!(
            pid,
            "upgrade: the new process waits for the store; this one drains and gives it away"
        );
        let (started, config) = (instance.started().clone(), instance.config().clone());
        let released = self.end(instance, Ending::GivesStore);
        if !released {
            tracing::warn!("the store is held still; the new process tries for a while");
        }
        // If it has ended meanwhile, its next word says so.
        let _ = successor.go();
        let Self { clock, signals, .. } = self;
        let word = clock.block_on(async {
            let word = tokio::time::timeout(START_WITH_STORE, successor.word());
            tokio::select! {
                word = word => Some(word.unwrap_or(Word::Gone)),
                () = signals.stop() => None,
            }
        });
        match word {
            Some(Word::Ready) => {
                tell(State::MainPid(pid));
                tracing::info!(pid, "stopped: another process has taken over");
                Ok(None)
            }
            Some(Word::Waits | Word::Gone) => {
                let ended = successor.dismiss();
                tracing::error!(%ended, "the upgrade failed: the new process ended, or was too slow, before it could \
                    serve; its words stand above. This one takes the store back and goes on");
                self.sockets.give_back();
                let mut again = Instance::start(started, &mut self.sockets, None)?;
                again.take(config)?;
                Ok(Some(again))
            }
            None => {
                successor.dismiss();
                tell(State::Stopping);
                tracing::info!("stopped");
                Ok(None)
            }
        }
    }

    fn end(&mut self, instance: Instance, ending: Ending) -> bool {
        let Self { clock, signals, .. } = self;
        instance.end(clock, ending, signals.stop())
    }
}
