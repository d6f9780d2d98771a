//! The gate asked by another proxy: may this request pass, and what is its client to be told if not (`interface.md`,
//! "Forward-auth").
//!
//! Owns how a decision becomes an answer where no session is at hand, and how a pass is settled that the other proxy
//! forwards. The checks and their order are `decision`'s, as for every request. How a question comes over the wire is
//! [`crate::authz`]'s.

use std::net::IpAddr;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Method, Response, header, response::Parts};
use pingora::http::ResponseHeader;

use super::decision::Decision;
use super::facts::{Request, parse_address};
use super::reply::told::Told;
use super::reply::{self, Failure, Rendered};
use super::visit::{End, Verdict, Visit};
use super::{Gate, Pass};
use crate::policy::cost::Seen;
use crate::policy::route::Route;
use crate::policy::tally::BodyKind;
use crate::policy::target::BadTarget;
use crate::policy::{Credits, Denial};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// When a request that passes is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// With the answer.
    AtOnce,
    /// By [`Gate::settle`].
    Later,
    /// Never: nobody forwards it. Only what the gate answers itself is of use; a request that would pass is told that
    /// there is nothing here.
    Never,
}

/// A request that another proxy has before it.
#[derive(Debug)]
pub struct Question {
    /// Its method.
    pub method: Method,
    /// Its target, byte for byte as the client sent it.
    pub target: Vec<u8>,
    /// Its headers. The right-most entry of `X-Forwarded-For` is the asking proxy's, and so the client's address, or
    /// that of a trusted proxy before it. Without one the client's address is unknown, and no address rule admits.
    pub headers: HeaderMap,
    /// Whether a body comes, or may come. It is not at hand.
    pub has_body: bool,
    /// When it is charged.
    pub charge: Charge,
    /// The other proxy cannot put the judged target in place of the client's. So what it sends on as it came must be that
    /// target already, or it is refused (laws 7 and 8).
    pub as_is: bool,
}

/// What the other proxy is to do.
pub enum Checked {
    /// Forward it. The answer's headers are those for the upstream (`X-Tollgate-*`) and for the client (all others).
    /// With [`Charge::Later`] there is something to settle.
    Forward(Response<String>, Option<Box<Open>>),
    /// Tell its client exactly this: a refusal, the answer to a preflight, or what the gate answers itself.
    Answer(Response<String>),
}

/// A request that passed and was not settled yet. Dropping it gives its credits back and writes nothing down.
pub struct Open {
    visit: Visit,
    method: Method,
}

/// How a request that passed has ended, as far as the other proxy knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The status its client got.
    pub status: u16,
    /// Bytes of the response's body.
    pub bytes: Option<u64>,
    /// Records or events of the response's body.
    pub units: Option<u64>,
    /// What the upstream said in the route's `from_header`.
    pub stated: Option<Credits>,
}

impl Gate {
    /// Decides about a request that another proxy forwards.
    pub async fn check(&self, question: Question) -> Checked {
        let mut visit = self.new_visit();
        let Question { method, target, mut headers, has_body, charge, as_is } = question;
        let peer = take_peer(&mut headers);
        // The connection is the asking proxy's; what its client spoke is not known.
        let (authority, encrypted) = (None, false);
        let request = Request {
            method: &method,
            target: &target,
            authority,
            headers: &headers,
            peer,
            encrypted,
            has_body,
        };
        let decision = self.decide_about(&request, &mut visit, None).await;
        let now = Instant::now();
        visit.decided = Some(now);
        self.metrics.decided(visit.judged_in(now).as_secs_f64());
        let answer = match decision {
            Ok(Decision::Pass(pass)) if charge == Charge::Never => {
                drop(pass);
                self.refuse(Denial::NoRoute, &mut visit)
            }
            Ok(Decision::Pass(pass)) if as_is && visit.trail.wire.as_bytes() != target => {
                drop(pass);
                self.refuse(Denial::BadTarget(BadTarget::NotAsIs), &mut visit)
            }
            Ok(Decision::Pass(pass)) => return self.admit(pass, visit, method, charge),
            Ok(Decision::Preflight(route)) => {
                visit.verdict = Verdict::Preflight;
                let (rules, origin) = (&visit.rules, visit.origin.as_ref());
                let preflight = Self::preflight(rules, &route, &request, &visit.request_id, origin);
                reply::render_preflight(&preflight).map(|head| (head, String::new()))
            }
            Ok(Decision::Answer(told, notes)) => {
                self.tell(&notes, visit.trail.policy.as_deref());
                visit.verdict = Verdict::Answered;
                reply::render_json(&told, &visit.request_id, visit.origin.as_ref())
            }
            // The signature covers a body, and that is with the other proxy: none of it can be held back here.
            Ok(Decision::AwaitBody { .. }) => self.refuse(Denial::BodyTooLarge { most: 0 }, &mut visit),
            Err(denial) => self.refuse(denial, &mut visit),
        };
        let answer = Self::finish(answer, &mut visit);
        self.write_down(&visit, &method, End::unread(answer.status().as_u16()));
        Checked::Answer(answer)
    }

    fn refuse(&self, denial: Denial, visit: &mut Visit) -> pingora::Result<Rendered> {
        let answer = Self::answer(&denial, &visit.rules, &visit.trail);
        let token = visit.trail.policy.as_deref().map(|policy| &policy.id);
        self.meter.refused(token, denial.code());
        visit.verdict = Verdict::Denied(denial);
        reply::render(visit.rules.dialect(), &answer, &visit.request_id, visit.origin.as_ref())
    }

    fn admit(&self, mut pass: Pass, mut visit: Visit, method: Method, charge: Charge) -> Checked {
        self.tell(pass.permit().notes(), visit.trail.policy.as_deref());
        if charge == Charge::AtOnce {
            pass.begin_response(200);
        }
        let head = Self::admission(&pass, &visit);
        visit.verdict = Verdict::Passed(pass);
        let failed = head.is_err();
        let answer = Self::finish(head.map(|head| (head, String::new())), &mut visit);
        if failed {
            return Checked::Answer(answer);
        }
        if charge == Charge::Later {
            visit.stand_aside();
            return Checked::Forward(answer, Some(Box::new(Open { visit, method })));
        }
        self.write_down(&visit, &method, End::unread(answer.status().as_u16()));
        Checked::Forward(answer, None)
    }

    /// What the other proxy is told of a request that passes.
    fn admission(pass: &Pass, visit: &Visit) -> pingora::Result<ResponseHeader> {
        let mut head = ResponseHeader::build(204, Some(12))?;
        let policy = visit.trail.policy.as_deref();
        if let Some(policy) = policy {
            head.insert_header("X-Tollgate-Token-Id", policy.id.as_str())?;
            head.insert_header("X-Tollgate-Account", policy.account.as_str())?;
        }
        head.insert_header("X-Tollgate-Uri", visit.trail.wire.as_str())?;
        let mut told = Told::default();
        reply::tell(&mut told, &mut head, pass, &visit.passing());
        told.put_into(&mut head)?;
        Ok(head)
    }

    /// An answer that cannot be put together is a defect; nothing passes by it.
    fn finish(answer: pingora::Result<Rendered>, visit: &mut Visit) -> Response<String> {
        let rendered = answer.or_else(|error| {
            tracing::error!(request_id = %visit.request_id, kind = error.etype().as_str(), "an answer could not be written");
            visit.failure = Some(Failure::Internal);
            if let Verdict::Passed(pass) = &mut visit.verdict {
                pass.begin_response(599);
            }
            let answer = reply::answer_failure(Failure::Internal);
            reply::render(visit.rules.dialect(), &answer, &visit.request_id, None)
        });
        let Ok((head, body)) = rendered else {
            let mut bare = Response::new(String::new());
            *bare.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            return bare;
        };
        Response::from_parts(Parts::from(head), body)
    }

    /// Settles a request that passed: what its outcome says is charged, or given back. Without an outcome all that is
    /// held for it is charged. What it cost.
    pub async fn settle(&self, open: Open, outcome: Option<Outcome>) -> Credits {
        let Open { mut visit, method } = open;
        let status = outcome.map_or(204, |outcome| outcome.status);
        let bytes = outcome.and_then(|outcome| outcome.bytes).unwrap_or_default();
        visit.bytes_out = bytes;
        let mut charged = Credits(0);
        if let (Verdict::Passed(pass), Some((_, route))) = (&mut visit.verdict, &visit.trail.route) {
            let price = outcome.and_then(|outcome| price_of(route, pass, &outcome));
            if let Some(price) = price.filter(|_| status < 400) {
                pass.pay(price, bytes).await;
            } else {
                pass.begin_response(status);
                pass.end_response(bytes);
            }
            charged = pass.charged();
        }
        self.write_down(&visit, &method, End::unread(status));
        charged
    }
}

/// The price of a response, where it was not known before. `None`: it was, or the outcome lacks what is counted; then
/// what is held is charged.
fn price_of(route: &Route, pass: &Pass, outcome: &Outcome) -> Option<Credits> {
    let form = route.price.form();
    let counts_units = form.per_record.is_some() || form.per_event.is_some();
    let lacking =
        (form.per_kilobyte.is_some() && outcome.bytes.is_none()) || (counts_units && outcome.units.is_none());
    if !pass.is_late() || pass.is_free() || lacking {
        return None;
    }
    // Units are told as a number, whatever they were: of these kinds each has the price of an event or record.
    let kind = if counts_units { BodyKind::Events } else { BodyKind::Opaque };
    let seen = Seen { bytes: outcome.bytes.unwrap_or_default(), units: outcome.units.unwrap_or_default() };
    Some(route.price.rates(pass.items(), kind, outcome.stated).of(seen))
}

/// Takes the asking proxy's own entry off `X-Forwarded-For`: the other end of its connection.
fn take_peer(headers: &mut HeaderMap) -> Option<IpAddr> {
    let mut values: Vec<HeaderValue> = headers.get_all(FORWARDED_FOR).iter().cloned().collect();
    let last = values.pop()?;
    let bytes = last.as_bytes();
    let (before, own) = match memchr::memrchr(b',', bytes) {
        Some(at) => (bytes.get(..at), bytes.get(at + 1..)),
        None => (None, Some(bytes)),
    };
    let peer = own.and_then(parse_address);
    values.extend(before.and_then(|before| HeaderValue::from_bytes(before).ok()));
    headers.remove(FORWARDED_FOR);
    for value in values {
        headers.append(header::HeaderName::from_static(FORWARDED_FOR), value);
    }
    peer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_most_entry_is_the_asking_proxy_s_word() {
        // (X-Forwarded-For values, the other end of its connection, what is left)
        let table: &[(&[&str], Option<&str>, &[&str])] = &[
            (&[], None, &[]),
            (&["203.0.113.9"], Some("203.0.113.9"), &[]),
            (&["198.51.100.1, 203.0.113.9"], Some("203.0.113.9"), &["198.51.100.1"]),
            (&["198.51.100.1", "203.0.113.9"], Some("203.0.113.9"), &["198.51.100.1"]),
            (&["198.51.100.1,"], None, &["198.51.100.1"]),
            (&["nonsense"], None, &[]),
            (&["[2001:db8::1]:4711"], Some("2001:db8::1"), &[]),
        ];
        for (values, peer, left) in table {
            let mut headers = HeaderMap::new();
            for value in *values {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            assert_eq!(take_peer(&mut headers), peer.map(|peer| peer.parse().unwrap()), "{values:?}");
            let kept: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
            assert_eq!(kept, *left, "{values:?}");
        }
    }
}
