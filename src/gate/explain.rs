//! Answers "would this request pass, and why" by the very steps a real request takes, charging nothing.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use jiff::Timestamp;

use super::Gate;
use super::decision::{Located, credential, from_browser, note_errand};
use super::explanation::{Explainer, Explanation, Question, Step};
use super::facts::{Request, announces_body};
use super::own::Endpoint;
use super::reply::Dialect;
use super::rules::Rules;
use super::visit::Trail;
use super::{cors, reply};
use crate::policy::cost::Rest;
use crate::policy::route::Errand;
use crate::policy::signature::Checked;
use crate::policy::{
    Check, Denial, Facts, Limit, Note, Policy, Token, TokenKind, asks_for_signature, examine,
};
use crate::store::{Counted, StoreError};

/// The checks in the order of the spec, by the names `explain` gives them.
const CHECKS: [&str; 10] = [
    "target",
    "route",
    "method",
    "credential",
    "token",
    "signature",
    "domain",
    "data_access",
    "throttle",
    "credits",
];

#[async_trait]
impl Explainer for Gate {
    async fn explain(&self, question: Question) -> Result<Explanation, StoreError> {
        let asked = Asked::read(&question);
        let request = Request {
            method: &asked.method,
            target: asked.target.as_bytes(),
            headers: &asked.headers,
            peer: question.client,
            authority: None,
            encrypted: false,
            has_body: asked.has_body(),
        };
        let rules = self.rules();
        let mut book = Book { dialect: rules.dialect(), ..Book::default() };
        let mut trail = Trail { client: question.client, ..Trail::default() };
        let Some(located) = book.locate(self.judge(&rules).locate(&request, &mut trail)) else {
            return Ok(book.finish(&trail));
        };
        if cors::is_preflight(&request) {
            book.note(
                "method",
                "preflight",
                "a preflight: answered by the gate, without a token and without a charge",
            );
            return Ok(book.finish(&trail));
        }
        let errand = located.route.errand(&located.target, request.method);
        let Some(errand) = book.keep("method", errand) else { return Ok(book.finish(&trail)) };
        note_errand(&mut trail, &errand);
        if located.own.is_some_and(Endpoint::is_open) {
            return Ok(book.finish(&trail));
        }
        let Some(found) = self.find(&question, &request, &located, &mut book).await? else {
            return Ok(book.finish(&trail));
        };
        trail.policy = Some(found.policy.clone());
        self.weigh(&rules, &request, &errand, &found, &mut book).await?;
        if let Some(endpoint) = located.own {
            book.keep("data_access", endpoint.check_kind(&found.policy));
        }
        book.price(&errand);
        Ok(book.finish(&trail))
    }
}

impl Gate {
    /// The policy that the question is about, by id or by the token in the request.
    async fn find(
        &self,
        question: &Question,
        request: &Request<'_>,
        located: &Located<'_>,
        book: &mut Book,
    ) -> Result<Option<Found>, StoreError> {
        if let Some(id) = &question.token_id {
            let account = crate::policy::AccountId::default_account();
            let Some(stored) = self.store.get_token(&account, id).await? else {
                book.refuse("credential", &Denial::TokenInvalid);
                return Ok(None);
            };
            book.pass("credential");
            let browser =
                request.headers.contains_key(header::ORIGIN) && stored.policy.kind == TokenKind::Secret;
            // A signature names the token's value; one in the request is compared with, else the stored one.
            let token = match credential(request, &located.query_tokens, None) {
                Ok(presented) => Some(presented.token),
                Err(_) => self.store.reveal_token(&account, id).await.ok().flatten(),
            };
            return Ok(Some(Found { policy: Arc::new(stored.policy), token, from_browser: browser }));
        }
        let Some(presented) = book.keep("credential", credential(request, &located.query_tokens, None))
        else {
            return Ok(None);
        };
        let Some(policy) = self.store.find_token(&presented.token.digest()).await? else {
            book.refuse("token", &Denial::TokenInvalid);
            return Ok(None);
        };
        let from_browser = from_browser(request, &presented);
        Ok(Some(Found { policy: Arc::new(policy), token: Some(presented.token), from_browser }))
    }

    /// Every check a policy stands for, then the throttle and the credits, without counting.
    async fn weigh(
        &self,
        rules: &Rules,
        request: &Request<'_>,
        errand: &Errand<'_>,
        found: &Found,
        book: &mut Book,
    ) -> Result<(), StoreError> {
        let page = request.page();
        let (policy, now) = (found.policy.as_ref(), Timestamp::now());
        let signature = match (asks_for_signature(errand, policy), &found.token) {
            (true, Some(token)) => {
                self.judge(rules).check_signature(request, token, policy, errand.route, now).await
            }
            (true, None) | (false, _) => Err(Denial::SignatureMissing),
        };
        let facts = Facts {
            now,
            errand,
            page: &page,
            client: request.peer,
            from_browser: found.from_browser,
            leaked_secret: rules.settings.leaked_secret,
            outside_browser: self.judge(rules).reports_outside_browser(request),
            signature: signature.as_ref().map_err(Denial::clone),
        };
        for finding in examine(&facts, policy) {
            let name = finding.check.as_str();
            match finding.outcome {
                Ok(None) if finding.check == Check::Signature => {
                    book.signature(signature.as_ref().ok(), policy);
                }
                Ok(None) => book.pass(name),
                Ok(Some(Note::DomainReported(refusal))) => {
                    book.note(name, "domain_reported", refusal.as_str());
                }
                Ok(Some(Note::SecretFromBrowser)) => {
                    book.note(
                        name,
                        "secret_from_browser",
                        "a secret token from a browser has most likely leaked",
                    );
                }
                Ok(Some(Note::PublishableOutsideBrowser)) => {
                    book.note(
                        name,
                        "publishable_outside_browser",
                        "a publishable token came with no signal of a browser",
                    );
                }
                Err(denial) => book.refuse(name, &denial),
            }
        }
        match policy.rate_limit {
            None => book.pass("throttle"),
            Some(rate) => book.note(
                "throttle",
                "throttled",
                &format!(
                    "at most {} requests/s and {} at once; asking here does not count",
                    rate.requests_per_second, rate.burst
                ),
            ),
        }
        let pool = errand.route.access.pool();
        let cost = errand.route.price.hold(errand.items).credits;
        let used = self.store.token_usage(&policy.account, &policy.id).await?;
        let account = self.store.get_account(&policy.account).await?;
        let account_used = self.store.account_usage(&policy.account).await?;
        let budget = account.and_then(|account| *account.budget.get(pool));
        let covers = |limit: Option<Limit>, counted: &Counted| {
            limit.is_none_or(|limit| {
                let used = counted.counters.get(pool).used(limit.period, counted.at).0;
                cost.0 == 0 || used.saturating_add(cost.0) <= limit.credits.0
            })
        };
        if !covers(*policy.credit_limit.get(pool), &used) {
            book.refuse("credits", &Denial::CreditsExhausted { pool, retry_after: None });
        } else if !covers(budget, &account_used) {
            book.refuse("credits", &Denial::BudgetExhausted { pool, retry_after: None });
        } else {
            book.pass("credits");
        }
        Ok(())
    }
}

/// Whom a question is about.
struct Found {
    policy: Arc<Policy>,
    /// The token's value, where it is known: signatures name it.
    token: Option<Token>,
    from_browser: bool,
}

/// The question, as a request line and headers.
struct Asked {
    method: Method,
    target: String,
    headers: HeaderMap,
}

impl Asked {
    fn read(question: &Question) -> Self {
        let method = Method::from_bytes(question.method.as_bytes()).unwrap_or(Method::GET);
        let mut headers = HeaderMap::new();
        for (name, value) in &question.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
            {
                headers.append(name, value);
            }
        }
        // A whole URL brings its own host along.
        let authority = question.target.split_once("://").map(|(_, rest)| rest);
        let authority = authority.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
        if let Some(value) = authority.and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.entry(header::HOST).or_insert(value);
        }
        let mut target = question.target.clone();
        if authority.is_some_and(|text| question.target.ends_with(text)) {
            target.push('/');
        }
        Self { method, target, headers }
    }

    /// A question tells no body. By its method there would be one, unless its headers say otherwise.
    fn has_body(&self) -> bool {
        announces_body(&self.headers)
            || (matches!(self.method, Method::POST | Method::PUT | Method::PATCH)
                && !self.headers.contains_key(header::CONTENT_LENGTH))
    }
}

/// Keeps what each check found; the first refusal decides.
#[derive(Default)]
struct Book {
    dialect: Dialect,
    steps: Vec<Step>,
    denial: Option<Denial>,
    pool: Option<&'static str>,
    price: Option<String>,
    credits: Option<u64>,
}

impl Book {
    fn pass(&mut self, check: &'static str) {
        self.steps.push(Step { check, outcome: "passed", code: None, detail: None });
    }

    fn note(&mut self, check: &'static str, code: &str, detail: &str) {
        let (code, detail) = (Some(code.to_owned()), Some(detail.to_owned()));
        self.steps.push(Step { check, outcome: "noted", code, detail });
    }

    /// A signature against which nothing speaks: what only a real request can tell is said.
    fn signature(&mut self, checked: Option<&Checked>, policy: &Policy) {
        let name = Check::Signature.as_str();
        match checked {
            Some(Checked::Pending(_)) => self.note(
                name,
                "signature_needs_body",
                "the signature is of this token and of now; whether it is right only the body can tell, which is not known here",
            ),
            Some(Checked::Verified(_)) if policy.replay_protection => self.note(
                name,
                "signature_right",
                "the signature is right; whether it was used before is asked only for a real request",
            ),
            Some(Checked::Verified(_)) | None => self.pass(name),
        }
    }

    fn refuse(&mut self, check: &'static str, denial: &Denial) {
        let answer = reply::answer(denial);
        let (code, detail) = (Some(answer.code.to_owned()), Some(answer.detail));
        self.steps.push(Step { check, outcome: "refused", code, detail });
        self.denial.get_or_insert_with(|| denial.clone());
    }

    fn keep<T>(&mut self, check: &'static str, result: Result<T, Denial>) -> Option<T> {
        match result {
            Ok(value) => {
                self.pass(check);
                Some(value)
            }
            Err(denial) => {
                // A bad data set name is found while the method is looked at, and is the target's fault.
                let check = if matches!(denial, Denial::BadTarget(_)) { "target" } else { check };
                self.steps.retain(|step| step.check != check);
                self.refuse(check, &denial);
                None
            }
        }
    }

    fn locate<'g>(&mut self, located: Result<Located<'g>, Denial>) -> Option<Located<'g>> {
        match located {
            Ok(located) => {
                self.pass("target");
                self.pass("route");
                Some(located)
            }
            Err(Denial::NoRoute) => {
                self.pass("target");
                self.refuse("route", &Denial::NoRoute);
                None
            }
            Err(denial) => {
                self.refuse("target", &denial);
                None
            }
        }
    }

    fn price(&mut self, errand: &Errand<'_>) {
        self.pool = Some(errand.route.access.pool().as_str());
        let price = &errand.route.price;
        let hold = price.hold(errand.items);
        self.credits = Some(hold.credits.0);
        self.price = Some(match hold.rest {
            Rest::Nothing => price.to_string(),
            Rest::Returned => {
                format!("{price}; {} are held, and what is not used is returned", hold.credits)
            }
            Rest::Drawn => format!(
                "{price}; {} are held, and the rest is drawn or returned as the response is counted",
                hold.credits
            ),
        });
    }

    fn finish(mut self, trail: &Trail) -> Explanation {
        let mut checks = Vec::with_capacity(CHECKS.len());
        for check in CHECKS {
            let at = self.steps.iter().position(|step| step.check == check);
            checks.push(match at {
                Some(at) => self.steps.swap_remove(at),
                None => Step { check, outcome: "not_reached", code: None, detail: None },
            });
        }
        let answer = self.denial.as_ref().map(|denial| reply::answer_in(self.dialect, denial));
        Explanation {
            pass: answer.is_none(),
            status: answer.as_ref().map_or(200, |answer| answer.status),
            code: answer.as_ref().map(|answer| answer.code.to_owned()),
            detail: answer.map(|answer| answer.detail),
            route: trail.route_name().map(str::to_owned),
            token_id: trail.policy.as_ref().map(|policy| policy.id.to_string()),
            datasets: trail.datasets.iter().map(|id| id.as_str().to_owned()).collect(),
            operation: trail.operation.map(crate::policy::Operation::as_str),
            pool: self.pool,
            price: self.price,
            credits: self.credits,
            checks,
        }
    }
}
