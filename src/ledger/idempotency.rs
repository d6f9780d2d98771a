//! Which requests were paid for already: a retry with the same `Idempotency-Key` is charged once.
//!
//! Pure: time is an argument. The memory is one node's and bounded: [`Bounds`]. It holds digests, no keys and no targets.
//! It decides about charging alone; every retry goes on to the upstream with its key, which is the one that knows whether
//! the work was done. (Draft `draft-ietf-httpapi-idempotency-key-header`; its 409 for a retry that overtakes its first is
//! the resource's to give, not ours.)
//!
//! To wire a request that carries the header:
//!
//! 1. [`Key::parse`] its values, after the free checks; on an error 400.
//! 2. [`Memory::open`]: [`Opened::Paid`] needs no hold and is not charged. [`Opened::Unpaid`] takes its hold as ever.
//!    [`Reused`] is 422.
//! 3. When a response below 400 begins: [`Memory::pay`]. [`Payment::First`] is charged; [`Payment::Again`] gives its hold
//!    back: another request with the key was faster. A response of 400 and above never pays, so the next retry may.
//!
//! Do not ask for a price that is drawn as a stream flows ([`crate::policy::cost::Rest::Drawn`] on a stream): reading a
//! stream again is a new stream, and its events would be free.
//!
//! What a client must know: a key counts for [`WINDOW`] after it was first used, on the node that saw it, and for
//! [`REPEATS`] free repeats; the next one is charged, and starts the count again. Without that a client could read all day
//! for the price of one request by never changing its key. When the memory is full, the oldest keys are forgotten
//! first, and a retry with one of them is charged again: a limit is never exceeded by it (law 1).

use std::collections::{HashMap, VecDeque};

use sha2::{Digest, Sha256};

use super::purse::Micros;
use crate::policy::{Denial, TokenId};

/// How long a key counts after its first use: 10 minutes.
pub const WINDOW: Micros = 600_000_000;
/// How many repeats of a paid request are free.
pub const REPEATS: u32 = 100;
/// How many keys a node remembers; some 6 MiB.
pub const CAPACITY: usize = 65_536;
/// The longest key, in bytes.
pub const MAX_KEY: usize = 255;

/// How much is remembered, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The most keys.
    pub capacity: usize,
    /// How long a key counts after its first use.
    pub window: Micros,
    /// How many repeats of a paid request are free.
    pub repeats: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { capacity: CAPACITY, window: WINDOW, repeats: REPEATS }
    }
}

/// 128 bits of a SHA-256: nobody finds two inputs for one in the window.
type Short = [u8; 16];

/// One token's key, with what it was used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    name: Short,
    request: Short,
}

impl Key {
    /// Reads the values of the header: exactly one, 1 to [`MAX_KEY`] printable ASCII characters. The draft wants it in
    /// quotes, most clients send it bare; `"a"` and `a` are one key. `method` and `target` are the judged ones, without
    /// the token.
    pub fn parse(values: &[&[u8]], token: &TokenId, method: &str, target: &str) -> Result<Self, Denial> {
        let [value] = values else { return Err(Denial::IdempotencyKeyInvalid) };
        let value = value.trim_ascii();
        let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        let key = quoted.unwrap_or(value);
        let printable = key.iter().all(|byte| (b' '..=b'~').contains(byte));
        if key.is_empty() || key.len() > MAX_KEY || !printable {
            return Err(Denial::IdempotencyKeyInvalid);
        }
        // A method has no space, and an id no line feed, so two pairs never read alike.
        let name = short(&[token.as_str().as_bytes(), b"\n", key]);
        Ok(Self { name, request: short(&[method.as_bytes(), b" ", target.as_bytes()]) })
    }
}

fn short(parts: &[&[u8]]) -> Short {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let whole: [u8; 32] = hash.finalize().into();
    whole.first_chunk().copied().unwrap_or_default()
}

/// Where a request stands that carries a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// Nobody has paid for it yet: it takes its hold.
    Unpaid,
    /// It was paid for: it is free.
    Paid,
}

/// The key was used for another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Idempotency-Key was used for another request")]
pub struct Reused;

impl From<Reused> for Denial {
    fn from(_: Reused) -> Self {
        Self::IdempotencyKeyReused
    }
}

/// What a response that begins well owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payment {
    /// Its price.
    First,
    /// Nothing: it was paid for meanwhile.
    Again,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    request: Short,
    since: Micros,
    /// How many free repeats are left; `None`: not paid.
    free: Option<u32>,
}

/// What a node remembers of keys. Not shared by itself: whoever keeps it locks it; each call is short.
#[derive(Debug)]
pub struct Memory {
    bounds: Bounds,
    entries: HashMap<Short, Entry>,
    /// Names by the time of their first use; one for each entry, oldest first.
    order: VecDeque<Short>,
}

impl Memory {
    /// Remembers nothing yet.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: HashMap::new(), order: VecDeque::new() }
    }

    /// A request with this key was judged and is about to be charged.
    pub fn open(&mut self, key: Key, now: Micros) -> Result<Opened, Reused> {
        self.forget(now);
        if let Some(entry) = self.entries.get_mut(&key.name) {
            if entry.request != key.request {
                return Err(Reused);
            }
            match entry.free {
                Some(left @ 1..) => {
                    entry.free = Some(left - 1);
                    return Ok(Opened::Paid);
                }
                Some(0) => entry.free = None,
                None => {}
            }
            return Ok(Opened::Unpaid);
        }
        self.remember(key, now, None);
        Ok(Opened::Unpaid)
    }

    /// A response below 400 begins to a request that was [`Opened::Unpaid`].
    pub fn pay(&mut self, key: Key, now: Micros) -> Payment {
        self.forget(now);
        match self.entries.get_mut(&key.name) {
            Some(entry) if entry.request == key.request => {
                if entry.free.is_some() {
                    return Payment::Again;
                }
                entry.free = Some(self.bounds.repeats);
            }
            // Forgotten meanwhile, and taken for another request: this one pays for itself.
            Some(_) => {}
            // Forgotten meanwhile: its retries come now, so it is remembered anew.
            None => self.remember(key, now, Some(self.bounds.repeats)),
        }
        Payment::First
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn remember(&mut self, key: Key, now: Micros, free: Option<u32>) {
        if self.bounds.capacity == 0 {
            return;
        }
        while self.entries.len() >= self.bounds.capacity {
            self.drop_oldest();
        }
        self.entries.insert(key.name, Entry { request: key.request, since: now, free });
        self.order.push_back(key.name);
    }

    /// Forgets what is older than the window.
    fn forget(&mut self, now: Micros) {
        let window = self.bounds.window;
        let over = |entry: &Entry| now.saturating_sub(entry.since) >= window;
        while self.order.front().and_then(|name| self.entries.get(name)).is_some_and(over) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(name) = self.order.pop_front() {
            self.entries.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests;
