//! What nodes and the store say to each other.

use ulid::Ulid;

use crate::ledger::purse::Micros;

/// A call to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Call {
    Reserve {
        lease: Ulid,
        token: u8,
        want: u64,
        need: u64,
        asked_at: Micros,
        /// Nobody waits for it.
        ahead: bool,
        /// If it is refused, so are those who wait.
        last: bool,
    },
    Shrink {
        lease: Ulid,
        token: u8,
        keep: u64,
    },
    Settle {
        lease: Ulid,
        token: u8,
        spent: u64,
    },
    Renew {
        lease: Ulid,
        token: u8,
        asked_at: Micros,
    },
}

impl Call {
    pub(super) fn lease(&self) -> Ulid {
        match *self {
            Self::Reserve { lease, .. }
            | Self::Shrink { lease, .. }
            | Self::Settle { lease, .. }
            | Self::Renew { lease, .. } => lease,
        }
    }

    pub(super) fn token(&self) -> u8 {
        match *self {
            Self::Reserve { token, .. }
            | Self::Shrink { token, .. }
            | Self::Settle { token, .. }
            | Self::Renew { token, .. } => token,
        }
    }
}

/// The store's answer to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reply {
    Granted { granted: u64, valid_for: Micros },
    Refused { recallable: bool, budget: bool },
    Void,
    Done,
    Renewed { open: bool },
}

/// Something under way. `life` counts a node's starts: what is said to an earlier life is not heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Message {
    Call {
        node: u8,
        life: u16,
        call: Call,
    },
    Reply {
        node: u8,
        life: u16,
        call: Call,
        reply: Reply,
    },
    /// Give back what is idle; of one token or of all.
    Recall {
        node: u8,
        token: Option<u8>,
    },
}

impl Message {
    pub(super) fn node(&self) -> u8 {
        match *self {
            Self::Call { node, .. } | Self::Reply { node, .. } | Self::Recall { node, .. } => node,
        }
    }
}
