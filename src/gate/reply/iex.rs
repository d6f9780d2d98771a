//! The dialect of the original service: errors are one plain sentence, credits have headers of their own
//! (`clients.md`, "dialect: iex").
//!
//! Owns which status and sentence each refusal has there. Where the original has no word for a refusal, the standard
//! status and sentence are kept. It must not know how an answer is sent; that is [`super`]'s.

use http::header;
use pingora::http::ResponseHeader;

use super::told::Told;
use super::{Answer, answer as standard};
use crate::policy::{Credits, Denial, Pool};

/// What clients take for an error's text. They take JSON for data.
pub(super) const CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// The answer to a refused request.
pub(super) fn answer(denial: &Denial) -> Answer {
    let mut answer = standard(denial);
    if let Some((status, sentence)) = wording(denial) {
        answer.status = status;
        if status == 401 && !answer.headers.iter().any(|(name, _)| *name == header::WWW_AUTHENTICATE) {
            answer.headers.push((header::WWW_AUTHENTICATE, super::CHALLENGE.to_owned()));
        }
        sentence.clone_into(&mut answer.detail);
    }
    answer
}

/// Status and sentence as the original has them; `None`: as in the standard dialect.
fn wording(denial: &Denial) -> Option<(u16, &'static str)> {
    const INVALID_VALUES: &str = "You have supplied invalid values for this request";
    match denial {
        Denial::BadTarget(_) | Denial::InvalidValues => Some((400, INVALID_VALUES)),
        Denial::TokenMissing => {
            Some((401, "An API key is required to access this data and no key was provided"))
        }
        Denial::TokenInvalid | Denial::TokenRevoked | Denial::TokenExpired => {
            Some((403, "The API key provided is not valid."))
        }
        Denial::TokenDisabled => Some((403, "The provided API token has been disabled")),
        Denial::SignatureMissing => Some((401, "Hashed token authorization is required")),
        Denial::SignatureInvalid(_) | Denial::SignatureStale | Denial::SignatureReplayed => {
            Some((403, "Hashed authorization is invalid"))
        }
        Denial::DomainDenied(_) => Some((
            401,
            "The referer in the request header is not allowed. Please check the associated domain(s) for this API key",
        )),
        Denial::CoreDenied | Denial::PremiumDenied | Denial::DatasetDenied { .. } => {
            Some((451, "The requested data requires permission to access."))
        }
        Denial::SecretTokenRequired => {
            Some((401, "The secret key is required to access to requested endpoint."))
        }
        Denial::RateLimited { .. } | Denial::TooManyInvalidTokens { .. } => Some((429, "Too Many Requests")),
        Denial::CreditsExhausted { .. } => Some((
            402,
            "You have exceeded your allotted message quota. Please enable pay-as-you-go to regain access",
        )),
        Denial::BudgetExhausted { .. } => {
            Some((403, "Your pay-as-you-go circuit breaker overage has been engaged"))
        }
        Denial::BadFraming(_)
        | Denial::NoRoute
        | Denial::MethodNotAllowed { .. }
        | Denial::TokenAmbiguous
        | Denial::PolicyUnreadable
        | Denial::IdempotencyKeyInvalid
        | Denial::IdempotencyKeyReused
        | Denial::SecretTokenLeaked
        | Denial::ReplayMemoryFull
        | Denial::HeldBodiesFull
        | Denial::BodyTooLarge { .. }
        | Denial::ShuttingDown
        | Denial::StoreUnavailable => None,
    }
}

/// The headers of a charged response: what it cost, by pool. `messages` is the older word for credits.
const USED: [[&str; 2]; 2] = [
    ["iexcloud-credits-used", "iexcloud-messages-used"],
    ["iexcloud-premium-credits-used", "iexcloud-premium-messages-used"],
];

/// Tells what a charged response cost, whatever the upstream said.
pub(super) fn tell(told: &mut Told, response: &mut ResponseHeader, pool: Pool, charged: Credits) {
    let (core, premium) = match pool {
        Pool::Core => (charged.0, 0),
        Pool::Premium => (0, charged.0),
    };
    for (names, credits) in USED.into_iter().zip([core, premium]) {
        for name in names {
            response.remove_header(name);
            told.field(name, &[itoa::Buffer::new().format(credits)]);
        }
    }
}
