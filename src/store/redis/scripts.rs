//! The scripts: each one step that happens whole or not at all. Keys, arguments and answers stand at their tops.

use redis::Cmd;

/// One script, and the hash the server knows it by.
#[derive(Debug)]
pub(super) struct Script {
    source: &'static str,
    hash: String,
}

impl Script {
    fn new(source: &'static str) -> Self {
        Self { source, hash: redis::Script::new(source).get_hash().to_owned() }
    }

    /// The command that runs it, if the server knows it.
    pub(super) fn call<S: AsRef<str>>(&self, keys: &[String], args: impl IntoIterator<Item = S>) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.hash).arg(keys.len()).arg(keys);
        for arg in args {
            call.arg(arg.as_ref());
        }
        call
    }

    /// The command that makes the server know it.
    pub(super) fn load(&self) -> Cmd {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(self.source);
        load
    }
}

/// All scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) take: Script,
    pub(super) shrink: Script,
    pub(super) settle: Script,
    pub(super) renew: Script,
    pub(super) expire: Script,
    pub(super) refusals: Script,
    pub(super) nodes: Script,
    pub(super) remember: Script,
    pub(super) create: Script,
    pub(super) put: Script,
    pub(super) note: Script,
    pub(super) members: Script,
    pub(super) session: Script,
    pub(super) traced: Script,
    pub(super) mark: Script,
    pub(super) unclaim: Script,
}

/// A script behind the ledger's arithmetic.
macro_rules! with_ledger {
    ($name:literal) => {
        Script::new(concat!(include_str!("ledger.lua"), include_str!($name)))
    };
}

/// A script behind that and what all scripts about leases share.
macro_rules! with_leases {
    ($name:literal) => {
        Script::new(concat!(include_str!("ledger.lua"), include_str!("leases.lua"), include_str!($name)))
    };
}

/// A script behind that and what adds to the trail.
macro_rules! with_trail {
    ($name:literal) => {
        Script::new(concat!(include_str!("ledger.lua"), include_str!("trail.lua"), include_str!($name)))
    };
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            take: with_leases!("take.lua"),
            shrink: with_leases!("shrink.lua"),
            settle: with_leases!("settle.lua"),
            renew: with_leases!("renew.lua"),
            expire: with_leases!("expire.lua"),
            refusals: with_ledger!("refusals.lua"),
            nodes: with_ledger!("nodes.lua"),
            remember: with_ledger!("remember.lua"),
            create: with_trail!("create.lua"),
            put: with_trail!("put.lua"),
            note: with_trail!("note.lua"),
            members: with_trail!("members.lua"),
            session: with_ledger!("session.lua"),
            traced: Script::new(concat!(include_str!("trail.lua"), include_str!("traced.lua"))),
            mark: Script::new(include_str!("mark.lua")),
            unclaim: Script::new(include_str!("unclaim.lua")),
        }
    }
}
