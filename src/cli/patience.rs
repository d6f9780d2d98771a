//! What a person sees who waits: after half a second a line on the terminal says for what, and it is gone with the answer.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Shorter waits are not worth a word.
const SOON: Duration = Duration::from_millis(500);
/// The pause between two dots.
const BEAT: Duration = Duration::from_secs(1);

/// Somebody waits, until this is dropped.
pub(super) struct Patience(Option<(Sender<()>, JoinHandle<()>)>);

impl Patience {
    /// Says what is waited for, where standard error is a terminal.
    pub(super) fn with(what: String) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let (done, over) = channel();
        Self(Some((done, std::thread::spawn(move || tell(&what, SOON, &over, &mut std::io::stderr())))))
    }
}

/// Tells until it is over, then takes the line away.
fn tell(what: &str, soon: Duration, over: &Receiver<()>, terminal: &mut impl Write) {
    if over.recv_timeout(soon) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    // Nobody is helped by an error here.
    let _ = write!(terminal, "{what} ").and_then(|()| terminal.flush());
    while over.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
        let _ = write!(terminal, ".").and_then(|()| terminal.flush());
    }
    let _ = write!(terminal, "\r\u{1b}[2K").and_then(|()| terminal.flush());
}

impl Drop for Patience {
    fn drop(&mut self) {
        if let Some((done, thread)) = self.0.take() {
            drop(done);
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told; the first word of it is also when the wait is over.
    struct Terminal {
        told: String,
        waiting: Option<Sender<()>>,
    }

    impl Write for Terminal {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.told.push_str(std::str::from_utf8(bytes).unwrap());
            self.waiting = None;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn says_nothing_of_a_short_wait_and_cleans_up_after_a_long_one() {
        let (done, over) = channel();
        let mut terminal = Terminal { told: String::new(), waiting: Some(done) };
        tell("waiting", Duration::ZERO, &over, &mut terminal);
        assert!(terminal.told.starts_with("waiting"), "{:?}", terminal.told);
        assert!(terminal.told.ends_with("\r\u{1b}[2K"), "{:?}", terminal.told);
        terminal.told.clear();
        tell("waiting", SOON, &over, &mut terminal);
        assert_eq!(terminal.told, "");
    }
}
