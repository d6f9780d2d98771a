//! Secrets of the file: `${ENV}` or `file:PATH`, never plain (`interface.md`, "proxy.yaml").

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{Data, Item, Secret};

/// More than any secret is long; a larger file is another file.
const LARGEST: u64 = 64 * 1024;

impl Item<'_> {
    /// A secret that must be there.
    pub(in crate::config) fn secret(&self) -> Option<Secret> {
        let found = self.optional_secret()?;
        if found.is_none() {
            let Data::Scalar { text, .. } = &self.node.data else { return None };
            let name = self.variable(text)?;
            self.refuse(format!("the environment variable {name} is not set, or empty"));
        }
        found
    }

    /// A secret; `Some(None)` if it is a variable that is not set, or empty.
    pub(in crate::config) fn optional_secret(&self) -> Option<Option<Secret>> {
        let expected = "${NAME} or file:PATH";
        let Data::Scalar { text, .. } = &self.node.data else {
            self.refuse_kind(expected);
            return None;
        };
        if let Some(path) = text.strip_prefix("file:") {
            return self.secret_file(path).map(Some);
        }
        if text.contains("${") {
            let value = (self.reader.env)(self.variable(text)?);
            return Some(value.filter(|value| !value.is_empty()).map(Secret::new));
        }
        if text.is_empty() {
            self.refuse_kind(expected);
            return None;
        }
        // What stands here is likely the secret itself, so it is not repeated.
        self.refuse(format!(
            "a secret does not stand in the file itself; expected {expected}: an environment variable or a file"
        ));
        None
    }

    fn secret_file(&self, path: &str) -> Option<Secret> {
        let path = self.reader.resolve(path);
        let shown = path.display();
        let fail = |message: String| {
            self.refuse(message);
            None
        };
        let metadata = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => return fail(format!("the secret's file {shown} is not a file")),
            Err(error) => return fail(format!("the secret's file {shown} cannot be read: {error}")),
        };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return fail(format!(
                "the secret's file {shown} has mode {mode:04o}, so others can read it; make it 0600"
            ));
        }
        if metadata.len() > LARGEST {
            return fail(format!("the secret's file {shown} is larger than 64KiB"));
        }
        match fs::read_to_string(&path) {
            Ok(text) if text.trim().is_empty() => fail(format!("the secret's file {shown} is empty")),
            Ok(text) => Some(Secret::new(text.trim().to_owned())),
            Err(error) => fail(format!("the secret's file {shown} cannot be read: {error}")),
        }
    }
}
