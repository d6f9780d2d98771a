//! Certificates made for a test, and servers that show them: in front of the recording upstream, or speaking HTTP/2.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// One that signs.
pub(crate) struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Identity {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        // Two authorities of one name would be told apart by their signatures only.
        let mut name = [0; 8];
        getrandom::fill(&mut name).expect("randomness");
        params.distinguished_name.push(rcgen::DnType::CommonName, hex::encode(name));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// Signs a certificate for a name or address.
    pub(crate) fn sign(&self, name: &str) -> Identity {
        self.sign_with(name, |_| {})
    }

    /// Signs a certificate that was good last year.
    pub(crate) fn sign_expired(&self, name: &str) -> Identity {
        self.sign_until(name, 2021)
    }

    /// Signs a certificate that ends when this year begins.
    pub(crate) fn sign_until(&self, name: &str, year: i32) -> Identity {
        self.sign_with(name, |params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
        })
    }

    fn sign_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { certificate, key }
    }

    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, self.certificate.pem()).expect("a file");
    }
}

impl Identity {
    pub(crate) fn write(&self, certificate: &Path, key: &Path) {
        std::fs::write(certificate, self.certificate.pem()).expect("a file");
        std::fs::write(key, self.key.serialize_pem()).expect("a file");
    }
}

/// What a server shows, and whom it lets in.
pub(crate) fn acceptor(identity: &Identity, clients: Option<&Authority>, alpn: &[&str]) -> TlsAcceptor {
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.certificate.der().clone()).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        }
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.serialize_der()));
    let mut config = builder.with_single_cert(vec![identity.certificate.der().clone()], key).expect("a pair");
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// Speaks TLS in front of a server.
pub(crate) async fn in_front_of(server: SocketAddr, acceptor: TlsAcceptor) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut outer = acceptor.accept(stream).await.ok()?;
                let mut inner = TcpStream::connect(server).await.ok()?;
                tokio::io::copy_bidirectional(&mut outer, &mut inner).await.ok()
            });
        }
    });
    address
}

/// A server that speaks nothing but HTTP/2. It answers by the path's last segment: `trailers`, `stream` (events, and no
/// end), `echo`, else a short text.
#[derive(Clone)]
pub(crate) struct Http2Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<http::Request<usize>>>>,
    connections: Arc<Mutex<usize>>,
    failing: Arc<Mutex<bool>>,
}

impl Http2Upstream {
    pub(crate) async fn start(acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let upstream =
            Self { address, seen: Arc::default(), connections: Arc::default(), failing: Arc::default() };
        let shared = upstream.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, acceptor) = (shared.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => shared.serve(stream).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => shared.serve(stream).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        upstream
    }

    /// Requests so far; the body is its length.
    pub(crate) fn seen(&self) -> Vec<http::Request<usize>> {
        self.seen.lock().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock()
    }

    /// Answers with 503 from now on.
    pub(crate) fn fail(&self) {
        *self.failing.lock() = true;
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Option<()> {
        let mut connection = h2::server::handshake(stream).await.ok()?;
        *self.connections.lock() += 1;
        while let Some(next) = connection.accept().await {
            let (request, respond) = next.ok()?;
            let shared = self.clone();
            tokio::spawn(async move { shared.answer(request, respond).await });
        }
        Some(())
    }

    async fn answer(
        &self,
        request: http::Request<h2::RecvStream>,
        mut respond: h2::server::SendResponse<Bytes>,
    ) -> Option<()> {
        let (parts, mut body) = request.into_parts();
        let mut received = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece.ok()?;
            let _ = body.flow_control().release_capacity(piece.len());
            received.extend_from_slice(&piece);
        }
        let wish = parts.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        self.seen.lock().push(http::Request::from_parts(parts, received.len()));
        let mut head = http::Response::builder().status(if *self.failing.lock() { 503 } else { 200 });
        if wish == "stream" {
            head = head.header("content-type", "text/event-stream");
        }
        let mut stream = respond.send_response(head.body(()).ok()?, false).ok()?;
        match wish.as_str() {
            "trailers" => {
                stream.send_data(Bytes::from_static(b"body"), false).ok()?;
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().ok()?);
                stream.send_trailers(trailers).ok()
            }
            "stream" => {
                for at in 0..1000 {
                    stream.send_data(Bytes::from(format!("data: {at}\n\n")), false).ok()?;
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                None
            }
            "echo" => stream.send_data(received.into(), true).ok(),
            _ => stream.send_data(Bytes::from_static(b"hello"), true).ok(),
        }
    }
}
