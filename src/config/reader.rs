//! The typed reader: walks a tree of YAML and notes every mistake instead of stopping at the first.
//!
//! Owns types, ranges, `${ENV}` and what a mistake's sentence looks like. It knows no key of `proxy.yaml`: those
//! are named in [`super::document`] and the sections beside it. Whatever fails here is [`Noted`] already, so
//! a section reads all its keys first and puts its value together at the end.
//!
//! Not serde: a `Deserialize` ends at the first mistake, and an operator wants to see all of them at once.

use std::cell::RefCell;
use std::path::{Component, Path, PathBuf};

use self::scalar::Scalar;
use super::Secret;
use super::nearest::nearest;
use super::problem::Problem;
use super::tree::{Data, Entry, Fault, Node, Place, join_key};

pub(super) mod scalar;
mod secret;

/// A value could not be read, and why was noted. Only noting a mistake makes one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noted(());

/// A value read, or a mistake noted.
pub(super) type Read<T> = Result<T, Noted>;

/// What reading needs besides the tree, and the mistakes found.
pub(super) struct Reader<'e> {
    file: &'e Path,
    env: &'e dyn Fn(&str) -> Option<String>,
    problems: RefCell<Vec<Problem>>,
    /// Paths that the file names.
    named: RefCell<Vec<PathBuf>>,
}

impl<'e> Reader<'e> {
    pub(super) fn new(file: &'e Path, env: &'e dyn Fn(&str) -> Option<String>, faults: Vec<Fault>) -> Self {
        let reader = Self { file, env, problems: RefCell::default(), named: RefCell::default() };
        for fault in faults {
            reader.note(fault.place, fault.key, &fault.message);
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

    /// All paths that the file names.
    pub(super) fn named(&self) -> Vec<PathBuf> {
        self.named.borrow().clone()
    }

    fn note(&self, place: Place, key: String, message: &str) -> Noted {
        let Place { line, column } = place;
        let file = self.file.to_owned();
        // One line for each mistake, whatever is quoted in it.
        let message = message.replace(char::is_control, "\u{fffd}");
        self.problems.borrow_mut().push(Problem { file, line, column, key, message });
        Noted(())
    }

    /// A path of the file, taken from the file's own directory.
    fn resolve(&self, path: &str) -> PathBuf {
        let joined = self.file.parent().unwrap_or(Path::new("")).join(path);
        let short: PathBuf = joined.components().filter(|part| *part != Component::CurDir).collect();
        let path = if short.as_os_str().is_empty() { PathBuf::from(".") } else { short };
        self.named.borrow_mut().push(path.clone());
        path
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

    /// What to say of a key that is not known.
    fn refusal(&self, key: &str) -> String {
        /// More keys than these are no help in one line.
        const FEW: usize = 10;
        if self.is_later(key) {
            return "this is not built yet in this version; take the key out".to_owned();
        }
        let hint = did_you_mean(key, self.known.iter().copied());
        match (hint.as_str(), self.known.len() <= FEW) {
            ("", true) => format!("unknown key; known here: {}", self.known.join(", ")),
            ("", false) => "unknown key; the shipped proxy.yaml lists every key".to_owned(),
            (hint, true) => format!("unknown key{hint} Known here: {}", self.known.join(", ")),
            (hint, false) => format!("unknown key{hint}"),
        }
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

/// A value under a name of the operator's choice.
pub(super) struct Named<'r> {
    pub(super) name: &'r str,
    /// To note mistakes at the name's own place.
    pub(super) at_name: Item<'r>,
    pub(super) value: Item<'r>,
}

impl<'r> Item<'r> {
    /// Notes a mistake here.
    pub(super) fn refuse(&self, message: impl AsRef<str>) -> Noted {
        self.reader.note(self.place, self.key.clone(), message.as_ref())
    }

    /// Where the value starts.
    pub(super) fn line(&self) -> usize {
        self.place.line
    }

    /// The value's full name.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// A path of the file, taken from the file's own directory.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.reader.resolve(path)
    }

    /// Notes that `expected` should stand here.
    fn refuse_kind(&self, expected: &str) -> Noted {
        let found = match &self.node.data {
            Data::Scalar { text, quoted } => Scalar::new(text, *quoted).shown(),
            Data::List(_) => "a list".to_owned(),
            Data::Mapping(_) => "a mapping".to_owned(),
            Data::Refused => return Noted(()),
        };
        self.refuse(format!("expected {expected}, found {found}"))
    }

    /// Whether a mapping stands here, where a shorter form may stand as well.
    pub(super) fn is_mapping(&self) -> bool {
        matches!(self.node.data, Data::Mapping(_))
    }

    /// The values of a list.
    pub(super) fn list(&self, expected: &str) -> Read<Vec<Item<'r>>> {
        let Data::List(nodes) = &self.node.data else { return Err(self.refuse_kind(expected)) };
        let item = |(index, node): (usize, &'r Node)| Item {
            reader: self.reader,
            node,
            place: node.place,
            key: format!("{}[{index}]", self.key),
        };
        Ok(nodes.iter().enumerate().map(item).collect())
    }

    /// Each value of a list as `read` reads it.
    pub(super) fn list_of<T>(
        &self,
        expected: &str,
        mut read: impl FnMut(&Item<'r>) -> Read<T>,
    ) -> Read<Vec<T>> {
        // All are read before one of them may end it, so that each mistake is told.
        let values: Vec<Read<T>> = self.list(expected)?.iter().map(&mut read).collect();
        values.into_iter().collect()
    }

    /// The values of a mapping whose keys are names of the operator's choice.
    pub(super) fn named(&self, expected: &str) -> Read<Vec<Named<'r>>> {
        let Data::Mapping(entries) = &self.node.data else { return Err(self.refuse_kind(expected)) };
        let named = |entry: &'r Entry| {
            let value = self.value(entry);
            Named { name: &entry.key, at_name: Item { place: entry.key_place, ..value.clone() }, value }
        };
        Ok(entries.iter().map(named).collect())
    }

    /// The values of a mapping of known keys; each other key is a mistake.
    pub(super) fn fields(&self, keys: &Keys, expected: &str) -> Read<Fields<'r>> {
        let Data::Mapping(entries) = &self.node.data else { return Err(self.refuse_kind(expected)) };
        for entry in entries.iter().filter(|entry| !keys.known.contains(&entry.key.as_str())) {
            let key = join_key(&self.key, &entry.key);
            self.reader.note(entry.key_place, key, &keys.refusal(&entry.key));
        }
        Ok(Fields { item: self.clone(), entries, known: keys.known })
    }

    fn value(&self, entry: &'r Entry) -> Item<'r> {
        let empty = match &entry.value.data {
            Data::Scalar { text, quoted: false } => text.is_empty() || text == "~",
            _ => false,
        };
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
    known: &'static [&'static str],
}

impl<'r> Fields<'r> {
    /// A key's value, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<Item<'r>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| self.item.value(entry))
    }

    /// A key's value; a mistake if it is not there.
    pub(super) fn require(&self, key: &str, expected: &str) -> Read<Item<'r>> {
        self.get(key).ok_or_else(|| self.refuse_missing(key, &format!("missing; expected {expected}")))
    }

    /// Notes a mistake about a key that is not there, at the place of the mapping. It is silent if the key is there
    /// but mistyped: that was told already.
    pub(super) fn refuse_missing(&self, key: &str, message: &str) -> Noted {
        let unknown = |entry: &&Entry| !self.known.contains(&entry.key.as_str());
        let meant = |entry: &Entry| nearest(&entry.key, self.known.iter().copied()) == Some(key);
        if self.entries.iter().filter(unknown).any(meant) {
            return Noted(());
        }
        self.item.reader.note(self.item.place, join_key(&self.item.key, key), message)
    }

    /// What `read` makes of a key's value; `default` if the key is not there.
    pub(super) fn or<T>(&self, key: &str, default: T, read: impl FnOnce(&Item<'r>) -> Read<T>) -> Read<T> {
        self.get(key).map_or(Ok(default), |item| read(&item))
    }

    /// What `read` makes of a key's value, if it is there.
    pub(super) fn optional<T>(&self, key: &str, read: impl FnOnce(&Item<'r>) -> Read<T>) -> Read<Option<T>> {
        self.get(key).map(|item| read(&item)).transpose()
    }
}

/// The hint that follows a word nobody knows.
pub(super) fn did_you_mean<'c>(word: &str, known: impl IntoIterator<Item = &'c str>) -> String {
    nearest(word, known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}
