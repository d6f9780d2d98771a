//! The admin API, asked in the same process.

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::ServiceExt;

use crate::admin::Caller;

/// The largest answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// The admin API.
#[derive(Debug, Clone)]
pub(super) struct Api(axum::Router);

/// Something wrong with one field.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct FieldError {
    /// A JSON pointer into the body, or nothing.
    #[serde(default)]
    pub(super) pointer: String,
    /// What is wrong.
    pub(super) detail: String,
}

/// Why the API did not do something.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Refusal {
    status: u16,
    /// The API's name for it; of what the console itself refuses, nothing.
    #[serde(default)]
    pub(super) code: String,
    pub(super) detail: String,
    #[serde(default)]
    pub(super) errors: Vec<FieldError>,
}

impl Refusal {
    /// The status of the page that tells of it.
    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Something that the console itself has to say no to.
    pub(super) fn new(status: StatusCode, detail: &str) -> Self {
        Self { status: status.as_u16(), code: String::new(), detail: detail.to_owned(), errors: Vec::new() }
    }

    fn broken(why: &str) -> Self {
        tracing::error!(why, "the console cannot read the admin API's answer");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong; the log says what.")
    }

    /// Whether somebody else wrote first.
    pub(super) fn is_conflict(&self) -> bool {
        self.status == StatusCode::PRECONDITION_FAILED.as_u16()
    }
}

impl Api {
    pub(super) fn new(router: axum::Router) -> Self {
        Self(router)
    }

    /// Reads something.
    pub(super) async fn get<T: DeserializeOwned>(&self, caller: &Caller, path: &str) -> Result<T, Refusal> {
        self.ask(caller, Method::GET, path, None, None).await
    }

    /// Does something; with `version`: only to that version of it.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        method: Method,
        path: &str,
        body: &Value,
        version: Option<u64>,
    ) -> Result<T, Refusal> {
        self.ask(caller, method, path, Some(body), version).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        method: Method,
        path: &str,
        body: Option<&Value>,
        version: Option<u64>,
    ) -> Result<T, Refusal> {
        let mut request = Request::builder().method(method).uri(path).extension(caller.clone());
        if let Some(version) = version {
            request = request.header(header::IF_MATCH, format!("\"{version}\""));
        }
        let body = match body {
            None => Body::empty(),
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
        };
        let request = request.body(body).map_err(|error| Refusal::broken(&error.to_string()))?;
        let response = match self.0.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let status = response.status();
        let bytes = to_bytes(response.into_body(), MAX_ANSWER).await;
        let bytes = bytes.map_err(|error| Refusal::broken(&error.to_string()))?;
        if !status.is_success() {
            let refusal = serde_json::from_slice::<Refusal>(&bytes);
            return Err(refusal.unwrap_or_else(|error| Refusal::broken(&error.to_string())));
        }
        let bytes = if bytes.is_empty() { b"null".as_slice() } else { &bytes };
        serde_json::from_slice(bytes).map_err(|error| Refusal::broken(&error.to_string()))
    }
}
