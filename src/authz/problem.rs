//! What is wrong with a question itself: the operator's to mend, not the client's. Each is an RFC 9457 problem.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};

/// Why a question has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    /// Whoever asks may not.
    Untrusted,
    /// There is nothing at this path.
    NoPath,
    /// The path takes another method.
    Method,
    /// An option that is not known, or a value that is none.
    Options,
    /// It is not said which request it is about.
    Incomplete,
    /// It is said twice, and not the same.
    Contradiction,
    /// The gate answers this request itself, and that answer is for the client.
    NotRelayed,
    /// A claim that is none, or was settled, or was charged since.
    UnknownClaim,
    /// The outcome is none.
    Outcome,
}

impl Problem {
    fn wording(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Untrusted => (
                StatusCode::FORBIDDEN,
                "authz_untrusted",
                "This address may not ask: name it in authz.trusted of proxy.yaml, if it is a proxy of yours.",
            ),
            Self::NoPath => (
                StatusCode::NOT_FOUND,
                "authz_no_path",
                "There is nothing here. Paths: /authz, /answer, /refusal, /settle.",
            ),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "authz_method", "Settle with POST."),
            Self::Options => (
                StatusCode::BAD_REQUEST,
                "authz_options",
                "Options of /authz are refuse=403, settle=later and target=as-is; each once, or not at all.",
            ),
            Self::Incomplete => (
                StatusCode::BAD_REQUEST,
                "authz_incomplete",
                "The question does not say which request it is about: send X-Original-URI and X-Original-Method, or X-Forwarded-Uri and X-Forwarded-Method, or append the request's target to /authz.",
            ),
            Self::Contradiction => (
                StatusCode::BAD_REQUEST,
                "authz_contradiction",
                "The question names two requests that differ. The proxy that asks has to remove X-Original-* and X-Forwarded-Uri and -Method where clients send them.",
            ),
            Self::NotRelayed => (
                StatusCode::FORBIDDEN,
                "authz_not_relayed",
                "The gate answers this request itself (a preflight, or a path of its own). The proxy that asks has to pass such requests on to /answer instead of asking.",
            ),
            Self::UnknownClaim => (
                StatusCode::NOT_FOUND,
                "authz_unknown_claim",
                "No such claim: it was settled, or nobody settled it in time and it was charged.",
            ),
            Self::Outcome => (
                StatusCode::BAD_REQUEST,
                "authz_outcome",
                "Settle with claim=…&status=…, and as far as they are known bytes, units and credits, each a whole number.",
            ),
        }
    }

    pub(super) fn into_response(self) -> Response {
        let (status, code, detail) = self.wording();
        let body = serde_json::json!({
            "type": format!("urn:tollgate:problem:{code}"),
            "title": "Forward-auth",
            "status": status.as_u16(),
            "detail": detail,
            "code": code,
        });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
