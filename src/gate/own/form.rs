//! What an account request gives along: values in a JSON body or in the query, and perhaps its token in the body
//! (`clients.md`, "Seen on the wire").
//!
//! Only bodies of the account endpoints are read, of at most [`LONGEST`] bytes and for no longer than [`PATIENCE`]. A body
//! that is not JSON says nothing: some clients send `[object Object]`.

use std::time::Duration;

use http::{Method, header};
use pingora::proxy::Session;
use serde_json::{Map, Value};

use super::Own;
use crate::gate::facts::raw_target;
use crate::policy::cost::MAX_CREDITS;
use crate::policy::target::Target;
use crate::policy::{Credits, Denial, query};

const LONGEST: usize = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

/// The body of an account request. It may hold a token, so it is never shown.
#[derive(Default)]
pub(in crate::gate) struct Form(Map<String, Value>);

impl Own {
    /// Reads the body, if the request is for an account endpoint that takes one.
    pub(in crate::gate) async fn read_form(&self, session: &mut Session) -> Option<Form> {
        let head = session.req_header();
        if head.method != Method::POST {
            return None;
        }
        let host = head.headers.get(header::HOST).map(header::HeaderValue::as_bytes);
        let mut target = Target::parse(&raw_target(session), host).ok()?;
        target.drop_trailing_slash();
        self.find_account(&target)?;
        let whole = tokio::time::timeout(PATIENCE, read(session)).await;
        let Ok(Some(body)) = whole else {
            // What is left of the body is not the next request.
            session.set_keepalive(None);
            return None;
        };
        serde_json::from_slice(&body).ok().map(Form)
    }
}

async fn read(session: &mut Session) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    // A signature over it may be asked for afterwards.
    session.as_downstream_mut().enable_retry_buffering();
    while let Some(piece) = session.read_request_body().await.ok()? {
        if body.len() + piece.len() > LONGEST {
            return None;
        }
        body.extend_from_slice(&piece);
    }
    Some(body)
}

impl Form {
    /// The token in it, whatever it is.
    pub(in crate::gate) fn token(&self) -> Option<&[u8]> {
        self.0.get("token")?.as_str().map(str::as_bytes)
    }
}

/// One value: of the body, or else of the query. Two in the query are none.
fn value(form: Option<&Form>, target: &Target, name: &str) -> Result<Option<Value>, Denial> {
    if let Some(value) = form.and_then(|form| form.0.get(name)) {
        return Ok(Some(value.clone()));
    }
    match query::values(target.query(), name).as_slice() {
        [] => Ok(None),
        [value] => {
            let text = std::str::from_utf8(value).map_err(|_| Denial::InvalidValues)?;
            Ok(Some(Value::from(text)))
        }
        _ => Err(Denial::InvalidValues),
    }
}

/// A flag: `true` or `false`, also as a text, as Python writes it too.
pub(super) fn flag(form: Option<&Form>, target: &Target, name: &str) -> Result<Option<bool>, Denial> {
    let Some(value) = value(form, target, name)? else { return Ok(None) };
    let text = |text: &str| match text {
        "true" | "True" => Some(true),
        "false" | "False" => Some(false),
        _ => None,
    };
    let flag = value.as_bool().or_else(|| value.as_str().and_then(text));
    flag.map(Some).ok_or(Denial::InvalidValues)
}

/// A whole number of credits, also as a text.
pub(super) fn number(form: Option<&Form>, target: &Target, name: &str) -> Result<Option<Credits>, Denial> {
    let Some(value) = value(form, target, name)? else { return Ok(None) };
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let number = number.filter(|number| *number <= MAX_CREDITS);
    number.map(|number| Some(Credits(number))).ok_or(Denial::InvalidValues)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Option<Form> {
        serde_json::from_str(text).ok().map(Form)
    }

    fn target(query: &str) -> Target {
        Target::parse(format!("/v1/account/x{query}").as_bytes(), None).unwrap()
    }

    #[test]
    fn reads_flags_and_numbers_from_body_and_query() {
        fn bad<T>() -> Result<Option<T>, Denial> {
            Err(Denial::InvalidValues)
        }
        // (body, query, flag `allow`, number `totalMessages`)
        let table = [
            ("[object Object]", "", Ok(None), Ok(None)),
            (r#"{"allow": true, "totalMessages": 7}"#, "", Ok(Some(true)), Ok(Some(7))),
            (r#"{"allow": "false", "totalMessages": "0"}"#, "", Ok(Some(false)), Ok(Some(0))),
            ("[object Object]", "?allow=True&totalMessages=12", Ok(Some(true)), Ok(Some(12))),
            (r#"{"allow": true}"#, "?allow=false&totalMessages=1", Ok(Some(true)), Ok(Some(1))),
            (r#"{"allow": 1, "totalMessages": -1}"#, "", bad(), bad()),
            (r#"{"allow": null, "totalMessages": 1.5}"#, "", bad(), bad()),
            ("{}", "?allow=yes&totalMessages=9007199254740992", bad(), bad()),
            ("{}", "?allow=true&allow=true&totalMessages=1&totalMessages=2", bad(), bad()),
        ];
        for (body, query, allow, total) in table {
            let (form, target) = (form(body), target(query));
            assert_eq!(flag(form.as_ref(), &target, "allow"), allow, "{body} {query}");
            let told =
                number(form.as_ref(), &target, "totalMessages").map(|found| found.map(|credits| credits.0));
            assert_eq!(told, total, "{body} {query}");
        }
    }

    #[test]
    fn finds_a_token_in_a_body_that_is_an_object() {
        let token = |text: &str| form(text).and_then(|form| form.token().map(<[u8]>::to_vec));
        assert_eq!(token(r#"{"token": "sk_x", "allow": true}"#), Some(b"sk_x".to_vec()));
        for none in [r#"{"token": 7}"#, r#"["token"]"#, r#"{"data": {"token": "sk_x"}}"#, ""] {
            assert_eq!(token(none), None, "{none}");
        }
    }
}
