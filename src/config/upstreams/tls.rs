//! `tls`: how TLS is spoken to servers.

use std::path::PathBuf;

use super::{Item, Keys, Read, parse_host};

/// How TLS is spoken to servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Who signs the servers' certificates (PEM); `None`: the system's authorities.
    pub ca: Option<PathBuf>,
    /// The certificate and its key that this gate shows (PEM).
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name a certificate must be for; `None`: the server's own.
    pub server_name: Option<String>,
    /// Whether certificates are not looked at.
    pub trust_anyone: bool,
}

pub(super) const KEYS: Keys = Keys { known: &["ca", "cert", "key", "server_name", "verify"], later: &[] };

pub(super) fn read(item: &Item<'_>) -> Read<UpstreamTls> {
    let fields = item.fields(&KEYS, "a mapping such as {ca: ca.pem}, or {} for the public authorities")?;
    let path = |key: &str, expected: &str| fields.optional(key, |item| item.path(expected));
    let ca = path("ca", "the path of a PEM file with the certificates that are trusted");
    let cert = path("cert", "the path of a PEM file with this gate's certificate");
    let key = path("key", "the path of a PEM file with this gate's private key");
    let name = fields.optional("server_name", |item| item.parse("a name such as api.internal", parse_host));
    let verify = fields.or("verify", true, Item::boolean);
    let identity = match (cert?, key?) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => return Err(fields.refuse_missing("key", "missing; `cert` needs its private key")),
        (None, Some(_)) => return Err(fields.refuse_missing("cert", "missing; `key` needs its certificate")),
    };
    let tls = UpstreamTls { ca: ca?, identity, server_name: name?, trust_anyone: !verify? };
    match fields.get("ca") {
        Some(item) if tls.trust_anyone => {
            Err(item.refuse("with `verify: false` nobody's signature is looked at; take one of the two out"))
        }
        _ => Ok(tls),
    }
}
