//! **People**: who may come in, and what they may do. A link that makes somebody a member is shown once, to whoever made it.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::PEOPLE;
use crate::console::Console;
use crate::console::api::{FieldError, Refusal};
use crate::console::form::Posted;
use crate::console::layout::{Failure, Frame, go, page};
use crate::console::notice::Notice;
use crate::console::session::{Origin, Visitor, is_https};
use crate::console::words::{day, moment};
use crate::store::trail::Actor;

#[derive(Deserialize)]
struct Members {
    members: Vec<Member>,
}

#[derive(Debug, Clone, Deserialize)]
struct Member {
    id: String,
    name: String,
    role: String,
    /// `active`, `invited`, `lapsed`.
    status: String,
    #[serde(default)]
    invited_until: Option<String>,
    created_at: String,
    version: u64,
    #[serde(default)]
    invitation: Option<Link>,
}

#[derive(Debug, Clone, Deserialize)]
struct Link {
    path: String,
    until: String,
}

impl Member {
    fn is_admin(&self) -> bool {
        self.role == "admin"
    }

    /// The state's style and its words.
    fn badge(&self) -> (&'static str, String) {
        match (self.status.as_str(), self.invited_until.as_deref()) {
            ("active", Some(until)) => ("ok", format!("Member; new link open until {} UTC", moment(until))),
            ("active", None) => ("ok", "Member".to_owned()),
            (_, Some(until)) => ("warn", format!("Invited, until {} UTC", moment(until))),
            (_, None) => ("state", "Invitation ran out".to_owned()),
        }
    }
}

/// A row of the list.
struct Row {
    member: Member,
    since: String,
    /// Whoever looks at the page: nobody takes their own rights away by a slip.
    is_self: bool,
}

#[derive(Template)]
#[template(path = "people.html")]
struct PeoplePage {
    frame: Frame,
    rows: Vec<Row>,
    name: String,
    role: String,
    error: String,
}

#[derive(Template)]
#[template(path = "invitation.html")]
struct InvitationPage {
    frame: Frame,
    name: String,
    role: String,
    path: String,
    link: String,
    until: String,
}

#[derive(Template)]
#[template(path = "remove_member.html")]
struct RemovePage {
    frame: Frame,
    member: Member,
}

/// `GET /console/people`
pub(crate) async fn list(visitor: Visitor, State(console): State<Console>) -> Result<Response, Failure> {
    show(&console, &visitor, None).await
}

/// Somebody who could not be invited: name, role, and why.
type Refused<'a> = (&'a str, &'a str, &'a Refusal);

async fn show(
    console: &Console,
    visitor: &Visitor,
    refused: Option<Refused<'_>>,
) -> Result<Response, Failure> {
    let found = console.api.get::<Members>(&visitor.caller, "/v1/members").await;
    let found = found.map_err(|refusal| Failure::of(visitor, refusal))?;
    let own = match &visitor.caller.actor {
        Actor::Member { id, .. } => id.as_str(),
        _ => "",
    };
    let row = |member: Member| Row { is_self: member.id == own, since: day(&member.created_at), member };
    let mut template = PeoplePage {
        frame: visitor.frame("People", "people"),
        rows: found.members.into_iter().map(row).collect(),
        name: String::new(),
        role: "viewer".to_owned(),
        error: String::new(),
    };
    let Some((name, role, refusal)) = refused else { return Ok(page(StatusCode::OK, &template)) };
    let details = refusal.errors.iter().map(told).collect::<Vec<_>>().join("; ");
    template.error = if details.is_empty() { refusal.detail.clone() } else { details };
    name.clone_into(&mut template.name);
    role.clone_into(&mut template.role);
    let notice = Notice::error("Nobody was invited.");
    template.frame = template.frame.with_notice(Some(notice));
    Ok(page(refusal.status(), &template))
}

fn told(error: &FieldError) -> String {
    match error.pointer.trim_start_matches('/') {
        "" => error.detail.clone(),
        field => format!("{field} {}", error.detail),
    }
}

fn path(id: &str) -> String {
    format!("/v1/members/{}", utf8_percent_encode(id, NON_ALPHANUMERIC))
}

async fn find(console: &Console, visitor: &Visitor, id: &str) -> Result<Member, Failure> {
    console.api.get(&visitor.caller, &path(id)).await.map_err(|refusal| Failure::of(visitor, refusal))
}

/// `POST /console/people`
pub(crate) async fn invite(
    State(console): State<Console>,
    origin: Origin,
    Posted { visitor, form }: Posted,
) -> Result<Response, Failure> {
    let role = if form.text("role") == "admin" { "admin" } else { "viewer" };
    let body = json!({ "name": form.text("name"), "role": role });
    let sent = console.api.send::<Member>(&visitor.caller, Method::POST, "/v1/members", &body, None).await;
    match sent {
        Ok(member) => Ok(show_link(&visitor, &origin, member, "Invited")),
        Err(refusal)
            if matches!(refusal.status(), StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY) =>
        {
            show(&console, &visitor, Some((form.text("name"), role, &refusal))).await
        }
        Err(refusal) => Err(Failure::of(&visitor, refusal)),
    }
}

/// The one page on which a link stands. It is the answer to the form itself, so no address leads to it again.
fn show_link(visitor: &Visitor, origin: &Origin, member: Member, did: &str) -> Response {
    let Some(link) = member.invitation else {
        return go(PEOPLE, &Notice::done(format!("{did} {}.", member.name)));
    };
    let notice = Notice::done(format!("{did} {}.", member.name));
    let template = InvitationPage {
        frame: visitor.frame("Invitation", "people").with_notice(Some(notice)),
        name: member.name,
        role: member.role,
        link: format!("{}{}", base(origin), link.path),
        path: link.path,
        until: moment(&link.until),
    };
    page(StatusCode::OK, &template)
}

/// Where this console is, as the browser that asks sees it; empty where it does not say.
fn base(origin: &Origin) -> String {
    let text = |name: &str| origin.headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(origin) = text("origin").filter(|origin| origin.starts_with("http")) {
        // It was compared with the host already, when the form came.
        return origin.to_owned();
    }
    let scheme = if is_https(&origin.headers) { "https" } else { "http" };
    text("host").map_or_else(String::new, |host| format!("{scheme}://{host}"))
}

/// Back to the list, with what came of it.
fn back(visitor: &Visitor, sent: Result<Value, Refusal>, done: &str) -> Result<Response, Failure> {
    match sent {
        Ok(_) => Ok(go(PEOPLE, &Notice::done(done))),
        Err(refusal) if refusal.is_conflict() => {
            let detail = "Somebody else changed this member meanwhile. Nothing was done; look again.";
            Ok(go(PEOPLE, &Notice::error(detail)))
        }
        Err(refusal) if refusal.status() == StatusCode::CONFLICT => {
            Ok(go(PEOPLE, &Notice::error(refusal.detail)))
        }
        Err(refusal) => Err(Failure::of(visitor, refusal)),
    }
}

/// `POST /console/people/{id}/role`: gives or takes admin status.
pub(crate) async fn set_role(
    State(console): State<Console>,
    Path(id): Path<String>,
    Posted { visitor, form }: Posted,
) -> Result<Response, Failure> {
    let member = find(&console, &visitor, &id).await?;
    let role = if form.text("role") == "admin" { "admin" } else { "viewer" };
    let body = json!({ "role": role });
    let sent = console.api.send(&visitor.caller, Method::PATCH, &path(&id), &body, form.version()).await;
    let name = &member.name;
    let done = if role == "admin" {
        format!("{name} is an admin now.")
    } else {
        format!("{name} is a viewer now, and sees everything but secrets.")
    };
    back(&visitor, sent, &done)
}

/// `POST /console/people/{id}/invite`: a new link; one there was, the passphrase and all sessions are void.
pub(crate) async fn renew(
    State(console): State<Console>,
    Path(id): Path<String>,
    origin: Origin,
    Posted { visitor, form }: Posted,
) -> Result<Response, Failure> {
    let path = format!("{}/invite", path(&id));
    let sent =
        console.api.send::<Member>(&visitor.caller, Method::POST, &path, &json!({}), form.version()).await;
    match sent {
        Ok(member) => Ok(show_link(&visitor, &origin, member, "Made a new link for")),
        Err(refusal) => back(&visitor, Err(refusal), ""),
    }
}

/// `GET /console/people/{id}/remove`: the confirmation.
pub(crate) async fn ask_remove(
    visitor: Visitor,
    State(console): State<Console>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let member = find(&console, &visitor, &id).await?;
    let frame = visitor.frame(&format!("Remove {}", member.name), "people");
    Ok(page(StatusCode::OK, &RemovePage { frame, member }))
}

/// `POST /console/people/{id}/remove`
pub(crate) async fn remove(
    State(console): State<Console>,
    Path(id): Path<String>,
    Posted { visitor, form }: Posted,
) -> Result<Response, Failure> {
    let member = find(&console, &visitor, &id).await?;
    let sent =
        console.api.send(&visitor.caller, Method::DELETE, &path(&id), &json!({}), form.version()).await;
    back(&visitor, sent, &format!("Removed {}. They are signed out everywhere.", member.name))
}
