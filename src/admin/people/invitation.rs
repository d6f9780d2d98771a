//! The link that makes somebody a member: 256 random bits, of which only a digest is kept.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::admin::problem::Problem;
use crate::admin::tokens::random;
use crate::store::people::{Invitation, Member, MemberId};

/// How long a link is good.
const LIFE: Duration = Duration::from_hours(7 * 24);

/// A new invitation, and the secret of its link.
pub(super) fn invite(now: Timestamp) -> Result<(Invitation, String), Problem> {
    let secret = hex::encode(random::<32>()?);
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    Ok((Invitation { digest: digest(&secret), until: now.saturating_add(LIFE).unwrap_or(now) }, secret))
}

/// Where the console takes an invitation up, behind the admin address.
pub(super) fn path(id: &MemberId, secret: &str) -> String {
    format!("/console/join/{id}/{secret}")
}

/// Until when a member's link with this secret is good; `None`: it is not (any more).
pub(super) fn open_until(member: &Member, secret: &str, now: Timestamp) -> Option<Timestamp> {
    let invitation = member.invitation.filter(|invitation| now < invitation.until)?;
    bool::from(invitation.digest.ct_eq(&digest(secret))).then_some(invitation.until)
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}
