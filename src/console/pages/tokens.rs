//! **API Tokens**: the list, oldest first, and the dialog that adds one.

use std::fmt::Write;

use askama::Template;
use axum::extract::{RawQuery, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;

use super::HOME;
use crate::console::Console;
use crate::console::form::{Form, Posted};
use crate::console::layout::{Failure, Frame, go, page};
use crate::console::notice::Notice;
use crate::console::session::Visitor;
use crate::console::shape::{Bar, Token};
use crate::console::words;

/// Tokens on a page.
const PER_PAGE: u64 = 50;
/// What may be filtered by.
const STATUSES: [(&str, &str); 5] = [
    ("", "Any status"),
    ("active", "Active"),
    ("disabled", "Disabled"),
    ("expired", "Expired"),
    ("revoked", "Revoked"),
];

#[derive(Deserialize)]
struct Listed {
    tokens: Vec<Token>,
    #[serde(default)]
    total: u64,
}

/// A row of the list.
struct Row {
    token: Token,
    status: &'static str,
    bars: Vec<Bar>,
    last_seen: String,
    created: String,
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct TokensPage {
    frame: Frame,
    rows: Vec<Row>,
    total: u64,
    first: u64,
    last: u64,
    q: String,
    status: String,
    statuses: [(&'static str, &'static str); 5],
    earlier: Option<String>,
    later: Option<String>,
    pages: u64,
    page: u64,
}

#[derive(Template)]
#[template(path = "new_token.html")]
struct NewTokenPage {
    frame: Frame,
}

/// `GET /console/tokens`
pub(crate) async fn list(
    visitor: Visitor,
    State(console): State<Console>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let query = Form::parse(query.unwrap_or_default().as_bytes());
    let wanted = query.get("page").and_then(|page| page.parse().ok()).filter(|page| *page > 0).unwrap_or(1);
    let (q, status) = (query.text("q").to_owned(), query.text("status").to_owned());
    let mut number: u64 = if query.text("page") == "last" { u64::MAX } else { wanted };
    let mut listed = ask(&console, &visitor, &q, &status, number).await?;
    let pages = listed.total.div_ceil(PER_PAGE).max(1);
    if number > pages {
        number = pages;
        listed = ask(&console, &visitor, &q, &status, number).await?;
    }
    let now = Timestamp::now();
    let first = (number - 1) * PER_PAGE;
    let link = |page: u64| address(&q, &status, page);
    let template = TokensPage {
        frame: visitor.frame("API Tokens", "tokens"),
        first: if listed.tokens.is_empty() { 0 } else { first + 1 },
        last: first + listed.tokens.len() as u64,
        rows: listed.tokens.into_iter().map(|token| row(token, now)).collect(),
        total: listed.total,
        earlier: (number > 1).then(|| link(number - 1)),
        later: (number < pages).then(|| link(number + 1)),
        pages,
        page: number,
        statuses: STATUSES,
        q,
        status,
    };
    Ok(page(StatusCode::OK, &template))
}

fn address(q: &str, status: &str, page: u64) -> String {
    let text = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    format!("{HOME}?q={}&status={}&page={page}", text(q), text(status))
}

async fn ask(
    console: &Console,
    visitor: &Visitor,
    q: &str,
    status: &str,
    page: u64,
) -> Result<Listed, Failure> {
    let text = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    // Beyond any last page: only how many there are is asked for.
    let (offset, limit) =
        if page == u64::MAX { (0, 1) } else { ((page - 1).saturating_mul(PER_PAGE), PER_PAGE) };
    let mut path = format!("/v1/tokens?usage=true&limit={limit}&offset={offset}");
    for (name, value) in [("q", q), ("status", status)] {
        if !value.is_empty() {
            // Writing to a text cannot fail.
            let _ = write!(path, "&{name}={}", text(value));
        }
    }
    console.api.get(&visitor.caller, &path).await.map_err(|refusal| Failure::of(visitor, refusal))
}

fn row(token: Token, now: Timestamp) -> Row {
    let bars = token.usage.as_ref().map_or_else(Vec::new, |usage| {
        let mut bars = vec![Bar::new("Core", &usage.core, token.credit_limit.core.as_ref())];
        if usage.premium.used > 0 || token.credit_limit.premium.is_some() || token.premium_access {
            bars.push(Bar::new("Premium", &usage.premium, token.credit_limit.premium.as_ref()));
        }
        bars
    });
    let expired =
        token.expires_at.as_ref().and_then(|at| at.parse::<Timestamp>().ok()).is_some_and(|at| at <= now);
    let status = match token.status.as_str() {
        "active" if expired => "Expired",
        "active" => "Active",
        "disabled" => "Disabled",
        "revoked" => "Revoked",
        _ => "Unreadable",
    };
    Row {
        status,
        bars,
        last_seen: token.last_used_at.as_deref().map_or_else(|| "never".to_owned(), |at| words::ago(at, now)),
        created: words::day(&token.created_at),
        token,
    }
}

/// `GET /console/tokens/new`: the dialog as a page of its own, for browsers without script.
pub(crate) async fn ask_new(visitor: Visitor) -> Response {
    page(StatusCode::OK, &NewTokenPage { frame: visitor.frame("Create new token", "tokens") })
}

/// `POST /console/tokens`
pub(crate) async fn create(
    State(console): State<Console>,
    Posted { visitor, form }: Posted,
) -> Result<Response, Failure> {
    let kind = if form.text("type") == "secret" { "secret" } else { "publishable" };
    let body = json!({ "type": kind });
    let sent = console.api.send::<Token>(&visitor.caller, Method::POST, "/v1/tokens?wait=2s", &body, None);
    let token = sent.await.map_err(|refusal| Failure::of(&visitor, refusal))?;
    let receipt =
        token.receipt.as_ref().map(|receipt| format!(" {}", receipt.sentence())).unwrap_or_default();
    if token.is_secret() {
        return Ok(super::token::values::show_value(
            &visitor,
            &token,
            "Successfully created a new secret token",
        ));
    }
    let notice = Notice::done(format!("Successfully created a new publishable token.{receipt}"));
    Ok(go(&format!("{HOME}?page=last#{}", token.id), &notice))
}
