//! Where tokens come from: lines of a file, or entries of a dump. Both are gone through twice, to be judged and to be written.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Format, apisix, kong, tyk};
use crate::config;

/// A token to be imported.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Where it stands in the file, for people.
    pub(super) place: String,
    /// What it is called there.
    pub(super) name: String,
    /// What the admin API is sent: one line of JSON.
    pub(super) body: String,
    /// SHA-256 of the key it had elsewhere, in hex.
    pub(super) key_sha256: Option<String>,
    /// What a repeated import knows it by.
    pub(super) identity: Option<(&'static str, String)>,
}

impl Item {
    /// A line of JSON. One that cannot be read the admin API refuses, and says why.
    pub(super) fn of_line(place: String, body: String) -> Self {
        let value: Value = serde_json::from_str(&body).unwrap_or_default();
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let identity = ["id", "token", "import_key"].into_iter().find_map(|name| Some((name, text(name)?)));
        let name = text("nickname").or_else(|| text("import_key")).or_else(|| text("id")).unwrap_or_default();
        Self { place, name, body, key_sha256: None, identity }
    }

    /// Whether the value is in the file itself.
    pub(super) fn brings_value(&self) -> bool {
        matches!(self.identity, Some(("token", _)))
            || serde_json::from_str::<Value>(&self.body)
                .is_ok_and(|body| body.get("token").is_some_and(Value::is_string))
    }
}

/// Items that were met before, by what is 128 bits of a hash of their identity.
#[derive(Default)]
pub(super) struct Known(HashMap<[u8; 16], u32>, u32);

impl Known {
    /// Notes an item; `Some`: an earlier one is the same token, and which it was.
    pub(super) fn meet(&mut self, item: &Item) -> Option<String> {
        self.1 += 1;
        let (kind, text) = item.identity.as_ref()?;
        let digest = Sha256::new().chain_update(kind).chain_update(b"\0").chain_update(text).finalize();
        let digest: [u8; 32] = digest.into();
        let key = *digest.first_chunk::<16>()?;
        if let Some(earlier) = self.0.get(&key) {
            return Some(format!("is the same token as entry {earlier} of the file"));
        }
        self.0.insert(key, self.1);
        None
    }
}

enum Inside {
    /// A file that is read anew each time.
    File(PathBuf),
    /// What came from the standard input.
    Text(Vec<u8>),
    /// A dump, turned into tokens.
    Items(Vec<Item>),
}

/// Where tokens come from.
pub(super) struct Source {
    inside: Inside,
    /// What of a dump cannot be carried over.
    pub(super) warnings: Vec<String>,
}

impl Source {
    /// Opens a file; a dump is read whole.
    pub(super) fn open(path: &Path, format: Format) -> anyhow::Result<Self> {
        let from_input = path == Path::new("-");
        let whole = || -> anyhow::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            if from_input {
                std::io::stdin().lock().read_to_end(&mut bytes)?;
            } else {
                bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            }
            Ok(bytes)
        };
        let mut warnings = Vec::new();
        let inside = match format {
            Format::Jsonl if from_input => Inside::Text(whole()?),
            Format::Jsonl => {
                // Better told now than by the first line.
                File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
                Inside::File(path.to_owned())
            }
            Format::Kong | Format::Tyk | Format::Apisix => {
                let (items, told) = read_dump(&whole()?, format)
                    .with_context(|| format!("cannot take {} as a dump", path.display()))?;
                warnings = told;
                Inside::Items(items)
            }
        };
        Ok(Self { inside, warnings })
    }

    /// All items, from the first on.
    pub(super) fn items(&self) -> anyhow::Result<Box<dyn Iterator<Item = anyhow::Result<Item>> + '_>> {
        Ok(match &self.inside {
            Inside::File(path) => Box::new(lines(BufReader::new(File::open(path)?))),
            Inside::Text(bytes) => Box::new(lines(bytes.as_slice())),
            Inside::Items(items) => Box::new(items.iter().cloned().map(Ok)),
        })
    }
}

/// Lines that are not empty.
pub(super) fn lines<'a>(reader: impl BufRead + 'a) -> impl Iterator<Item = anyhow::Result<Item>> + 'a {
    reader.lines().enumerate().filter_map(|(at, line)| {
        let place = format!("line {}", at + 1);
        match line {
            Ok(line) if line.trim().is_empty() => None,
            Ok(mut line) => {
                // The last line may end in a carriage return alone.
                line.truncate(line.trim_end_matches('\r').len());
                Some(Ok(Item::of_line(place, line)))
            }
            Err(error) => Some(Err(anyhow::Error::from(error).context(place))),
        }
    })
}

/// Turns a dump into tokens, and says what cannot be carried over.
pub(super) fn read_dump(bytes: &[u8], format: Format) -> anyhow::Result<(Vec<Item>, Vec<String>)> {
    let text = std::str::from_utf8(bytes).context("it is not UTF-8")?;
    let value = read_document(text)?;
    let (name, drafts, mut warnings) = match format {
        Format::Kong => kong::read(&value).map(|(drafts, warnings)| ("kong", drafts, warnings))?,
        Format::Apisix => apisix::read(&value).map(|(drafts, warnings)| ("apisix", drafts, warnings))?,
        Format::Tyk | Format::Jsonl => ("tyk", tyk::read(&value)?, Vec::new()),
    };
    let mut items = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let (item, told) = draft.finish(name);
        items.push(item);
        warnings.extend(told);
    }
    Ok((items, warnings))
}

/// One document of JSON, several (one a line), or YAML.
fn read_document(text: &str) -> anyhow::Result<Value> {
    let whole = serde_json::from_str(text);
    if let Ok(value) = whole {
        return Ok(value);
    }
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let lines: Result<Vec<Value>, _> = lines.map(serde_json::from_str).collect();
    match (lines, whole) {
        (Ok(lines), _) if lines.iter().all(Value::is_object) => Ok(Value::Array(lines)),
        (_, Err(error)) if text.trim_start().starts_with(['{', '[']) => Err(error.into()),
        _ => config::read_yaml(text).map_err(|why| anyhow::anyhow!(why)),
    }
}
