//! Files in `state_dir`: the directory itself, the master key, the first secret token.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::ServeError;
use crate::config::Config;
use crate::policy::{Token, TokenKind};
use crate::store::seal::Sealer;

/// Makes `state_dir`, readable by nobody else.
pub(super) fn prepare(config: &Config) -> Result<(), ServeError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&config.state_dir);
    made.map_err(|source| ServeError::State {
        what: "cannot make the state directory",
        path: config.state_dir.clone(),
        source,
    })
}

/// The key that seals secret tokens: the configured one, or one made once in `state_dir`.
pub(super) fn sealer(config: &Config) -> Result<Sealer, ServeError> {
    let path = config.master_key_path();
    let text = match &config.master_key {
        Some(secret) => Zeroizing::new(secret.expose().to_owned()),
        None => match read(&path)? {
            Some(text) => text,
            None => make_master_key(&path)?,
        },
    };
    Sealer::from_text(text.trim()).map_err(|error| ServeError::BadState {
        path: if config.master_key.is_some() { config.path.clone() } else { path },
        why: format!("master_key: {error}"),
    })
}

fn make_master_key(path: &Path) -> Result<Zeroizing<String>, ServeError> {
    let mut key = Zeroizing::new([0; 32]);
    let filled = getrandom::fill(key.as_mut_slice()).map_err(io::Error::other);
    let text = Zeroizing::new(hex::encode(key.as_slice()));
    filled.and_then(|()| write_new(path, &text)).map_err(|source| ServeError::State {
        what: "cannot write the master key",
        path: path.to_owned(),
        source,
    })?;
    tracing::info!(path = %path.display(), "made a master key; back it up: without it sealed tokens cannot be opened");
    Ok(text)
}

/// The secret token in a file, if there is one.
pub(super) fn read_secret_token(path: &Path) -> Result<Option<Token>, ServeError> {
    let Some(text) = read(path)? else { return Ok(None) };
    let why =
        || "this is not a secret token (sk_ and 32 lowercase hex digits); mend or remove the file".to_owned();
    let token = parse_secret_token(&text).map(Some);
    token.ok_or_else(|| ServeError::BadState { path: path.to_owned(), why: why() })
}

/// Reads a secret token as people keep it, with space around it.
pub(super) fn parse_secret_token(text: &str) -> Option<Token> {
    Token::parse(text.trim().as_bytes()).filter(|token| token.kind() == TokenKind::Secret)
}

/// A new secret token, kept in a file that only we can read.
pub(super) fn make_secret_token(path: &Path) -> Result<Token, ServeError> {
    let failed =
        |source| ServeError::State { what: "cannot write the secret token", path: path.to_owned(), source };
    let mut bits = Zeroizing::new([0; 16]);
    getrandom::fill(bits.as_mut_slice()).map_err(|error| failed(io::Error::other(error)))?;
    let token = Token::from_random(TokenKind::Secret, *bits);
    write_new(path, token.expose()).map_err(failed)?;
    Ok(token)
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, ServeError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ServeError::State { what: "cannot read", path: path.to_owned(), source }),
    }
}

/// Writes a file whole or not at all: under another name first, on disk before it gets its own.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&draft, path)
}
