//! **People**: the members, their roles, and the links that invite them.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::console::Console;
use crate::console::api::Refusal;
use crate::console::form::Posted;
use crate::console::layout::{Failure, Frame, go, page};
use crate::console::notice::Notice;
use crate::console::session::Visitor;
use crate::console::words;

/// Where it is.
const PEOPLE: &str = "/console/people";

#[derive(Debug, Clone, Deserialize)]
struct Member {
    id: String,
    name: String,
    role: String,
    status: String,
    #[serde(default)]
    invited_until: Option<String>,
    created_at: String,
    #[serde(default)]
    invitation: Option<Link>,
}

impl Member {
    fn is_admin(&self) -> bool {
        self.role == "admin"
    }

    /// How far the member is, as people say it.
    fn standing(&self) -> String {
        match (self.status.as_str(), &self.invited_until) {
            ("active", _) => "active".to_owned(),
            ("invited", Some(until)) => format!("invited, until {} UTC", words::moment(until)),
            _ => "the invitation is over".to_owned(),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
struct Link {
    path: String,
    until: String,
}

#[derive(Deserialize)]
struct Members {
    members: Vec<Member>,
}

#[derive(Template)]
#[template(path = "people.html")]
struct PeoplePage {
    frame: Frame,
    members: Vec<Member>,
    /// What was typed, where it could not be taken.
    name: String,
    role: String,
    error: String,
}

#[derive(Template)]
#[template(path = "invitation.html")]
struct InvitationPage {
    frame: Frame,
    name: String,
    url: String,
    until: String,
}

#[derive(Template)]
#[template(path = "remove_member.html")]
struct RemovePage {
    frame: Frame,
    member: Member,
}

/// What an entry could not be taken for.
#[derive(Default)]
struct Typed {
    name: String,
    role: String,
    error: String,
    status: Option<StatusCode>,
}

/// `GET /console/people`
pub(crate) async fn list(visitor: Visitor, State(console): State<Console>) -> Result<Response, Failure> {
    show(&console, &visitor, Typed { role: "viewer".to_owned(), ..Typed::default() }).await
}

async fn show(console: &Console, visitor: &Visitor, typed: Typed) -> Result<Response, Failure> {
    let members = console.api.get::<Members>(&visitor.caller, "/v1/members").await;
    let members = members.map_err(|refusal| Failure::of(visitor, refusal))?.members;
    let notice = (!typed.error.is_empty()).then(|| Notice::error("Nobody was invited."));
    let frame = visitor.frame("People", "people").with_notice(notice);
    let Typed { name, role, error, status } = typed;
    Ok(page(status.unwrap_or(StatusCode::OK), &PeoplePage { frame, members, name, role, error }))
}

fn path_of(id: &str) -> String {
    format!("/v1/members/{}", utf8_percent_encode(id, NON_ALPHANUMERIC))
}

async fn find(console: &Console, visitor: &Visitor, id: &str) -> Result<Member, Failure> {
    let found = console.api.get(&visitor.caller, &path_of(id)).await;
    found.map_err(|refusal| Failure::of(visitor, refusal))
}

/// `POST /console/people`: invites.
pub(crate) async fn invite(
    State(console): State<Console>,
    headers: HeaderMap,
    Posted { visitor, form }: Posted,
) -> Result<Response, Failure> {
    let (name, role) = (form.text("name"), form.text("role"));
    let body = json!({ "name": name, "role": role });
    match console.api.send::<Member>(&visitor.caller, Method::POST, "/v1/members", &body, None).await {
        Ok(member) => Ok(show_link(&visitor, &headers, &member, &format!("Invited {}", member.name))),
        Err(refusal) if refusal.status() == StatusCode::FORBIDDEN => Err(Failure::of(&visitor, refusal)),
        Err(refusal) => {
            let details: Vec<_> = refusal.errors.iter().map(|error| error.detail.clone()).collect();
            let error = if details.is_empty() { refusal.detail.clone() } else { details.join("; ") };
            let status = Some(refusal.status());
            let typed = Typed { name: name.to_owned(), role: role.to_owned(), error, status };
            show(&console, &visitor, typed).await
        }
    }
}

/// The page with the link, which is shown only this once.
fn show_link(visitor: &Visitor, headers: &HeaderMap, member: &Member, said: &str) -> Response {
    let (path, until) = member.invitation.as_ref().map_or(("", ""), |link| (&link.path, &link.until));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let scheme = if crate::console::session::is_https(headers) { "https" } else { "http" };
    let template = InvitationPage {
        frame: visitor.frame("Invitation", "people").with_notice(Some(Notice::done(format!("{said}.")))),
        name: member.name.clone(),
        url: format!("{scheme}://{host}{path}"),
        until: words::moment(until),
    };
    page(StatusCode::OK, &template)
}

/// `POST /console/people/{id}/link`: another link, as for a passphrase that was forgotten.
pub(crate) async fn renew(
    State(console): State<Console>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Posted { visitor, .. }: Posted,
) -> Result<Response, Failure> {
    let path = format!("{}/invite", path_of(&id));
    let sent = console.api.send::<Member>(&visitor.caller, Method::POST, &path, &json!({}), None).await;
    let member = sent.map_err(|refusal| Failure::of(&visitor, refusal))?;
    Ok(show_link(&visitor, &headers, &member, &format!("{} has a new link", member.name)))
}

/// `POST /console/people/{id}/role`: gives or takes admin status.
pub(crate) async fn set_role(
    State(console): State<Console>,
    Path(id): Path<String>,
    Posted { visitor, form }: Posted,
) -> Result<Response, Failure> {
    let body = json!({ "role": form.text("role") });
    let sent = console.api.send::<Member>(&visitor.caller, Method::PATCH, &path_of(&id), &body, None).await;
    match sent {
        Ok(member) => {
            let now = if member.is_admin() { "an admin" } else { "a viewer" };
            Ok(go(PEOPLE, &Notice::done(format!("{} is {now} now.", member.name))))
        }
        Err(refusal) => told(&visitor, refusal),
    }
}

/// Back to the list with what stood in the way, where that is something to think about.
fn told(visitor: &Visitor, refusal: Refusal) -> Result<Response, Failure> {
    if refusal.status() == StatusCode::CONFLICT {
        return Ok(go(PEOPLE, &Notice::error(refusal.detail)));
    }
    Err(Failure::of(visitor, refusal))
}

/// `GET /console/people/{id}/remove`: asks first.
pub(crate) async fn ask_remove(
    visitor: Visitor,
    State(console): State<Console>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let member = find(&console, &visitor, &id).await?;
    let frame = visitor.frame(&format!("Remove {}", member.name), "people");
    Ok(page(StatusCode::OK, &RemovePage { frame, member }))
}

/// `POST /console/people/{id}/remove`: their sessions end at once.
pub(crate) async fn remove(
    State(console): State<Console>,
    Path(id): Path<String>,
    Posted { visitor, .. }: Posted,
) -> Result<Response, Failure> {
    let member = find(&console, &visitor, &id).await?;
    let sent =
        console.api.send::<Value>(&visitor.caller, Method::DELETE, &path_of(&id), &json!({}), None).await;
    match sent {
        Ok(_) => {
            let text = format!("{} is no member any more; their sessions have ended.", member.name);
            Ok(go(PEOPLE, &Notice::done(text)))
        }
        Err(refusal) => told(&visitor, refusal),
    }
}
