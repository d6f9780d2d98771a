//! What a form posted: names and texts, in order, some more than once (`application/x-www-form-urlencoded`).

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{HeaderMap, StatusCode, header};
use subtle::ConstantTimeEq;

use super::Console;
use super::api::Refusal;
use super::layout::Failure;
use super::session::Visitor;
use crate::admin::BODY_PATIENCE;

/// The fields of a form.
#[derive(Debug, Default, Clone)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(bytes).into_owned().collect())
    }

    /// The first text under a name, without white space around it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, text)| text.trim())
    }

    /// The same; empty if there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// All texts under a name.
    pub(super) fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, text)| text.trim())
    }

    /// Whether there is a field of this name: a box that is ticked, a button that was pressed.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// The version of what the page showed; `None`: it showed none.
    pub(super) fn version(&self) -> Option<u64> {
        self.get("version").and_then(|version| version.parse().ok())
    }

    /// The text as it came: a passphrase may begin with a blank.
    pub(super) fn raw(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, text)| text)
    }
}

/// A form of somebody who is signed in, posted from a page of this console.
pub(super) struct Posted {
    pub(super) visitor: Visitor,
    pub(super) form: Form,
}

impl FromRequest<Console> for Posted {
    type Rejection = Failure;

    async fn from_request(request: Request, console: &Console) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        check_same_site(&parts.headers)?;
        let visitor = Visitor::from_request_parts(&mut parts, console).await?;
        let form = read(Request::from_parts(parts, body)).await?;
        let given = form.text("csrf").as_bytes();
        if !bool::from(given.ct_eq(visitor.csrf.as_bytes())) {
            return Err(Failure::of(&visitor, forged()));
        }
        Ok(Self { visitor, form })
    }
}

/// A form of somebody who is not signed in yet, posted from a page of this console.
pub(super) struct Knocked(pub(super) Form);

impl FromRequest<Console> for Knocked {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &Console) -> Result<Self, Failure> {
        check_same_site(request.headers())?;
        read(request).await.map(Self)
    }
}

async fn read(request: Request) -> Result<Form, Failure> {
    let arrived = tokio::time::timeout(BODY_PATIENCE, Bytes::from_request(request, &())).await;
    let bytes = arrived.ok().and_then(Result::ok).ok_or_else(|| {
        let detail = "The form did not arrive whole, or in time, or is too large.";
        Failure::from(Refusal::new(StatusCode::BAD_REQUEST, detail))
    })?;
    Ok(Form::parse(&bytes))
}

/// Browsers say where a form stands; another site's is refused, whatever it holds.
fn check_same_site(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let fetched_here = text("sec-fetch-site").is_none_or(|site| matches!(site, "same-origin" | "none"));
    let host = text(header::HOST.as_str()).unwrap_or_default();
    let origin_here = text(header::ORIGIN.as_str()).is_none_or(|origin| {
        let origin_host = origin.split_once("://").map(|(_, host)| host);
        // `null` is what a browser says of a page whose referrer policy hides it; then the rest decides.
        origin == "null" || origin_host.is_some_and(|origin_host| origin_host.eq_ignore_ascii_case(host))
    });
    if fetched_here && origin_here { Ok(()) } else { Err(Failure::from(forged())) }
}

fn forged() -> Refusal {
    let detail = "This form did not come from a page of your session. Nothing was changed; go back, reload the page and try again.";
    Refusal::new(StatusCode::FORBIDDEN, detail)
}
