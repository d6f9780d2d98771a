//! How the store answers, and since when it owes an answer.
//!
//! Pure: time is an argument. A store is *silent* while calls are out and nothing has come back for much longer than calls
//! usually take. That is known long before a call times out, so that requests need not wait for it; one slow call among
//! others that are answered is no silence.

use crate::ledger::purse::Micros;

/// Nothing shorter is a silence: a busy machine is late by so much, too.
const SHORTEST: Micros = 10_000;
/// How many times as long as usual is a silence.
const TIMES: Micros = 8;
/// The part that one call has in what is usual.
const WEIGHT: Micros = 8;

/// How the store answers.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    out: u32,
    /// When the first of the calls that are out was made, or the last answer came, whichever was later.
    owes_since: Micros,
    usual: Micros,
    answers: u64,
}

/// A call that is out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Out {
    since: Micros,
    answers: u64,
}

impl Pulse {
    /// A call is made.
    pub(super) fn begin(&mut self, now: Micros) -> Out {
        if self.out == 0 {
            self.owes_since = now;
        }
        self.out += 1;
        Out { since: now, answers: self.answers }
    }

    /// Its answer came.
    pub(super) fn answered(&mut self, out: Out, now: Micros) {
        self.out = self.out.saturating_sub(1);
        self.owes_since = now;
        self.answers += 1;
        let took = now.saturating_sub(out.since);
        self.usual = (self.usual * (WEIGHT - 1) + took) / WEIGHT;
    }

    /// It failed, or nobody waits for it any more.
    pub(super) fn gave_up(&mut self) {
        self.out = self.out.saturating_sub(1);
    }

    fn silence(&self) -> Micros {
        (self.usual * TIMES).max(SHORTEST)
    }

    /// From when on the store is silent, if nothing comes until then; `None`: it owes nothing.
    pub(super) fn silent_from(&self) -> Option<Micros> {
        (self.out > 0).then(|| self.owes_since.saturating_add(self.silence()))
    }

    /// Whether a call that failed now was out for the length of a silence, and nothing else came back meanwhile.
    pub(super) fn was_silent(&self, out: Out, now: Micros) -> bool {
        self.answers == out.answers && now.saturating_sub(out.since) >= self.silence()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_silent_once_nothing_came_back_for_long() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.silent_from(), None);
        let first = pulse.begin(1_000);
        let _second = pulse.begin(5_000);
        assert_eq!(pulse.silent_from(), Some(1_000 + SHORTEST), "the first call counts");
        pulse.answered(first, 6_000);
        assert_eq!(pulse.silent_from(), Some(6_000 + SHORTEST), "an answer is a sign of life for all");
        pulse.gave_up();
        assert_eq!(pulse.silent_from(), None, "nothing is owed");
    }

    #[test]
    fn what_is_usual_decides_how_long_a_silence_is() {
        let mut pulse = Pulse::default();
        for round in 0..100 {
            let out = pulse.begin(round * 10_000);
            pulse.answered(out, round * 10_000 + 4_000);
        }
        pulse.begin(1_000_000);
        let silent = pulse.silent_from().unwrap();
        assert!((1_024_000..=1_032_000).contains(&silent), "{silent}");
    }

    #[test]
    fn one_slow_call_among_others_is_no_silence() {
        let mut pulse = Pulse::default();
        let slow = pulse.begin(0);
        let other = pulse.begin(20_000);
        pulse.answered(other, 20_500);
        assert!(!pulse.was_silent(slow, 40_000));
        let alone = pulse.begin(50_000);
        assert!(!pulse.was_silent(alone, 50_100), "refused at once: the store may be starting anew");
        assert!(pulse.was_silent(alone, 90_000));
    }
}
