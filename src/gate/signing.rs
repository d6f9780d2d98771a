//! Signatures in the request path: the three calls a gate makes, over [`super::keyring`] and [`super::replay`].
//!
//! # How to wire it
//! For a request whose policy is known and for which [`crate::policy::asks_for_signature`] is true:
//!
//! 1. Before the body, in `request_filter`: [`Signing::check`] with the raw request, the token it presents, and whether a
//!    body may come (`Content-Length` other than 0, or `Transfer-Encoding`, or an HTTP/2 stream that has not ended). What it
//!    returns, refusals too, goes into [`crate::policy::Facts::signature`]; `judge` then keeps the order of checks. For all
//!    other requests that fact is `Err(Denial::SignatureMissing)`, which nobody looks at.
//! 2. If the verdict is a permit and [`crate::policy::Permit::awaits_body`]: read the body into memory, each piece through a
//!    [`BodyHash`] that begins with the route's `max_signed_body`, and [`Pending::finish`] it. An error is a refusal like
//!    any other (`Denial::from`). What was held back is then sent on; its length is known by then.
//! 3. With the [`Verified`] of step 1 or 2: [`Signing::use_up`], before the throttle and the credits, so that a repeated request
//!    costs nothing. It does nothing where the token's `replay_protection` is off.
//!
//! Whoever keeps the node in step calls [`Keyring::changed`] for each `Event::Policy`, and [`Keyring::lost`] where it tells
//! the directory that events were lost.
//!
//! # What it costs
//! Step 1 asks the store at the first sight of an account and of a token, and after an edit of a secret token; then never.
//! Step 3 is one place in a shared call to the store: with Redis a round trip, with the embedded store a write into the page
//! cache. Nothing of this is on the way of a request that needs no signature.
//!
//! [`BodyHash`]: crate::policy::signature::BodyHash
//! [`Pending::finish`]: crate::policy::signature::Pending::finish

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
    /// How far a signature's time may be from this node's (`signature_max_skew`).
    pub(super) max_skew: Duration,
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
    max_skew: Duration,
    /// The secrets; to be kept in step.
    pub(super) keyring: Arc<Keyring>,
    replay: Arc<Replay>,
}

impl Signing {
    /// Calls to the store are made on `runtime`.
    pub(super) fn new(line: &Arc<Line>, settings: SigningSettings, runtime: Handle) -> Self {
        let SigningSettings { max_skew, patience, grace } = settings;
        let keyring = Keyring::new(line.clone(), patience, grace, runtime.clone());
        Self { max_skew, keyring, replay: Replay::new(line.clone(), patience, runtime) }
    }

    /// Checks a signature as far as that is possible without the body.
    pub(super) async fn check(
        &self,
        request: &SignedRequest<'_>,
        policy: &Policy,
        route: &Route,
        now: Timestamp,
    ) -> Result<Checked, Denial> {
        let claim = Claim::read(&request.raw, request.token, now, self.max_skew)?;
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
