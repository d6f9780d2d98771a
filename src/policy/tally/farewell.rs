//! The last bytes of a stream that the gate ends: why, in the customs of each kind.
//!
//! - Server-sent events: between events, an event `error` whose data is one line of JSON. Within an event, a comment, and
//!   no empty line after it: the client then drops the half event as the standard says, instead of taking it for whole.
//! - NDJSON: a last line `{"error":{…}}`. A stream that is cut must not look complete. A half line before it is ended by
//!   a line feed, and is no JSON.
//! - WebSocket: a close frame, between frames: 1008 (policy violation), 1013 (try again later) where waiting helps by
//!   itself, or 1012 (service restart) where the gate stops (RFC 6455, 7.4, and its IANA registry). Within a frame nothing can be said: the connection just ends.
//!
//! Only a refusal's code and a fixed sentence go out, nothing of the request.

use super::Tally;
use crate::policy::denial::Denial;

/// The most bytes of reason in a close frame: a control frame holds 125 with the status (RFC 6455, 5.5).
const MAX_REASON: usize = 123;
const POLICY_VIOLATION: u16 = 1008;
const TRY_AGAIN_LATER: u16 = 1013;
const SERVICE_RESTART: u16 = 1012;

impl Tally {
    /// What goes out last, after all that was fed. `None`: there is no way to say it, so just end.
    pub fn farewell(&self, denial: &Denial) -> Option<Vec<u8>> {
        let told = || format!(r#"{{"code":"{}","detail":"{}"}}"#, denial.code(), reason(denial));
        match self {
            Self::Events(_) if self.is_between() => {
                Some(format!("event: error\ndata: {}\n\n", told()).into_bytes())
            }
            Self::Events(_) => Some(format!("\n: {}: {}\n", denial.code(), reason(denial)).into_bytes()),
            Self::Lines(_) => {
                let start = if self.is_between() { "" } else { "\n" };
                Some(format!("{start}{{\"error\":{}}}\n", told()).into_bytes())
            }
            Self::Frames(_) if self.is_between() => Some(close_frame(denial)),
            Self::Frames(_) | Self::Json(_) | Self::Opaque(_) | Self::Empty => None,
        }
    }
}

/// Why a stream ends, as a public sentence without quotes or escapes.
pub fn reason(denial: &Denial) -> &'static str {
    match denial {
        Denial::CreditsExhausted { .. } => "The stream ended: the API token has no credits left.",
        Denial::BudgetExhausted { .. } => "The stream ended: the account has no credits left.",
        Denial::TokenRevoked => "The stream ended: the API token was revoked.",
        Denial::TokenDisabled => "The stream ended: the API token was disabled.",
        Denial::TokenExpired => "The stream ended: the API token has expired.",
        Denial::RateLimited { .. } => "The stream ended: too many requests with this API token.",
        Denial::StoreUnavailable => "The stream ended: the gate cannot reach its store. Try again.",
        Denial::ShuttingDown => "The stream ended: this gate is about to stop. Connect again.",
        _ => "The stream ended: the API token may no longer read it.",
    }
}

/// A close frame, unmasked as a server's must be.
fn close_frame(denial: &Denial) -> Vec<u8> {
    let status = match denial {
        Denial::RateLimited { .. } | Denial::StoreUnavailable => TRY_AGAIN_LATER,
        Denial::ShuttingDown => SERVICE_RESTART,
        _ => POLICY_VIOLATION,
    };
    let text = format!("{}: {}", denial.code(), reason(denial));
    let text = text.get(..MAX_REASON).unwrap_or(&text);
    let mut frame = Vec::with_capacity(4 + text.len());
    frame.push(0x88);
    // `text` is cut to what a control frame holds, so its length is one byte.
    frame.push(u8::try_from(2 + text.len()).unwrap_or(2));
    frame.extend_from_slice(&status.to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame
}
