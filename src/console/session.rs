//! Who is signed in: the cookie, and what the [`Door`](crate::admin::Door) says of it at each request.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::Console;
use super::api::Refusal;
use super::layout::{Failure, Frame};
use super::notice::Notice;
use crate::admin::{Asker, Caller, Entered};
use crate::store::people::Role;

/// The session's cookie.
pub(super) const COOKIE: &str = "tollgate_session";

/// Somebody who is signed in. It holds their cookie, so it does not say what it is in a log.
#[derive(Clone)]
pub(super) struct Visitor {
    /// As whom the API is asked.
    pub(super) caller: Caller,
    /// What the pages call them.
    pub(super) name: String,
    /// What stands in each form of theirs.
    pub(super) csrf: String,
    /// Whether they are a member, with a passphrase of their own.
    pub(super) is_member: bool,
    /// The cookie's value.
    pub(super) cookie: String,
    notice: Option<Notice>,
}

impl Visitor {
    /// Whether they may change anything.
    pub(super) fn is_admin(&self) -> bool {
        self.caller.role == Role::Admin
    }

    /// What all pages of theirs share.
    pub(super) fn frame(&self, title: &str, here: &'static str) -> Frame {
        let mut frame = Frame::open(title);
        frame.here = here;
        frame.who.clone_from(&self.name);
        frame.csrf.clone_from(&self.csrf);
        frame.is_admin = self.is_admin();
        frame.is_member = self.is_member;
        frame.notice.clone_from(&self.notice);
        frame
    }
}

impl FromRequestParts<Console> for Visitor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Failure> {
        let found = match cookie(&parts.headers, COOKIE) {
            Some(value) => console.door.session(value, &asker(parts)).await?.map(|found| (value, found)),
            None => None,
        };
        let Some((value, (caller, signed_in))) = found else { return Err(send_away(parts)) };
        Ok(Self {
            caller,
            name: signed_in.name,
            csrf: signed_in.csrf,
            is_member: signed_in.member.is_some(),
            cookie: value.to_owned(),
            notice: Notice::read(&parts.headers),
        })
    }
}

/// Who asks, as far as the request itself tells.
fn asker(parts: &Parts) -> Asker<'_> {
    let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    Asker { address, headers: &parts.headers }
}

/// From where a request came, and its headers, for those who sign in.
#[derive(Debug)]
pub(super) struct Origin {
    address: Option<IpAddr>,
    pub(super) headers: HeaderMap,
}

impl Origin {
    pub(super) fn asker(&self) -> Asker<'_> {
        Asker { address: self.address, headers: &self.headers }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let Asker { address, .. } = asker(parts);
        Ok(Self { address, headers: parts.headers.clone() })
    }
}

/// Nobody is signed in: whoever wants to see a page is asked to, and comes back to it.
fn send_away(parts: &Parts) -> Failure {
    if parts.method == Method::GET {
        let wanted = parts.uri.path_and_query().map_or("", |wanted| wanted.as_str());
        let wanted = utf8_percent_encode(wanted, NON_ALPHANUMERIC);
        let to = format!("{}?next={wanted}", super::pages::SIGN_IN);
        return Failure::from_response(Redirect::to(&to).into_response());
    }
    let detail = "You are signed out. Nothing was changed; sign in and try again.";
    Failure::from(Refusal::new(StatusCode::UNAUTHORIZED, detail))
}

/// The value of a cookie.
pub(super) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// Gives a browser its session, and sends it to a page.
pub(super) fn begin(entered: &Entered, headers: &HeaderMap, to: &str) -> Response {
    let (value, max_age) = (&entered.cookie, entered.max_age.as_secs());
    let secure = if is_https(headers) { "; Secure" } else { "" };
    let cookie =
        format!("{COOKIE}={value}; Path=/console; Max-Age={max_age}; HttpOnly; SameSite=Strict{secure}");
    let mut response = Redirect::to(to).into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// Takes the session from a browser, and sends it to a page.
pub(super) fn end(to: &str) -> Response {
    let mut response = Redirect::to(to).into_response();
    let gone = format!("{COOKIE}=; Path=/console; Max-Age=0; HttpOnly; SameSite=Strict");
    if let Ok(gone) = HeaderValue::from_str(&gone) {
        response.headers_mut().append(header::SET_COOKIE, gone);
    }
    response
}

/// Whether the browser speaks TLS, to a proxy before the console: then the cookie must not go over anything else.
pub(super) fn is_https(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
}
