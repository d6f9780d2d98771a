//! A line of an import: which token it is about, and what it says of it.

use jiff::Timestamp;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::admin::body::MAX_BODY;
use crate::admin::fields::{Field, Object, Problems};
use crate::admin::problem::{FieldError, quote};
use crate::admin::tokens::fields::SETTABLE;
use crate::policy::{AccountId, Status, Token, TokenId, TokenKind};

/// The longest key from elsewhere, in characters.
const MAX_KEY: usize = 200;

/// What a line may say besides what can be set.
const OWN: [&str; 4] = ["id", "token", "import_key", "created_at"];

/// What a list shows and only the store can know. It is not read.
const NOT_READ: [&str; 6] =
    ["version", "usage", "last_used_at", "last_refused_at", "receipt", "seen_in_browser_at"];

/// A line that can be read.
#[derive(Debug)]
pub(super) struct Line {
    /// The token's id: as the line says, or from its key.
    pub(super) id: Option<TokenId>,
    /// Whether the line itself names the id.
    pub(super) names_id: bool,
    /// Its value.
    pub(super) value: Option<Token>,
    /// Its type; `None`: the line does not say.
    pub(super) kind: Option<TokenKind>,
    /// When it was made.
    pub(super) created_at: Option<Timestamp>,
    /// When it was seen in a browser: what is known of a value comes along with it.
    pub(super) seen_in_browser_at: Option<Timestamp>,
    /// It is revoked.
    pub(super) revoked: bool,
    /// Its end.
    pub(super) expires_at: Option<Timestamp>,
    /// What is set: a merge patch.
    pub(super) fields: Value,
}

impl Line {
    /// Reads a line; what is wrong with what is set, the merge says later.
    pub(super) fn read(text: &str, account: &AccountId) -> Result<Self, Vec<FieldError>> {
        let mistake = |detail: String| vec![FieldError::at("", detail)];
        if text.len() > MAX_BODY {
            return Err(mistake(format!("is longer than {MAX_BODY} bytes")));
        }
        let value: Value = serde_json::from_str(text).map_err(|error| {
            let why = error.to_string();
            let why = quote(why.split(" at line ").next().unwrap_or_default());
            mistake(format!("is not JSON: {why} (column {})", error.column()))
        })?;
        let mut problems = Problems::default();
        let known: Vec<&str> = SETTABLE.into_iter().chain(OWN).chain(NOT_READ).collect();
        let line = Field::root(&value).object(&known, &mut problems).and_then(|object| {
            let line = read(&object, &value, account, &mut problems);
            (problems.count() == 0).then_some(line)
        });
        line.ok_or_else(|| problems.into_errors())
    }
}

fn read(object: &Object<'_>, value: &Value, account: &AccountId, problems: &mut Problems) -> Line {
    let given = |name: &str| object.field(name).and_then(Field::unless_null);
    let id = given("id").and_then(|field| field.choice("a token's id (tok_…)", TokenId::parse, problems));
    let names_id = object.field("id").and_then(Field::unless_null).is_some();
    let token = given("token").and_then(|field| read_value(&field, problems));
    let key = given("import_key").and_then(|field| read_key(&field, problems));
    if !names_id && given("token").is_none() && given("import_key").is_none() {
        let detail = "has none of `id`, `token` and `import_key`; one of them must be there, so that a repeated import knows \
                      the token again";
        problems.add("", detail);
    }
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let kind = text("type").and_then(TokenKind::parse);
    if let (Some(token), Some(kind)) = (&token, kind)
        && token.kind() != kind
    {
        problems.add(object.pointer_to("token"), format!("is no {} token", kind.as_str()));
    }
    let expected = "a time with its offset, like 2026-11-24T06:00:00Z";
    let time = |text: &str| text.parse::<Timestamp>().ok();
    let created_at = given("created_at").and_then(|field| field.choice(expected, time, problems));
    Line {
        id: id.or_else(|| key.map(|key| id_of_key(account, &key))),
        names_id,
        kind: kind.or_else(|| token.as_ref().map(Token::kind)),
        value: token,
        created_at,
        seen_in_browser_at: text("seen_in_browser_at").and_then(time),
        revoked: text("status").and_then(Status::parse) == Some(Status::Revoked),
        expires_at: text("expires_at").and_then(time),
        fields: settable(value),
    }
}

fn read_value(field: &Field<'_>, problems: &mut Problems) -> Option<Token> {
    let text = field.text("a token", problems)?;
    let token = Token::parse(text.as_bytes());
    if token.is_none() {
        let detail = "is not a token of Tollgate (pk_ or sk_ and 32 lowercase hex digits); leave it out, and a new value is \
                      made";
        problems.add(field.pointer(), detail);
    }
    token
}

fn read_key(field: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let text = field.text("a text", problems)?;
    if text.is_empty() || text.chars().count() > MAX_KEY {
        problems.add(field.pointer(), format!("must have 1 to {MAX_KEY} characters"));
        return None;
    }
    Some(text.to_owned())
}

/// The members that can be set.
fn settable(value: &Value) -> Value {
    let members = value.as_object().into_iter().flatten();
    let set = members.filter(|(name, _)| SETTABLE.contains(&name.as_str()));
    Value::Object(set.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
}

/// The id that a key from elsewhere leads to. It has no time, so in lists such tokens come before all others.
fn id_of_key(account: &AccountId, key: &str) -> TokenId {
    let digest = Sha256::new()
        .chain_update(b"tollgate import key v1\0")
        .chain_update(account.as_str())
        .chain_update(b"\0")
        .chain_update(key);
    let digest: [u8; 32] = digest.finalize().into();
    let bits = digest.first_chunk::<16>().map_or(0, |bytes| u128::from_be_bytes(*bytes));
    TokenId::from_ulid(ulid::Ulid::from_parts(0, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Line, Vec<FieldError>> {
        Line::read(text, &AccountId::default_account())
    }

    #[test]
    fn a_key_always_leads_to_the_same_id_of_its_account() {
        let id = |text: &str| line(text).unwrap().id.unwrap();
        let alice = id(r#"{"import_key": "kong/alice"}"#);
        assert_eq!(alice, id(r#"{"import_key": "kong/alice", "nickname": "other"}"#));
        assert_ne!(alice, id(r#"{"import_key": "kong/alicf"}"#));
        assert_ne!(alice, id_of_key(&AccountId::parse("acme").unwrap(), "kong/alice"));
        assert!(alice.as_str().starts_with("tok_0000000000"), "{alice}");
    }

    #[test]
    fn each_mistake_has_its_place() {
        let token = format!("sk_{}", "0".repeat(32));
        for (text, pointer) in [
            ("{", ""),
            ("[]", ""),
            ("{}", ""),
            (r#"{"id": null, "token": null}"#, ""),
            (r#"{"id": "tok_x"}"#, "/id"),
            (r#"{"token": "hunter2"}"#, "/token"),
            (r#"{"import_key": ""}"#, "/import_key"),
            (r#"{"import_key": "a", "created_at": "yesterday"}"#, "/created_at"),
            (r#"{"import_key": "a", "nicknam": "b"}"#, "/nicknam"),
            (&format!(r#"{{"type": "publishable", "token": "{token}"}}"#), "/token"),
        ] {
            let errors = line(text).map(drop).unwrap_err();
            assert_eq!(errors.first().unwrap().pointer.as_deref(), Some(pointer), "{text}: {errors:?}");
        }
        let read = line(&format!(r#"{{"token": "{token}", "version": 7, "usage": {{}}}}"#)).unwrap();
        assert_eq!((read.kind, read.fields), (Some(TokenKind::Secret), serde_json::json!({})));
    }
}
