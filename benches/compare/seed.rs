//! Many tokens, fast: one is made by the admin API, and what it left in Redis is copied under other names.
//!
//! So nothing here knows the form of a record: a copy has the template's id, value and digest replaced wherever they
//! stand, in keys, fields, members and values.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, ensure};
use redis::{Connection, Pipeline};
use tollgate::policy::{Token, TokenId, TokenKind};

use super::admin::Made;

/// Tokens written at a time.
const BATCH: usize = 1000;

/// What one token is in Redis.
pub(crate) struct Template {
    words: Words,
    kept: Vec<Kept>,
}

/// What tells one token from another.
struct Words {
    id: String,
    token: String,
    digest: String,
}

/// Something that is kept of a token.
enum Kept {
    Text(String, String),
    Hash(String, BTreeMap<String, String>),
    /// A member of a sorted set that all tokens share, or that is the token's own.
    Scored(String, String, f64),
    Member(String, String),
}

impl Template {
    /// Reads all that Redis holds of a token.
    pub(crate) fn read(connection: &mut Connection, made: &Made) -> anyhow::Result<Self> {
        let words = Words { id: made.id.clone(), token: made.token.clone(), digest: digest_of(&made.token)? };
        let mut kept = Vec::new();
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(connection)?;
        for key in keys {
            let kind: String = redis::cmd("TYPE").arg(&key).query(connection)?;
            let own = words.names(&key);
            match kind.as_str() {
                "string" if own => {
                    kept.push(Kept::Text(key.clone(), redis::cmd("GET").arg(&key).query(connection)?));
                }
                "hash" if own => {
                    kept.push(Kept::Hash(key.clone(), redis::cmd("HGETALL").arg(&key).query(connection)?));
                }
                "zset" => {
                    let all: Vec<(String, f64)> =
                        redis::cmd("ZRANGE").arg(&key).arg(0).arg(-1).arg("WITHSCORES").query(connection)?;
                    let all = all.into_iter().filter(|(member, _)| own || words.names(member));
                    kept.extend(all.map(|(member, score)| Kept::Scored(key.clone(), member, score)));
                }
                "set" => {
                    let all: Vec<String> = redis::cmd("SMEMBERS").arg(&key).query(connection)?;
                    let all = all.into_iter().filter(|member| own || words.names(member));
                    kept.extend(all.map(|member| Kept::Member(key.clone(), member)));
                }
                _ => {}
            }
        }
        ensure!(kept.len() >= 2, "Redis holds nothing of {}", made.id);
        Ok(Self { words, kept })
    }

    /// Writes the copies with these numbers; their values.
    pub(crate) fn copy(
        &self,
        connection: &mut Connection,
        numbers: Range<usize>,
    ) -> anyhow::Result<Vec<String>> {
        let mut tokens = Vec::with_capacity(numbers.len());
        let mut left = numbers;
        while !left.is_empty() {
            let mut pipeline = redis::pipe();
            for number in left.by_ref().take(BATCH) {
                let words = Words::of(number)?;
                self.write(&mut pipeline, &words);
                tokens.push(words.token);
            }
            pipeline.query::<()>(connection).context("writing tokens")?;
        }
        Ok(tokens)
    }

    fn write(&self, pipeline: &mut Pipeline, words: &Words) {
        let put = |text: &str| self.words.replace(text, words);
        for kept in &self.kept {
            match kept {
                Kept::Text(key, text) => pipeline.cmd("SET").arg(put(key)).arg(put(text)).ignore(),
                Kept::Hash(key, fields) => {
                    pipeline.cmd("HSET").arg(put(key));
                    for (name, value) in fields {
                        pipeline.arg(put(name)).arg(put(value));
                    }
                    pipeline.ignore()
                }
                Kept::Scored(key, member, score) => {
                    pipeline.cmd("ZADD").arg(put(key)).arg(*score).arg(put(member)).ignore()
                }
                Kept::Member(key, member) => pipeline.cmd("SADD").arg(put(key)).arg(put(member)).ignore(),
            };
        }
    }
}

impl Words {
    /// Those of the copy with this number.
    fn of(number: usize) -> anyhow::Result<Self> {
        let mut bits = [0; 16];
        let place = bits.last_chunk_mut::<8>().context("16 bytes hold 8")?;
        *place = (number as u64).to_be_bytes();
        let token = Token::from_random(TokenKind::Publishable, bits);
        // Any time will do for the part of an id that tells its age.
        let id = TokenId::from_ulid(ulid::Ulid::from_parts(1_790_000_000_000, number as u128));
        let (token, digest) = (token.expose().to_owned(), token.digest().to_hex());
        Ok(Self { id: id.as_str().to_owned(), token, digest })
    }

    fn pairs<'w>(&'w self, other: &'w Self) -> [(&'w str, &'w str); 3] {
        [(&self.id, &other.id), (&self.token, &other.token), (&self.digest, &other.digest)]
    }

    fn names(&self, text: &str) -> bool {
        self.pairs(self).iter().any(|(word, _)| text.contains(word))
    }

    fn replace(&self, text: &str, other: &Self) -> String {
        let mut text = text.to_owned();
        for (from, to) in self.pairs(other) {
            if text.contains(from) {
                text = text.replace(from, to);
            }
        }
        text
    }
}

fn digest_of(token: &str) -> anyhow::Result<String> {
    let token = Token::parse(token.as_bytes()).context("the template's value is no token")?;
    Ok(token.digest().to_hex())
}
