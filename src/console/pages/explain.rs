//! **Explain**: would this request pass, and why.
//!
//! What is asked may hold a token. So it comes as a form and never stands in an address or a log, and goes back into the
//! page only after [`masked`] has taken every secret out of it.

use askama::Template;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::console::Console;
use crate::console::api::FieldError;
use crate::console::form::{Form, Posted};
use crate::console::layout::{Failure, Frame, page};
use crate::console::names;
use crate::console::notice::Notice;
use crate::console::session::Visitor;
use crate::console::words::grouped;

mod masked;

use masked::{mask, mask_headers};

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What stands in the fields.
#[derive(Debug, Clone, Default)]
struct Question {
    url: String,
    method: String,
    origin: String,
    referer: String,
    headers: String,
    client: String,
    token_id: String,
}

impl Question {
    fn read(form: &Form) -> Self {
        let text = |name: &str| form.text(name).to_owned();
        Self {
            url: text("url"),
            method: form.get("method").filter(|method| !method.is_empty()).unwrap_or("GET").to_owned(),
            origin: text("origin"),
            referer: text("referer"),
            headers: text("headers"),
            client: text("client"),
            token_id: text("token_id"),
        }
    }

    /// As the admin API is asked; or what stands in the way, each with its field.
    fn to_body(&self) -> Result<Value, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut error = |field: &str, detail: &str| {
            errors.push(FieldError { pointer: format!("/{field}"), detail: detail.to_owned() });
        };
        if self.url.is_empty() {
            error("target", "paste the address of a request");
        }
        let mut headers = Map::new();
        for (at, line) in self.headers.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty())
        {
            match line.split_once(':') {
                Some((name, value)) if !name.trim().is_empty() => {
                    add(&mut headers, name.trim(), value.trim());
                }
                _ => error("headers", &format!("line {} is not like “Name: value”", at + 1)),
            }
        }
        for (name, value) in [("Origin", &self.origin), ("Referer", &self.referer)] {
            if !value.is_empty() {
                add(&mut headers, name, value);
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut body = Map::new();
        body.insert("method".to_owned(), json!(self.method));
        body.insert("target".to_owned(), json!(self.url));
        body.insert("headers".to_owned(), Value::Object(headers));
        for (name, value) in [("client", &self.client), ("token_id", &self.token_id)] {
            if !value.is_empty() {
                body.insert(name.to_owned(), json!(value));
            }
        }
        Ok(Value::Object(body))
    }

    /// Fit to be shown: without secrets. Whether there was any.
    fn without_secrets(&self) -> (Self, bool) {
        let shown = Self {
            url: mask(&self.url),
            origin: mask(&self.origin),
            referer: mask(&self.referer),
            headers: mask_headers(&self.headers),
            client: mask(&self.client),
            token_id: mask(&self.token_id),
            method: METHODS.into_iter().find(|known| *known == self.method).unwrap_or("GET").to_owned(),
        };
        let pairs = [
            (&shown.url, &self.url),
            (&shown.origin, &self.origin),
            (&shown.referer, &self.referer),
            (&shown.headers, &self.headers),
            (&shown.client, &self.client),
            (&shown.token_id, &self.token_id),
        ];
        let is_masked = pairs.iter().any(|(shown, given)| shown != given);
        (shown, is_masked)
    }
}

/// A header may come more than once.
fn add(headers: &mut Map<String, Value>, name: &str, value: &str) {
    match headers.get_mut(name) {
        Some(Value::Array(values)) => values.push(json!(value)),
        _ => {
            headers.insert(name.to_owned(), json!([value]));
        }
    }
}

/// The admin API's answer.
#[derive(Debug, Deserialize)]
struct Answer {
    pass: bool,
    status: u16,
    code: Option<String>,
    detail: Option<String>,
    route: Option<String>,
    token_id: Option<String>,
    datasets: Vec<String>,
    operation: Option<String>,
    pool: Option<String>,
    price: Option<String>,
    credits: Option<u64>,
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
struct Check {
    #[serde(rename = "check")]
    name: String,
    outcome: String,
    code: Option<String>,
    detail: Option<String>,
}

impl Check {
    /// The outcome's style and its words.
    fn badge(&self) -> (&'static str, &str) {
        match self.outcome.as_str() {
            "passed" => ("ok", "Passed"),
            "refused" => ("state", "Refused"),
            "noted" => ("warn", "Noted"),
            "not_reached" => ("idle", "Not reached"),
            other => ("idle", other),
        }
    }

    fn title(&self) -> String {
        let text = self.name.replace('_', " ");
        let mut chars = text.chars();
        chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
    }
}

#[derive(Template)]
#[template(path = "explain.html")]
struct ExplainPage {
    frame: Frame,
    question: Question,
    methods: [&'static str; 7],
    is_masked: bool,
    answer: Option<Answer>,
    token_name: String,
    price: String,
    errors: Vec<FieldError>,
}

impl ExplainPage {
    fn new(visitor: &Visitor, question: &Question) -> Self {
        let (question, is_masked) = question.without_secrets();
        Self {
            frame: visitor.frame("Explain", "explain"),
            question,
            methods: METHODS,
            is_masked,
            answer: None,
            token_name: String::new(),
            price: String::new(),
            errors: Vec::new(),
        }
    }

    fn error(&self, pointer: &str) -> String {
        let own = self.errors.iter().filter(|error| error.pointer.starts_with(pointer));
        own.map(|error| error.detail.as_str()).collect::<Vec<_>>().join("; ")
    }

    fn refused(mut self, errors: Vec<FieldError>) -> Response {
        self.errors = errors;
        let notice = Notice::error("The question cannot be asked so; see what stands below its fields.");
        self.frame = self.frame.with_notice(Some(notice));
        page(StatusCode::UNPROCESSABLE_ENTITY, &self)
    }
}

/// `GET /console/explain`
pub(crate) async fn show(visitor: Visitor) -> Response {
    page(StatusCode::OK, &ExplainPage::new(&visitor, &Question::default()))
}

/// `POST /console/explain`
pub(crate) async fn ask(
    State(console): State<Console>,
    Posted { visitor, form }: Posted,
) -> Result<Response, Failure> {
    let question = Question::read(&form);
    let mut template = ExplainPage::new(&visitor, &question);
    let body = match question.to_body() {
        Ok(body) => body,
        Err(errors) => return Ok(template.refused(errors)),
    };
    let asked = console.api.send::<Answer>(&visitor.caller, Method::POST, "/v1/explain", &body, None).await;
    match asked {
        Ok(answer) => {
            template.price = price(&answer);
            if let Some(id) = &answer.token_id {
                let names = names::of(&console, &visitor, &[id]).await;
                template.token_name = names.get(id).unwrap_or(id).clone();
            }
            template.answer = Some(answer);
            Ok(page(StatusCode::OK, &template))
        }
        Err(refusal) if refusal.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            Ok(template.refused(refusal.errors))
        }
        Err(refusal) => Err(Failure::of(&visitor, refusal)),
    }
}

/// The price in a sentence.
fn price(answer: &Answer) -> String {
    let credits = match answer.credits {
        Some(1) => "1 credit".to_owned(),
        Some(credits) => format!("{} credits", grouped(credits)),
        None => return answer.price.clone().unwrap_or_default(),
    };
    let pool = answer.pool.as_deref().map_or_else(String::new, |pool| format!(" from the {pool} pool"));
    let how = answer.price.as_ref().filter(|how| how.parse::<u64>().is_err());
    let how = how.map_or_else(String::new, |how| format!(" (price: {how})"));
    format!("{credits}{pool}{how}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(headers: &str) -> Question {
        Question {
            url: "/v1/x".to_owned(),
            method: "GET".to_owned(),
            headers: headers.to_owned(),
            ..Question::default()
        }
    }

    #[test]
    fn headers_are_read_line_by_line() {
        let body = question("X-A: 1\n\n x-b :  two: three \nX-A: 2").to_body().unwrap();
        assert_eq!(body["headers"], json!({ "X-A": ["1", "2"], "x-b": ["two: three"] }));
        let origin = Question { origin: "https://a.test".to_owned(), ..question("") };
        assert_eq!(origin.to_body().unwrap()["headers"], json!({ "Origin": ["https://a.test"] }));
        for (headers, told) in [("nonsense", "line 1"), ("A: 1\n: 2", "line 2")] {
            let errors = question(headers).to_body().unwrap_err();
            assert!(errors[0].pointer == "/headers" && errors[0].detail.contains(told), "{errors:?}");
        }
        let errors = Question::default().to_body().unwrap_err();
        assert_eq!(errors[0].pointer, "/target");
    }

    #[test]
    fn the_price_is_a_sentence() {
        let table = [
            (Some(1), Some("1"), Some("core"), "1 credit from the core pool"),
            (Some(1_500), Some("5 a record"), None, "1,500 credits (price: 5 a record)"),
            (None, Some("told by the response"), None, "told by the response"),
            (None, None, None, ""),
        ];
        for (credits, price, pool, told) in table {
            let answer: Answer = serde_json::from_value(json!({
                "pass": true, "status": 200, "datasets": [], "checks": [],
                "credits": credits, "price": price, "pool": pool,
            }))
            .unwrap();
            assert_eq!(super::price(&answer), told);
        }
    }
}
