//! What the door writes down in the trail.
//!
//! Owns which words stand there of what was typed: of a name that nobody has, only its beginning, since people do type
//! their passphrase into the wrong field.

use serde_json::Value;

use super::{Asker, Door, Refused};
use crate::store::people::Member;
use crate::store::trail::{Actor, Change, Note};

/// How much of an unknown name is written down, in characters.
const BEGINNING: usize = 3;

/// With what somebody wants to get in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Means {
    Passphrase,
    Token,
    Invitation,
}

impl Means {
    fn as_str(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::Token => "token",
            Self::Invitation => "invitation",
        }
    }
}

pub(super) fn is_new(field: &str, to: impl Into<Value>) -> Change {
    Change { field: field.to_owned(), from: Value::Null, to: to.into() }
}

/// How somebody got in, or wanted to.
pub(super) fn by(means: Means) -> Change {
    is_new("/by", means.as_str())
}

/// A member, as the one who did something.
pub(super) fn actor(member: &Member) -> Actor {
    Actor::Member { id: member.id.clone(), name: member.name.clone() }
}

/// What is said of a name that nobody has.
pub(super) fn unknown(name: &str) -> String {
    let mut beginning: String = name.chars().take(BEGINNING).flat_map(char::escape_debug).collect();
    beginning.push('…');
    beginning
}

impl Asker<'_> {
    /// What is to be written down of something that `actor` does.
    pub(super) fn note(
        &self,
        actor: Actor,
        action: &'static str,
        target: &str,
        changes: Vec<Change>,
    ) -> Note {
        Note { actor, client: self.address, action, target: target.to_owned(), changes }
    }
}

impl Door {
    /// Writes down that somebody was not let in. Who they are nobody knows.
    pub(super) async fn mark_refused(
        &self,
        asker: &Asker<'_>,
        target: &str,
        means: Means,
        why: &'static str,
    ) -> Result<(), Refused> {
        let changes = vec![by(means), is_new("/why", why)];
        let note = asker.note(Actor::Tollgate, "session.refused", target, changes);
        Ok(self.store.note(&self.account, &note).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_unknown_name_only_the_beginning_is_told() {
        for (name, told) in [
            ("correct horse battery", "cor…"),
            ("", "…"),
            ("a", "a…"),
            ("é\n\u{1b}x", "é\\n\\u{1b}…"),
            ("sk_00112233445566778899aabbccddeeff", "sk_…"),
        ] {
            assert_eq!(unknown(name), told);
        }
    }
}
