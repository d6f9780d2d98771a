//! The signals that a process acts on.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// SIGTERM, SIGINT: stop.
    Stop,
    /// SIGHUP: read the configuration anew.
    Reload,
    /// SIGUSR2: start the program anew and hand over to it.
    Upgrade,
}

/// The signals, caught from the moment this is made.
pub(super) struct Signals {
    term: Signal,
    interrupt: Signal,
    hangup: Signal,
    usr2: Signal,
}

impl Signals {
    /// Catches them; on a runtime.
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.term.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
            _ = self.usr2.recv() => Wish::Upgrade,
        }
    }

    /// Waits until it is to stop; others are let by.
    pub(super) async fn stop(&mut self) {
        while self.next().await != Wish::Stop {}
    }
}
