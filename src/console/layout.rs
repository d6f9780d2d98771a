//! What all pages share: the frame around them, how they are sent, and how trouble is told.

use std::fmt::Write;

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};

use super::api::Refusal;
use super::assets::Addresses;
use super::notice::Notice;
use super::session::Visitor;
use crate::admin::Refused;

/// The frame around a page.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) title: String,
    /// Which entry of the navigation it stands under.
    pub(super) here: &'static str,
    /// Who is signed in; empty: nobody.
    pub(super) who: String,
    pub(super) csrf: String,
    pub(super) is_admin: bool,
    pub(super) is_member: bool,
    pub(super) notice: Option<Notice>,
    pub(super) assets: Addresses,
}

impl Frame {
    /// A page's frame for somebody who is not signed in.
    pub(super) fn open(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            here: "",
            who: String::new(),
            csrf: String::new(),
            is_admin: false,
            is_member: false,
            notice: None,
            assets: Addresses::now(),
        }
    }

    /// The frame with something to say first.
    pub(super) fn with_notice(mut self, notice: Option<Notice>) -> Self {
        if notice.is_some() {
            self.notice = notice;
        }
        self
    }
}

/// Sends a page. A notice that stands in it is not shown again.
pub(super) fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => {
            let mut response = (status, Html(text)).into_response();
            response.headers_mut().append(header::SET_COOKIE, Notice::gone());
            response
        }
        Err(error) => {
            tracing::error!(%error, "a page of the console cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Sends a browser to a page, which says this first. `303`: it gets the page, whatever it did before.
pub(super) fn go(to: &str, notice: &Notice) -> Response {
    let mut response = Redirect::to(to).into_response();
    if let Some(cookie) = notice.to_cookie() {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

#[derive(Template)]
#[template(path = "failure.html")]
struct FailurePage {
    frame: Frame,
    status: u16,
    detail: String,
}

/// A page that could not be made, as the page that says why.
pub(super) struct Failure(Box<Response>);

impl Failure {
    /// For somebody who is signed in.
    pub(super) fn of(visitor: &Visitor, refusal: Refusal) -> Self {
        Self::in_frame(visitor.frame("Something is in the way", ""), refusal)
    }

    pub(super) fn from_response(response: Response) -> Self {
        Self(Box::new(response))
    }

    fn in_frame(frame: Frame, refusal: Refusal) -> Self {
        let status = refusal.status();
        let mut detail = refusal.detail;
        for error in refusal.errors {
            // Writing to a text cannot fail.
            let _ = write!(detail, " {}: {}.", error.pointer, error.detail);
        }
        let mut response = page(status, &FailurePage { frame, status: status.as_u16(), detail });
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Self::from_response(response)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::in_frame(Frame::open("Something is in the way"), refusal)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Refusal::new(refused.status(), &refused.to_string()).into()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        *self.0
    }
}
