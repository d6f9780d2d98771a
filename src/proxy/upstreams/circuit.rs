//! A circuit breaker: a server that fails again and again is left alone for a while, then tried by one request.
//!
//! Pure: the time is an argument.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config;

/// Whether a request may go to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may.
    Yes,
    /// It may, and what becomes of it decides whether others may.
    Probe,
    /// It may not.
    No,
}

/// The breaker of one server.
#[derive(Debug)]
pub(super) struct Circuit {
    failures: usize,
    window: Duration,
    open_for: Duration,
    /// What `state` says, to be seen without its lock.
    closed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Requests go through; when the last failures were.
    Closed(VecDeque<Instant>),
    /// None goes through until then.
    Open(Instant),
    /// One request is trying.
    Probing,
}

impl Circuit {
    pub(super) fn new(settings: &config::Circuit) -> Self {
        Self {
            failures: settings.failures as usize,
            window: settings.window,
            open_for: settings.open_for,
            closed: AtomicBool::new(true),
            state: Mutex::new(State::Closed(VecDeque::new())),
        }
    }

    /// Asks for a request's way.
    pub(super) fn admit(&self, now: Instant) -> Admission {
        if self.closed.load(Ordering::Acquire) {
            return Admission::Yes;
        }
        let mut state = self.state.lock();
        match *state {
            State::Closed(_) => Admission::Yes,
            State::Open(until) if now >= until => {
                *state = State::Probing;
                Admission::Probe
            }
            State::Open(_) | State::Probing => Admission::No,
        }
    }

    /// A request failed. Whether the circuit opened by it.
    pub(super) fn fail(&self, now: Instant, probe: bool) -> bool {
        let mut state = self.state.lock();
        match &mut *state {
            State::Closed(failures) => {
                failures.push_back(now);
                while failures.front().is_some_and(|first| now.duration_since(*first) > self.window) {
                    failures.pop_front();
                }
                if failures.len() < self.failures {
                    return false;
                }
            }
            State::Probing if probe => {}
            // It began before the circuit opened; the next probe decides.
            State::Probing | State::Open(_) => return false,
        }
        self.closed.store(false, Ordering::Release);
        *state = State::Open(now + self.open_for);
        true
    }

    /// A request went well. Whether the circuit closed by it.
    pub(super) fn succeed(&self, probe: bool) -> bool {
        if !probe {
            return false;
        }
        *self.state.lock() = State::Closed(VecDeque::new());
        self.closed.store(true, Ordering::Release);
        true
    }

    /// The probe ended without a result: the next request is one.
    pub(super) fn abandon(&self, now: Instant) {
        let mut state = self.state.lock();
        if matches!(*state, State::Probing) {
            *state = State::Open(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circuit() -> (Circuit, Instant) {
        let settings = config::Circuit {
            failures: 3,
            window: Duration::from_secs(10),
            open_for: Duration::from_secs(5),
            statuses: vec![503],
        };
        (Circuit::new(&settings), Instant::now())
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn opens_after_so_many_failures_within_the_window() {
        let (circuit, start) = circuit();
        assert!(!circuit.fail(start, false));
        assert!(!circuit.fail(start + seconds(6), false));
        // The first is too old by now.
        assert!(!circuit.fail(start + seconds(11), false));
        assert_eq!(circuit.admit(start + seconds(11)), Admission::Yes);
        assert!(circuit.fail(start + seconds(12), false));
        assert_eq!(circuit.admit(start + seconds(12)), Admission::No);
        assert!(!circuit.fail(start + seconds(13), false), "it is open already");
    }

    #[test]
    fn one_probe_decides_whether_it_closes() {
        let (circuit, start) = circuit();
        for _ in 0..3 {
            circuit.fail(start, false);
        }
        let later = start + seconds(5);
        assert_eq!(circuit.admit(later), Admission::Probe);
        assert_eq!(circuit.admit(later), Admission::No, "one at a time");
        assert!(!circuit.succeed(false), "an old request decides nothing");
        assert!(circuit.fail(later, true));
        assert_eq!(circuit.admit(later + seconds(4)), Admission::No);
        assert_eq!(circuit.admit(later + seconds(5)), Admission::Probe);
        circuit.abandon(later + seconds(5));
        assert_eq!(circuit.admit(later + seconds(5)), Admission::Probe, "a probe that left is replaced");
        assert!(circuit.succeed(true));
        assert_eq!(circuit.admit(later + seconds(5)), Admission::Yes);
        assert!(!circuit.fail(later + seconds(6), false), "it counts from the beginning");
    }
}
