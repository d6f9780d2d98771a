//! "Would this request pass, and why": the gate's answer, as JSON.

use std::net::IpAddr;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Shared;
use super::auth::Caller;
use super::body::Body;
use super::fields::{Field, Object, Problems};
use super::problem::{Problem, ProblemBody, json};
use super::query::Query;
use super::schema::{self, QuestionFields};
use crate::gate::explanation::{Explanation, Question, Step};
use crate::policy::TokenId;

/// The longest target, in bytes.
const MAX_TARGET: usize = 16 * 1024;
/// The most values of headers.
const MAX_HEADERS: usize = 100;

/// What would happen to the request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Explanation)]
pub(super) struct ExplanationView {
    /// Whether it would be forwarded.
    pass: bool,
    /// The status of the refusal; 200 if it passes.
    status: u16,
    /// The refusal's code.
    #[schema(required)]
    code: Option<String>,
    /// The refusal's sentence.
    #[schema(required)]
    detail: Option<String>,
    /// The route that serves the path.
    #[schema(required)]
    route: Option<String>,
    /// The token it was judged by.
    #[schema(required)]
    token_id: Option<String>,
    /// The data sets it is about.
    datasets: Vec<String>,
    /// What it does to them.
    #[schema(required, schema_with = schema::operation_or_null)]
    operation: Option<&'static str>,
    /// The pool it draws on.
    #[schema(required, schema_with = schema::pool_or_null)]
    pool: Option<&'static str>,
    /// The price in words, and how it is taken; none where a request is refused before its price is looked at.
    #[schema(required)]
    price: Option<String>,
    /// What it would cost in credits; where only the response tells that, what is held before it is sent.
    #[schema(required)]
    credits: Option<u64>,
    /// Every check, in order.
    checks: Vec<StepView>,
}

/// One check, and what it found.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExplanationStep)]
struct StepView {
    /// The check's name.
    check: &'static str,
    /// What came of it; `noted`: it passes, with something to tell.
    #[schema(schema_with = schema::outcome)]
    outcome: &'static str,
    /// The code of what was refused or noted.
    #[schema(required)]
    code: Option<String>,
    /// The same as a sentence.
    #[schema(required)]
    detail: Option<String>,
}

impl From<Step> for StepView {
    fn from(step: Step) -> Self {
        Self { check: step.check, outcome: step.outcome, code: step.code, detail: step.detail }
    }
}

impl From<Explanation> for ExplanationView {
    fn from(explanation: Explanation) -> Self {
        Self {
            pass: explanation.pass,
            status: explanation.status,
            code: explanation.code,
            detail: explanation.detail,
            route: explanation.route,
            token_id: explanation.token_id,
            datasets: explanation.datasets,
            operation: explanation.operation,
            pool: explanation.pool,
            price: explanation.price,
            credits: explanation.credits,
            checks: explanation.checks.into_iter().map(StepView::from).collect(),
        }
    }
}

/// Would this request pass, and why. Nothing is charged and nothing is forwarded.
#[utoipa::path(post, path = "/v1/explain", operation_id = "explain", tag = "explain", request_body = QuestionFields,
    responses(
        (status = 200, description = "What would happen to the request, and why.", body = ExplanationView),
        (status = 422, description = "Some fields cannot be taken; all of them are named.", body = ProblemBody,
         content_type = "application/problem+json"),
    ))]
pub(super) async fn explain(
    _: Caller,
    State(shared): State<Shared>,
    query: Query,
    Body(body): Body,
) -> Result<Response, Problem> {
    query.allow_none()?;
    let explanation = shared.admin.explainer.explain(read_question(&body)?).await?;
    let mut response = json(StatusCode::OK, &ExplanationView::from(explanation));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response.into_response())
}

/// The fields of a question.
pub(super) const KNOWN: [&str; 5] = ["method", "target", "headers", "client", "token_id"];

fn read_question(body: &Value) -> Result<Question, Problem> {
    let mut problems = Problems::default();
    let question = Field::root(body)
        .object(&KNOWN, &mut problems)
        .and_then(|object| read_fields(&object, &mut problems));
    match question {
        Some(question) if problems.count() == 0 => Ok(question),
        _ => Err(Problem::fields(problems.into_errors())),
    }
}

fn read_fields(object: &Object<'_>, problems: &mut Problems) -> Option<Question> {
    let given = |name| object.field(name).and_then(Field::unless_null);
    let is_method = |text: &str| Method::from_bytes(text.as_bytes()).ok();
    let method = given("method").map(|field| field.choice("a method like GET", is_method, problems));
    let is_target = |text: &str| {
        let whole = ["http://", "https://"]
            .iter()
            .any(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
        ((text.starts_with('/') || whole) && text.len() <= MAX_TARGET).then(|| text.to_owned())
    };
    let expected = "a path like /v1/data/CORE/QUOTES?limit=1, or a whole URL";
    let target = object.required("target", expected, problems);
    let target = target.and_then(|field| field.choice(expected, is_target, problems));
    let is_address = |text: &str| text.parse::<IpAddr>().ok();
    let client = given("client").map(|field| field.choice("an IP address", is_address, problems));
    let token_id = given("token_id")
        .map(|field| field.choice("a token's id (tok_…), not its value", TokenId::parse, problems));
    let headers = given("headers").map_or_else(Vec::new, |field| read_headers(&field, problems));
    Some(Question {
        method: method.flatten().unwrap_or(Method::GET).as_str().to_owned(),
        target: target?,
        headers,
        client: client.flatten(),
        token_id: token_id.flatten(),
    })
}

fn read_headers(field: &Field<'_>, problems: &mut Problems) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    let Some(object) = field.open_object(problems) else { return headers };
    for (name, field) in object.fields() {
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            problems.add(field.pointer(), "is not the name of a header");
            continue;
        }
        let values = match field.value() {
            Value::Array(_) => field.list("a list of texts", MAX_HEADERS, problems).unwrap_or_default(),
            _ => vec![field],
        };
        for value in values {
            let is_value = |text: &str| HeaderValue::from_str(text).is_ok().then(|| text.to_owned());
            // The value may be a token, so it is not repeated: the reader's own message would.
            match value.value().as_str().and_then(is_value) {
                Some(text) => headers.push((name.to_owned(), text)),
                None => problems.add(value.pointer(), "expected a text that a header can hold"),
            }
        }
    }
    if headers.len() > MAX_HEADERS {
        problems.add(field.pointer(), format!("at most {MAX_HEADERS} headers are possible"));
    }
    headers
}
