//! What is no field of a token: its value shown, a new value, a signing secret, its status, its end.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::find;
use crate::console::Console;
use crate::console::form::Posted;
use crate::console::layout::{Failure, Frame, go, page};
use crate::console::notice::Notice;
use crate::console::pages::HOME;
use crate::console::session::Visitor;
use crate::console::shape::{Receipt, Token};

#[derive(Template)]
#[template(path = "value.html")]
struct ValuePage {
    frame: Frame,
    what: &'static str,
    value: String,
    hint: &'static str,
    id: String,
    name: String,
}

#[derive(Template)]
#[template(path = "revoke.html")]
struct RevokePage {
    frame: Frame,
    token: Token,
}

fn show(
    visitor: &Visitor,
    title: &str,
    what: &'static str,
    value: &str,
    hint: &'static str,
    token: &Token,
) -> Response {
    let template = ValuePage {
        frame: visitor.frame(title, "tokens"),
        what,
        value: value.to_owned(),
        hint,
        id: token.id.clone(),
        name: token.name().to_owned(),
    };
    page(StatusCode::OK, &template)
}

/// A page with the value of a token that was just made or changed.
pub(crate) fn show_value(visitor: &Visitor, token: &Token, said: &str) -> Response {
    let receipt =
        token.receipt.as_ref().map(|receipt| format!(". {}", receipt.sentence())).unwrap_or_default();
    let (what, hint) = if token.is_secret() {
        (
            "Secret token",
            "Keep it where only your servers can read it. It can be revealed again as long as the master key is there.",
        )
    } else {
        ("Publishable token", "It may stand in web pages and apps.")
    };
    let value = token.token.clone().unwrap_or_default();
    let template = ValuePage {
        frame: visitor.frame("Token", "tokens").with_notice(Some(Notice::done(format!("{said}{receipt}")))),
        what,
        value,
        hint,
        id: token.id.clone(),
        name: token.name().to_owned(),
    };
    page(StatusCode::OK, &template)
}

#[derive(Deserialize)]
struct Revealed {
    token: String,
}

/// `POST /console/tokens/{id}/reveal`
pub(crate) async fn reveal(
    State(console): State<Console>,
    Path(id): Path<String>,
    Posted { visitor, .. }: Posted,
) -> Result<Response, Failure> {
    let token = find(&console, &visitor, &id).await?;
    let path = format!("/v1/tokens/{}/reveal", token.id);
    let sent = console.api.send::<Revealed>(&visitor.caller, Method::POST, &path, &json!({}), None).await;
    let revealed = sent.map_err(|refusal| Failure::of(&visitor, refusal))?;
    let hint = "This look at it stands in the audit.";
    Ok(show(&visitor, "Secret token", "Secret token", &revealed.token, hint, &token))
}

/// `POST /console/tokens/{id}/rotate`
pub(crate) async fn rotate(
    State(console): State<Console>,
    Path(id): Path<String>,
    Posted { visitor, form }: Posted,
) -> Result<Response, Failure> {
    let token = find(&console, &visitor, &id).await?;
    let body = json!({ "grace": form.text("grace") });
    let path = format!("/v1/tokens/{}/rotate?wait=2s", token.id);
    let sent = console.api.send::<Token>(&visitor.caller, Method::POST, &path, &body, None).await;
    let rotated = sent.map_err(|refusal| Failure::of(&visitor, refusal))?;
    Ok(show_value(&visitor, &rotated, "The token has a new value"))
}

#[derive(Deserialize)]
struct MadeSecret {
    signing_secret: String,
}

/// `POST /console/tokens/{id}/signing-secret`
pub(crate) async fn make_signing_secret(
    State(console): State<Console>,
    Path(id): Path<String>,
    Posted { visitor, .. }: Posted,
) -> Result<Response, Failure> {
    let token = find(&console, &visitor, &id).await?;
    let path = format!("/v1/tokens/{}/signing-secret?wait=2s", token.id);
    let sent = console.api.send::<MadeSecret>(&visitor.caller, Method::POST, &path, &json!({}), None).await;
    let made = sent.map_err(|refusal| Failure::of(&visitor, refusal))?;
    let hint = "It is shown only this once. One that the token had before signs no more.";
    Ok(show(&visitor, "Signing secret", "Signing secret", &made.signing_secret, hint, &token))
}

/// `POST /console/tokens/{id}/status`: disable or enable.
pub(crate) async fn set_status(
    State(console): State<Console>,
    Path(id): Path<String>,
    Posted { visitor, form }: Posted,
) -> Result<Response, Failure> {
    let token = find(&console, &visitor, &id).await?;
    let status = if form.text("status") == "disabled" { "disabled" } else { "active" };
    let path = format!("/v1/tokens/{}?wait=2s", token.id);
    let body = json!({ "status": status });
    let sent = console.api.send::<Value>(&visitor.caller, Method::PATCH, &path, &body, None).await;
    let answer = sent.map_err(|refusal| Failure::of(&visitor, refusal))?;
    let did = if status == "disabled" { "Disabled" } else { "Enabled" };
    Ok(go(&format!("{HOME}/{}", token.id), &told(did, &token, &answer)))
}

fn told(did: &str, token: &Token, answer: &Value) -> Notice {
    let receipt = Receipt::sentence_of(answer);
    Notice::done(format!("{did} {}. {receipt}", token.name()))
}

/// `GET /console/tokens/{id}/revoke`: the confirmation as a page of its own.
pub(crate) async fn ask_revoke(
    visitor: Visitor,
    State(console): State<Console>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let token = find(&console, &visitor, &id).await?;
    let frame = visitor.frame(&format!("Revoke {}", token.name()), "tokens");
    Ok(page(StatusCode::OK, &RevokePage { frame, token }))
}

/// `POST /console/tokens/{id}/revoke`
pub(crate) async fn revoke(
    State(console): State<Console>,
    Path(id): Path<String>,
    Posted { visitor, .. }: Posted,
) -> Result<Response, Failure> {
    let token = find(&console, &visitor, &id).await?;
    let path = format!("/v1/tokens/{}?wait=2s", token.id);
    let sent = console.api.send::<Value>(&visitor.caller, Method::DELETE, &path, &json!({}), None).await;
    let answer = sent.map_err(|refusal| Failure::of(&visitor, refusal))?;
    Ok(go(&format!("{HOME}#{}", token.id), &told("Revoked", &token, &answer)))
}
