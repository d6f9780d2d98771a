//! What tokens and members are called: nicknames, where they have one, and names.

use std::collections::HashMap;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::Console;
use super::session::Visitor;

/// Up to so many are asked for one by one.
const FEW: usize = 72;
/// Of a longer list, so many pages are read.
const MOST_PAGES: usize = 40;

/// Names by id. An id without a name is not among them.
pub(super) type Names = HashMap<String, String>;

#[derive(Deserialize)]
struct Named {
    id: String,
    #[serde(default)]
    nickname: String,
}

#[derive(Deserialize)]
struct Listed {
    tokens: Vec<Named>,
    next_cursor: Option<String>,
}

/// The names of tokens. Without them a page is nearly as good, so trouble is not told.
pub(super) async fn of(console: &Console, visitor: &Visitor, ids: &[&str]) -> Names {
    let mut names = Names::new();
    if ids.len() > FEW {
        read_list(console, visitor, ids.len(), &mut names).await;
        return names;
    }
    for id in ids {
        let path = format!("/v1/tokens/{}", utf8_percent_encode(id, NON_ALPHANUMERIC));
        if let Ok(named) = console.api.get::<Named>(&visitor.caller, &path).await {
            take(&mut names, named);
        }
    }
    names
}

async fn read_list(console: &Console, visitor: &Visitor, wanted: usize, names: &mut Names) {
    let mut path = "/v1/tokens?limit=500".to_owned();
    for _ in 0..MOST_PAGES.max(wanted.div_ceil(500)) {
        let Ok(listed) = console.api.get::<Listed>(&visitor.caller, &path).await else { return };
        listed.tokens.into_iter().for_each(|named| take(names, named));
        let Some(cursor) = listed.next_cursor else { return };
        path = format!("/v1/tokens?limit=500&cursor={}", utf8_percent_encode(&cursor, NON_ALPHANUMERIC));
    }
}

fn take(names: &mut Names, named: Named) {
    if !named.nickname.is_empty() {
        names.insert(named.id, named.nickname);
    }
}

/// Ids and names of all tokens, oldest first, if there are no more than so many.
pub(super) async fn all_if_few(
    console: &Console,
    visitor: &Visitor,
    most: usize,
) -> Option<Vec<(String, String)>> {
    let path = format!("/v1/tokens?limit={most}");
    let listed = console.api.get::<Listed>(&visitor.caller, &path).await.ok()?;
    if listed.next_cursor.is_some() {
        return None;
    }
    let called = |named: Named| {
        let name = if named.nickname.is_empty() { named.id.clone() } else { named.nickname };
        (named.id, name)
    };
    Some(listed.tokens.into_iter().map(called).collect())
}

#[derive(Deserialize)]
struct Members {
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    id: String,
    name: String,
}

/// The names of all members.
pub(super) async fn of_members(console: &Console, visitor: &Visitor) -> Names {
    let found = console.api.get::<Members>(&visitor.caller, "/v1/members").await;
    let members = found.map_or_else(|_| Vec::new(), |found| found.members);
    members.into_iter().map(|member| (member.id, member.name)).collect()
}
