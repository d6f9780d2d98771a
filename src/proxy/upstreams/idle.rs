//! Connections to one server that nothing goes on on, kept for the next plain request to it (`proxy/direct`).
//!
//! None is watched by a task of its own: what became of it is looked at when it is taken, and once a second.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pingora::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};

/// How often all of them are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many connections the servers of one upstream keep, and may keep.
#[derive(Clone)]
pub(super) struct Room {
    kept: Arc<AtomicUsize>,
    most: usize,
    /// How long one may be idle.
    longest: Duration,
}

impl Room {
    pub(super) fn new(most: usize, longest: Duration) -> Self {
        Self { kept: Arc::default(), most, longest }
    }
}

struct Kept {
    stream: Stream,
    since: Instant,
}

/// The idle connections to one server.
pub(super) struct Idle {
    room: Room,
    /// The one that was idle longest first.
    kept: Mutex<Vec<Kept>>,
}

impl Idle {
    pub(super) fn new(room: Room) -> Self {
        Self { room, kept: Mutex::default() }
    }

    /// The connection that was used last, if it may still be used.
    pub(super) fn take(&self, now: Instant) -> Option<Stream> {
        loop {
            let mut kept = self.kept.lock().pop()?;
            self.room.kept.fetch_sub(1, Ordering::Relaxed);
            if self.is_fresh(&kept, now) && is_quiet(&mut kept.stream) {
                return Some(kept.stream);
            }
        }
    }

    /// Keeps a connection, if there is room.
    pub(super) fn put(&self, stream: Stream, now: Instant) {
        let before = self.room.kept.fetch_add(1, Ordering::Relaxed);
        if before >= self.room.most {
            self.room.kept.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        self.kept.lock().push(Kept { stream, since: now });
    }

    /// Closes what may not be used any more.
    pub(super) fn look(&self, now: Instant) {
        let is_of_use = |kept: &mut Kept| self.is_fresh(kept, now) && is_quiet(&mut kept.stream);
        // They are closed once the lock is free.
        let gone: Vec<Kept> = self.kept.lock().extract_if(.., |kept| !is_of_use(kept)).collect();
        self.room.kept.fetch_sub(gone.len(), Ordering::Relaxed);
    }

    fn is_fresh(&self, kept: &Kept, now: Instant) -> bool {
        now.saturating_duration_since(kept.since) < self.room.longest
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.room.kept.fetch_sub(self.kept.get_mut().len(), Ordering::Relaxed);
    }
}

/// Whether nothing has come on a connection: neither its end, nor something that nobody asked for.
fn is_quiet(stream: &mut Stream) -> bool {
    let mut byte = [0; 1];
    let mut buffer = ReadBuf::new(&mut byte);
    Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer).is_pending()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    fn pair() -> (Stream, DuplexStream) {
        let (ours, theirs) = duplex(64);
        (Box::new(ours), theirs)
    }

    #[tokio::test]
    async fn a_connection_is_used_again_only_while_it_is_quiet_and_fresh() {
        let (now, room) = (Instant::now(), Room::new(10, LONG));
        let idle = Idle::new(room.clone());
        assert!(idle.take(now).is_none());
        let (ours, _theirs) = pair();
        idle.put(ours, now);
        assert!(idle.take(now + LONG / 2).is_some());
        assert!(idle.take(now).is_none(), "it is taken once");

        let (ours, _theirs) = pair();
        idle.put(ours, now);
        assert!(idle.take(now + LONG).is_none(), "it was idle too long");

        let (ours, theirs) = pair();
        idle.put(ours, now);
        drop(theirs);
        assert!(idle.take(now).is_none(), "the server closed it");

        let (ours, mut theirs) = pair();
        idle.put(ours, now);
        theirs.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        assert!(idle.take(now).is_none(), "the server spoke unasked");
        assert_eq!(room.kept.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn no_more_are_kept_than_may_be_and_what_ends_makes_room() {
        let (now, room) = (Instant::now(), Room::new(2, LONG));
        let [first, second] = [0, 1].map(|_| Idle::new(room.clone()));
        let mut others = Vec::new();
        for idle in [&first, &second, &second] {
            let (ours, theirs) = pair();
            idle.put(ours, now);
            others.push(theirs);
        }
        assert_eq!([first.kept.lock().len(), second.kept.lock().len()], [1, 1], "the room is the upstream's");
        others.remove(0);
        first.look(now);
        second.look(now);
        assert_eq!([first.kept.lock().len(), second.kept.lock().len()], [0, 1]);
        second.look(now + LONG);
        assert_eq!(room.kept.load(Ordering::Relaxed), 0);
        let (ours, _theirs) = pair();
        first.put(ours, now);
        drop(first);
        assert_eq!(room.kept.load(Ordering::Relaxed), 0, "a server that is gone holds none");
    }
}
