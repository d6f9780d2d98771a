//! The certificates a listener shows, read anew when their files change.
//!
//! New files are taken as a whole: if one of them cannot be used, all that was in force stays in force, and the log says
//! so. Connections that stand are not touched.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{
    ClientHello, ParsedCertificate, ResolvesServerCert, ServerConfig, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use sha2::{Digest, Sha256};

use crate::config::{Tls, TlsVersion};
use crate::server::expiry::{Expiry, Teller};

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} holds no {what}: {why}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Certificate and key cannot be used together.
    #[error("the certificate in {cert} cannot be used with its key: {source}", cert = cert.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The settings as a whole.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// What is shown on one listener.
pub(in crate::server) struct Certificates {
    files: Tls,
    alpn: &'static [&'static [u8]],
    teller: Teller,
    tried: Mutex<[u8; 32]>,
    current: ArcSwap<ServerConfig>,
}

impl Certificates {
    /// Reads all files; `teller` tells until when they are good.
    pub(super) fn load(
        files: &Tls,
        alpn: &'static [&'static [u8]],
        teller: Teller,
    ) -> Result<Self, TlsError> {
        let read = Files::read(files)?;
        let config = build(files, &read, alpn)?;
        teller.tell(&read.expiries(files));
        Ok(Self {
            files: files.clone(),
            alpn,
            teller,
            tried: Mutex::new(read.digest),
            current: ArcSwap::from_pointee(config),
        })
    }

    /// What a connection that begins now is shown.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Reads the files anew; `true`: they differ, and are in force. The same bad files are told of once.
    pub(super) fn reload(&self) -> Result<bool, TlsError> {
        let read = Files::read(&self.files)?;
        let mut tried = self.tried.lock();
        if *tried == read.digest {
            return Ok(false);
        }
        *tried = read.digest;
        self.current.store(Arc::new(build(&self.files, &read, self.alpn)?));
        self.teller.tell(&read.expiries(&self.files));
        Ok(true)
    }
}

/// The files' contents, read once.
struct Files {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    client_ca: Option<Vec<u8>>,
    digest: [u8; 32],
}

impl Files {
    fn read(files: &Tls) -> Result<Self, TlsError> {
        let mut hash = Sha256::new();
        let mut read = |path: &Path| {
            let content =
                std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
            hash.update((content.len() as u64).to_be_bytes());
            hash.update(&content);
            Ok::<_, TlsError>(content)
        };
        let mut pairs = Vec::new();
        for pair in &files.certificates {
            pairs.push((read(&pair.cert)?, read(&pair.key)?));
        }
        let client_ca = files.client_ca.as_deref().map(read).transpose()?;
        Ok(Self { pairs, client_ca, digest: hash.finalize().into() })
    }

    /// Until when each certificate is good.
    fn expiries(&self, files: &Tls) -> Vec<Expiry> {
        let read = files.certificates.iter().zip(&self.pairs);
        read.filter_map(|(paths, (cert, _))| Expiry::of_pem(&paths.cert, cert)).collect()
    }
}

fn build(files: &Tls, read: &Files, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let mut keys = Vec::new();
    for (paths, (cert, key)) in files.certificates.iter().zip(&read.pairs) {
        let chain = certificates_of(&paths.cert, cert)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Content {
            path: paths.key.clone(),
            what: "private key",
            why: error.to_string(),
        })?;
        let pair = CertifiedKey::from_der(chain, key, &provider)
            .map_err(|source| TlsError::Pair { cert: paths.cert.clone(), source })?;
        keys.push(Arc::new(pair));
    }
    let versions: &[_] = match files.min_version {
        TlsVersion::V1_2 => &[&TLS12, &TLS13],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let setup = |error: &dyn std::fmt::Display| TlsError::Setup(error.to_string());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| setup(&error))?;
    let builder = match (&files.client_ca, &read.client_ca) {
        (Some(path), Some(content)) => {
            let verifier = clients_of(path, content, &provider)?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(BySni { keys }));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // Tickets are sealed with a key of this configuration: what was agreed under an earlier one is not resumed.
    config.ticketer = ring::Ticketer::new().map_err(|error| setup(&error))?;
    Ok(config)
}

fn certificates_of(path: &Path, content: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |why: String| TlsError::Content { path: path.to_owned(), what: "certificate", why };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    let chain = chain.map_err(|error| bad(error.to_string()))?;
    if chain.is_empty() { Err(bad("it has no section CERTIFICATE".to_owned())) } else { Ok(chain) }
}

fn clients_of(
    path: &Path,
    content: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let bad = |error: &dyn std::fmt::Display| TlsError::Content {
        path: path.to_owned(),
        what: "certificate of an authority",
        why: error.to_string(),
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates_of(path, content)? {
        roots.add(certificate).map_err(|error| bad(&error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    verifier.build().map_err(|error| bad(&error))
}

/// Chooses by the name that a client asks for; where none fits, or none is asked for, the first.
#[derive(Debug)]
struct BySni {
    keys: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let first = self.keys.first()?;
        if self.keys.len() == 1 {
            return Some(first.clone());
        }
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let fits = |key: &&Arc<CertifiedKey>| {
            let (Some(name), Some(certificate)) = (&name, key.cert.first()) else { return false };
            ParsedCertificate::try_from(certificate)
                .is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok())
        };
        Some(self.keys.iter().find(fits).unwrap_or(first).clone())
    }
}
