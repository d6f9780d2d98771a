//! What is wrong with a `proxy.yaml`: every mistake with its place, all at once.
//!
//! Owns how a mistake is told. Finding mistakes is [`super::tree`]'s and [`super::reader`]'s.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// One mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named when it was loaded.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The key's full name, such as `upstreams.datasets.servers[0]`; empty for the file as a whole.
    pub key: String,
    /// What was expected, what was found, and what to do. Never a secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file.display(), self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// All mistakes of one file, in the order of its lines. There is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The mistakes in the order of their places; `None` if there are none.
    pub(super) fn collect(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        (!problems.is_empty()).then_some(Self(problems))
    }

    /// For a file that was refused without a reason being noted: closed all the same (law 9).
    pub(super) fn unexplained(file: &Path) -> Self {
        let message =
            "the file is refused, but the reason was not noted; please report this as a bug".to_owned();
        Self(vec![Problem { file: file.to_owned(), line: 1, column: 1, key: String::new(), message }])
    }

    /// Each mistake, in the order of the lines.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        match self.0.as_slice() {
            [_] => f.write_str("1 problem; the file is not used"),
            many => write!(f, "{} problems; the file is not used", many.len()),
        }
    }
}

impl std::error::Error for Problems {}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read at all.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file has mistakes.
    #[error(transparent)]
    Invalid(#[from] Problems),
}

impl ConfigError {
    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }
}
