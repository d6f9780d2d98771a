//! A cluster's slots: which key lies in which, and which node keeps it, as far as that is known.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use parking_lot::Mutex;
use redis::{Arg, Cmd, FromRedisValue, Pipeline, RedisError, Value};

use super::{Place, distinct};

/// How many slots a cluster has (the Redis Cluster specification).
const SLOTS: u16 = 16_384;

/// Slots in a row, and who keeps them.
#[derive(Debug, Clone)]
struct Range {
    first: u16,
    last: u16,
    master: Place,
}

#[derive(Debug, Default)]
struct Known {
    ranges: Vec<Range>,
    /// What nodes said since: newer than the ranges.
    moved: BTreeMap<u16, Place>,
    /// All nodes ever heard of last, replicas too: whom to ask when the named ones are away.
    nodes: Vec<Place>,
}

/// What is known of a cluster.
pub(super) struct Cluster {
    named: Vec<Place>,
    known: Mutex<Known>,
    /// One learns at a time; those who waited find it known.
    pub(super) learning: tokio::sync::Mutex<()>,
    /// The slot of the account asked for last: commands without a key go where it is.
    home: AtomicU16,
    next: AtomicUsize,
}

impl Cluster {
    pub(super) fn new(named: &[Place]) -> Self {
        Self {
            named: named.to_vec(),
            known: Mutex::default(),
            learning: tokio::sync::Mutex::default(),
            home: AtomicU16::new(0),
            next: AtomicUsize::new(0),
        }
    }

    /// The slot of commands that all belong to one.
    pub(super) fn slot_of(&self, commands: &Pipeline) -> u16 {
        let Some(key) = commands.cmd_iter().find_map(key_of) else {
            return self.home.load(Ordering::Relaxed);
        };
        let slot = slot_of_key(key);
        if hash_tag(key).is_some() {
            self.home.store(slot, Ordering::Relaxed);
        }
        slot
    }

    pub(super) fn known(&self, slot: u16) -> Option<Place> {
        let known = self.known.lock();
        let range = known.ranges.iter().find(|range| (range.first..=range.last).contains(&slot));
        known.moved.get(&slot).or(range.map(|range| &range.master)).cloned()
    }

    pub(super) fn is_known(&self) -> bool {
        !self.known.lock().ranges.is_empty()
    }

    /// Whom to ask about the slots.
    pub(super) fn places(&self) -> Vec<Place> {
        distinct(self.named.iter().cloned().chain(self.known.lock().nodes.iter().cloned()))
    }

    /// The masters in turn.
    pub(super) fn next_master(&self) -> Option<Place> {
        let masters = distinct(self.known.lock().ranges.iter().map(|range| range.master.clone()));
        let turn = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(masters.len())?;
        masters.into_iter().nth(turn)
    }

    pub(super) fn learn(&self, slot: u16, place: Place) {
        self.known.lock().moved.insert(slot, place);
    }

    /// Forgets who keeps what; `false`: nothing was known.
    pub(super) fn forget(&self) -> bool {
        let mut known = self.known.lock();
        known.moved.clear();
        !std::mem::take(&mut known.ranges).is_empty()
    }

    /// Takes the answer to `CLUSTER SLOTS` in; `None`: it is none, or the node that gave it knows of no slot.
    pub(super) fn learn_all(&self, asked: &str, answer: &Value) -> Option<()> {
        let (mut ranges, mut nodes) = (Vec::new(), Vec::new());
        let Value::Array(entries) = answer else { return None };
        for entry in entries {
            let Value::Array(entry) = entry else { return None };
            let [Value::Int(first), Value::Int(last), all @ ..] = entry.as_slice() else { return None };
            let mut all = all.iter().filter_map(|node| place_of(node, asked));
            // A node that another does not know the address of is left out: its slots wait.
            let Some(master) = all.next() else { continue };
            nodes.push(master.clone());
            nodes.extend(all);
            let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
            ranges.push(Range { first, last, master });
        }
        if ranges.is_empty() {
            return None;
        }
        *self.known.lock() = Known { ranges, moved: BTreeMap::new(), nodes: distinct(nodes) };
        Some(())
    }
}

/// A node as `CLUSTER SLOTS` tells it. One that does not know its own address is the one that was asked.
fn place_of(node: &Value, asked: &str) -> Option<Place> {
    let Value::Array(node) = node else { return None };
    let [host, Value::Int(port), ..] = node.as_slice() else { return None };
    let host = match host {
        Value::Nil => asked.to_owned(),
        host => String::from_redis_value(host.clone()).ok()?,
    };
    let host = if host.is_empty() { asked.to_owned() } else { host };
    Some(Place { host, port: u16::try_from(*port).ok()? }).filter(|place| place.host != "?")
}

/// What a node of a cluster says instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::redis) enum Redirect {
    /// The slot is another's.
    Moved(u16, Place),
    /// The slot is on its way: ask there, this once.
    Ask(Place),
    /// The slot's keys are on their way: again in a moment.
    Later,
}

/// Reads a redirection. An address without a host is on the host of the node that told it.
pub(in crate::store::redis) fn redirect(error: &RedisError, told_by: Option<&Place>) -> Option<Redirect> {
    if error.code() == Some("TRYAGAIN") {
        return Some(Redirect::Later);
    }
    let (address, slot) = error.redirect_node()?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() { told_by?.host.as_str() } else { host };
    let place = Place { host: host.to_owned(), port: port.parse().ok()? };
    Some(if error.code() == Some("ASK") { Redirect::Ask(place) } else { Redirect::Moved(slot, place) })
}

/// The first key of a command; `None`: it has none.
fn key_of(command: &Cmd) -> Option<&[u8]> {
    let mut args = command.args_iter().map(|arg| match arg {
        Arg::Simple(text) => text,
        _ => b"",
    });
    match args.next()? {
        b"EVALSHA" => args.nth(2),
        b"TIME" | b"PING" | b"WAIT" | b"SCRIPT" => None,
        _ => args.next(),
    }
}

/// What stands between the first brace and the next closing one: only that decides the slot.
fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let start = key.iter().position(|b| *b == b'{')? + 1;
    let rest = key.get(start..)?;
    let end = rest.iter().position(|b| *b == b'}').filter(|end| *end > 0)?;
    rest.get(..end)
}

fn slot_of_key(key: &[u8]) -> u16 {
    crc16(hash_tag(key).unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM, as the Redis Cluster specification asks.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: &str, port: u16) -> Place {
        Place { host: host.to_owned(), port }
    }

    #[test]
    fn finds_the_slot_as_redis_does() {
        // What a server answers to CLUSTER KEYSLOT.
        let table = [
            ("123456789", 0x31c3),
            ("foo", 12182),
            ("tg:{foo}:account", 12182),
            ("{}foo", slot_of_key(b"{}foo")),
            ("foo{bar}{zap}", 5061),
            ("bar", 5061),
        ];
        for (key, slot) in table {
            assert_eq!(slot_of_key(key.as_bytes()), slot, "{key}");
        }
        assert_ne!(slot_of_key(b"{}foo"), slot_of_key(b""), "empty braces are no tag");
    }

    #[test]
    fn finds_the_key_of_each_kind_of_command() {
        let cluster = Cluster::new(&[]);
        let mut script = Pipeline::new();
        script.cmd("EVALSHA").arg("hash").arg(2).arg("tg:{foo}:x").arg("tg:{foo}:y").arg("bar");
        script.cmd("WAIT").arg(1).arg(30);
        assert_eq!(cluster.slot_of(&script), 12182);
        let mut time = Pipeline::new();
        time.cmd("TIME");
        assert_eq!(cluster.slot_of(&time), 12182, "without a key: where the account is");
        time.cmd("HGETALL").arg("bar");
        assert_eq!(cluster.slot_of(&time), 5061);
        let mut ping = Pipeline::new();
        ping.cmd("PING");
        assert_eq!(cluster.slot_of(&ping), 12182, "a key without an account is no home");
    }

    #[test]
    fn learns_slots_and_what_moved() {
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port)]);
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let entry = |first, last, nodes: Vec<Value>| {
            Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
        };
        let cluster = Cluster::new(&[place("seed", 1)]);
        assert_eq!(cluster.learn_all("seed", &Value::Array(vec![])), None);
        let answer = Value::Array(vec![
            entry(0, 99, vec![node(text("a"), 1), node(text("r"), 2)]),
            entry(100, 16_383, vec![node(Value::Nil, 3)]),
        ]);
        assert_eq!(cluster.learn_all("seed", &answer), Some(()));
        assert_eq!(cluster.known(99), Some(place("a", 1)));
        assert_eq!(cluster.known(100), Some(place("seed", 3)));
        let all = [place("seed", 1), place("a", 1), place("r", 2), place("seed", 3)];
        assert_eq!(cluster.places(), all);
        cluster.learn(100, place("b", 4));
        assert_eq!((cluster.known(100), cluster.known(101)), (Some(place("b", 4)), Some(place("seed", 3))));
        assert!(cluster.forget() && !cluster.forget());
        assert_eq!((cluster.known(100), cluster.places().len()), (None, 4));
    }
}
