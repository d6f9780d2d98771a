//! Cross-origin requests: preflights, and the headers of real responses (`policy.md`, "CORS"; Fetch standard).

use std::fmt::Write;
use std::time::Duration;

use http::{HeaderValue, Method, header};
use pingora::http::ResponseHeader;

use super::facts::Request;
use super::reply::told::Told;
use crate::policy::domain::Page;
use crate::policy::token::contains_token;
use crate::policy::{DomainMode, Policy};

/// What cross-origin pages may do.
#[derive(Debug, Clone)]
pub struct CorsSettings {
    /// Request headers a page may send: lowercase names, or prefixes that end in `*`.
    pub allow_headers: Vec<String>,
    /// How long a browser may remember a preflight.
    pub max_age: Duration,
}

/// The response headers a page may read.
const EXPOSED: &str =
    "X-Credits-Used, X-Credits-Remaining, X-Request-Id, RateLimit, RateLimit-Policy, Retry-After";
/// And the original service's, of a response that carries them.
const EXPOSED_IEX: &str = "iexcloud-credits-used, iexcloud-messages-used, iexcloud-premium-credits-used, \
                           iexcloud-premium-messages-used";

/// The response headers that are the gate's to write.
const OWNED: [header::HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

/// Whether a request is a preflight.
pub(super) fn is_preflight(request: &Request<'_>) -> bool {
    *request.method == Method::OPTIONS
        && request.headers.contains_key(header::ORIGIN)
        && request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The origin that may read the answer, as the browser spelled it. Before a policy is known every page may: there
/// is nothing to read but why it was refused. After that, the policy's domains decide.
pub(super) fn allowed_origin(
    request: &Request<'_>,
    page: &Page,
    policy: Option<&Policy>,
    client: Option<std::net::IpAddr>,
) -> Option<HeaderValue> {
    let mut values = request.headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (values.next(), values.next()) else { return None };
    let readable =
        (page.origin().is_some() || origin.as_bytes() == b"null") && !contains_token(origin.as_bytes());
    let admitted = policy.is_none_or(|policy| {
        policy.domain_mode == DomainMode::Report || policy.allowed_domains.admit(page, client).is_ok()
    });
    (readable && admitted).then(|| origin.clone())
}

/// Of the headers a preflight asks for, those that may be sent, as a list for `Access-Control-Allow-Headers`.
pub(super) fn allowed_headers(settings: &CorsSettings, request: &Request<'_>) -> String {
    let mut list = String::new();
    for value in request.headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        let names = value.to_str().unwrap_or_default().split(',').map(str::trim);
        for name in names.filter(|name| header::HeaderName::from_bytes(name.as_bytes()).is_ok()) {
            let lower = name.to_ascii_lowercase();
            let fits = |pattern: &String| match pattern.strip_suffix('*') {
                Some(prefix) => lower.starts_with(prefix),
                None => *pattern == lower,
            };
            if settings.allow_headers.iter().any(fits) && !lower.starts_with("x-tollgate-") {
                let comma = if list.is_empty() { "" } else { ", " };
                let _ = write!(list, "{comma}{lower}");
            }
        }
    }
    list
}

/// Makes a response readable for the admitted origin and nobody else: whatever the upstream said is replaced.
pub(super) fn decorate(response: &mut ResponseHeader, origin: Option<&HeaderValue>) -> pingora::Result<()> {
    let mut told = Told::default();
    tell(&mut told, response, origin, false);
    told.put_into(response)
}

/// The same, told beside the head. `is_priced`: the original service's headers are told too.
pub(super) fn tell(
    told: &mut Told,
    response: &mut ResponseHeader,
    origin: Option<&HeaderValue>,
    is_priced: bool,
) {
    let of_cors = |name: &header::HeaderName| name.as_str().starts_with("access-control-");
    // Nearly no upstream says any.
    if response.headers.keys().any(of_cors) {
        for name in OWNED {
            response.remove_header(&name);
        }
    }
    // It is ASCII, as only a page's origin is let through.
    if let Some(origin) = origin.and_then(|origin| origin.to_str().ok()) {
        told.field("Access-Control-Allow-Origin", &[origin]);
        let is_priced = is_priced || response.headers.contains_key("iexcloud-credits-used");
        let exposed: &[&str] = if is_priced { &[EXPOSED, ", ", EXPOSED_IEX] } else { &[EXPOSED] };
        told.field("Access-Control-Expose-Headers", exposed);
    }
    let varies = |value: &HeaderValue| {
        let names = value.to_str().unwrap_or_default();
        names.split(',').map(str::trim).any(|name| name == "*" || name.eq_ignore_ascii_case("origin"))
    };
    if !response.headers.get_all(header::VARY).iter().any(varies) {
        told.field("Vary", &["Origin"]);
    }
}
