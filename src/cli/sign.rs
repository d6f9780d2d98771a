//! `tollgate sign`: the headers of a signed request, for people who debug a client. It asks nobody.
//!
//! Secrets come from the environment or a file, never from the command line, where all of the machine could read them.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::{Global, Misuse, Output};
use crate::policy::query::values;
use crate::policy::signature::{DATE_HEADER, Signing, SigningSecret, parse_date, sign};
use crate::policy::{Token, TokenKind};

/// Where the secret may stand, in the order they are looked at.
const SECRET_VARIABLES: [&str; 2] = ["TOLLGATE_SIGNING_SECRET", "TOLLGATE_SECRET_TOKEN"];
/// Where the token may stand, if not in the URL.
const TOKEN_VARIABLE: &str = "TOLLGATE_TOKEN";
/// More than any file with a secret is long.
const LARGEST_SECRET: usize = 64 * 1024;

#[derive(Debug, Args)]
pub(super) struct SignArgs {
    /// The whole URL, exactly as the client sends it; its publishable token may stand in it, else in `TOLLGATE_TOKEN`
    #[arg(value_name = "URL")]
    url: String,
    /// The request's method
    #[arg(long, default_value = "GET")]
    method: http::Method,
    /// A file with the signing secret, or the account's secret token; else `TOLLGATE_SIGNING_SECRET` or
    /// `TOLLGATE_SECRET_TOKEN`
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// A file with the body, or - for the standard input; without it the hash of the empty text is signed
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
    /// The time of the signature, like 20240115T123045Z; now unless told otherwise
    #[arg(long, value_name = "DATE", value_parser = read_date)]
    date: Option<Timestamp>,
    /// Print a curl command instead of headers
    #[arg(long, conflicts_with = "json")]
    curl: bool,
    /// Show the canonical form and the text that is signed, too
    #[arg(long)]
    explain: bool,
}

fn read_date(text: &str) -> Result<Timestamp, &'static str> {
    parse_date(text.as_bytes()).map(|(_, at)| at).ok_or("write it as YYYYMMDDTHHMMSSZ")
}

/// Signs a request and says what to send.
pub(super) fn run(global: &Global, args: &SignArgs) -> anyhow::Result<Output> {
    let url = Url::parse(&args.url)?;
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let (token, in_url) = find_token(&url, variable(TOKEN_VARIABLE))?;
    let secret = find_secret(args.secret_file.as_deref(), variable)?;
    let body = args.body_file.as_deref().map(read_body).transpose()?;
    let signing = sign(
        args.method.as_str(),
        url.target.as_bytes(),
        url.host,
        body.as_deref().unwrap_or_default(),
        token.expose(),
        &secret,
        args.date.unwrap_or_else(Timestamp::now),
    );
    let signing = signing.context("the year of the date has not four digits")?;
    let mut headers =
        vec![(DATE_HEADER, signing.date.clone()), ("Authorization", signing.authorization.clone())];
    if !in_url {
        headers.push(("X-API-Key", token.expose().to_owned()));
    }
    if global.json {
        return show_json(&headers, &signing, args.explain);
    }
    let mut text = if args.curl {
        curl(args, &headers)
    } else {
        headers.iter().fold(String::new(), |text, (name, value)| text + name + ": " + value + "\n")
    };
    if args.explain {
        text.push_str(&explain(&signing));
    }
    Ok(Output::text(text))
}

/// A URL taken apart as it stands: what is signed is the text that is sent, so nothing is brought to another form.
#[derive(Debug, PartialEq, Eq)]
struct Url<'u> {
    /// The `Host` that clients send: without the scheme's own port.
    host: &'u str,
    /// The path and the query.
    target: &'u str,
}

impl<'u> Url<'u> {
    fn parse(text: &'u str) -> Result<Self, Misuse> {
        let misuse = |why: &str| Err(Misuse(format!("the URL {why}")));
        let (rest, port) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (rest, ":80"),
            (None, Some(rest)) => (rest, ":443"),
            (None, None) => return misuse("must begin with http:// or https://"),
        };
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return misuse(
                "holds a character that has to be percent-encoded; write it as the client sends it",
            );
        }
        if text.contains('#') {
            return misuse("has a fragment, which is never sent; leave it out");
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, target) = rest.split_at_checked(end).unwrap_or((rest, ""));
        if host.is_empty() || host.contains('@') {
            return misuse("must name a host, and nobody before it");
        }
        // Clients send a path, if only `/`.
        let target = if target.is_empty() { "/" } else { target };
        if target.starts_with('?') {
            return misuse("has no path; write `/` before the `?`, as clients send it");
        }
        Ok(Self { host: host.strip_suffix(port).unwrap_or(host), target })
    }
}

/// The token, and whether it stands in the URL.
fn find_token(url: &Url<'_>, variable: Option<String>) -> anyhow::Result<(Token, bool)> {
    let query = url.target.split_once('?').map(|(_, query)| query);
    let in_url = values(query, "token");
    let token = match (in_url.first(), variable) {
        (Some(value), _) => Token::parse(value),
        (None, Some(text)) => Token::parse(text.trim().as_bytes()),
        (None, None) => {
            return Err(Misuse(format!(
                "there is no token: put `token=pk_…` into the URL, or set {TOKEN_VARIABLE}"
            ))
            .into());
        }
    };
    // It may be a secret with a slip in it, so it is not repeated.
    let Some(token) = token else {
        return Err(Misuse("the token is not one (pk_… or sk_…)".to_owned()).into());
    };
    if !in_url.is_empty() && token.kind() == TokenKind::Secret {
        return Err(Misuse(format!(
            "a secret token does not belong on the command line; take it out and set {TOKEN_VARIABLE}"
        ))
        .into());
    }
    Ok((token, !in_url.is_empty()))
}

fn find_secret(
    file: Option<&Path>,
    variable: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<SigningSecret> {
    let (text, from) = match file {
        Some(path) => {
            let shown = path.display().to_string();
            let text =
                fs::read_to_string(path).with_context(|| format!("cannot read the secret from {shown}"))?;
            (text, shown)
        }
        None => SECRET_VARIABLES
            .into_iter()
            .find_map(|name| Some((variable(name)?, name.to_owned())))
            .ok_or_else(|| {
                Misuse(format!(
                    "there is no secret: give --secret-file, or set {} (`tollgate token signing-secret` makes one) \
                     or {}",
                    SECRET_VARIABLES[0], SECRET_VARIABLES[1]
                ))
            })?,
    };
    if text.len() > LARGEST_SECRET {
        bail!("{from} is too long to hold a secret");
    }
    SigningSecret::parse(text.trim()).with_context(|| format!("{from} does not hold a secret"))
}

fn read_body(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .read_to_end(&mut body)
            .context("cannot read the body from the standard input")?;
    } else {
        body = fs::read(path).with_context(|| format!("cannot read the body from {}", path.display()))?;
    }
    Ok(body)
}

fn show_json(headers: &[(&'static str, String)], signing: &Signing, explain: bool) -> anyhow::Result<Output> {
    let headers: serde_json::Map<_, _> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let mut shown = json!({"headers": headers, "signature": signing.signature});
    if explain && let Some(shown) = shown.as_object_mut() {
        let canonical = String::from_utf8_lossy(&signing.canonical);
        shown.insert("canonical".to_owned(), json!(canonical));
        shown.insert("canonical_sha256".to_owned(), json!(signing.canonical_hash));
        shown.insert("to_sign".to_owned(), json!(signing.to_sign));
    }
    Output::json(&shown)
}

fn explain(signing: &Signing) -> String {
    let canonical = String::from_utf8_lossy(&signing.canonical);
    let indented = |text: &str| text.split('\n').fold(String::new(), |text, line| text + "  " + line + "\n");
    format!(
        "\nThe canonical form (no line feed at its end):\n{}its SHA-256: {}\n\nThe text that is signed:\n{}",
        indented(&canonical),
        signing.canonical_hash,
        indented(&signing.to_sign)
    )
}

/// A command for a shell. `--path-as-is` and `--globoff`, since what is sent must be what was signed.
fn curl(args: &SignArgs, headers: &[(&'static str, String)]) -> String {
    let mut words = ["curl", "--path-as-is", "--globoff"].map(str::to_owned).to_vec();
    if args.method == http::Method::HEAD {
        words.push("--head".to_owned());
    } else {
        words.extend(["-X".to_owned(), quote(args.method.as_str())]);
    }
    for (name, value) in headers {
        words.extend(["-H".to_owned(), quote(&format!("{name}: {value}"))]);
    }
    if let Some(file) = &args.body_file {
        words.extend(["--data-binary".to_owned(), quote(&format!("@{}", file.display()))]);
    }
    words.push(quote(&args.url));
    words.join(" ") + "\n"
}

/// A word as a shell reads it back.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PK: &str = "pk_0123456789abcdef0123456789abcdef";

    #[test]
    fn takes_urls_apart_as_they_stand() {
        let url = |text| Url::parse(text).map(|url| (url.host, url.target)).map_err(|why| why.0);
        for (text, host, target) in [
            ("http://a.test/b?c", "a.test", "/b?c"),
            ("http://a.test:80/b", "a.test", "/b"),
            ("https://a.test:443", "a.test", "/"),
            ("https://a.test:80/", "a.test:80", "/"),
            ("http://[::1]:8080//b/../%61?x=[]", "[::1]:8080", "//b/../%61?x=[]"),
        ] {
            assert_eq!(url(text), Ok((host, target)), "{text}");
        }
        for text in [
            "",
            "a.test/b",
            "ftp://a",
            "http:///b",
            "http://u:p@a/",
            "http://a/#b",
            "http://a/b c",
            "http://a?b",
            "http://a/é",
        ] {
            assert!(url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_token_stays_off_the_command_line() {
        let with = |target: String, variable: Option<&str>| {
            let url = Url { host: "a", target: &target };
            find_token(&url, variable.map(str::to_owned)).map(|(token, in_url)| (token.kind(), in_url))
        };
        let sk = PK.replace("pk", "sk");
        assert_eq!(with(format!("/?token={PK}"), None).unwrap(), (TokenKind::Publishable, true));
        assert_eq!(with("/".to_owned(), Some(&sk)).unwrap(), (TokenKind::Secret, false));
        for (target, variable) in
            [(format!("/?token={sk}"), None), ("/".to_owned(), None), ("/".to_owned(), Some("x"))]
        {
            let refused = with(target, variable).unwrap_err();
            assert!(refused.is::<Misuse>() && !refused.to_string().contains("0123"), "{refused}");
        }
    }

    #[test]
    fn a_word_survives_a_shell() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
