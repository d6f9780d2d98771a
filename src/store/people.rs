//! People: the members of an account, and who is signed in to its console.
//!
//! Owns what is known of a member and of a session, not how it is kept, and no rule about passphrases beyond that only
//! their hashes are kept ([`crate::admin`] checks them).

use std::fmt;

use jiff::Timestamp;

use crate::policy::TokenId;

pub(super) mod text;

/// A member's name in the API and in the trail: `mem_` and 26 characters of a ULID, so ids sort by age.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(String);

impl MemberId {
    /// Reads an id: `mem_` and 26 uppercase Crockford base-32 characters.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("mem_")?;
        let upper = rest.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
        (rest.len() == 26 && upper && ulid::Ulid::from_string(rest).is_ok()).then(|| Self(text.to_owned()))
    }

    /// The id that a ULID stands for.
    pub fn from_ulid(ulid: ulid::Ulid) -> Self {
        Self(format!("mem_{ulid}"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything.
    Admin,
    /// Sees everything but secrets, changes nothing.
    Viewer,
}

impl Role {
    /// The role's name in records and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Viewer => "viewer",
        }
    }

    /// Reads the role's name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Admin, Self::Viewer].into_iter().find(|role| role.as_str() == text)
    }
}

/// An invitation that was not taken up yet. Only a digest of its secret is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invitation {
    /// SHA-256 of the secret in the link.
    pub digest: [u8; 32],
    /// When it ends.
    pub until: Timestamp,
}

/// A member of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The public id.
    pub id: MemberId,
    /// What the member signs in with: a name or an address, unique in the account, compared without regard to case.
    pub name: String,
    /// What the member may do.
    pub role: Role,
    /// The passphrase's argon2id hash in PHC form; `None`: none was set yet.
    pub passphrase: Option<String>,
    /// The open invitation.
    pub invitation: Option<Invitation>,
    /// Sessions that began before are over.
    pub sessions_since: Timestamp,
    /// When the member was invited.
    pub created_at: Timestamp,
    /// Goes up by one with each write.
    pub version: u64,
}

/// Who is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visitor {
    /// A member.
    Member(MemberId),
    /// Whoever holds this secret token.
    Token(TokenId),
}

/// How a write of a member went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberWritten {
    /// It is stored (or gone), under this version.
    Done {
        /// The version after the write.
        version: u64,
    },
    /// Somebody else wrote first; nothing was changed.
    Conflict {
        /// The version that is stored.
        version: u64,
    },
    /// There is no such member.
    Missing,
    /// Another member has that name.
    NameTaken,
}

/// SHA-256 of a session's cookie.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionDigest(pub [u8; 32]);

impl fmt::Debug for SessionDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionDigest(…)")
    }
}

/// A session in the console. It is found by a digest of its cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Whose.
    pub visitor: Visitor,
    /// When it began.
    pub started_at: Timestamp,
}
