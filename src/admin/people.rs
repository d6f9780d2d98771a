//! Members: list, invite, read, edit, remove; and a new link for one of them.
//!
//! Owns what an admin may do to members. How a member gets in, and who is in, is the [`door`]'s; what they may do then,
//! [`super::auth`] says. A member can neither take their own admin role away nor remove or re-invite themselves, so that
//! nobody locks themselves out by a slip; another admin can, and so can a secret token.

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::auth::Caller;
use super::body::Body;
use super::precondition::{ATTEMPTS, IfMatch, etag, too_busy};
use super::problem::{FieldError, Problem, ProblemBody};
use super::query::Query;
use super::schema::{MemberEdit, MemberFields};
use super::{Shared, created};
use crate::store::people::{Member, MemberId, MemberWritten, Role};
use crate::store::trail::{Actor, Change};

pub(crate) mod door;
mod fields;
mod invitation;
mod view;

use view::{LinkView, MemberView, MembersView};

/// How far the clocks of nodes may lie apart, so that a session ends that a node with a fast clock began.
const SKEW: SignedDuration = SignedDuration::from_secs(60);

/// Ends all of a member's sessions, as of a write at `now`. Those that begin later begin at
/// [`Member::sessions_since`] at the earliest.
fn end_sessions(member: &mut Member, now: Timestamp) {
    let skewed = now.saturating_add(SKEW).unwrap_or(now);
    // Whole milliseconds, so that it is the same in every form it is kept in; and later than all that began so far.
    let later = member.sessions_since.max(skewed).as_millisecond() + 1;
    member.sessions_since = Timestamp::from_millisecond(later).unwrap_or(member.sessions_since);
}

/// The member's id in the path. What is no id is nobody's.
#[derive(Debug)]
pub(super) struct Id(MemberId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text =
            Path::<String>::from_request_parts(parts, state).await.map_err(|_| Problem::no_member())?;
        MemberId::parse(&text.0).map(Self).ok_or_else(Problem::no_member)
    }
}

/// The members, oldest first.
#[utoipa::path(get, path = "/v1/members", operation_id = "list_members", tag = "members", responses(
    (status = 200, description = "All of them.", body = MembersView),
))]
pub(super) async fn list(_: Caller, State(shared): State<Shared>, query: Query) -> Result<Response, Problem> {
    query.allow_none()?;
    let now = (shared.admin.now)();
    let members = shared.admin.store.members(&shared.admin.account).await?;
    let view = MembersView { members: members.iter().map(|member| MemberView::new(member, now)).collect() };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(view)).into_response())
}

/// Invites somebody. The answer has the link that makes them a member: only this once, good for seven days.
#[utoipa::path(post, path = "/v1/members", operation_id = "invite_member", tag = "members",
    request_body = MemberFields,
    responses(
        (status = 201, description = "The new member, with the link to take up.", body = MemberView,
         headers(("Location" = String, description = "Where it is."),
                 ("ETag" = String, description = "Its version in quotes."))),
        (status = 409, description = "Another member has that name.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 422, description = "Some fields cannot be taken; all of them are named.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn invite(
    caller: Caller,
    State(shared): State<Shared>,
    query: Query,
    Body(body): Body,
) -> Result<Response, Problem> {
    query.allow_none()?;
    let (name, role) = fields::read_new(&body)?;
    let now = (shared.admin.now)();
    let created_at = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let (invitation, secret) = invitation::invite(now)?;
    let mut member = Member {
        id: MemberId::from_ulid(shared.fresh.ulid(now)?),
        name,
        role,
        passphrase: None,
        invitation: Some(invitation),
        sessions_since: created_at,
        created_at,
        version: 1,
    };
    let is_new = |Change { field, from, to }| Change { field, from: to, to: from };
    let changes = told(&member, None).map(is_new).collect();
    let note = caller.note("member.invite", &member.id, changes);
    match shared.admin.store.create_member(&shared.admin.account, &member, &note).await? {
        MemberWritten::Done { version } => member.version = version,
        MemberWritten::NameTaken => return Err(name_taken()),
        // The id is made of random bits; one that is taken already is no member of ours.
        MemberWritten::Conflict { .. } | MemberWritten::Missing => return Err(too_busy()),
    }
    Ok(created(show(&member, now, Some(&secret)), &format!("/v1/members/{}", member.id)))
}

/// One member.
#[utoipa::path(get, path = "/v1/members/{id}", operation_id = "read_member", tag = "members",
    params(("id" = String, Path, description = "The member's id.")),
    responses(
        (status = 200, description = "The member.", body = MemberView,
         headers(("ETag" = String, description = "Its version in quotes."))),
        (status = 404, description = "No such member.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn read(
    _: Caller,
    State(shared): State<Shared>,
    Id(id): Id,
    query: Query,
) -> Result<Response, Problem> {
    query.allow_none()?;
    Ok(show(&find(&shared, &id).await?, (shared.admin.now)(), None))
}

/// Edits a member by a merge patch: absent keeps. A new role holds from the next request of a session on. A member cannot
/// take away their own admin role.
#[utoipa::path(patch, path = "/v1/members/{id}", operation_id = "edit_member", tag = "members",
    request_body(content((MemberEdit = "application/json"), (MemberEdit = "application/merge-patch+json"))),
    params(
        ("id" = String, Path, description = "The member's id."),
        ("If-Match" = Option<String>, Header, description = "The version to build on, in quotes."),
    ),
    responses(
        (status = 200, description = "The member as they are now.", body = MemberView,
         headers(("ETag" = String, description = "Its version in quotes."))),
        (status = 404, description = "No such member.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 409, description = "Another member has that name, or it would be the caller's own admin role.",
         body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "Somebody else wrote first.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 422, description = "Some fields cannot be taken; all of them are named.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn edit(
    caller: Caller,
    State(shared): State<Shared>,
    Id(id): Id,
    query: Query,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<Response, Problem> {
    query.allow_none()?;
    let (name, role) = fields::read_edit(&body)?;
    let edited = |before: &Member| {
        let mut after = before.clone();
        after.name = name.clone().unwrap_or(after.name);
        after.role = role.unwrap_or(after.role);
        if before.role == Role::Admin && after.role != Role::Admin {
            check_other(&caller, &id, "take away your own admin role")?;
        }
        Ok(after)
    };
    let member = change(&shared, &caller, "member.edit", &id, &if_match, edited).await?;
    Ok(show(&member, (shared.admin.now)(), None))
}

/// Removes a member, and ends their sessions. What they did stays in the trail. Nobody can remove themselves.
#[utoipa::path(delete, path = "/v1/members/{id}", operation_id = "remove_member", tag = "members",
    params(
        ("id" = String, Path, description = "The member's id."),
        ("If-Match" = Option<String>, Header, description = "The version to build on, in quotes."),
    ),
    responses(
        (status = 200, description = "The member as they were.", body = MemberView),
        (status = 404, description = "No such member.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 409, description = "It is the caller.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 412, description = "Somebody else wrote first.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn remove(
    caller: Caller,
    State(shared): State<Shared>,
    Id(id): Id,
    query: Query,
    if_match: IfMatch,
) -> Result<Response, Problem> {
    query.allow_none()?;
    for _ in 0..ATTEMPTS {
        let member = find(&shared, &id).await?;
        if_match.check(member.version)?;
        check_other(&caller, &id, "remove yourself")?;
        let note = caller.note("member.remove", &id, told(&member, None).collect());
        let (store, account) = (&shared.admin.store, &shared.admin.account);
        match store.remove_member(account, &id, member.version, &note).await? {
            MemberWritten::Done { .. } => {
                let view = MemberView::new(&member, (shared.admin.now)());
                return Ok(([(header::CACHE_CONTROL, "no-store")], Json(view)).into_response());
            }
            MemberWritten::Conflict { version } => if_match.retry(version)?,
            MemberWritten::Missing | MemberWritten::NameTaken => return Err(Problem::no_member()),
        }
    }
    Err(too_busy())
}

/// Gives a member a new link, for one who lost theirs or their passphrase. Their sessions end, their passphrase and the
/// link of before are good no more. Members change their own passphrase in the console instead.
#[utoipa::path(post, path = "/v1/members/{id}/invite", operation_id = "renew_invitation", tag = "members",
    params(
        ("id" = String, Path, description = "The member's id."),
        ("If-Match" = Option<String>, Header, description = "The version to build on, in quotes."),
    ),
    responses(
        (status = 200, description = "The member, with the link to take up.", body = MemberView,
         headers(("ETag" = String, description = "The member's version in quotes."))),
        (status = 404, description = "No such member.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 409, description = "It is the caller.", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 412, description = "Somebody else wrote first.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn renew(
    caller: Caller,
    State(shared): State<Shared>,
    Id(id): Id,
    query: Query,
    if_match: IfMatch,
) -> Result<Response, Problem> {
    query.allow_none()?;
    check_other(&caller, &id, "give yourself a new link; in the console you can change your passphrase")?;
    let now = (shared.admin.now)();
    let (invitation, secret) = invitation::invite(now)?;
    let invited = |before: &Member| {
        let mut after = Member { passphrase: None, invitation: Some(invitation), ..before.clone() };
        end_sessions(&mut after, now);
        Ok(after)
    };
    let member = change(&shared, &caller, "member.link", &id, &if_match, invited).await?;
    Ok(show(&member, now, Some(&secret)))
}

/// Writes what `edit` makes of a member; again on what is stored then, if it is too late and no version was named.
async fn change(
    shared: &Shared,
    caller: &Caller,
    action: &'static str,
    id: &MemberId,
    if_match: &IfMatch,
    edit: impl Fn(&Member) -> Result<Member, Problem>,
) -> Result<Member, Problem> {
    for _ in 0..ATTEMPTS {
        let before = find(shared, id).await?;
        if_match.check(before.version)?;
        let after = edit(&before)?;
        let note = caller.note(action, id, told(&before, Some(&after)).collect());
        match shared.admin.store.put_member(&shared.admin.account, &after, &note).await? {
            MemberWritten::Done { version } => return Ok(Member { version, ..after }),
            MemberWritten::Conflict { version } => if_match.retry(version)?,
            MemberWritten::Missing => return Err(Problem::no_member()),
            MemberWritten::NameTaken => return Err(name_taken()),
        }
    }
    Err(too_busy())
}

/// What is told of a member, from what to what; `after` none: they are gone. Whether there is a passphrase is told, never
/// what is kept of it.
fn told(before: &Member, after: Option<&Member>) -> impl Iterator<Item = Change> + use<> {
    let all = |member: &Member| {
        let has = if member.passphrase.is_some() { "active" } else { "invited" };
        [
            ("/name", member.name.clone()),
            ("/role", member.role.as_str().to_owned()),
            ("/status", has.to_owned()),
        ]
    };
    let after: Vec<Value> = match after {
        Some(after) => all(after).into_iter().map(|(_, value)| value.into()).collect(),
        None => vec![Value::Null; 3],
    };
    let changes = all(before).into_iter().zip(after);
    let change = |((field, from), to): ((&str, String), Value)| Change {
        field: field.to_owned(),
        from: from.into(),
        to,
    };
    changes.map(change).filter(|change| change.from != change.to)
}

/// Refuses what nobody may do to themselves.
fn check_other(caller: &Caller, id: &MemberId, what: &str) -> Result<(), Problem> {
    match &caller.actor {
        Actor::Member { id: own, .. } if own == id => {
            let detail = format!("You cannot {what}. Another admin can do this to you, or a secret token.");
            Err(Problem::new(StatusCode::CONFLICT, "own_membership", detail))
        }
        _ => Ok(()),
    }
}

fn name_taken() -> Problem {
    let detail = "Another member has that name; names are compared without regard to case.";
    let error = FieldError::at("/name", "another member has that name");
    Problem::new(StatusCode::CONFLICT, "name_taken", detail).with_error(error)
}

async fn find(shared: &Shared, id: &MemberId) -> Result<Member, Problem> {
    shared.admin.store.member(&shared.admin.account, id).await?.ok_or_else(Problem::no_member)
}

fn show(member: &Member, now: Timestamp, secret: Option<&str>) -> Response {
    let mut view = MemberView::new(member, now);
    if let (Some(secret), Some(invitation)) = (secret, member.invitation) {
        view = view.with_link(LinkView {
            path: invitation::path(&member.id, secret),
            until: invitation.until.to_string(),
        });
    }
    ([(header::CACHE_CONTROL, "no-store")], [etag(member.version)], Json(view)).into_response()
}
