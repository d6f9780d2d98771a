//! A client of the admin API: where it is, which secret token to show it, and what its answers mean.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::patience::Patience;
use super::{Global, refusal};
use crate::config::{self, Config};
use crate::policy::{Token, TokenKind};

/// The environment variable that may hold the secret token.
const TOKEN_VARIABLE: &str = "TOLLGATE_SECRET_TOKEN";
/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(90);
/// The largest answer that is read.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// The admin API's address, without a slash at its end.
#[derive(Debug, Clone)]
pub(super) struct AdminUrl(String);

impl FromStr for AdminUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write it as in http://127.0.0.1:8081";
        let url = url::Url::parse(text).map_err(|why| format!("{why}; {form}"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(format!("not an http or https URL; {form}"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!("the URL holds a user name or password; {form}"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("the URL has a query or a fragment; {form}"));
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}

/// One call.
#[derive(Debug, Default)]
pub(super) struct Call<'a> {
    /// The body, if there is one.
    pub(super) body: Option<&'a Value>,
    /// A body of JSON Lines instead.
    pub(super) lines: Option<&'a str>,
    /// The version to build on.
    pub(super) if_version: Option<u64>,
    /// Query parameters.
    pub(super) query: Vec<(&'a str, String)>,
}

impl<'a> Call<'a> {
    /// A call with nothing but a body.
    pub(super) fn with_body(body: &'a Value) -> Self {
        Self { body: Some(body), ..Self::default() }
    }
}

/// The admin API or its store is away: the same call may well go through in a moment.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Away(String);

/// The pauses between the tries of a call that is one of many.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// Tries again while the other side is away, a few times.
pub(super) fn patiently<T>(mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    for pause in PAUSES {
        match attempt() {
            Err(error) if error.is::<Away>() => std::thread::sleep(pause),
            done => return done,
        }
    }
    attempt()
}

/// A client with its secret token.
pub(super) struct Client {
    agent: ureq::Agent,
    base: String,
    token: Token,
    /// Where the token was found, for messages.
    token_from: String,
}

impl Client {
    /// Finds address and token: from the command line and the environment, else from the configuration.
    pub(super) fn new(global: &Global) -> anyhow::Result<Self> {
        let mut config = LazyConfig { path: &global.config, loaded: None };
        let base = base(global, &mut config)?;
        let (token, token_from) = match std::env::var(TOKEN_VARIABLE).ok().filter(|text| !text.is_empty()) {
            Some(text) => (read_token(&text, TOKEN_VARIABLE)?, TOKEN_VARIABLE.to_owned()),
            None => token_from_file(&config.get()?.secret_token_path())?,
        };
        Ok(Self { agent: agent(TIMEOUT, Trust::of(global)?), base, token, token_from })
    }

    /// The whole URL of a path.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Makes a call; anything but success is an error that says what to do.
    pub(super) fn call(&self, method: &str, path: &str, call: &Call<'_>) -> anyhow::Result<Value> {
        let mut url = format!("{}{path}", self.base);
        if !call.query.is_empty() {
            let pairs =
                url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&call.query).finish();
            url = format!("{url}?{pairs}");
        }
        let mut request = http::Request::builder()
            .method(method)
            .uri(&url)
            .header("Authorization", format!("Bearer {}", self.token.expose()))
            .header("Accept", "application/json");
        if let Some(version) = call.if_version {
            request = request.header("If-Match", format!("\"{version}\""));
        }
        let _patience = Patience::with(format!("waiting for {}", self.base));
        let answer = match (call.lines, call.body) {
            (Some(lines), _) => {
                self.agent.run(request.header("Content-Type", "application/x-ndjson").body(lines)?)
            }
            (None, Some(body)) => {
                let request = request.header("Content-Type", "application/json").body(body.to_string())?;
                self.agent.run(request)
            }
            (None, None) => self.agent.run(request.body(())?),
        };
        let mut answer = answer.map_err(|error| self.explain_failure(error))?;
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_string();
        let text = text.with_context(|| format!("the answer of {} broke off", self.base))?;
        match serde_json::from_str::<Value>(&text) {
            Ok(value) if status.is_success() => Ok(value),
            _ => Err(self.refused(status, &text)),
        }
    }

    /// Makes a call whose answer is no JSON but written to `out` as it comes, however long that takes.
    pub(super) fn download(&self, path: &str, out: &mut impl std::io::Write) -> anyhow::Result<u64> {
        let request = http::Request::builder()
            .method("POST")
            .uri(format!("{}{path}", self.base))
            .header("Authorization", format!("Bearer {}", self.token.expose()))
            .body(())?;
        let request = self.agent.configure_request(request).timeout_global(None).build();
        let _patience = Patience::with(format!("reading from {}", self.base));
        let mut answer = self.agent.run(request).map_err(|error| self.explain_failure(error))?;
        if !answer.status().is_success() {
            let text = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_string()?;
            return Err(self.refused(answer.status(), &text));
        }
        let broke_off = || format!("the answer of {} broke off", self.base);
        std::io::copy(&mut answer.body_mut().as_reader(), out).with_context(broke_off)
    }

    /// The error for an answer that is no success.
    fn refused(&self, status: http::StatusCode, text: &str) -> anyhow::Error {
        match serde_json::from_str::<Value>(text) {
            Ok(problem) if problem.get("code").is_some() => {
                let text = refusal::describe(status.as_u16(), &problem, &self.token_from);
                if status.as_u16() == 503 { Away(text).into() } else { anyhow!(text) }
            }
            _ => anyhow!(
                "{} answered {status}, and not as the admin API does; is that the admin address?",
                self.base
            ),
        }
    }

    fn explain_failure(&self, error: ureq::Error) -> anyhow::Error {
        let refused = match &error {
            ureq::Error::Io(cause) => cause.kind() == ErrorKind::ConnectionRefused,
            ureq::Error::ConnectionFailed => true,
            _ => false,
        };
        let base = &self.base;
        if refused {
            let text = format!("nobody answers at {base}: is `tollgate serve` running? Looked at {base}");
            return Away(text).into();
        }
        let hint = match &error {
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::Io(_)
                if base.starts_with("https:") =>
            {
                "; if it is the certificate: give --admin https://NAME:PORT with a name that stands in it, and --admin-ca FILE \
                 for whoever signed it"
            }
            _ => "",
        };
        anyhow::Error::from(error).context(Away(format!("could not talk to the admin API at {base}{hint}")))
    }
}

/// Where the admin API is.
fn base(global: &Global, config: &mut LazyConfig<'_>) -> anyhow::Result<String> {
    match &global.admin {
        Some(AdminUrl(url)) => Ok(url.clone()),
        None => configured_admin(config.get()?),
    }
}

/// Whose certificate is believed.
enum Trust {
    /// The public authorities'.
    Public,
    /// These authorities'.
    Named(Vec<Certificate<'static>>),
    /// Anybody's: for what tells nothing.
    Anyone,
}

impl Trust {
    /// As the command line says.
    fn of(global: &Global) -> anyhow::Result<Self> {
        let Some(path) = &global.admin_ca else { return Ok(Self::Public) };
        let pem =
            std::fs::read(path).with_context(|| format!("--admin-ca: cannot read {}", path.display()))?;
        let certificates = parse_pem(&pem).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        });
        let certificates: Vec<_> = certificates.collect();
        if certificates.is_empty() {
            bail!("--admin-ca: there is no certificate in {}; it must hold PEM", path.display());
        }
        Ok(Self::Named(certificates))
    }
}

/// A proxy from the environment must not see the secret token, nor a server that we are redirected to.
fn agent(timeout: Duration, trust: Trust) -> ureq::Agent {
    let tls = match trust {
        Trust::Public => TlsConfig::builder(),
        Trust::Named(certificates) => TlsConfig::builder().root_certs(RootCerts::from(certificates)),
        Trust::Anyone => TlsConfig::builder().disable_verification(true),
    };
    let settings = ureq::Agent::config_builder()
        .proxy(None)
        .tls_config(tls.build())
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .timeout_global(Some(timeout));
    settings.build().into()
}

/// Asks for a path that needs no token: the whole URL, the status, and the answer's text.
pub(super) fn ask_openly(
    global: &Global,
    path: &str,
    timeout: Duration,
) -> anyhow::Result<(String, u16, String)> {
    let base = base(global, &mut LazyConfig { path: &global.config, loaded: None })?;
    let url = format!("{base}{path}");
    // On the gate's own machine, by its own configuration, no name stands in the address that a certificate could be for.
    let trust = if global.admin.is_none() { Trust::Anyone } else { Trust::of(global)? };
    let mut answer =
        agent(timeout, trust).get(&url).call().map_err(|error| anyhow!("{url} does not answer: {error}"))?;
    let text = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_string();
    let text = text.with_context(|| format!("the answer of {url} broke off"))?;
    Ok((url, answer.status().as_u16(), text))
}

/// The configuration, read when something is needed of it and not before.
struct LazyConfig<'a> {
    path: &'a Path,
    loaded: Option<Config>,
}

impl LazyConfig<'_> {
    fn get(&mut self) -> anyhow::Result<&Config> {
        let config = match self.loaded.take() {
            Some(config) => config,
            None => config::load(self.path, &|name| std::env::var(name).ok()).with_context(|| {
                format!(
                    "{} should say where the admin API and the secret token are; without it, give --admin URL and \
                     {TOKEN_VARIABLE}",
                    self.path.display()
                )
            })?,
        };
        Ok(self.loaded.insert(config))
    }
}

fn configured_admin(config: &Config) -> anyhow::Result<String> {
    let Some(admin) = &config.admin else {
        bail!("{} has no `admin.address`; give --admin URL", config.path.display());
    };
    let scheme = if admin.tls.is_some() { "https" } else { "http" };
    Ok(format!("{scheme}://{}", reachable(admin.address)))
}

/// An address to call: where the configuration listens everywhere, this machine's own.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn token_from_file(path: &PathBuf) -> anyhow::Result<(Token, String)> {
    let shown = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "there is no secret token: {TOKEN_VARIABLE} is not set and {shown} does not exist; the first \
             `tollgate serve` writes it"
        ),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read the secret token from {shown}"));
        }
    };
    let from = shown.to_string();
    Ok((read_token(text.trim(), &from)?, from))
}

fn read_token(text: &str, from: &str) -> anyhow::Result<Token> {
    match Token::parse(text.as_bytes()) {
        Some(token) if token.kind() == TokenKind::Secret => Ok(token),
        Some(_) => bail!("{from} holds a publishable token; the admin API needs a secret one (sk_…)"),
        None => bail!("{from} does not hold a token (sk_ and 32 lowercase hex digits)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_listen_on_everywhere_is_called_on_this_machine() {
        for (listens, called) in [
            ("0.0.0.0:8081", "127.0.0.1:8081"),
            ("[::]:8081", "[::1]:8081"),
            ("192.0.2.7:8081", "192.0.2.7:8081"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), called);
        }
    }

    #[test]
    fn takes_admin_urls_and_refuses_what_is_none() {
        let url = "http://127.0.0.1:8081/".parse::<AdminUrl>().unwrap();
        assert_eq!(url.0, "http://127.0.0.1:8081");
        for text in
            ["", "127.0.0.1:8081", "localhost:8081", "ftp://x", "http://u:p@x", "http://x?y", "unix:/x"]
        {
            assert!(text.parse::<AdminUrl>().is_err(), "{text}");
        }
    }
}
