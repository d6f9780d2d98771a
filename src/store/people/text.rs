//! Members and sessions as both stores keep them: JSON, times as RFC 3339. A field that is missing, unknown or bad makes
//! the text unreadable, as with records ([`super::super::record`]).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Invitation, Member, MemberId, Role, Session, Visitor};
use crate::policy::TokenId;

/// A member's text. `lower` is the name as it is compared, so that a script need not know how.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMember {
    id: String,
    name: String,
    lower: String,
    role: String,
    passphrase: Option<String>,
    invitation: Option<RawInvitation>,
    sessions_since: String,
    created_at: String,
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInvitation {
    digest: String,
    until: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSession {
    visitor: RawVisitor,
    started_at: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum RawVisitor {
    Member(String),
    Token(String),
}

/// What has to be known of a member to write beside or over it.
#[derive(Debug, Deserialize)]
pub(in crate::store) struct Head {
    /// The stored version.
    pub(in crate::store) version: u64,
    /// The name, as it is compared.
    pub(in crate::store) lower: String,
}

impl Head {
    /// Reads it from a member's text; `None`: it cannot be read.
    pub(in crate::store) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// A name as it is compared: in lower case.
pub(in crate::store) fn lower(name: &str) -> String {
    name.to_lowercase()
}

impl Member {
    /// The member as it is kept, under this version.
    pub(in crate::store) fn to_text(&self, version: u64) -> String {
        let invitation = self.invitation.map(|Invitation { digest, until }| RawInvitation {
            digest: hex::encode(digest),
            until: until.to_string(),
        });
        let raw = RawMember {
            id: self.id.to_string(),
            name: self.name.clone(),
            lower: lower(&self.name),
            role: self.role.as_str().to_owned(),
            passphrase: self.passphrase.clone(),
            invitation,
            sessions_since: self.sessions_since.to_string(),
            created_at: self.created_at.to_string(),
            version,
        };
        serde_json::json!(raw).to_string()
    }

    /// Reads what is kept under an id. The error says what is wrong with it, and nothing of what it holds.
    pub(in crate::store) fn parse(id: &str, text: &[u8]) -> Result<Self, &'static str> {
        let raw: RawMember = serde_json::from_slice(text).map_err(|_| "it is not of its form")?;
        if raw.id != id {
            return Err("it is that of another member");
        }
        let invitation = raw.invitation.map(|raw| {
            let mut digest = [0; 32];
            hex::decode_to_slice(raw.digest, &mut digest)
                .map_err(|_| "the field `invitation` has no digest")?;
            let until = time(&raw.until).ok_or("the field `invitation` has no end")?;
            Ok::<_, &'static str>(Invitation { digest, until })
        });
        Ok(Self {
            id: MemberId::parse(&raw.id).ok_or("the field `id` is none")?,
            name: raw.name,
            role: Role::parse(&raw.role).ok_or("the field `role` is none")?,
            passphrase: raw.passphrase,
            invitation: invitation.transpose()?,
            sessions_since: time(&raw.sessions_since).ok_or("the field `sessions_since` is no time")?,
            created_at: time(&raw.created_at).ok_or("the field `created_at` is no time")?,
            version: raw.version,
        })
    }
}

impl Session {
    /// The session as it is kept.
    pub(in crate::store) fn to_text(&self) -> String {
        let visitor = match &self.visitor {
            Visitor::Member(id) => RawVisitor::Member(id.to_string()),
            Visitor::Token(id) => RawVisitor::Token(id.to_string()),
        };
        serde_json::json!(RawSession { visitor, started_at: self.started_at.to_string() }).to_string()
    }

    /// Reads what is kept; `None`: it is none.
    pub(in crate::store) fn parse(text: &str) -> Option<Self> {
        let raw: RawSession = serde_json::from_str(text).ok()?;
        let visitor = match raw.visitor {
            RawVisitor::Member(id) => Visitor::Member(MemberId::parse(&id)?),
            RawVisitor::Token(id) => Visitor::Token(TokenId::parse(&id)?),
        };
        Some(Self { visitor, started_at: time(&raw.started_at)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        let until = "2026-12-01T06:00:00.123456789Z".parse().unwrap();
        Member {
            id: MemberId::from_ulid(ulid::Ulid(7)),
            name: "Ada \"Ä\" L\u{1F600}".to_owned(),
            role: Role::Viewer,
            passphrase: Some("$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA".to_owned()),
            invitation: Some(Invitation { digest: [0xab; 32], until }),
            sessions_since: "2026-11-24T06:00:00.000001Z".parse().unwrap(),
            created_at: "2026-11-24T06:00:00Z".parse().unwrap(),
            version: 3,
        }
    }

    #[test]
    fn members_read_back() {
        let member = member();
        let text = member.to_text(4);
        let read = Member::parse(member.id.as_str(), text.as_bytes()).unwrap();
        assert_eq!(read, Member { version: 4, ..member });
        let head = Head::parse(&text).unwrap();
        assert_eq!((head.version, head.lower.as_str()), (4, "ada \"ä\" l\u{1F600}"));
    }

    #[test]
    fn what_is_no_member_is_unreadable() {
        let (id, good) = (member().id, member().to_text(1));
        let changed = [
            ("\"viewer\"", "\"owner\""),
            ("abab", "xyxy"),
            ("abab", "ab"),
            ("2026-11-24T06:00:00Z", "yesterday"),
            ("\"version\":1", "\"version\":-1"),
            ("\"lower\"", "\"upper\""),
            ("{\"id\"", "{\"mfa\":true,\"id\""),
            ("mem_0", "mem_1"),
        ];
        for (from, to) in changed {
            assert!(good.contains(from), "{from}");
            assert!(
                Member::parse(id.as_str(), good.replacen(from, to, 1).as_bytes()).is_err(),
                "{from} → {to}"
            );
        }
        for text in [&b""[..], b"{}", b"\xff", b"null"] {
            assert!(Member::parse(id.as_str(), text).is_err());
        }
        assert!(Member::parse("mem_x", good.replace(id.as_str(), "mem_x").as_bytes()).is_err(), "no id");
    }

    #[test]
    fn sessions_read_back() {
        let started_at = "2026-11-24T06:00:00.123456Z".parse().unwrap();
        let visitors = [
            Visitor::Member(MemberId::from_ulid(ulid::Ulid(7))),
            Visitor::Token(TokenId::from_ulid(ulid::Ulid(8))),
        ];
        for visitor in visitors {
            let session = Session { visitor, started_at };
            let text = session.to_text();
            assert_eq!(Session::parse(&text), Some(session));
            for bad in [text.replace("_0", "_"), text.replace("2026", "year"), text.replace("visitor", "who")]
            {
                assert_eq!(Session::parse(&bad), None, "{bad}");
            }
        }
        assert_eq!(Session::parse(""), None);
    }
}
