//! **The API token form**: everything a token may do, on one page.
//!
//! One form: "Done" saves all of it and goes back to the list; the buttons of its parts ("Update domain", "Set limit", …)
//! save that part and stay, with whatever else was typed. [`entries`] is what stands in the fields and what is to be
//! changed; `domains` checks rules while they are typed; `values` has what is no field: reveal, rotate, disable, revoke.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;

use super::HOME;
use crate::console::Console;
use crate::console::api::{FieldError, Refusal};
use crate::console::form::Posted;
use crate::console::layout::{Failure, Frame, go, page};
use crate::console::notice::Notice;
use crate::console::session::Visitor;
use crate::console::shape::{Bar, PERIODS, Receipt, Token};
use crate::console::words;

pub(super) mod domains;
mod entries;
pub(super) mod values;

use entries::{Entries, Part};

/// How many data sets are suggested.
const SUGGESTED: usize = 200;

#[derive(Template)]
#[template(path = "token.html")]
struct TokenPage {
    frame: Frame,
    token: Token,
    entries: Entries,
    bars: Vec<Bar>,
    errors: Vec<FieldError>,
    verdict: Option<domains::Verdict>,
    suggestions: Vec<String>,
    periods: [(&'static str, &'static str); 4],
}

impl TokenPage {
    fn error(&self, pointer: &str) -> String {
        let inside =
            |at: &str| at == pointer || at.strip_prefix(pointer).is_some_and(|rest| rest.starts_with('/'));
        let found = self.errors.iter().filter(|error| inside(&error.pointer));
        found.map(|error| error.detail.as_str()).collect::<Vec<_>>().join("; ")
    }

    fn limit_error(&self, pool: &str) -> String {
        self.error(&format!("/credit_limit/{pool}"))
    }
}

async fn find(console: &Console, visitor: &Visitor, id: &str) -> Result<Token, Failure> {
    let path = format!("/v1/tokens/{}", utf8_percent_encode(id, NON_ALPHANUMERIC));
    console.api.get(&visitor.caller, &path).await.map_err(|refusal| Failure::of(visitor, refusal))
}

/// What a page says besides the token itself.
#[derive(Default)]
struct Said {
    notice: Option<Notice>,
    errors: Vec<FieldError>,
    verdict: Option<domains::Verdict>,
    status: Option<StatusCode>,
}

async fn render(
    console: &Console,
    visitor: &Visitor,
    token: Token,
    entries: Entries,
    said: Said,
) -> Response {
    let bars = token.usage.as_ref().map_or_else(Vec::new, |usage| {
        vec![
            Bar::new("Core", &usage.core, token.credit_limit.core.as_ref()),
            Bar::new("Premium", &usage.premium, token.credit_limit.premium.as_ref()),
        ]
    });
    let title = format!("API token {}", token.name());
    let template = TokenPage {
        frame: visitor.frame(&title, "tokens").with_notice(said.notice),
        bars,
        entries,
        errors: said.errors,
        verdict: said.verdict,
        suggestions: suggestions(console, visitor).await,
        periods: PERIODS,
        token,
    };
    page(said.status.unwrap_or(StatusCode::OK), &template)
}

#[derive(Deserialize)]
struct Grantable {
    datasets: Vec<String>,
}

/// Data sets that could be granted. Without them the page is as good, so trouble is not told.
async fn suggestions(console: &Console, visitor: &Visitor) -> Vec<String> {
    let grantable = console.api.get::<Grantable>(&visitor.caller, "/v1/datasets").await;
    let mut found = grantable.map_or_else(|_| Vec::new(), |grantable| grantable.datasets);
    found.truncate(SUGGESTED);
    found
}

/// `GET /console/tokens/{id}`
pub(crate) async fn show(
    visitor: Visitor,
    State(console): State<Console>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let token = find(&console, &visitor, &id).await?;
    let entries = Entries::of(&token);
    Ok(render(&console, &visitor, token, entries, Said::default()).await)
}

/// `POST /console/tokens/{id}`
pub(crate) async fn save(
    State(console): State<Console>,
    Path(id): Path<String>,
    Posted { visitor, form }: Posted,
) -> Result<Response, Failure> {
    let token = find(&console, &visitor, &id).await?;
    let mut entries = Entries::read(&form);
    let part = Part::pressed(&form);
    if part == Part::TestPage {
        let verdict = Some(domains::judge(&entries.domains, &entries.page));
        return Ok(render(&console, &visitor, token, entries, Said { verdict, ..Said::default() }).await);
    }
    let errors = entries.apply_button(&form, part);
    if !errors.is_empty() {
        return Ok(refused(&console, &visitor, token, entries, errors, None).await);
    }
    let patch = entries.patch(&token, part);
    if patch.as_object().is_some_and(serde_json::Map::is_empty) {
        if part == Part::Everything {
            return Ok(go(HOME, &Notice::done(format!("Nothing was changed at {}.", token.name()))));
        }
        let notice = Some(Notice::done("That is as it was; nothing was changed."));
        return Ok(render(&console, &visitor, token, entries, Said { notice, ..Said::default() }).await);
    }
    let path = format!("/v1/tokens/{}?wait=2s", token.id);
    let sent =
        console.api.send::<Value>(&visitor.caller, Method::PATCH, &path, &patch, entries.version).await;
    match sent {
        Ok(answer) => {
            let receipt = Receipt::sentence_of(&answer);
            let token = find(&console, &visitor, &id).await?;
            if part == Part::Everything {
                let notice = Notice::done(format!("Saved {}. {receipt}", token.name()));
                return Ok(go(&format!("{HOME}#{}", token.id), &notice));
            }
            entries.take_saved(&token, part);
            let notice = Some(Notice::done(format!("{} {receipt}", part.done())));
            Ok(render(&console, &visitor, token, entries, Said { notice, ..Said::default() }).await)
        }
        Err(refusal) if refusal.is_conflict() => {
            entries.version = Some(token.version);
            let detail = "Somebody else changed this token meanwhile. Nothing of yours was saved. Look at what stands here \
                          and save again, or reload the page to see theirs.";
            let detail = Refusal::new(StatusCode::PRECONDITION_FAILED, detail);
            Ok(refused(&console, &visitor, token, entries, Vec::new(), Some(detail)).await)
        }
        Err(refusal) if refusal.errors.is_empty() => Err(Failure::of(&visitor, refusal)),
        Err(refusal) => {
            let errors = refusal.errors.clone();
            Ok(refused(&console, &visitor, token, entries, errors, Some(refusal)).await)
        }
    }
}

async fn refused(
    console: &Console,
    visitor: &Visitor,
    token: Token,
    entries: Entries,
    errors: Vec<FieldError>,
    refusal: Option<Refusal>,
) -> Response {
    let status = refusal.as_ref().map_or(StatusCode::UNPROCESSABLE_ENTITY, Refusal::status);
    let detail = refusal.map_or_else(
        || "Some entries cannot be taken; nothing was changed.".to_owned(),
        |refusal| refusal.detail,
    );
    let said = Said { notice: Some(Notice::error(detail)), errors, status: Some(status), verdict: None };
    render(console, visitor, token, entries, said).await
}
