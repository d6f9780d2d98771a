//! "Would this request pass, and why": the question and its answer, as plain types.
//!
//! Owns only the words. The gate answers by the same steps it takes for a real request; the admin API asks. Nothing
//! here knows HTTP bodies: how question and answer look in JSON is the admin API's.

use std::net::IpAddr;

use async_trait::async_trait;

use crate::policy::TokenId;
use crate::store::StoreError;

/// Who answers "would this request pass, and why". The gate does.
#[async_trait]
pub trait Explainer: Send + Sync {
    /// Judges the request as if it came now. Nothing is charged and nothing is forwarded.
    async fn explain(&self, question: Question) -> Result<Explanation, StoreError>;
}

/// A request that somebody asks about.
#[derive(Clone)]
pub struct Question {
    /// The method, as it would stand in the request line.
    pub method: String,
    /// The target: a path with its query, or a whole URL.
    pub target: String,
    /// Headers that may decide: `Origin`, `Referer`, `Authorization`, `Host` and so on. May hold tokens.
    pub headers: Vec<(String, String)>,
    /// The client's own address.
    pub client: Option<IpAddr>,
    /// The token to judge by, instead of one that stands in the request.
    pub token_id: Option<TokenId>,
}

/// What would happen to the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Whether it would be forwarded.
    pub pass: bool,
    /// The status of the refusal; for a request that passes, 200.
    pub status: u16,
    /// The refusal's code.
    pub code: Option<String>,
    /// The refusal's sentence.
    pub detail: Option<String>,
    /// The route that serves the path.
    pub route: Option<String>,
    /// The token it was judged by.
    pub token_id: Option<String>,
    /// The data sets it is about.
    pub datasets: Vec<String>,
    /// What it does to them.
    pub operation: Option<&'static str>,
    /// The pool it draws on.
    pub pool: Option<&'static str>,
    /// The price in words, and how it is taken.
    pub price: Option<String>,
    /// What it would cost; where only the response tells that, what is held before it is sent.
    pub credits: Option<u64>,
    /// Every check, in the order of `policy.md`, "Order of checks".
    pub checks: Vec<Step>,
}

/// One check, and what it found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The check's name.
    pub check: &'static str,
    /// `passed`, `refused`, `noted` (it passes, with something to tell) or `not_reached`.
    pub outcome: &'static str,
    /// The code of what was refused or noted.
    pub code: Option<String>,
    /// The same as a sentence.
    pub detail: Option<String>,
}
