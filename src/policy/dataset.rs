//! Data sets, operations and grants (`policy.md`, "Data access").
//!
//! Owns the grammar of a data set's id and the comparison of ids. Which data sets a request asks for is
//! [`super::route`]'s to say.

use std::fmt;

/// What a request does to a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// `GET`, `HEAD`.
    Read,
    /// `POST`, `PUT`, `PATCH`.
    Write,
    /// `DELETE`.
    Delete,
}

impl Operation {
    /// All operations, in the order they are shown.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Delete];

    /// The operation's name in records and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
        }
    }

    /// Reads the operation's name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.as_str() == text)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Operations {
    read: bool,
    write: bool,
    delete: bool,
}

impl Operations {
    /// Whether the set holds `operation`.
    pub fn contains(self, operation: Operation) -> bool {
        match operation {
            Operation::Read => self.read,
            Operation::Write => self.write,
            Operation::Delete => self.delete,
        }
    }

    /// The operations of the set, in the order of [`Operation::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Operation> {
        Operation::ALL.into_iter().filter(move |operation| self.contains(*operation))
    }
}

impl FromIterator<Operation> for Operations {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Self {
        let mut set = Self::default();
        for operation in operations {
            match operation {
                Operation::Read => set.read = true,
                Operation::Write => set.write = true,
                Operation::Delete => set.delete = true,
            }
        }
        set
    }
}

/// Bytes a workspace's or data set's name may have.
const MAX_NAME: usize = 128;

fn is_name(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(fine) && !text.bytes().all(|b| b == b'.')
}

/// A data set: `WORKSPACE/DATASET`. Both names are 1 to 128 ASCII letters, digits, `_`, `-` or `.`; ids are
/// compared case-insensitively. The spelling is kept as it was written.
#[derive(Debug, Clone)]
pub struct DatasetId {
    text: String,
    slash: usize,
}

impl DatasetId {
    /// Reads `WORKSPACE/DATASET`.
    pub fn parse(text: &str) -> Option<Self> {
        let (workspace, dataset) = text.split_once('/')?;
        (is_name(workspace) && is_name(dataset))
            .then(|| Self { text: text.to_owned(), slash: workspace.len() })
    }

    /// The id as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part before the slash.
    pub fn workspace(&self) -> &str {
        self.text.get(..self.slash).unwrap_or_default()
    }

    /// The part after the slash.
    pub fn dataset(&self) -> &str {
        self.text.get(self.slash + 1..).unwrap_or_default()
    }
}

impl PartialEq for DatasetId {
    fn eq(&self, other: &Self) -> bool {
        self.text.eq_ignore_ascii_case(&other.text)
    }
}

impl Eq for DatasetId {}

impl fmt::Display for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Which data sets a grant is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    One(DatasetId),
    Workspace(String),
}

/// Leave to do some operations on one data set, or on all of a workspace (`WORKSPACE/*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    scope: Scope,
    operations: Operations,
}

/// Why a grant is refused where it is entered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadGrant {
    /// Not `WORKSPACE/DATASET` nor `WORKSPACE/*`.
    #[error(
        "`{0}` is not a data set; use WORKSPACE/DATASET or WORKSPACE/*, names of letters, digits, `_`, `-`, `.`"
    )]
    Dataset(String),
    /// An operation nobody knows.
    #[error("`{0}` is not an operation; use read, write or delete")]
    Operation(String),
    /// No operation at all.
    #[error("the grant for `{0}` names no operation; use read, write or delete")]
    NoOperation(String),
}

impl Grant {
    /// Makes a grant from its two fields.
    pub fn new<'a>(dataset: &str, operations: impl IntoIterator<Item = &'a str>) -> Result<Self, BadGrant> {
        let scope = match dataset.strip_suffix("/*") {
            Some(workspace) if is_name(workspace) => Some(Scope::Workspace(workspace.to_owned())),
            Some(_) => None,
            None => DatasetId::parse(dataset).map(Scope::One),
        };
        let scope = scope.ok_or_else(|| BadGrant::Dataset(dataset.to_owned()))?;
        let known = |name: &str| Operation::parse(name).ok_or_else(|| BadGrant::Operation(name.to_owned()));
        let operations: Operations = operations.into_iter().map(known).collect::<Result<_, _>>()?;
        if operations == Operations::default() {
            return Err(BadGrant::NoOperation(dataset.to_owned()));
        }
        Ok(Self { scope, operations })
    }

    /// Reads the command line's form, `MY/CARS:read,write`. Without operations it grants `read`.
    pub fn parse(text: &str) -> Result<Self, BadGrant> {
        let (dataset, operations) = text.split_once(':').unwrap_or((text, "read"));
        Self::new(dataset, operations.split(',').map(str::trim))
    }

    /// `WORKSPACE/DATASET` or `WORKSPACE/*`, as it was written.
    pub fn dataset(&self) -> String {
        match &self.scope {
            Scope::One(id) => id.as_str().to_owned(),
            Scope::Workspace(workspace) => format!("{workspace}/*"),
        }
    }

    /// What may be done.
    pub fn operations(&self) -> Operations {
        self.operations
    }

    /// Whether this grant lets `operation` be done on `dataset`.
    pub fn allows(&self, dataset: &DatasetId, operation: Operation) -> bool {
        let about = match &self.scope {
            Scope::One(id) => id == dataset,
            Scope::Workspace(workspace) => workspace.eq_ignore_ascii_case(dataset.workspace()),
        };
        about && self.operations.contains(operation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_covers_its_data_set_its_operations_and_no_more() {
        // (grant, data set, operation, allowed)
        let table = [
            ("MY/CARS:read", "MY/CARS", Operation::Read, true),
            ("MY/CARS", "my/cars", Operation::Read, true),
            ("my/cars:read", "MY/CARS", Operation::Read, true),
            ("MY/CARS:read", "MY/CARS", Operation::Write, false),
            ("MY/CARS:read,delete", "MY/CARS", Operation::Delete, true),
            ("MY/CARS:write", "MY/CARS", Operation::Read, false),
            ("MY/CARS:read", "MY/CARS2", Operation::Read, false),
            ("MY/CARS:read", "MY/CAR", Operation::Read, false),
            ("MY/CARS:read", "YOUR/CARS", Operation::Read, false),
            ("MY/*:read", "MY/ANYTHING", Operation::Read, true),
            ("MY/*:read", "my/anything", Operation::Read, true),
            ("MY/*:read", "MY/ANYTHING", Operation::Delete, false),
            ("MY/*:read", "MY2/ANYTHING", Operation::Read, false),
            ("MY/*:read", "M/ANYTHING", Operation::Read, false),
        ];
        for (grant, dataset, operation, allowed) in table {
            let id = DatasetId::parse(dataset).unwrap();
            assert_eq!(Grant::parse(grant).unwrap().allows(&id, operation), allowed, "{grant} on {dataset}");
        }
    }

    #[test]
    fn refuses_what_is_no_grant() {
        let table = [
            "",
            "MY",
            "/",
            "MY/",
            "/CARS",
            "*/*",
            "*/CARS",
            "MY/C*",
            "MY/CARS/X",
            "MY/CARS:",
            "MY/CARS:fly",
            "MY/CARS:read,",
            "MY/CA RS",
            "MY/..",
            "../CARS",
            "MY/%43ARS",
            "MY/CARS,MY/BIKES",
            "MY/CÄRS",
            "MY/**",
        ];
        for text in table {
            assert!(Grant::parse(text).is_err(), "{text}");
        }
    }
}
