//! The list of tokens: in pages, searched and filtered, with what each has used.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::view::{ListedView, PageView, TokenView};
use crate::admin::Shared;
use crate::admin::auth::Caller;
use crate::admin::catalogue::{Part, State as TokenState, Wanted, id_of};
use crate::admin::problem::{FieldError, Problem, ProblemBody};
use crate::admin::query::Query;
use crate::policy::{TokenId, TokenKind};
use crate::store::{Listed, StoreError};

/// The largest page.
const MAX_PAGE: usize = 500;
/// The page when nobody says how large.
const DEFAULT_PAGE: usize = 100;
/// The longest text that is searched for, in characters.
const MAX_SEARCH: usize = 200;
/// So many digits behind `sk_` or `ss_` are no accident.
const TELLING_DIGITS: usize = 6;

const KINDS: [TokenKind; 2] = [TokenKind::Publishable, TokenKind::Secret];

/// Which tokens are asked for, and how they are to be shown.
struct Asked {
    part: Part,
    from: From,
    usage: bool,
}

/// Where they are found.
enum From {
    /// All of them, from behind a token.
    Cursor,
    /// All of them, behind so many.
    Offset,
    /// Those that are wanted.
    Search(Wanted),
}

impl Asked {
    fn read(query: &Query, now: jiff::Timestamp) -> Result<Self, Problem> {
        let mut errors = query.allow(&["limit", "cursor", "offset", "q", "status", "type", "usage"]);
        let in_range = |text: &str| text.parse().ok().filter(|n| (1..=MAX_PAGE).contains(n));
        let limit = query.read("limit", "a whole number from 1 to 500", in_range, &mut errors);
        let after = query.read("cursor", "the `next_cursor` of an earlier page", read_cursor, &mut errors);
        let whole = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
        let offset: Option<usize> = query.read("offset", "a whole number", whole, &mut errors);
        if after.is_some() && offset.is_some() {
            errors.push(FieldError::parameter("offset", "cannot stand beside `cursor`; use one of them"));
        }
        let words = read_search(query, &mut errors);
        let names = TokenState::ALL.map(TokenState::as_str).join(", ");
        let state = |text: &str| TokenState::ALL.into_iter().find(|state| state.as_str() == text);
        let state = query.read("status", &format!("one of {names}"), state, &mut errors);
        let names = KINDS.map(TokenKind::as_str).join(" or ");
        let kind = query.read("type", &names, TokenKind::parse, &mut errors);
        let usage = query.read("usage", "true or false", |text| text.parse().ok(), &mut errors);
        if !errors.is_empty() {
            return Err(Problem::parameters(errors));
        }
        let all = words.as_ref().is_none_or(Vec::is_empty) && state.is_none() && kind.is_none();
        let from = match offset {
            _ if !all || words.is_some() && after.is_some() => {
                From::Search(Wanted { words: words.unwrap_or_default(), state, kind, now })
            }
            None if words.is_none() => From::Cursor,
            _ => From::Offset,
        };
        let part = Part { after, offset: offset.unwrap_or(0), limit: limit.unwrap_or(DEFAULT_PAGE) };
        Ok(Self { part, from, usage: usage.unwrap_or(false) })
    }
}

/// Reads `q`: the words to be searched for.
fn read_search(query: &Query, errors: &mut Vec<FieldError>) -> Option<Vec<String>> {
    let short = |text: &str| (text.chars().count() <= MAX_SEARCH).then(|| text.to_lowercase());
    let text = query.read("q", &format!("at most {MAX_SEARCH} characters"), short, errors)?;
    if holds_secret(&text) {
        let detail = "holds a secret value, or a part of one; an address stands in the logs of whatever is on the way. \
                      Search by id or nickname, and think of rotating that token";
        errors.push(FieldError::parameter("q", detail));
    }
    Some(text.split_whitespace().map(str::to_owned).collect())
}

/// Whether a text in lower case holds a secret token or a signing secret, or the beginning of one.
fn holds_secret(text: &str) -> bool {
    let bytes = text.as_bytes();
    let begins = |at: usize| {
        let prefix =
            bytes.get(at..at + 3).is_some_and(|prefix| [b"sk_", b"ss_"].iter().any(|p| prefix == *p));
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        let inside = before.is_some_and(u8::is_ascii_alphanumeric);
        let digits = bytes.iter().skip(at + 3).take_while(|b| b.is_ascii_hexdigit()).count();
        prefix && (digits >= 32 || !inside && digits >= TELLING_DIGITS)
    };
    (0..bytes.len()).any(begins)
}

/// The account's tokens, oldest first, in pages; searched and filtered.
#[utoipa::path(get, path = "/v1/tokens", operation_id = "list_tokens", tag = "tokens",
    params(
        ("limit" = Option<usize>, Query, description = "Tokens in a page, 1 to 500; 100 by default.",
         minimum = 1, maximum = 500),
        ("cursor" = Option<String>, Query, description = "The page's `next_cursor` of before."),
        ("offset" = Option<usize>, Query, description = "How many tokens to skip, instead of a cursor; the answer says \
                                                         how many there are in all."),
        ("q" = Option<String>, Query, description = "What to search for in nickname, id and publishable value, whatever \
                                                     the case; of several words each must be there. Never a secret value.",
         max_length = 200),
        ("status" = Option<String>, Query, description = "Only tokens that are `active`, `disabled`, `revoked` or \
                                                          `expired`: active, but over."),
        ("type" = Option<String>, Query, description = "Only `publishable` or only `secret` tokens."),
        ("usage" = Option<bool>, Query, description = "Whether to show what each has used, and when it was last seen."),
    ),
    responses(
        (status = 200, description = "A page.", body = PageView),
        (status = 400, description = "A parameter cannot be taken.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(in crate::admin) async fn list(
    _: Caller,
    State(shared): State<Shared>,
    query: Query,
) -> Result<Response, Problem> {
    let asked = Asked::read(&query, (shared.admin.now)())?;
    let (listed, more, total) = match &asked.from {
        From::Search(wanted) => search(&shared, wanted, &asked.part).await?,
        From::Offset => skip(&shared, &asked.part).await?,
        From::Cursor => page(&shared, &asked.part).await?,
    };
    let next_cursor = listed.last().filter(|_| more).map(|last| write_cursor(id_of(last)));
    let tokens = if asked.usage {
        with_usage(&shared, &listed).await?
    } else {
        listed.iter().map(ListedView::from).collect()
    };
    let page = PageView { tokens, next_cursor, total };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(page)).into_response())
}

/// A page, whether there are more behind it, and how many there are in all where that is known.
type Page = (Vec<Listed>, bool, Option<usize>);

async fn page(shared: &Shared, part: &Part) -> Result<Page, StoreError> {
    // One more than the page holds tells whether there is another page.
    let (store, account) = (&shared.admin.store, &shared.admin.account);
    let mut listed = store.list_tokens(account, part.after.as_ref(), part.limit + 1).await?;
    let more = listed.len() > part.limit;
    listed.truncate(part.limit);
    Ok((listed, more, None))
}

async fn skip(shared: &Shared, part: &Part) -> Result<Page, StoreError> {
    let (store, account) = (&shared.admin.store, &shared.admin.account);
    let (total, listed) = store.list_tokens_behind(account, part.offset, part.limit).await?;
    // Whoever looks through the list like this may search it next.
    shared.catalogue.warm();
    let more = part.offset.saturating_add(listed.len()) < total && !listed.is_empty();
    Ok((listed, more, Some(total)))
}

async fn search(shared: &Shared, wanted: &Wanted, part: &Part) -> Result<Page, StoreError> {
    let found = shared.catalogue.search(wanted, part).await?;
    let mut listed = shared.admin.store.get_tokens(&shared.admin.account, &found.ids).await?;
    // What was changed in between is shown as it is now, or not at all.
    listed.retain(|listed| wanted.takes(listed));
    Ok((listed, found.more, Some(found.total)))
}

async fn with_usage(shared: &Shared, listed: &[Listed]) -> Result<Vec<ListedView>, StoreError> {
    let ids: Vec<_> = listed.iter().map(|listed| id_of(listed).clone()).collect();
    let counted = shared.admin.store.tokens_usage(&shared.admin.account, &ids).await?;
    let show = |(listed, counted): (&Listed, _)| match listed {
        Listed::Token(token) => {
            ListedView::Token(Box::new(TokenView::stored(token).with_usage(counted, &token.policy)))
        }
        Listed::Unreadable { .. } => ListedView::from(listed),
    };
    Ok(listed.iter().zip(&counted).map(show).collect())
}

fn write_cursor(id: &TokenId) -> String {
    hex::encode(id.as_str())
}

fn read_cursor(text: &str) -> Option<TokenId> {
    TokenId::parse(std::str::from_utf8(&hex::decode(text).ok()?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_wherever_it_stands() {
        let digits = "0123456789abcdef0123456789abcdef";
        for (text, secret) in [
            (format!("sk_{digits}"), true),
            (format!("ss_{digits}"), true),
            (format!("shop sk_{}", &digits[..6]), true),
            (format!("xxsk_{digits}xx"), true),
            (format!("\u{e9}sk_{digits}"), true),
            (format!("pk_{digits}"), false),
            (format!("task_{}", &digits[..8]), false),
            ("sk_shop".to_owned(), false),
            ("sk_".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(holds_secret(&text), secret, "{text}");
        }
    }
}
