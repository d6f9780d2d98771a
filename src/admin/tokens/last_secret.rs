//! Keeps an account from losing its last usable secret token by accident: nobody could then use the admin API.

use axum::http::StatusCode;
use tokio::sync::MutexGuard;

use crate::admin::Shared;
use crate::admin::auth::opens_admin_api;
use crate::admin::catalogue::id_of;
use crate::admin::problem::Problem;
use crate::policy::Policy;
use crate::store::{Listed, StoreError};

/// How many tokens are looked at in one step.
const PAGE: usize = 500;

/// Refuses an edit that would leave the account without a secret token that surely opens the admin API. An edit that
/// takes such a token away holds the guard until it is written; of two of them, the second sees what the first did.
/// The guard is this process's: nodes that retire tokens at the same moment are not held apart.
pub(super) async fn keep_one<'a>(
    shared: &'a Shared,
    before: &Policy,
    after: &Policy,
) -> Result<Option<MutexGuard<'a, ()>>, Problem> {
    let now = (shared.admin.now)();
    if !opens_admin_api(before, now) || opens_admin_api(after, now) {
        return Ok(None);
    }
    let guard = shared.retiring.lock().await;
    let another = |listed: &Listed| match listed {
        Listed::Token(token) => token.policy.id != before.id && opens_admin_api(&token.policy, now),
        Listed::Unreadable { .. } => false,
    };
    if any_token(shared, another).await? {
        return Ok(Some(guard));
    }
    let detail = "This is the account's last secret token that is usable from anywhere; without it nobody could use \
                  the admin API. Create another secret token first (POST /v1/tokens {\"type\": \"secret\"}), or \
                  rotate this one.";
    Err(Problem::new(StatusCode::CONFLICT, "last_secret_token", detail))
}

async fn any_token(shared: &Shared, test: impl Fn(&Listed) -> bool) -> Result<bool, StoreError> {
    let mut after = None;
    loop {
        let page = shared.admin.store.list_tokens(&shared.admin.account, after.as_ref(), PAGE).await?;
        if page.iter().any(&test) {
            return Ok(true);
        }
        if page.len() < PAGE {
            return Ok(false);
        }
        after = page.last().map(id_of).cloned();
    }
}
