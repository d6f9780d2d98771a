//! A member as the API shows them: nothing of their passphrase or of a link but whether there is one.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::schema;
use crate::store::people::Member;

/// A link that makes somebody a member.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MemberLink)]
pub(super) struct LinkView {
    /// The path behind the admin address that a browser opens.
    pub(super) path: String,
    /// When it ends.
    #[schema(format = DateTime)]
    pub(super) until: String,
}

/// A member.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Member)]
pub(super) struct MemberView {
    /// Its id.
    #[schema(example = "mem_01ARZ3NDEKTSV4RRFFQ69G5FAV")]
    id: String,
    /// What the member signs in with.
    #[schema(example = "ada@example.com")]
    name: String,
    /// What the member may do.
    #[schema(schema_with = schema::role)]
    role: &'static str,
    /// How far the member is.
    #[schema(schema_with = schema::member_status)]
    status: &'static str,
    /// Until when the open link is good; `null`: there is none.
    #[schema(format = DateTime, required)]
    invited_until: Option<String>,
    /// When the member was invited.
    #[schema(format = DateTime)]
    created_at: String,
    /// Goes up by one with each change; the `ETag` in quotes.
    version: u64,
    /// The link to take up; only in the answer that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    invitation: Option<LinkView>,
}

impl MemberView {
    pub(super) fn new(member: &Member, now: Timestamp) -> Self {
        let open = member.invitation.filter(|invitation| now < invitation.until);
        let status = match (&member.passphrase, open) {
            (Some(_), _) => "active",
            (None, Some(_)) => "invited",
            (None, None) => "lapsed",
        };
        Self {
            id: member.id.to_string(),
            name: member.name.clone(),
            role: member.role.as_str(),
            status,
            invited_until: open.map(|invitation| invitation.until.to_string()),
            created_at: member.created_at.to_string(),
            version: member.version,
            invitation: None,
        }
    }

    pub(super) fn with_link(self, link: LinkView) -> Self {
        Self { invitation: Some(link), ..self }
    }
}

/// The members.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Members)]
pub(super) struct MembersView {
    /// Oldest first.
    pub(super) members: Vec<MemberView>,
}
