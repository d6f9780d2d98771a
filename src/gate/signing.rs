//! Signatures in the request path: the calls a gate makes, over [`super::keyring`] and [`super::replay`].
//!
//! # Who calls
//! `decision`, for a request whose policy is known and for which [`crate::policy::asks_for_signature`] is true:
//!
//! 1. Before the body: [`Signing::check`] with the raw request, the token it presents, and whether a body may come. What it
//!    returns, refusals too, goes into [`crate::policy::Facts::signature`]; `judge` then keeps the order of checks. For
//!    all other requests that fact is `Err(Denial::SignatureMissing)`, which nobody looks at.
//! 2. If the request is permitted but for its body: the gate holds that back (`held`), and all is decided again with its
//!    hash. So an edit that came meanwhile is in force, and a signature that grew old meanwhile is refused.
//! 3. With the [`Verified`] of it: [`Signing::use_up`], before the throttle and the credits, so that a repeated request
//!    costs nothing; and after all that is free to check, so that a refused request uses nothing up. It does nothing where
//!    the token's `replay_protection` is off.
//!
//! `step` keeps the keyring in step: [`Keyring::changed`] for each `Event::Policy`, [`Keyring::lost`] where events were
//! lost.
//!
//! # What it costs
//! Step 1 asks the store at the first sight of an account and of a token, and after an edit of a secret token; then never.
//! Step 3 is one place in a shared call to the store: with Redis a round trip, with the embedded store a write into the page
//! cache. Nothing of this is on the way of a request that needs no signature.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Handle;

use super::keyring::Keyring;
use super::line::Line;
use super::replay::Replay;
use crate::policy::route::Route;
use crate::policy::signature::{BadSignature, Checked, Claim, RawRequest, SignatureRefusal, Verified};
use crate::policy::{Denial, Policy, Token};

/// What signing is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct SigningSettings {
    /// How long a request waits for the store.
    pub(super) patience: Duration,
    /// For how long known secrets are trusted while the store cannot be reached.
    pub(super) grace: Duration,
}

/// A request, as far as its signature goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignedRequest<'r> {
    /// The request itself, raw.
    pub(super) raw: RawRequest<'r>,
    /// The token it presents.
    pub(super) token: &'r Token,
    /// Whether a body may come.
    pub(super) has_body: bool,
}

/// Checks signatures for the gate.
pub(super) struct Signing {
    /// The secrets; to be kept in step.
    pub(super) keyring: Arc<Keyring>,
    replay: Arc<Replay>,
}

impl Signing {
    /// Calls to the store are made on `runtime`.
    pub(super) fn new(line: &Arc<Line>, settings: SigningSettings, runtime: Handle) -> Self {
        let SigningSettings { patience, grace } = settings;
        let keyring = Keyring::new(line.clone(), patience, grace, runtime.clone());
        Self { keyring, replay: Replay::new(line.clone(), patience, runtime) }
    }

    /// Checks a signature as far as that is possible without the body. Its time may be `max_skew` from this node's
    /// (`signature_max_skew`).
    pub(super) async fn check(
        &self,
        request: &SignedRequest<'_>,
        policy: &Policy,
        route: &Route,
        now: Timestamp,
        max_skew: Duration,
    ) -> Result<Checked, Denial> {
        let claim = Claim::read(&request.raw, request.token, now, max_skew)?;
        let known = self.keyring.find(policy, false).await?;
        let check = |claim: Claim, secrets| claim.check(secrets, route.signature_body, request.has_body);
        let outcome = check(claim.clone(), known.at(now).collect::<Vec<_>>());
        let undecided = matches!(
            outcome,
            Ok(Checked::Pending(_)) | Err(SignatureRefusal::Invalid(BadSignature::Mismatch))
        );
        if !(undecided && known.may_have_grown) {
            return Ok(outcome?);
        }
        let newer = self.keyring.find(policy, true).await?;
        Ok(check(claim, newer.at(now).collect::<Vec<_>>())?)
    }

    /// Uses a signature up: the first use in the fleet passes, all others are refused.
    pub(super) async fn use_up(
        &self,
        verified: &Verified,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<(), Denial> {
        if !policy.replay_protection {
            return Ok(());
        }
        self.replay.check(&policy.account, verified, now).await
    }
}

#[cfg(test)]
mod tests;
