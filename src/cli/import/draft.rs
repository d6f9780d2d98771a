//! An entry of another gateway's dump, on its way to a token.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::limits::Limits;
use super::source::Item;
use crate::policy::record::MAX_NICKNAME;
use crate::policy::{Token, TokenKind};

/// A token in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Where it stands in the file.
    pub(super) place: String,
    /// What it is called there.
    pub(super) name: String,
    /// The key it has there; `None`: the file does not say.
    pub(super) key: Option<String>,
    /// What tells it from others of the same name without a key.
    pub(super) number: usize,
    pub(super) limits: Limits,
    /// Fields that are set, by their names in the API.
    pub(super) fields: Map<String, Value>,
    /// What of it cannot be carried over.
    pub(super) warnings: Vec<String>,
}

impl Draft {
    /// Notes something that cannot be carried over.
    pub(super) fn warn(&mut self, what: impl Into<String>) {
        self.warnings.push(what.into());
    }

    /// Sets a field.
    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    /// The token, and what is to be told of it.
    pub(super) fn finish(mut self, format: &str) -> (Item, Vec<String>) {
        let digest = |parts: &[&str]| {
            let mut hash = Sha256::new();
            for part in parts {
                hash.update(part);
            }
            hex::encode::<[u8; 32]>(hash.finalize().into())
        };
        let what = self.key.clone().unwrap_or_else(|| format!("#{}", self.number));
        let import_key = format!("{format}:{}", digest(&[&self.name, "\0", &what]));
        let mut body = Map::new();
        body.insert("import_key".to_owned(), json!(import_key));
        let nickname: String = self.name.chars().filter(|c| !c.is_control()).take(MAX_NICKNAME).collect();
        body.insert("nickname".to_owned(), json!(nickname));
        body.insert("type".to_owned(), json!("publishable"));
        let defaults =
            [("status", json!("active")), ("expires_at", Value::Null), ("allowed_domains", json!([]))];
        let set = std::mem::take(&mut self.fields);
        for (name, value) in defaults.into_iter().chain(self.limits.fields()) {
            body.insert(name.to_owned(), value);
        }
        body.extend(set);
        let value = self.key.as_ref().and_then(|key| Token::parse(key.as_bytes()));
        match value.as_ref().map(Token::kind) {
            Some(TokenKind::Publishable) => drop(body.insert("token".to_owned(), json!(self.key))),
            // It would open the admin API.
            Some(TokenKind::Secret) => self.warn("its key looks like a secret token, and gets a new value"),
            None => {}
        }
        let warnings = self.warnings.iter().map(|warning| format!("{}: {warning}", self.place)).collect();
        let item = Item {
            place: self.place,
            name: nickname,
            body: Value::Object(body).to_string(),
            key_sha256: self.key.as_ref().map(|key| digest(&[key])),
            identity: Some(("import_key", import_key)),
        };
        (item, warnings)
    }
}

/// A member that is a text, or a number written as one.
pub(super) fn text(value: &Value, name: &str) -> Option<String> {
    match value.get(name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A member that is a number.
pub(super) fn number(value: &Value, name: &str) -> Option<f64> {
    value.get(name)?.as_f64()
}

/// The entries of a member that is a list.
pub(super) fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// Whether a member says something.
pub(super) fn says(value: &Value, name: &str) -> bool {
    match value.get(name) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(entries)) => !entries.is_empty(),
        Some(Value::Object(members)) => !members.is_empty(),
        Some(Value::Bool(true) | Value::Number(_)) => true,
    }
}

/// Texts of a member that is a list.
pub(super) fn texts(value: &Value, name: &str) -> Vec<String> {
    list(value, name).filter_map(Value::as_str).map(str::to_owned).collect()
}
