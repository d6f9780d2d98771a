//! The trail: who changed what, from what to what, when. It is only ever added to.
//!
//! Owns what an entry says, not how it is kept. An entry about a write is added in the same step as the write, so that
//! neither is there without the other; one about an act that writes nothing else ([`super::Store::note`]) stands alone.
//! No entry holds the value of a token, a signing secret or a passphrase (law 7). Entries are kept for ever: no step of
//! either store changes one or takes one away.

use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::people::MemberId;
use crate::policy::record::{Account, PayAsYouGo};
use crate::policy::token::mask_tokens;
use crate::policy::{Limit, Pool, TokenId};

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

impl Actor {
    /// The actor as records and the API have it: `type`, `id`, `name`.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Token(id) => json!({"type": "token", "id": id.as_str()}),
            Self::Member { id, name } => json!({"type": "member", "id": id.as_str(), "name": name}),
            Self::Tollgate => json!({"type": "tollgate"}),
        }
    }

    fn parse(value: &Value) -> Option<Self> {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        match text("type")? {
            "token" => Some(Self::Token(TokenId::parse(text("id")?)?)),
            "member" => {
                Some(Self::Member { id: MemberId::parse(text("id")?)?, name: text("name")?.to_owned() })
            }
            "tollgate" => Some(Self::Tollgate),
            _ => None,
        }
    }

    /// The id of a token or a member; `tollgate` for Tollgate itself.
    pub fn id(&self) -> &str {
        match self {
            Self::Token(id) => id.as_str(),
            Self::Member { id, .. } => id.as_str(),
            Self::Tollgate => "tollgate",
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

impl Note {
    /// The note as it is kept. Whatever has the shape of a token or a signing secret is masked, so that no caller has to
    /// think of it.
    pub(super) fn to_text(&self) -> String {
        let changes = self.changes.iter().map(|Change { field, from, to }| json!([field, from, to]));
        let note = json!({
            "actor": self.actor.to_json(),
            "client": self.client.map(|client| client.to_string()),
            "action": self.action,
            "target": self.target,
            "changes": changes.collect::<Vec<_>>(),
        });
        let mut text = note.to_string().into_bytes();
        mask_tokens(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// What an edit changes of an account, as the API shows it. Whether it pays as it goes is no field of the API (dialect iex
/// switches it), and told all the same.
pub fn account_changes(before: &Account, after: &Account) -> Vec<Change> {
    let limit = |limit: Option<Limit>| match limit {
        Some(Limit { credits, period }) => json!({"credits": credits.0, "period": period.as_str()}),
        None => Value::Null,
    };
    let of_pool = |pool: Pool| Change {
        field: format!("/budget/{}", pool.as_str()),
        from: limit(*before.budget.get(pool)),
        to: limit(*after.budget.get(pool)),
    };
    let pays = |account: &Account| Value::from(account.pay_as_you_go != PayAsYouGo::Off);
    let pays = Change { field: "/pay_as_you_go".to_owned(), from: pays(before), to: pays(after) };
    Pool::ALL.map(of_pool).into_iter().chain([pays]).filter(|change| change.from != change.to).collect()
}

/// An entry's place in its account's trail: later entries have greater ones. It is made of the store's clock in
/// milliseconds, and of a number for those that share one; where the clock goes back, the ids do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId {
    pub(super) millis: u64,
    pub(super) number: u64,
}

impl EntryId {
    /// Reads an id: `MILLIS-NUMBER`.
    pub fn parse(text: &str) -> Option<Self> {
        let (millis, number) = text.split_once('-')?;
        let id = Self { millis: millis.parse().ok()?, number: number.parse().ok()? };
        // One id has one text.
        (id.to_string() == text).then_some(id)
    }

    /// The greatest id that may be before this one; `None`: this is the least.
    pub(super) fn before(self) -> Option<Self> {
        match self.number.checked_sub(1) {
            Some(number) => Some(Self { number, ..self }),
            None => Some(Self { millis: self.millis.checked_sub(1)?, number: u64::MAX }),
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.number)
    }
}

/// What the trail holds of one act.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its place.
    pub id: EntryId,
    /// When it was done, by the store's clock.
    pub at: Timestamp,
    /// Who did it.
    pub actor: Actor,
    /// From where it was asked.
    pub client: Option<IpAddr>,
    /// What was done.
    pub action: String,
    /// To what.
    pub target: String,
    /// What that changed.
    pub changes: Vec<Change>,
}

/// One entry of the trail, as it is listed. One that cannot be read does not hide the others.
#[derive(Debug, Clone, PartialEq)]
pub enum Traced {
    /// An entry.
    Entry(Box<Entry>),
    /// One that cannot be read: a newer Tollgate wrote it, or it is damaged.
    Unreadable {
        /// Its place.
        id: EntryId,
    },
}

impl Traced {
    /// Reads what is kept.
    pub(super) fn parse(id: EntryId, micros: i64, text: &str) -> Self {
        parse(id, micros, text).map_or(Self::Unreadable { id }, |entry| Self::Entry(Box::new(entry)))
    }

    /// Its place.
    pub fn id(&self) -> EntryId {
        match self {
            Self::Entry(entry) => entry.id,
            Self::Unreadable { id } => *id,
        }
    }
}

fn parse(id: EntryId, micros: i64, text: &str) -> Option<Entry> {
    let value: Value = serde_json::from_str(text).ok()?;
    let owned = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let client = match value.get("client")? {
        Value::Null => None,
        client => Some(client.as_str()?.parse().ok()?),
    };
    let change = |value: &Value| match value.as_array()?.as_slice() {
        [field, from, to] => {
            Some(Change { field: field.as_str()?.to_owned(), from: from.clone(), to: to.clone() })
        }
        _ => None,
    };
    Some(Entry {
        id,
        at: Timestamp::from_microsecond(micros).ok()?,
        actor: Actor::parse(value.get("actor")?)?,
        client,
        action: owned("action")?,
        target: owned("target")?,
        changes: value.get("changes")?.as_array()?.iter().map(change).collect::<Option<_>>()?,
    })
}

/// Which entries of a trail are asked for: newest first.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Those before this one; `None`: from the newest on.
    pub before: Option<EntryId>,
    /// So many at most.
    pub limit: usize,
    /// Those about this; `None`: all.
    pub target: Option<String>,
}

/// A note, for tests that need just some.
#[cfg(test)]
pub(crate) fn a_note() -> Note {
    Note {
        actor: Actor::Tollgate,
        client: None,
        action: "test.write",
        target: "a test".to_owned(),
        changes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_read_back_as_entries() {
        let id = EntryId { millis: 1_705_321_845_123, number: 7 };
        let member = MemberId::from_ulid(ulid::Ulid(5));
        let actors = [
            Actor::Token(TokenId::from_ulid(ulid::Ulid(7))),
            Actor::Member { id: member, name: "Ada \"L\"".to_owned() },
            Actor::Tollgate,
        ];
        let clients = [None, Some("127.0.0.1".parse().unwrap()), Some("2001:db8::1".parse().unwrap())];
        for (actor, client) in actors.into_iter().zip(clients) {
            let changes = vec![
                Change { field: "/nickname".to_owned(), from: Value::Null, to: json!("é") },
                Change {
                    field: "/credit_limit/core".to_owned(),
                    from: json!({"credits": 1}),
                    to: json!(null),
                },
            ];
            let note = Note { actor, client, action: "token.edit", target: "tok_x".to_owned(), changes };
            let Traced::Entry(entry) = Traced::parse(id, 1_705_321_845_123_456, &note.to_text()) else {
                panic!("unreadable: {}", note.to_text());
            };
            let Note { actor, client, action, target, changes } = note;
            let at = "2024-01-15T12:30:45.123456Z".parse().unwrap();
            assert_eq!(*entry, Entry { id, at, actor, client, action: action.to_owned(), target, changes });
        }
    }

    #[test]
    fn what_is_no_note_is_unreadable() {
        let id = EntryId { millis: 1, number: 0 };
        let good = a_note().to_text();
        assert!(matches!(Traced::parse(id, 1, &good), Traced::Entry(_)));
        let other_actor = good.replace("tollgate", "robot");
        assert_ne!(other_actor, good);
        for text in
            ["", "{}", "[]", &other_actor, &good.replace("[]", "[[1]]"), &good.replace("null", "\"x\"")]
        {
            assert_eq!(Traced::parse(id, 1, text), Traced::Unreadable { id }, "{text}");
        }
    }

    #[test]
    fn ids_have_one_text_and_an_order() {
        let ids = ["0-1", "5-0", "5-1", "5-10", "6-0", "18446744073709551615-18446744073709551615"];
        let read: Vec<_> = ids.iter().map(|text| EntryId::parse(text).unwrap()).collect();
        assert!(read.is_sorted());
        for (id, text) in read.iter().zip(ids) {
            assert_eq!(id.to_string(), text);
        }
        for text in ["", "-", "5", "5-", "-5", "05-1", "5-+1", "5-1-1", "18446744073709551616-0", "a-b"] {
            assert_eq!(EntryId::parse(text), None, "{text}");
        }
        let before = |text: &str| EntryId::parse(text).unwrap().before().map(|id| id.to_string());
        assert_eq!(before("5-1").as_deref(), Some("5-0"));
        assert_eq!(before("5-0").as_deref(), Some("4-18446744073709551615"));
        assert_eq!(before("0-0"), None);
    }
}
