//! What is to be done about a line of an import, and doing it.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::line::Line;
use crate::admin::audit::ChangeView;
use crate::admin::auth::Caller;
use crate::admin::precondition::IfMatch;
use crate::admin::problem::{FieldError, Problem};
use crate::admin::tokens::many::OutcomeView;
use crate::admin::tokens::view::public_value;
use crate::admin::tokens::{Act, change, fields, fresh};
use crate::admin::{Shared, changes};
use crate::policy::{Policy, Status, Token, TokenId, TokenKind};
use crate::store::trail::Change;
use crate::store::{Listed, StoredToken};

/// What the trail calls it.
const ACTION: &str = "token.import";

/// What is to be done about a token that is there and is not as its line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnConflict {
    /// The line is refused.
    Fail,
    /// The token stays as it is.
    Skip,
    /// The token is edited.
    Update,
}

impl OnConflict {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "fail" => Some(Self::Fail),
            "skip" => Some(Self::Skip),
            "update" => Some(Self::Update),
            _ => None,
        }
    }
}

/// A token that is there, or a record that cannot be read.
pub(super) type There = HashMap<TokenId, Result<Box<StoredToken>, String>>;

/// Reads the tokens that lines are about.
pub(super) async fn read(shared: &Shared, ids: &[TokenId]) -> Result<There, Problem> {
    let listed = shared.admin.store.get_tokens(&shared.admin.account, ids).await?;
    let entry = |listed| match listed {
        Listed::Token(token) => (token.policy.id.clone(), Ok(token)),
        Listed::Unreadable { id, why } => (id, Err(why)),
    };
    Ok(listed.into_iter().map(entry).collect())
}

/// What is to be done about a line.
pub(super) enum Plan {
    /// A token is to be made.
    Create { policy: Box<Policy>, value: Token, new_value: bool, changes: Vec<Change> },
    /// A token is to be edited.
    Update { stored: Box<StoredToken>, line: Arc<Line>, changes: Vec<Change> },
    /// Nothing: it is as the line says.
    Unchanged { stored: Box<StoredToken> },
    /// Nothing: it is there.
    Skipped { stored: Box<StoredToken> },
    /// The line cannot be taken.
    Refused { id: Option<TokenId>, errors: Vec<FieldError> },
}

/// Decides about a line. `owner` has its value already.
pub(super) fn decide(
    shared: &Shared,
    line: Line,
    owner: Option<&TokenId>,
    there: &There,
    on_conflict: OnConflict,
) -> Result<Plan, Problem> {
    let refused = |id: &TokenId, pointer: &str, detail: String| {
        Ok(Plan::Refused { id: Some(id.clone()), errors: vec![FieldError::at(pointer, detail)] })
    };
    if let (Some(owner), Some(id)) = (owner, &line.id)
        && line.names_id
        && owner != id
    {
        return refused(
            id,
            "/token",
            format!("is the value of {owner}; give that id, or leave one of them out"),
        );
    }
    let Some(id) = owner.or(line.id.as_ref()).cloned() else { return create(shared, None, line) };
    match there.get(&id) {
        None => create(shared, Some(id), line),
        Some(Err(why)) => refused(&id, "/id", format!("the record that is there cannot be read: {why}")),
        Some(Ok(_)) if line.value.is_some() && owner.is_none() => {
            let detail = "the token that is there has another value; leave `token` out to keep that, or rotate the token";
            refused(&id, "/token", detail.to_owned())
        }
        Some(Ok(stored)) => Ok(compare(shared, stored, line, on_conflict)),
    }
}

fn compare(shared: &Shared, stored: &StoredToken, line: Line, on_conflict: OnConflict) -> Plan {
    let stored = Box::new(stored.clone());
    let after = match edited(&line, &stored.policy, (shared.admin.now)()) {
        Ok(after) => after,
        Err(problem) => {
            return Plan::Refused { id: Some(stored.policy.id), errors: problem.into_errors("/status") };
        }
    };
    let changes = changes::of_edit(&stored.policy, &after);
    if changes.is_empty() {
        return Plan::Unchanged { stored };
    }
    match on_conflict {
        OnConflict::Update => Plan::Update { stored, line: Arc::new(line), changes },
        OnConflict::Skip => Plan::Skipped { stored },
        OnConflict::Fail => {
            let fields: Vec<_> = changes.iter().map(|change| change.field.as_str()).collect();
            let detail = format!(
                "{} is there and differs in {}; leave the line out, or choose to skip or to update such tokens (on_conflict)",
                stored.policy.id,
                fields.join(", ")
            );
            Plan::Refused { id: Some(stored.policy.id), errors: vec![FieldError::at("", detail)] }
        }
    }
}

/// The policy with what the line says. Unlike an edit by hand, it may be over or revoked by that.
fn edited(line: &Line, stored: &Policy, now: Timestamp) -> Result<Policy, Problem> {
    let mut base = stored.clone();
    base.expires_at = line.expires_at.or(base.expires_at);
    if line.revoked {
        base.status = Status::Revoked;
    }
    // Where the line says nothing of an end, the stored one stays.
    fields::merge(&line.fields, &base, now)
}

fn create(shared: &Shared, id: Option<TokenId>, line: Line) -> Result<Plan, Problem> {
    let now = (shared.admin.now)();
    let made_at = line.created_at.filter(|at| *at <= now);
    let created_at = made_at.or(Timestamp::from_second(now.as_second()).ok()).unwrap_or(now);
    let id = match id {
        Some(id) => id,
        None => shared.fresh.id(now)?,
    };
    let kind = line.kind.unwrap_or(TokenKind::Publishable);
    let blank = Policy::new(id.clone(), shared.admin.account.clone(), kind, created_at);
    let mut policy = match edited(&line, &blank, now) {
        Ok(policy) => policy,
        Err(problem) => return Ok(Plan::Refused { id: Some(id), errors: problem.into_errors("") }),
    };
    let new_value = line.value.is_none();
    let value = match line.value {
        Some(value) => {
            // What is known of a value comes along with it.
            policy.seen_in_browser_at = line.seen_in_browser_at;
            value
        }
        None => fresh::value(kind)?,
    };
    let changes = changes::of_creation(&blank, &policy);
    Ok(Plan::Create { policy: Box::new(policy), value, new_value, changes })
}

impl Plan {
    /// What would be done.
    pub(super) fn tell(self) -> OutcomeView {
        let of_stored = |outcome, stored: &StoredToken| OutcomeView {
            token: public_value(&stored.value),
            version: Some(stored.policy.version),
            ..OutcomeView::new(outcome, Some(&stored.policy.id))
        };
        match self {
            Self::Create { policy, new_value, changes, .. } => OutcomeView {
                new_value,
                changes: views(changes),
                ..OutcomeView::new("created", Some(&policy.id))
            },
            Self::Update { stored, changes, .. } => {
                OutcomeView { changes: views(changes), ..of_stored("updated", &stored) }
            }
            Self::Unchanged { stored } => of_stored("unchanged", &stored),
            Self::Skipped { stored } => of_stored("skipped", &stored),
            Self::Refused { id, errors } => {
                OutcomeView { errors, ..OutcomeView::new("refused", id.as_ref()) }
            }
        }
    }

    /// What is told where nothing is written, because other lines were refused.
    pub(super) fn leave(self) -> OutcomeView {
        let would_write = matches!(self, Self::Create { .. } | Self::Update { .. });
        let told = self.tell();
        if would_write {
            OutcomeView { outcome: "not_done", new_value: false, changes: Vec::new(), ..told }
        } else {
            told
        }
    }

    /// Does it, and says what came of it.
    pub(super) async fn carry_out(self, shared: &Shared, caller: &Caller) -> OutcomeView {
        match self {
            Self::Create { policy, value, new_value, changes } => {
                let note = caller.note(ACTION, &policy.id, changes.clone());
                if let Err(error) = shared.admin.store.create_token(&policy, &value, &note).await {
                    return OutcomeView::of_problem(error.into(), Some(&policy.id));
                }
                let public = new_value || value.kind() == TokenKind::Publishable;
                OutcomeView {
                    token: public.then(|| value.expose().to_owned()),
                    new_value,
                    version: Some(policy.version),
                    changes: views(changes),
                    ..OutcomeView::new("created", Some(&policy.id))
                }
            }
            Self::Update { stored, line, changes } => {
                let id = &stored.policy.id;
                let act = Act { caller, action: ACTION };
                let now = (shared.admin.now)();
                let edit = |policy: &Policy| edited(&line, policy, now);
                match change(shared, act, id, &IfMatch::Any, edit).await {
                    Ok((version, _)) => OutcomeView {
                        token: public_value(&stored.value),
                        version: Some(version),
                        changes: views(changes),
                        ..OutcomeView::new("updated", Some(id))
                    },
                    Err(problem) => OutcomeView::of_problem(problem, Some(id)),
                }
            }
            told => told.tell(),
        }
    }
}

fn views(changes: Vec<Change>) -> Vec<ChangeView> {
    changes.into_iter().map(ChangeView::from).collect()
}
