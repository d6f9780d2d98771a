//! Signing in and out, taking up an invitation, changing one's passphrase.

use askama::Template;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;

use super::{HOME, SIGN_IN};
use crate::admin::Refused;
use crate::console::Console;
use crate::console::form::{Form, Knocked, Posted};
use crate::console::layout::{Failure, Frame, go, page};
use crate::console::notice::Notice;
use crate::console::session::{Origin, Visitor, begin, end};
use crate::store::people::MemberId;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    frame: Frame,
    name: String,
    next: String,
}

#[derive(Template)]
#[template(path = "join.html")]
struct JoinPage {
    frame: Frame,
    name: String,
    role: &'static str,
    until: String,
}

#[derive(Template)]
#[template(path = "passphrase.html")]
struct PassphrasePage {
    frame: Frame,
}

/// `GET /console/sign-in`
pub(crate) async fn show(RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let query = Form::parse(query.unwrap_or_default().as_bytes());
    let frame = Frame::open("Sign in").with_notice(Notice::read(&headers));
    page(
        StatusCode::OK,
        &SignInPage { frame, name: String::new(), next: local(query.text("next")).to_owned() },
    )
}

/// Only pages of this console are gone on to: no other site can send people anywhere through it.
fn local(next: &str) -> &str {
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if next.starts_with("/console/") && plain && !next.starts_with(SIGN_IN) { next } else { HOME }
}

/// `POST /console/sign-in`: with name and passphrase, or with a secret token.
pub(crate) async fn enter(
    State(console): State<Console>,
    origin: Origin,
    Knocked(form): Knocked,
) -> Response {
    let (name, next) = (form.text("name"), local(form.text("next")));
    let entered = if form.text("token").is_empty() {
        console.door.sign_in_with_passphrase(name, form.raw("passphrase"), &origin.asker()).await
    } else {
        console.door.sign_in_with_token(form.text("token"), &origin.asker()).await
    };
    match entered {
        Ok(entered) => begin(&entered, &origin.headers, next),
        Err(refused) => {
            let frame = told("Sign in", &refused);
            sent(&refused, &SignInPage { frame, name: name.to_owned(), next: next.to_owned() })
        }
    }
}

fn told(title: &str, refused: &Refused) -> Frame {
    Frame::open(title).with_notice(Some(Notice::error(refused.to_string())))
}

fn sent(refused: &Refused, template: &impl Template) -> Response {
    let mut response = page(refused.status(), template);
    if let Some(wait) = refused.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    response
}

/// `POST /console/sign-out`: the session is over, here and for whoever has a copy of the cookie.
pub(crate) async fn leave(
    State(console): State<Console>,
    origin: Origin,
    posted: Posted,
) -> Result<Response, Failure> {
    console.door.sign_out(&posted.visitor.cookie, &origin.asker()).await?;
    Ok(end(SIGN_IN))
}

fn invited(id: &str) -> Result<MemberId, Failure> {
    MemberId::parse(id).ok_or_else(|| Refused::InvitationOver.into())
}

/// `GET /console/join/{id}/{secret}`: the link of an invitation. Looking at it uses nothing up.
pub(crate) async fn show_invitation(
    State(console): State<Console>,
    Path((id, secret)): Path<(String, String)>,
    origin: Origin,
) -> Result<Response, Failure> {
    let frame = Frame::open("Welcome to Tollgate");
    join(&console, &invited(&id)?, &secret, &origin, frame, StatusCode::OK).await
}

async fn join(
    console: &Console,
    id: &MemberId,
    secret: &str,
    origin: &Origin,
    frame: Frame,
    status: StatusCode,
) -> Result<Response, Failure> {
    let invited = console.door.invitation(id, secret, &origin.asker()).await?;
    let until = crate::console::words::moment(&invited.until.to_string());
    Ok(page(status, &JoinPage { frame, name: invited.name, role: invited.role.as_str(), until }))
}

/// `POST /console/join/{id}/{secret}`: sets the first passphrase, once.
pub(crate) async fn accept_invitation(
    State(console): State<Console>,
    Path((id, secret)): Path<(String, String)>,
    origin: Origin,
    Knocked(form): Knocked,
) -> Result<Response, Failure> {
    let id = invited(&id)?;
    let title = "Welcome to Tollgate";
    if form.raw("passphrase") != form.raw("again") {
        let frame = Frame::open(title).with_notice(Some(Notice::error(DIFFER)));
        return join(&console, &id, &secret, &origin, frame, StatusCode::UNPROCESSABLE_ENTITY).await;
    }
    match console.door.accept_invitation(&id, &secret, form.raw("passphrase"), &origin.asker()).await {
        Ok(entered) => Ok(begin(&entered, &origin.headers, HOME)),
        Err(refused @ Refused::Passphrase(_)) => {
            join(&console, &id, &secret, &origin, told(title, &refused), refused.status()).await
        }
        Err(refused) => Err(refused.into()),
    }
}

const DIFFER: &str = "The two passphrases differ. Type the same one twice.";

/// `GET /console/passphrase`
pub(crate) async fn show_passphrase(visitor: Visitor) -> Response {
    page(StatusCode::OK, &PassphrasePage { frame: visitor.frame("Change passphrase", "") })
}

/// `POST /console/passphrase`: all other sessions of the member end.
pub(crate) async fn change_passphrase(
    State(console): State<Console>,
    origin: Origin,
    Posted { visitor, form }: Posted,
) -> Response {
    let again = |status, text: String| {
        let frame = visitor.frame("Change passphrase", "").with_notice(Some(Notice::error(text)));
        page(status, &PassphrasePage { frame })
    };
    if form.raw("passphrase") != form.raw("again") {
        return again(StatusCode::UNPROCESSABLE_ENTITY, DIFFER.to_owned());
    }
    let (old, new) = (form.raw("old"), form.raw("passphrase"));
    match console.door.change_passphrase(&visitor.cookie, old, new, &origin.asker()).await {
        Ok(entered) => {
            let mut response = begin(&entered, &origin.headers, HOME);
            let notice = Notice::done("Your passphrase is changed. Everywhere else you are signed out.");
            if let Some(cookie) = notice.to_cookie() {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
            response
        }
        Err(Refused::SignedOut) => go(SIGN_IN, &Notice::error("You are signed out. Nothing was changed.")),
        Err(refused) => again(refused.status(), refused.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_only_to_pages_of_the_console() {
        let table = [
            ("/console/usage?by=day", "/console/usage?by=day"),
            ("", HOME),
            ("/", HOME),
            ("//evil.test/console/", HOME),
            ("https://evil.test/console/", HOME),
            ("/console/\\evil.test", HOME),
            ("/console/ x", HOME),
            ("/console/sign-in?next=/console/sign-in", HOME),
        ];
        for (next, to) in table {
            assert_eq!(local(next), to, "{next}");
        }
    }
}
