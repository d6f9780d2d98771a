//! The trail: who changed what, from what to what, when. It is only ever added to.
//!
//! Owns what an entry says, not how it is kept. An entry about a write is added in the same step as the write, so that
//! neither is there without the other. No entry holds the value of a token, a signing secret or a passphrase (law 7).

use std::fmt;
use std::net::IpAddr;

use serde_json::Value;

use super::people::MemberId;
use crate::policy::TokenId;

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// Whoever holds this secret token.
    Token(TokenId),
    /// A member.
    Member {
        /// Who.
        id: MemberId,
        /// The name at that time.
        name: String,
    },
    /// Tollgate itself: the first start.
    Tollgate,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(id) => id.fmt(f),
            Self::Member { name, .. } => f.write_str(name),
            Self::Tollgate => f.write_str("tollgate"),
        }
    }
}

/// What was changed of one field.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The field, as a JSON pointer into the resource (`/nickname`).
    pub field: String,
    /// What it was; null: nothing.
    pub from: Value,
    /// What it is since; null: nothing.
    pub to: Value,
}

/// What is to be written down of one act. The store adds the time.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// Who did it.
    pub actor: Actor,
    /// From where it was asked.
    pub client: Option<IpAddr>,
    /// What was done: `token.create`, `token.edit`, `token.reveal`, `account.edit`, `member.invite`, …
    pub action: &'static str,
    /// To what: a token's id, a member's id, an account's name.
    pub target: String,
    /// What that changed.
    pub changes: Vec<Change>,
}
