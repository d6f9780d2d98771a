//! The wire form of a question: which request is it about.
//!
//! A request is named in one of three forms: `X-Original-URI` and `X-Original-Method` (nginx, `HAProxy`), `X-Forwarded-Uri`
//! and `X-Forwarded-Method` (Caddy, Traefik), or the question's own method and the target that follows the path (Envoy).
//! A client can send such headers too, and a proxy that uses one form may pass on those of another. So all that are
//! there must say the same; else the question is refused.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::problem::Problem;
use crate::gate::check::{Charge, Question};

const TARGETS: [HeaderName; 2] =
    [HeaderName::from_static("x-original-uri"), HeaderName::from_static("x-forwarded-uri")];
const METHODS: [HeaderName; 2] =
    [HeaderName::from_static("x-original-method"), HeaderName::from_static("x-forwarded-method")];
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const ORIGINAL_LENGTH: HeaderName = HeaderName::from_static("x-original-content-length");
const ORIGINAL_ENCODING: HeaderName = HeaderName::from_static("x-original-transfer-encoding");

/// What a proxy may ask for besides, in the query of `/authz`. Where the request's own target follows the path, the query
/// is the client's, and there are no options.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Refusals are told as 403, with the true answer packed: for proxies that know no other.
    pub(super) refuse_403: bool,
    /// The charge is settled by a second call.
    pub(super) settle_later: bool,
    /// The target goes on as the client sent it: for proxies that cannot rewrite it.
    pub(super) as_is: bool,
}

impl Options {
    pub(super) fn read(rest: &str, query: Option<&str>) -> Result<Self, Problem> {
        let mut options = Self::default();
        if !rest.is_empty() {
            return Ok(options);
        }
        for option in query.into_iter().flat_map(|query| query.split('&')) {
            let seen = match option {
                "refuse=403" => std::mem::replace(&mut options.refuse_403, true),
                "settle=later" => std::mem::replace(&mut options.settle_later, true),
                "target=as-is" => std::mem::replace(&mut options.as_is, true),
                _ => true,
            };
            if seen {
                return Err(Problem::Options);
            }
        }
        Ok(options)
    }

    /// Where there are none to be.
    pub(super) fn read_none(query: Option<&str>) -> Result<(), Problem> {
        query.map_or(Ok(()), |_| Err(Problem::Options))
    }
}

/// Reads which request a question is about. `rest` is what follows the path.
pub(super) fn read(request: &Parts, rest: &str, charge: Charge) -> Result<Question, Problem> {
    let mut headers = request.headers.clone();
    let in_path = (!rest.is_empty()).then(|| target_after(request, rest));
    let target = agreed(&headers, &TARGETS, in_path.as_deref())?;
    let own_method = in_path.is_some().then(|| request.method.as_str().as_bytes());
    let method = agreed(&headers, &METHODS, own_method)?;
    let method = Method::from_bytes(&method).map_err(|_| Problem::Incomplete)?;
    let has_body = has_body(&headers, &method);
    let mut hosts = headers.get_all(FORWARDED_HOST).iter();
    if let (Some(host), None) = (hosts.next().cloned(), hosts.next()) {
        headers.insert(header::HOST, host);
    }
    Ok(Question { method, target, headers, has_body, charge, as_is: false })
}

/// The target that follows the path, with its query.
fn target_after(request: &Parts, rest: &str) -> Vec<u8> {
    let query = request.uri.query();
    let parts = [rest, query.map_or("", |_| "?"), query.unwrap_or_default()];
    parts.concat().into_bytes()
}

/// What all of these headers, and the question itself, say; it must be said, and said alike.
fn agreed(headers: &HeaderMap, names: &[HeaderName], itself: Option<&[u8]>) -> Result<Vec<u8>, Problem> {
    let stated = names.iter().flat_map(|name| headers.get_all(name)).map(HeaderValue::as_bytes);
    let mut all = itself.into_iter().chain(stated);
    let first = all.next().filter(|first| !first.is_empty()).ok_or(Problem::Incomplete)?;
    if all.all(|other| other == first) { Ok(first.to_vec()) } else { Err(Problem::Contradiction) }
}

/// Whether the request has a body, or may have one. Most proxies ask without it, and without its length; so what is no
/// plain reading method has one unless `X-Original-Content-Length: 0` says otherwise.
fn has_body(headers: &HeaderMap, method: &Method) -> bool {
    let has = |name: HeaderName| {
        headers.get(name).is_some_and(|value| !value.is_empty() && value.as_bytes() != b"0")
    };
    let announced = has(ORIGINAL_LENGTH)
        || has(ORIGINAL_ENCODING)
        || has(header::CONTENT_LENGTH)
        || has(header::TRANSFER_ENCODING);
    let bare = [Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS].contains(method)
        || headers.get(ORIGINAL_LENGTH).is_some_and(|value| value.as_bytes() == b"0");
    announced || !bare
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers<'c> = &'c [(&'c str, &'c str)];
    type Case<'c> = (&'c str, Headers<'c>, Result<(&'c str, &'c str), Problem>);

    fn asked(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut builder = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_request_is_named_in_one_of_three_forms_and_all_that_are_there_must_agree() {
        let (uri, method) = (("X-Original-URI", "/a?b"), ("X-Original-Method", "PUT"));
        let (forwarded, forwarded_method) = (("X-Forwarded-Uri", "/a?b"), ("X-Forwarded-Method", "PUT"));
        let other = [("X-Forwarded-Uri", "/free"), ("X-Forwarded-Method", "GET")];
        let put = Ok(("PUT", "/a?b"));
        // (what follows /authz, headers, the request)
        let table: &[Case<'_>] = &[
            ("", &[uri, method], put),
            ("", &[forwarded, forwarded_method], put),
            ("/a?b", &[], put),
            ("/a?b", &[uri, method, forwarded, forwarded_method], put),
            ("", &[uri, method, forwarded], put),
            ("", &[uri], Err(Problem::Incomplete)),
            ("", &[method], Err(Problem::Incomplete)),
            ("", &[], Err(Problem::Incomplete)),
            ("", &[("X-Original-URI", ""), method], Err(Problem::Incomplete)),
            ("", &[uri, method, other[0]], Err(Problem::Contradiction)),
            ("", &[uri, method, other[1]], Err(Problem::Contradiction)),
            ("", &[uri, uri, method], put),
            ("", &[uri, ("X-Original-URI", "/c"), method], Err(Problem::Contradiction)),
            ("/a?b", &[other[0]], Err(Problem::Contradiction)),
            ("/a?b", &[other[1]], Err(Problem::Contradiction)),
            ("/", &[], Ok(("PUT", "/"))),
        ];
        for (rest, headers, expected) in table {
            let request = asked("PUT", &format!("/authz{rest}"), headers);
            let path = request.uri.path().strip_prefix("/authz").unwrap().to_owned();
            let read = read(&request, &path, Charge::AtOnce);
            let told = read
                .map(|question| (question.method.to_string(), String::from_utf8(question.target).unwrap()));
            let expected = expected.map(|(method, target)| (method.to_owned(), target.to_owned()));
            assert_eq!(told, expected, "{rest} {headers:?}");
        }
    }

    #[test]
    fn options_stand_once_and_nowhere_else() {
        let none = Options::default();
        let both = Options { refuse_403: true, settle_later: true, ..none };
        let table = [
            ("", None, Some(Options::default())),
            ("", Some("refuse=403"), Some(Options { refuse_403: true, ..none })),
            ("", Some("settle=later&refuse=403"), Some(both)),
            ("", Some("settle=later&settle=later"), None),
            ("", Some("target=as-is"), Some(Options { as_is: true, ..none })),
            ("", Some("settle=now"), None),
            ("", Some(""), None),
            // The client's own query.
            ("/x", Some("settle=later"), Some(Options::default())),
        ];
        for (rest, query, expected) in table {
            assert_eq!(Options::read(rest, query).ok(), expected, "{rest} {query:?}");
        }
    }

    #[test]
    fn a_body_that_nobody_denies_may_be_there() {
        let length = |value| ("X-Original-Content-Length", value);
        // (method, headers, whether there may be a body)
        let table: &[(&str, Headers<'_>, bool)] = &[
            ("GET", &[], false),
            ("DELETE", &[("Content-Length", "0")], false),
            ("GET", &[length("5")], true),
            ("GET", &[length("")], false),
            ("GET", &[("X-Original-Transfer-Encoding", "chunked")], true),
            ("POST", &[], true),
            ("POST", &[length("0")], false),
            ("POST", &[length("0"), ("X-Original-Transfer-Encoding", "chunked")], true),
            ("PATCH", &[length("7")], true),
        ];
        for (method, headers, expected) in table {
            let request = asked(method, "/authz/x", headers);
            assert_eq!(has_body(&request.headers, &request.method), *expected, "{method} {headers:?}");
        }
    }
}
