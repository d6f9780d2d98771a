//! Secrets of the file: `${ENV}` or `file:PATH`, never plain (`interface.md`, "proxy.yaml").

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{Data, Item, Read, Secret};

/// More than any secret is long; a larger file is another file.
const LARGEST: u64 = 64 * 1024;

impl Item<'_> {
    /// A secret that must be there.
    pub(in crate::config) fn secret(&self) -> Read<Secret> {
        match self.find_secret()? {
            Found::Secret(secret) => Ok(secret),
            Found::Unset(name) => {
                Err(self.refuse(format!("the environment variable {name} is not set, or empty")))
            }
        }
    }

    /// A secret; `None` if it is a variable that is not set, or empty.
    pub(in crate::config) fn optional_secret(&self) -> Read<Option<Secret>> {
        match self.find_secret()? {
            Found::Secret(secret) => Ok(Some(secret)),
            Found::Unset(_) => Ok(None),
        }
    }

    fn find_secret(&self) -> Read<Found<'_>> {
        let expected = "${NAME} or file:PATH";
        let text = match &self.node.data {
            Data::Scalar { text, .. } if !text.is_empty() => text,
            _ => return Err(self.refuse_kind(expected)),
        };
        if let Some(path) = text.strip_prefix("file:") {
            return self.secret_file(path).map(Found::Secret);
        }
        if text.contains("${") {
            let name = self.variable(text)?;
            let value = (self.reader.env)(name).filter(|value| !value.is_empty());
            return Ok(value.map_or(Found::Unset(name), |value| Found::Secret(Secret::new(value))));
        }
        // What stands here is likely the secret itself, so it is not repeated.
        Err(self.refuse(format!(
            "a secret does not stand in the file itself; expected {expected}: an environment variable or a file"
        )))
    }

    fn secret_file(&self, path: &str) -> Read<Secret> {
        let path = self.resolve(path);
        let shown = path.display();
        let fail = |what: &str| Err(self.refuse(format!("the secret's file {shown} {what}")));
        let metadata = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => return fail("is not a file"),
            Err(error) => return fail(&format!("cannot be read: {error}")),
        };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return fail(&format!("has mode {mode:04o}, so others can read it; make it 0600"));
        }
        if metadata.len() > LARGEST {
            return fail("is larger than 64KiB");
        }
        match fs::read_to_string(&path) {
            Ok(text) if text.trim().is_empty() => fail("is empty"),
            Ok(text) => Ok(Secret::new(text.trim().to_owned())),
            Err(error) => fail(&format!("cannot be read: {error}")),
        }
    }
}

enum Found<'i> {
    Secret(Secret),
    /// The variable of this name is not set, or empty.
    Unset(&'i str),
}
