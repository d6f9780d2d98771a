//! TLS to servers: what Pingora's connector is given, read from files and checked before any request needs it.
//!
//! What its rustls connector does with a peer was read in its source: it verifies chain, time and name, honours a
//! peer's own authorities and client certificate, and verifies **nothing** where a peer has no server name. So a name is
//! always given. Its loaders panic at a certificate they cannot read; so each is read here first.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use pingora::protocols::tls::CaType;
use pingora::tls::{CertificateDer, ClientConfig, RootCertStore, load_certs_and_key_files, version};
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use x509_parser::pem::Pem;

use crate::config::UpstreamTls;

/// Marks the group of connections of those that speak TLS.
const SPOKEN: u64 = 1 << 63;

/// What is shown and trusted.
pub(super) struct Tls {
    ca: Option<Arc<CaType>>,
    identity: Option<Arc<CertKey>>,
    server_name: Option<String>,
    trust_anyone: bool,
    /// Connections are shared only among those with the same trust and identity.
    group: u64,
}

/// Which file cannot be used, and why.
#[derive(Debug)]
pub(super) struct BadFile {
    pub(super) path: String,
    pub(super) why: String,
}

impl Tls {
    /// Reads the files.
    pub(super) fn try_load(settings: &UpstreamTls) -> Result<Self, BadFile> {
        pingora::tls::install_default_crypto_provider();
        let mut hasher = DefaultHasher::new();
        let mut roots = RootCertStore::empty();
        let mut ca = None;
        if let Some(path) = &settings.ca {
            let certificates = read_certificates(path)?;
            for der in &certificates {
                let added = roots.add(CertificateDer::from(der.clone()));
                added.map_err(|error| bad(path, error))?;
            }
            certificates.hash(&mut hasher);
            let wrapped = certificates.into_iter().map(|der| WrappedX509::new(der, parse_x509));
            ca = Some(wrapped.collect::<Vec<_>>().into());
        }
        let mut identity = None;
        if let Some((cert, key)) = &settings.identity {
            let certificates = read_certificates(cert)?;
            certificates.hash(&mut hasher);
            identity = Some(Arc::new(read_identity(cert, key, certificates, roots)?));
        }
        settings.server_name.hash(&mut hasher);
        settings.trust_anyone.hash(&mut hasher);
        Ok(Self {
            ca,
            identity,
            server_name: settings.server_name.clone(),
            trust_anyone: settings.trust_anyone,
            group: hasher.finish() | SPOKEN,
        })
    }

    /// Tells a peer what to show and whom to trust; `host` is the server's name in the configuration.
    pub(super) fn dress(&self, peer: &mut HttpPeer, host: &str) {
        let name = self.server_name.as_deref().unwrap_or(host);
        // A certificate's names have no final dot.
        name.trim_end_matches('.').clone_into(&mut peer.sni);
        peer.scheme = pingora::upstreams::peer::Scheme::HTTPS;
        peer.options.ca.clone_from(&self.ca);
        peer.client_cert_key.clone_from(&self.identity);
        peer.options.verify_cert = !self.trust_anyone;
        peer.options.verify_hostname = !self.trust_anyone;
        peer.group_key = self.group;
    }
}

fn bad(path: &Path, why: impl std::fmt::Display) -> BadFile {
    BadFile { path: path.display().to_string(), why: why.to_string() }
}

fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>, BadFile> {
    let text = fs::read(path).map_err(|error| bad(path, error))?;
    let mut certificates = Vec::new();
    for pem in Pem::iter_from_buffer(&text) {
        let pem = pem.map_err(|_| bad(path, "it is not PEM"))?;
        if pem.label != "CERTIFICATE" {
            continue;
        }
        pem.parse_x509().map_err(|_| bad(path, "it holds a certificate that cannot be read"))?;
        certificates.push(pem.contents);
    }
    if certificates.is_empty() {
        return Err(bad(path, "it holds no certificate (PEM)"));
    }
    Ok(certificates)
}

fn read_identity(
    cert: &Path,
    key: &Path,
    certificates: Vec<Vec<u8>>,
    roots: RootCertStore,
) -> Result<CertKey, BadFile> {
    let [cert_text, key_text] = [cert, key].map(|path| path.display().to_string());
    let loaded =
        load_certs_and_key_files(&cert_text, &key_text).map_err(|error| bad(key, error.to_string()))?;
    let Some((chain, private)) = loaded else { return Err(bad(key, "it holds no private key (PEM)")) };
    let der = private.secret_der().to_vec();
    // Whether the two belong together.
    let built = ClientConfig::builder_with_protocol_versions(&[&version::TLS12, &version::TLS13])
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, private);
    built.map_err(|error| bad(key, format!("with {cert_text}: {error}")))?;
    Ok(CertKey::new(certificates, der))
}
