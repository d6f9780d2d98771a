//! Forward-auth: the gate for proxies that are there already (`interface.md`, "As a plugin"; `deploy/forward-auth`).
//!
//! | path | who asks | what it is answered |
//! | --- | --- | --- |
//! | `/authz` | nginx, `HAProxy`, Caddy, Traefik: the request stands in headers | 204 and headers, or the refusal |
//! | `/authz/…` | Envoy: the request's own target follows | the same |
//! | `/answer`, `/answer/…` | a proxy that relays: preflights, and what the gate answers itself | what the client is to get |
//! | `/refusal` | nginx: a refusal that `?refuse=403` packed | that refusal |
//! | `/settle` | a proxy that knows how the response ended | the charge |
//!
//! Owns the wire form, and who may speak: only [`Authz::new`]'s `trusted`, since whoever speaks here says which request
//! it is about. Only a request that passes is ever answered 2xx at `/authz`, whatever else the gate would answer with
//! 2xx itself, so a proxy that takes 2xx for leave lets nothing else by. The decision is [`crate::gate::check`]'s. The
//! wire form of questions is in `question`, packed refusals in `refusal`, what is not settled yet in `claims`.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use http::request::Parts;
use http::{Method, StatusCode, header};
use ipnet::IpNet;

use crate::gate::Gate;
use crate::gate::check::{Charge, Checked, Question};

mod claims;
mod problem;
mod question;
mod refusal;
mod settle;

use claims::Claims;
use problem::Problem;
use question::Options;

/// How long open connections may take to end when the listener stops.
const LINGER: Duration = Duration::from_secs(1);

/// The service.
pub struct Authz {
    gate: Arc<Gate>,
    trusted: Vec<IpNet>,
    claims: Claims,
    warned: AtomicBool,
}

impl Authz {
    /// A service over a gate. Only `trusted` may speak to it. What is to be settled later is charged after
    /// `settle_within`.
    pub fn new(gate: Arc<Gate>, trusted: Vec<IpNet>, settle_within: Duration) -> Arc<Self> {
        Arc::new(Self { gate, trusted, claims: Claims::new(settle_within), warned: AtomicBool::new(false) })
    }

    /// Serves until `stop` is done.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub async fn serve(
        self: Arc<Self>,
        listener: std::net::TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        use axum::serve::ListenerExt;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let sweeper = tokio::spawn(claims::sweep(Arc::downgrade(&self)));
        let router = axum::Router::new().fallback(handle).with_state(self);
        let (stopped, ends) = tokio::sync::oneshot::channel::<()>();
        let server = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
            .with_graceful_shutdown(async move {
                stop.await;
                drop(stopped);
            });
        let ended = tokio::select! {
            ended = async { server.await } => ended,
            () = async { let _ = ends.await; tokio::time::sleep(LINGER).await } => Ok(()),
        };
        sweeper.abort();
        ended
    }

    /// Charges all that was not settled: nobody can settle it any more.
    pub async fn close(&self) {
        for open in self.claims.take_all() {
            self.gate.settle(open, None).await;
        }
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let trusted = self.trusted.iter().any(|net| net.contains(&peer));
        if !trusted && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(%peer, "forward-auth was asked by an address that authz.trusted does not name; it is refused, and not logged again");
        }
        trusted
    }

    async fn answer(&self, request: &Parts) -> Result<Response, Problem> {
        let path = request.uri.path();
        match path {
            "/settle" => return settle::settle(&self.gate, &self.claims, request).await,
            "/refusal" => return Ok(refusal::unpack(&request.headers)),
            _ => {}
        }
        // The target of the request itself may follow.
        let after =
            |prefix| path.strip_prefix(prefix).filter(|rest: &&str| rest.is_empty() || rest.starts_with('/'));
        if let Some(rest) = after("/authz") {
            let options = Options::read(rest, request.uri.query())?;
            return self.check(request, rest, options).await;
        }
        if let Some(rest) = after("/answer") {
            if rest.is_empty() {
                Options::read_none(request.uri.query())?;
            }
            let question = question::read(request, rest, Charge::Never)?;
            return match self.gate.check(question).await {
                Checked::Answer(answer) => Ok(relayed(answer)),
                Checked::Forward(..) => Err(Problem::NotRelayed),
            };
        }
        Err(Problem::NoPath)
    }

    async fn check(&self, request: &Parts, rest: &str, options: Options) -> Result<Response, Problem> {
        let later = options.settle_later && self.claims.has_room();
        let charge = if later { Charge::Later } else { Charge::AtOnce };
        let question = Question { as_is: options.as_is, ..question::read(request, rest, charge)? };
        match self.gate.check(question).await {
            Checked::Forward(mut answer, open) => {
                if let Some(open) = open {
                    let id = self.claims.keep(*open);
                    answer.headers_mut().insert("x-tollgate-claim", id);
                }
                Ok(relayed(answer))
            }
            Checked::Answer(answer) if options.refuse_403 => Ok(refusal::pack(&answer)),
            Checked::Answer(answer) if answer.status().is_success() => Err(Problem::NotRelayed),
            Checked::Answer(answer) => Ok(relayed(answer)),
        }
    }
}

async fn handle(
    State(authz): State<Arc<Authz>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    if !authz.trusts(peer.ip()) {
        return Problem::Untrusted.into_response();
    }
    // No question needs its body.
    let (request, _) = request.into_parts();
    authz.answer(&request).await.unwrap_or_else(Problem::into_response)
}

/// The answer as it goes out. A body's length is the server's to say, also that of none.
fn relayed(answer: http::Response<String>) -> Response {
    let mut answer = answer.map(Body::from);
    answer.headers_mut().remove(header::CONTENT_LENGTH);
    answer
}

/// Whether a method stands here.
fn is(request: &Parts, method: &Method) -> Result<(), Problem> {
    if request.method == method { Ok(()) } else { Err(Problem::Method) }
}

/// An answer without a body.
fn bare(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
