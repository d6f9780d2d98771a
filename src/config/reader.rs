//! The typed reader: walks a tree of YAML and notes every mistake instead of stopping at the first.
//!
//! Owns types, ranges, `${ENV}` and what a mistake's sentence looks like. It knows no key of `proxy.yaml`: those
//! are named in [`super::document`] and the sections beside it. A method that returns `None` has noted why, so
//! a section reads all its keys first and puts its value together at the end.
//!
//! Not serde: a `Deserialize` ends at the first mistake, and an operator wants to see all of them at once.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Secret;
use super::nearest::nearest;
use super::problem::Problem;
use super::tree::{Data, Entry, Fault, Node, Place, join_key, quote};
use super::units::{format_duration, parse_duration};

mod secret;

/// What reading needs besides the tree, and the mistakes found.
pub(super) struct Reader<'e> {
    file: &'e Path,
    env: &'e dyn Fn(&str) -> Option<String>,
    problems: RefCell<Vec<Problem>>,
}

impl<'e> Reader<'e> {
    pub(super) fn new(file: &'e Path, env: &'e dyn Fn(&str) -> Option<String>, faults: Vec<Fault>) -> Self {
        let reader = Self { file, env, problems: RefCell::default() };
        for fault in faults {
            reader.note(fault.place, fault.key, fault.message);
        }
        reader
    }

    /// The tree's first value.
    pub(super) fn root<'r>(&'r self, node: &'r Node) -> Item<'r> {
        Item { reader: self, node, place: node.place, key: String::new() }
    }

    /// All mistakes found.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    fn note(&self, place: Place, key: String, message: String) {
        let Place { line, column } = place;
        let file = self.file.to_owned();
        self.problems.borrow_mut().push(Problem { file, line, column, key, message });
    }

    /// A path of the file, taken from the file's own directory.
    fn resolve(&self, path: &str) -> PathBuf {
        let directory = self.file.parent().unwrap_or(Path::new(""));
        directory
            .join(path)
            .components()
            .filter(|part| !matches!(part, std::path::Component::CurDir))
            .collect()
    }
}

/// The keys of a mapping.
pub(super) struct Keys {
    /// Those that are read.
    pub(super) known: &'static [&'static str],
    /// Those of features that are named already and not built yet; a final `*` stands for any ending.
    pub(super) later: &'static [&'static str],
}

impl Keys {
    fn is_later(&self, key: &str) -> bool {
        self.later.iter().any(|later| match later.strip_suffix('*') {
            Some(start) => key.starts_with(start),
            None => key == *later,
        })
    }
}

/// One value of the file.
#[derive(Clone)]
pub(super) struct Item<'r> {
    reader: &'r Reader<'r>,
    node: &'r Node,
    place: Place,
    key: String,
}

/// A scalar's text, after `${ENV}` was looked up.
pub(super) struct Scalar {
    pub(super) text: String,
    quoted: bool,
    variable: Option<String>,
}

impl Scalar {
    /// Whether the text comes from the environment, where secrets may stand.
    pub(super) fn is_from_env(&self) -> bool {
        self.variable.is_some()
    }

    /// How a message names what was found. A value of the environment may be a secret, so it is not shown.
    pub(super) fn shown(&self) -> String {
        match &self.variable {
            Some(name) => format!("the value of ${{{name}}}"),
            None if self.quoted => quote(&self.text),
            None => match self.text.as_str() {
                "" | "~" | "null" | "Null" | "NULL" => "nothing".to_owned(),
                text if parse_boolean(text).is_some() => format!("the boolean {text}"),
                text if is_number(text) => format!("the number {text}"),
                text => quote(text),
            },
        }
    }

    fn is_text(&self) -> bool {
        self.variable.is_some() || self.quoted || self.shown().starts_with('"')
    }
}

impl<'r> Item<'r> {
    /// Notes a mistake here.
    pub(super) fn refuse(&self, message: impl Into<String>) {
        self.reader.note(self.place, self.key.clone(), message.into());
    }

    /// Where the value starts.
    pub(super) fn line(&self) -> usize {
        self.place.line
    }

    /// The value's full name.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// A path relative to the file's directory.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.reader.resolve(path)
    }

    /// Notes that `expected` should stand here.
    fn refuse_kind(&self, expected: &str) {
        let found = match &self.node.data {
            Data::Scalar { text, quoted } => {
                Scalar { text: text.clone(), quoted: *quoted, variable: None }.shown()
            }
            Data::List(_) => "a list".to_owned(),
            Data::Mapping(_) => "a mapping".to_owned(),
            Data::Refused => return,
        };
        self.refuse(format!("expected {expected}, found {found}"));
    }

    /// A scalar of any type.
    pub(super) fn scalar(&self, expected: &str) -> Option<Scalar> {
        let Data::Scalar { text, quoted } = &self.node.data else {
            self.refuse_kind(expected);
            return None;
        };
        if !text.contains("${") {
            return Some(Scalar { text: text.clone(), quoted: *quoted, variable: None });
        }
        let name = self.variable(text)?;
        match (self.reader.env)(name) {
            Some(text) => Some(Scalar { text, quoted: false, variable: Some(name.to_owned()) }),
            None => {
                self.refuse(format!("the environment variable {name} is not set"));
                None
            }
        }
    }

    /// The name in `${NAME}`.
    fn variable<'t>(&self, text: &'t str) -> Option<&'t str> {
        let name =
            text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).filter(|name| is_variable(name));
        if name.is_none() {
            self.refuse("`${NAME}` stands for a whole value; expected nothing before or after it, and a name of letters, digits and `_`");
        }
        name
    }

    /// A scalar that `parse` can read.
    pub(super) fn parse<T>(&self, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let scalar = self.scalar(expected)?;
        let value = if scalar.is_text() { parse(&scalar.text) } else { None };
        if value.is_none() {
            self.refuse(format!("expected {expected}, found {}", scalar.shown()));
        }
        value
    }

    /// A text that `parse` can read; its error says what is wrong with it.
    pub(super) fn try_parse<T, E: Display>(
        &self,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let scalar = self.scalar(expected)?;
        let why = if scalar.is_text() {
            match parse(&scalar.text) {
                Ok(value) => return Some(value),
                Err(error) => format!(": {error}"),
            }
        } else {
            String::new()
        };
        self.refuse(format!("expected {expected}, found {}{why}", scalar.shown()));
        None
    }

    /// A text that is not empty.
    pub(super) fn text(&self, expected: &str) -> Option<String> {
        self.parse(expected, |text| (!text.is_empty()).then(|| text.to_owned()))
    }

    /// A path, taken from the file's directory.
    pub(super) fn path(&self, expected: &str) -> Option<PathBuf> {
        self.text(expected).map(|text| self.reader.resolve(&text))
    }

    /// A whole number in a range.
    pub(super) fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let scalar = self.scalar(&expected)?;
        let number = if scalar.quoted { None } else { scalar.text.parse().ok() };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.refuse(format!("expected {expected}, found {}", scalar.shown()));
        }
        number
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        let scalar = self.scalar("true or false")?;
        let value = if scalar.quoted { None } else { parse_boolean(&scalar.text) };
        if value.is_none() {
            self.refuse(format!("expected true or false, found {}", scalar.shown()));
        }
        value
    }

    /// A duration in a range.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let duration = self.try_parse("a duration such as 250ms, 10s or 5m", parse_duration)?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let [from, to, found] = [*range.start(), *range.end(), duration].map(format_duration);
        self.refuse(format!("expected a duration from {from} to {to}, found {found}"));
        None
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let expected = one_of(&words);
        let scalar = self.scalar(&expected)?;
        let chosen = choices.iter().find(|(word, _)| *word == scalar.text && scalar.is_text());
        if chosen.is_none() {
            let hint = did_you_mean(&scalar.text, words);
            self.refuse(format!("expected {expected}, found {}{hint}", scalar.shown()));
        }
        chosen.map(|(_, value)| *value)
    }

    /// The values of a list.
    pub(super) fn list(&self, expected: &str) -> Option<Vec<Item<'r>>> {
        let Data::List(nodes) = &self.node.data else {
            self.refuse_kind(expected);
            return None;
        };
        let item = |(index, node): (usize, &'r Node)| Item {
            reader: self.reader,
            node,
            place: node.place,
            key: format!("{}[{index}]", self.key),
        };
        Some(nodes.iter().enumerate().map(item).collect())
    }

    /// Each value of a list as `read` reads it; `None` if one of them is wrong.
    pub(super) fn list_of<T>(
        &self,
        expected: &str,
        mut read: impl FnMut(&Item<'r>) -> Option<T>,
    ) -> Option<Vec<T>> {
        // All are read before one of them may end it, so that each mistake is told.
        let values: Vec<Option<T>> = self.list(expected)?.iter().map(&mut read).collect();
        values.into_iter().collect()
    }

    /// The values of a mapping whose keys are names of the operator's choice.
    pub(super) fn named(&self, expected: &str) -> Option<Vec<(&'r str, Item<'r>)>> {
        let Data::Mapping(entries) = &self.node.data else {
            self.refuse_kind(expected);
            return None;
        };
        Some(entries.iter().map(|entry| (entry.key.as_str(), self.value(entry))).collect())
    }

    /// The values of a mapping of known keys; each other key is a mistake.
    pub(super) fn fields(&self, keys: &Keys, expected: &str) -> Option<Fields<'r>> {
        let Data::Mapping(entries) = &self.node.data else {
            self.refuse_kind(expected);
            return None;
        };
        for entry in entries.iter().filter(|entry| !keys.known.contains(&entry.key.as_str())) {
            let message = if keys.is_later(&entry.key) {
                "this is not built yet in this version; take the key out".to_owned()
            } else {
                unknown_key(&entry.key, keys)
            };
            self.reader.note(entry.key_place, join_key(&self.key, &entry.key), message);
        }
        Some(Fields { item: self.clone(), entries })
    }

    fn value(&self, entry: &'r Entry) -> Item<'r> {
        let empty = matches!(&entry.value.data, Data::Scalar { text, quoted: false } if text.is_empty() || text == "~");
        Item {
            reader: self.reader,
            node: &entry.value,
            // A value that is not there has no place; its key has.
            place: if empty { entry.key_place } else { entry.value.place },
            key: join_key(&self.key, &entry.key),
        }
    }
}

/// A mapping of known keys.
pub(super) struct Fields<'r> {
    item: Item<'r>,
    entries: &'r [Entry],
}

impl<'r> Fields<'r> {
    /// A key's value, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<Item<'r>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| self.item.value(entry))
    }

    /// A key's value; a mistake if it is not there.
    pub(super) fn require(&self, key: &str, expected: &str) -> Option<Item<'r>> {
        let item = self.get(key);
        if item.is_none() {
            self.refuse_missing(key, &format!("missing; expected {expected}"));
        }
        item
    }

    /// Notes a mistake about a key that is not there, at the place of the mapping.
    pub(super) fn refuse_missing(&self, key: &str, message: &str) {
        self.item.reader.note(self.item.place, join_key(&self.item.key, key), message.to_owned());
    }

    /// What `read` makes of a key's value; `default` if the key is not there.
    pub(super) fn or<T>(
        &self,
        key: &str,
        default: T,
        read: impl FnOnce(&Item<'r>) -> Option<T>,
    ) -> Option<T> {
        self.get(key).map_or(Some(default), |item| read(&item))
    }

    /// What `read` makes of a key's value, which may be absent.
    pub(super) fn optional<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Item<'r>) -> Option<T>,
    ) -> Option<Option<T>> {
        self.get(key).map_or(Some(None), |item| read(&item).map(Some))
    }
}

/// The hint that follows a word nobody knows.
pub(super) fn did_you_mean<'c>(word: &str, known: impl IntoIterator<Item = &'c str>) -> String {
    nearest(word, known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [all @ .., last] => format!("{} or {last}", all.join(", ")),
    }
}

fn unknown_key(key: &str, keys: &Keys) -> String {
    /// More keys than these are no help in one line.
    const FEW: usize = 10;
    let hint = did_you_mean(key, keys.known.iter().copied());
    match (hint.as_str(), keys.known.len() <= FEW) {
        ("", true) => format!("unknown key; known here: {}", keys.known.join(", ")),
        ("", false) => "unknown key; the shipped proxy.yaml lists every key".to_owned(),
        (hint, true) => format!("unknown key{hint} Known here: {}", keys.known.join(", ")),
        (hint, false) => format!("unknown key{hint}"),
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn parse_boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// YAML 1.2's numbers, by the core schema.
fn is_number(text: &str) -> bool {
    let in_base = |start: &str, base: u32| {
        text.strip_prefix(start)
            .is_some_and(|digits| !digits.is_empty() && digits.chars().all(|c| c.is_digit(base)))
    };
    (text.bytes().any(|b| b.is_ascii_digit()) && text.parse::<f64>().is_ok())
        || in_base("0x", 16)
        || in_base("0o", 8)
}
