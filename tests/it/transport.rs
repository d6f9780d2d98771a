//! How clients reach the gate: TLS, HTTP/2, the PROXY protocol, and the limits that keep one of them from taking all.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

mod frames;
mod http2;
mod limits;
mod proxy_header;
mod tls;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(40);

/// Somebody who signs certificates.
struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let made = Self { folder: tempfile::tempdir().expect("a folder") };
        made.openssl(&format!("req -x509 {KEY} -days 2 -subj /CN=authority -keyout ca.key -out ca.pem"));
        made
    }

    /// Makes a certificate for a name, in files that begin with `file`.
    fn issue(&self, file: &str, name: &str) -> (PathBuf, PathBuf) {
        let ext = format!("subjectAltName=DNS:{name}\n");
        std::fs::write(self.path(&format!("{file}.ext")), ext).expect("a file");
        self.openssl(&format!("req {KEY} -subj /CN={name} -keyout {file}.key -out {file}.csr"));
        self.openssl(&format!(
            "x509 -req -in {file}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {file}.ext -out {file}.pem"
        ));
        (self.path(&format!("{file}.pem")), self.path(&format!("{file}.key")))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn openssl(&self, args: &str) {
        let mut command = Command::new("openssl");
        let output = command.args(args.split(' ')).current_dir(self.folder.path()).output();
        let output = output.expect("openssl can be run");
        assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// The certificate in a file.
fn certificate(path: &std::path::Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).expect("a certificate")
}

/// What a client of a TLS listener wants.
#[derive(Clone, Copy)]
struct Wish<'a> {
    authority: &'a Authority,
    name: &'static str,
    alpn: &'a [&'a [u8]],
    identity: Option<&'a (PathBuf, PathBuf)>,
    versions: &'static [&'static rustls::SupportedProtocolVersion],
}

impl<'a> Wish<'a> {
    fn new(authority: &'a Authority, name: &'static str) -> Self {
        Self { authority, name, alpn: &[], identity: None, versions: rustls::ALL_VERSIONS }
    }

    async fn open(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        self.over(TcpStream::connect(address).await?).await
    }

    async fn over(&self, tcp: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate(&self.authority.path("ca.pem"))).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let key = PrivateKeyDer::from_pem_file(key).expect("a key");
                builder.with_client_auth_cert(vec![certificate(cert)], key).expect("an identity")
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(self.name).expect("a name");
        let connecting = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp);
        tokio::time::timeout(PATIENCE, connecting).await.map_err(std::io::Error::other)?
    }
}

/// What is said in reply to some bytes: status, head and body, by the body's length.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    bytes: &[u8],
) -> std::io::Result<(u16, String, String)> {
    let exchanged = async {
        stream.write_all(bytes).await?;
        stream.flush().await?;
        let mut read = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_lowercase();
                let status: u16 = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
                let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
                let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
                if body.len() >= length {
                    return Ok((status, head, body.to_owned()));
                }
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    tokio::time::timeout(PATIENCE, exchanged).await.map_err(std::io::Error::other)?
}

/// Whether the other end closes, and sends nothing more.
async fn closes<S: AsyncRead + Unpin>(stream: &mut S) -> bool {
    let mut more = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut more)).await.expect("an end");
    // A reset is an end as well.
    end.is_err() || more.is_empty()
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: gate.test\r\n\r\n").into_bytes()
}

/// The keys of a listener that shows one certificate.
fn tls_keys((cert, key): &(PathBuf, PathBuf), more: &str) -> String {
    format!("tls: {{ cert: \"{}\", key: \"{}\"{more} }}", cert.display(), key.display())
}
