//! `balance` and `hash_by`: whose turn it is.

use http::HeaderName;

use super::{Fields, Item, Read};

/// How a server is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Balance {
    /// In turn, by their weights.
    #[default]
    RoundRobin,
    /// The one with the fewest requests under way for its weight.
    LeastConnections,
    /// The same one for the same key, as long as it is there (consistent hashing).
    Hash(HashBy),
}

/// What is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashBy {
    /// The client's address.
    Client,
    /// The token's id.
    Token,
    /// The path.
    Path,
    /// A header's first value.
    Header(HeaderName),
    /// A query parameter's first value, as it stands.
    Query(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    RoundRobin,
    LeastConnections,
    Hash,
}

const KINDS: [(&str, Kind); 3] =
    [("round_robin", Kind::RoundRobin), ("least_connections", Kind::LeastConnections), ("hash", Kind::Hash)];

const EXPECTED: &str = "client, token, path, header:NAME or query:NAME";

pub(super) fn read(fields: &Fields<'_>) -> Read<Balance> {
    let kind = fields.or("balance", Kind::RoundRobin, |item| item.choice(&KINDS));
    let hash_by = fields.optional("hash_by", |item| item.parse(EXPECTED, parse_hash_by));
    match (kind?, hash_by?, fields.get("hash_by")) {
        (Kind::Hash, Some(by), _) => Ok(Balance::Hash(by)),
        (Kind::Hash, None, _) => {
            Err(fields.refuse_missing("hash_by", &format!("missing; `balance: hash` needs {EXPECTED}")))
        }
        (_, Some(_), Some(item)) => Err(refuse_unused(&item)),
        (Kind::LeastConnections, ..) => Ok(Balance::LeastConnections),
        (Kind::RoundRobin, ..) => Ok(Balance::RoundRobin),
    }
}

fn refuse_unused(item: &Item<'_>) -> super::super::reader::Noted {
    item.refuse("nothing is hashed without `balance: hash`; add that, or take this key out")
}

fn parse_hash_by(text: &str) -> Option<HashBy> {
    match text.split_once(':') {
        None => match text {
            "client" => Some(HashBy::Client),
            "token" => Some(HashBy::Token),
            "path" => Some(HashBy::Path),
            _ => None,
        },
        Some(("header", name)) => HeaderName::from_bytes(name.as_bytes()).ok().map(HashBy::Header),
        Some(("query", name)) => {
            let fine = !name.is_empty() && name != "token" && name.bytes().all(|b| b.is_ascii_graphic());
            fine.then(|| HashBy::Query(name.to_owned()))
        }
        Some(_) => None,
    }
}
