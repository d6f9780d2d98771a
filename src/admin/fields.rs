//! Reads the fields of a JSON body, and collects everything that is wrong with them.
//!
//! serde stops at the first mistake; a client that fills in a form wants all of them at once, each with its JSON
//! pointer. So bodies are read as plain values, and walked with the two types here.

use serde_json::{Map, Value};

use super::problem::{FieldError, quote};

/// What is wrong so far.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<FieldError>);

impl Problems {
    /// Notes something wrong at a place.
    pub(super) fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.0.push(FieldError::at(pointer, detail));
    }

    /// How many so far.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The list of them.
    pub(super) fn into_errors(self) -> Vec<FieldError> {
        self.0
    }
}

/// A value of the body, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    pointer: String,
    value: &'a Value,
}

impl<'a> Field<'a> {
    /// The whole body.
    pub(super) fn root(value: &'a Value) -> Self {
        Self { pointer: String::new(), value }
    }

    /// Where it stands, as a JSON pointer.
    pub(super) fn pointer(&self) -> &str {
        &self.pointer
    }

    /// The value as it came.
    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    /// The field, unless it is `null`, which takes a setting away.
    pub(super) fn unless_null(self) -> Option<Self> {
        (!self.value.is_null()).then_some(self)
    }

    fn refuse(&self, expected: &str, problems: &mut Problems) {
        let found = match self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(yes) => yes.to_string(),
            Value::Number(number) => quote(&number.to_string()),
            Value::String(text) => format!("the text `{}`", quote(text)),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        };
        problems.add(self.pointer.clone(), format!("expected {expected}, found {found}"));
    }

    /// A text.
    pub(super) fn text(&self, expected: &str, problems: &mut Problems) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.refuse(expected, problems);
        }
        text
    }

    /// A text that `read` understands.
    pub(super) fn choice<T>(
        &self,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
        problems: &mut Problems,
    ) -> Option<T> {
        let choice = read(self.text(expected, problems)?);
        if choice.is_none() {
            self.refuse(expected, problems);
        }
        choice
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, problems: &mut Problems) -> Option<bool> {
        let boolean = self.value.as_bool();
        if boolean.is_none() {
            self.refuse("true or false", problems);
        }
        boolean
    }

    /// A whole number from `least` to `most`.
    pub(super) fn whole(&self, least: u64, most: u64, problems: &mut Problems) -> Option<u64> {
        let number = self.value.as_u64().filter(|n| (least..=most).contains(n));
        if number.is_none() {
            self.refuse(&format!("a whole number from {least} to {most}"), problems);
        }
        number
    }

    /// The entries of a list of at most `most`.
    pub(super) fn list(
        &self,
        expected: &str,
        most: usize,
        problems: &mut Problems,
    ) -> Option<Vec<Field<'a>>> {
        let Some(entries) = self.value.as_array() else {
            self.refuse(expected, problems);
            return None;
        };
        if entries.len() > most {
            problems.add(
                self.pointer.clone(),
                format!("at most {most} entries are possible, found {}", entries.len()),
            );
            return None;
        }
        let entry = |(at, value)| Field { pointer: format!("{}/{at}", self.pointer), value };
        Some(entries.iter().enumerate().map(entry).collect())
    }

    /// An object with no other members than `known`.
    pub(super) fn object(&self, known: &[&str], problems: &mut Problems) -> Option<Object<'a>> {
        let object = self.open_object(problems)?;
        for name in object.members.keys().filter(|name| !known.contains(&name.as_str())) {
            let detail = format!("unknown field; known here are {}", known.join(", "));
            problems.add(object.pointer_to(name), detail);
        }
        Some(object)
    }

    /// An object whose members' names are the client's to choose.
    pub(super) fn open_object(&self, problems: &mut Problems) -> Option<Object<'a>> {
        let Some(members) = self.value.as_object() else {
            self.refuse("an object", problems);
            return None;
        };
        Some(Object { pointer: self.pointer.clone(), members })
    }
}

/// An object of the body.
#[derive(Debug)]
pub(super) struct Object<'a> {
    pointer: String,
    members: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// Where a member stands, or would stand.
    pub(super) fn pointer_to(&self, name: &str) -> String {
        format!("{}/{}", self.pointer, quote(name).replace('~', "~0").replace('/', "~1"))
    }

    /// A member; `None`: it is absent.
    pub(super) fn field(&self, name: &str) -> Option<Field<'a>> {
        self.members.get(name).map(|value| Field { pointer: self.pointer_to(name), value })
    }

    /// A member that must be there.
    pub(super) fn required(&self, name: &str, expected: &str, problems: &mut Problems) -> Option<Field<'a>> {
        let field = self.field(name).and_then(Field::unless_null);
        if field.is_none() {
            problems.add(self.pointer_to(name), format!("is required: {expected}"));
        }
        field
    }

    /// All members, in their order.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'a str, Field<'a>)> {
        self.members
            .iter()
            .map(|(name, value)| (name.as_str(), Field { pointer: self.pointer_to(name), value }))
    }
}
