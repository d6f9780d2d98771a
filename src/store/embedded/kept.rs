//! A lease as the file keeps it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::{LeaseKey, NodeId};
use crate::ledger::lease::{Lease, LeaseState};
use crate::policy::{AccountId, Credits, Pool, TokenId};

/// A lease, and what is kept beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptLease {
    pub(super) account: AccountId,
    pub(super) token: TokenId,
    pub(super) pool: Pool,
    /// Who holds it; `None`: it was settled without having been granted.
    pub(super) node: Option<NodeId>,
    pub(super) lease: Lease,
    /// From when on it is as if it had never been. Says nothing of an open lease.
    pub(super) kept_until: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    account: String,
    token: String,
    pool: String,
    node: Option<String>,
    granted: u64,
    /// Microseconds since the epoch, as all times here.
    taken_at: i64,
    expires_at: i64,
    state: String,
    kept_until: i64,
}

const STATES: [(LeaseState, &str); 3] =
    [(LeaseState::Open, "open"), (LeaseState::Stranded, "stranded"), (LeaseState::Closed, "closed")];

fn state_text(state: LeaseState) -> String {
    STATES.iter().find(|(of, _)| *of == state).map_or_else(String::new, |(_, text)| (*text).to_owned())
}

impl KeptLease {
    /// Whether it is the lease of this key: an id is good for what it was given for only.
    pub(super) fn is_of(&self, key: &LeaseKey) -> bool {
        self.account == key.account && self.token == key.token && self.pool == key.pool
    }

    /// Whether it is as if it had never been.
    pub(super) fn is_forgotten(&self, now: Timestamp) -> bool {
        self.lease.state != LeaseState::Open && self.kept_until <= now
    }

    /// As text.
    pub(super) fn to_text(&self) -> String {
        let raw = Raw {
            account: self.account.to_string(),
            token: self.token.to_string(),
            pool: self.pool.as_str().to_owned(),
            node: self.node.map(|node| node.0.to_string()),
            granted: self.lease.granted.0,
            taken_at: self.lease.taken_at.as_microsecond(),
            expires_at: self.lease.expires_at.as_microsecond(),
            state: state_text(self.lease.state),
            kept_until: self.kept_until.as_microsecond(),
        };
        serde_json::json!(raw).to_string()
    }

    /// Takes back what [`KeptLease::to_text`] made; `None`: it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let raw: Raw = serde_json::from_str(text).ok()?;
        let time = |micros| Timestamp::from_microsecond(micros).ok();
        let node = match raw.node {
            Some(text) => Some(NodeId(ulid::Ulid::from_string(&text).ok()?)),
            None => None,
        };
        let lease = Lease {
            granted: Credits(raw.granted),
            taken_at: time(raw.taken_at)?,
            expires_at: time(raw.expires_at)?,
            state: STATES.iter().find(|(_, text)| *text == raw.state)?.0,
        };
        Some(Self {
            account: AccountId::parse(&raw.account)?,
            token: TokenId::parse(&raw.token)?,
            pool: Pool::ALL.into_iter().find(|pool| pool.as_str() == raw.pool)?,
            node,
            lease,
            kept_until: time(raw.kept_until)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_wrote() {
        for (state, node) in [
            (LeaseState::Open, Some(NodeId(ulid::Ulid(3)))),
            (LeaseState::Stranded, None),
            (LeaseState::Closed, None),
        ] {
            let time = |second| Timestamp::from_second(second).unwrap();
            let lease = Lease { granted: Credits(4), taken_at: time(5), expires_at: time(6), state };
            let kept = KeptLease {
                account: AccountId::default_account(),
                token: TokenId::from_ulid(ulid::Ulid(1)),
                pool: Pool::Premium,
                node,
                lease,
                kept_until: time(7),
            };
            assert_eq!(KeptLease::parse(&kept.to_text()), Some(kept.clone()));
            assert_eq!(KeptLease::parse(&kept.to_text().replace("\"premium\"", "\"gold\"")), None);
        }
    }
}
