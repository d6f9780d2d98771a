//! The second call: how a response has ended that another proxy forwarded.
//!
//! `POST /settle?claim=…&status=…` and as far as they are known `bytes` (of the body), `units` (records or events in it)
//! and `credits` (what the upstream said in the route's `from_header`). An empty value is none, so a proxy may fill in
//! variables. A claim is settled once; the answer tells in `X-Tollgate-Charged` what it cost.

use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};

use super::claims::Claims;
use super::problem::Problem;
use super::{bare, is};
use crate::gate::Gate;
use crate::gate::check::Outcome;
use crate::policy::Credits;
use crate::policy::cost::MAX_CREDITS;

pub(super) async fn settle(gate: &Gate, claims: &Claims, request: &Parts) -> Result<Response, Problem> {
    is(request, &Method::POST)?;
    let (claim, outcome) = read(request.uri.query().unwrap_or_default())?;
    let open = claims.take(claim).ok_or(Problem::UnknownClaim)?;
    let charged = gate.settle(open, Some(outcome)).await;
    let mut response = bare(StatusCode::NO_CONTENT);
    response.headers_mut().insert("x-tollgate-charged", HeaderValue::from(charged.0));
    Ok(response)
}

fn read(query: &str) -> Result<(&str, Outcome), Problem> {
    let (mut claim, mut status, mut bytes, mut units, mut stated) = (None, None, None, None, None);
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').ok_or(Problem::Outcome)?;
        let slot = match name {
            "claim" => &mut claim,
            "status" => &mut status,
            "bytes" => &mut bytes,
            "units" => &mut units,
            "credits" => &mut stated,
            _ => return Err(Problem::Outcome),
        };
        if slot.replace(value).is_some() {
            return Err(Problem::Outcome);
        }
    }
    let number = |value: Option<&str>| {
        let value = value.filter(|value| !value.is_empty());
        value.map(|value| value.parse::<u64>().map_err(|_| Problem::Outcome)).transpose()
    };
    let status = number(status)?.and_then(|status| u16::try_from(status).ok());
    let outcome = Outcome {
        // 0: no response came to the client.
        status: status
            .filter(|status| *status < 1000)
            .map(|status| if status < 100 { 599 } else { status })
            .ok_or(Problem::Outcome)?,
        bytes: number(bytes)?,
        units: number(units)?,
        // As the proxy itself does: what is no number says nothing.
        stated: stated
            .and_then(|value| value.parse().ok())
            .filter(|value| *value <= MAX_CREDITS)
            .map(Credits),
    };
    Ok((claim.ok_or(Problem::Outcome)?, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_whole_numbers_each_once() {
        let outcome = |status, bytes, units, stated: Option<u64>| {
            Ok(("c", Outcome { status, bytes, units, stated: stated.map(Credits) }))
        };
        let table = [
            ("claim=c&status=200", outcome(200, None, None, None)),
            ("claim=c&status=502&bytes=7&units=3&credits=9", outcome(502, Some(7), Some(3), Some(9))),
            ("claim=c&status=200&bytes=&units=&credits=", outcome(200, None, None, None)),
            ("claim=c&status=000", outcome(599, None, None, None)),
            ("claim=c&status=200&credits=x", outcome(200, None, None, None)),
            ("claim=c", Err(Problem::Outcome)),
            ("claim=c&status=", Err(Problem::Outcome)),
            ("status=200", Err(Problem::Outcome)),
            ("claim=c&status=200&bytes=-1", Err(Problem::Outcome)),
            ("claim=c&status=200&bytes=1.5", Err(Problem::Outcome)),
            ("claim=c&status=200&status=500", Err(Problem::Outcome)),
            ("claim=c&status=20000", Err(Problem::Outcome)),
            ("claim=c&status=200&other=1", Err(Problem::Outcome)),
            ("", Err(Problem::Outcome)),
        ];
        for (query, expected) in table {
            assert_eq!(read(query), expected, "{query}");
        }
    }
}
