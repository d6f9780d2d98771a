//! The verdict: may this request pass by this policy? Steps 5 to 8 of the spec's "Order of checks".
//!
//! Steps 1 to 4 (target, route, preflight, credential) come before a policy is known and are the gate's; steps 9
//! and 10 (throttle, credits) change a counter and are the ledger's. What lies between is here, pure.

use std::net::IpAddr;

use jiff::Timestamp;

use super::cost::{Credits, Hold, Pool};
use super::denial::Denial;
use super::domain::{DomainRefusal, Page};
use super::record::{DomainMode, Policy, Status};
use super::route::{Access, Errand};
use super::signature::Checked;
use super::token::TokenKind;

/// What a secret token from a browser leads to (`policy.md`, "Tokens").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LeakedSecret {
    /// It is answered, and flagged.
    #[default]
    Flag,
    /// It is refused.
    Refuse,
}

/// What a publishable token leads to that comes without a browser's signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OutsideBrowser {
    /// Nothing: servers may use publishable tokens.
    #[default]
    Ignore,
    /// It is answered, and reported.
    Report,
}

/// All that is known of a request when its policy is at hand.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The gate's clock.
    pub now: Timestamp,
    /// What the request is about.
    pub errand: &'a Errand<'a>,
    /// The page it comes from.
    pub page: &'a Page,
    /// The client's own address, behind trusted proxies.
    pub client: Option<IpAddr>,
    /// It carries an `Origin`, or its token stands in the query: it was most likely made by a browser.
    pub from_browser: bool,
    /// What a secret token from a browser leads to.
    pub leaked_secret: LeakedSecret,
    /// Nothing in it looks like a browser (no `Origin`, `Referer`, `Sec-Fetch-Site`), and that is to be reported.
    pub outside_browser: bool,
    /// What checking its signature led to, where that was asked for ([`asks_for_signature`]).
    pub signature: Result<&'a Checked, Denial>,
}

/// Whether a request needs a signature: its token says so, or its route.
pub fn asks_for_signature(errand: &Errand<'_>, policy: &Policy) -> bool {
    policy.signed_requests || errand.route.signed
}

/// Something worth telling about a request that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// The token's domains would have refused it, were they enforced.
    DomainReported(DomainRefusal),
    /// A secret token came from a browser.
    SecretFromBrowser,
    /// A publishable token came with no signal of a browser.
    PublishableOutsideBrowser,
}

/// Leave to charge and forward one request. Only [`judge`] makes one, so a request that nobody judged does not
/// compile on its way upstream.
#[derive(Debug)]
pub struct Permit {
    pool: Pool,
    hold: Hold,
    notes: Vec<Note>,
    awaits_body: bool,
}

impl Permit {
    /// The pool the request draws on.
    pub fn pool(&self) -> Pool {
        self.pool
    }

    /// What is to be taken before it is sent: its price where that is known.
    pub fn cost(&self) -> Credits {
        self.hold.credits
    }

    /// What is to be taken, and how its price may differ in the end.
    pub fn hold(&self) -> Hold {
        self.hold
    }

    /// Whether its signature can only be checked with the body: nothing may be forwarded before
    /// [`super::signature::Pending::finish`] said that it is right.
    pub fn awaits_body(&self) -> bool {
        self.awaits_body
    }

    /// What is worth telling about it.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }
}

/// May it pass?
#[derive(Debug)]
pub enum Verdict {
    /// It may, once it is charged.
    Pass(Permit),
    /// It may not, and why.
    Deny(Denial),
}

/// One of the checks that a policy stands for, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The token is active and its time is not over.
    Token,
    /// A signature is there where one is asked for.
    Signature,
    /// The page may use the token.
    Domain,
    /// The token may do this to this data.
    DataAccess,
}

impl Check {
    /// All checks, in the order they are made.
    pub const ALL: [Self; 4] = [Self::Token, Self::Signature, Self::Domain, Self::DataAccess];

    /// The check's name in `explain`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Signature => "signature",
            Self::Domain => "domain",
            Self::DataAccess => "data_access",
        }
    }

    fn run(self, facts: &Facts<'_>, policy: &Policy) -> Result<Option<Note>, Denial> {
        match self {
            Self::Token => check_token(facts, policy),
            Self::Signature => check_signature(facts, policy).map(|()| None),
            Self::Domain => check_domain(facts, policy),
            Self::DataAccess => check_data_access(facts, policy).map(|()| None),
        }
    }
}

/// What one check found.
#[derive(Debug)]
pub struct Finding {
    /// The check.
    pub check: Check,
    /// Nothing against the request, perhaps something to tell; or why it is refused.
    pub outcome: Result<Option<Note>, Denial>,
}

/// Makes every check, also those after one that refuses: for `explain`.
pub fn examine(facts: &Facts<'_>, policy: &Policy) -> Vec<Finding> {
    let run = |check: Check| Finding { check, outcome: check.run(facts, policy) };
    Check::ALL.into_iter().map(run).collect()
}

/// Makes the checks in order; the first that refuses decides.
pub fn judge(facts: &Facts<'_>, policy: &Policy) -> Verdict {
    let mut notes = Vec::new();
    for check in Check::ALL {
        match check.run(facts, policy) {
            Ok(note) => notes.extend(note),
            Err(denial) => return Verdict::Deny(denial),
        }
    }
    let route = facts.errand.route;
    let awaits_body =
        asks_for_signature(facts.errand, policy) && matches!(facts.signature, Ok(Checked::Pending(_)));
    let hold = route.price.hold(facts.errand.items);
    Verdict::Pass(Permit { pool: route.access.pool(), hold, notes, awaits_body })
}

fn check_token(facts: &Facts<'_>, policy: &Policy) -> Result<Option<Note>, Denial> {
    match policy.status {
        Status::Active => {}
        Status::Disabled => return Err(Denial::TokenDisabled),
        Status::Revoked => return Err(Denial::TokenRevoked),
    }
    if policy.expires_at.is_some_and(|expiry| facts.now >= expiry) {
        return Err(Denial::TokenExpired);
    }
    if policy.kind == TokenKind::Publishable && facts.outside_browser {
        return Ok(Some(Note::PublishableOutsideBrowser));
    }
    let leaked = policy.kind == TokenKind::Secret && facts.from_browser;
    match (leaked, facts.leaked_secret) {
        (false, _) => Ok(None),
        (true, LeakedSecret::Flag) => Ok(Some(Note::SecretFromBrowser)),
        (true, LeakedSecret::Refuse) => Err(Denial::SecretTokenLeaked),
    }
}

/// A signature that still waits for its body passes here; whoever forwards has to finish it first.
fn check_signature(facts: &Facts<'_>, policy: &Policy) -> Result<(), Denial> {
    if !asks_for_signature(facts.errand, policy) {
        return Ok(());
    }
    facts.signature.as_ref().map(drop).map_err(Denial::clone)
}

fn check_domain(facts: &Facts<'_>, policy: &Policy) -> Result<Option<Note>, Denial> {
    match (policy.allowed_domains.admit(facts.page, facts.client), policy.domain_mode) {
        (Ok(()), _) => Ok(None),
        (Err(refusal), DomainMode::Report) => Ok(Some(Note::DomainReported(refusal))),
        (Err(refusal), DomainMode::Enforce) => Err(Denial::DomainDenied(refusal)),
    }
}

/// Core and premium access are leave to read (seed: "Core dataset read access"); to write or delete there, the
/// token needs a grant besides. A secret token has all of its account's data.
fn check_data_access(facts: &Facts<'_>, policy: &Policy) -> Result<(), Denial> {
    if policy.kind == TokenKind::Secret {
        return Ok(());
    }
    let errand = facts.errand;
    let flag = match errand.route.access {
        Access::Core if !policy.core_access => return Err(Denial::CoreDenied),
        Access::Premium if !policy.premium_access => return Err(Denial::PremiumDenied),
        Access::Core => Some(Denial::CoreDenied),
        Access::Premium => Some(Denial::PremiumDenied),
        Access::Dataset => None,
    };
    if let Some(denial) = flag {
        if errand.operation == super::Operation::Read {
            return Ok(());
        }
        if errand.datasets.is_empty() {
            return Err(denial);
        }
    }
    let granted = |dataset| policy.grants.iter().any(|grant| grant.allows(dataset, errand.operation));
    match errand.datasets.iter().find(|dataset| !granted(dataset)) {
        Some(dataset) => {
            Err(Denial::DatasetDenied { dataset: dataset.as_str().to_owned(), operation: errand.operation })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
