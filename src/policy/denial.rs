//! Every refusal the gate knows, as one enum.
//!
//! A refusal is a verdict, not an error. It knows its code and what it was about; which status and which public
//! sentence a client gets is [`crate::gate::reply`]'s to choose, in one exhaustive `match`.

use std::time::Duration;

use super::cost::Pool;
use super::dataset::Operation;
use super::domain::DomainRefusal;
use super::framing::BadFraming;
use super::signature::{BadSignature, SignatureRefusal};
use super::target::BadTarget;

/// Why a request is not let through. The order is the order of the checks (`policy.md`, "Order of checks").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// Where the request ends, or which host it is for, could be read in several ways.
    BadFraming(BadFraming),
    /// The target has no safe canonical form.
    BadTarget(BadTarget),
    /// No route serves the path.
    NoRoute,
    /// A route serves the path, but not by this method.
    MethodNotAllowed {
        /// The methods it serves, as the `Allow` header lists them.
        allow: String,
    },
    /// No credential was presented.
    TokenMissing,
    /// Two credentials that differ were presented.
    TokenAmbiguous,
    /// The credential is malformed or nobody's.
    TokenInvalid,
    /// Too many credentials that are nobody's came from this address; this one was not looked up.
    TooManyInvalidTokens {
        /// After how long another is looked up.
        retry_after: Duration,
    },
    /// The token is switched off for now.
    TokenDisabled,
    /// The token is gone for good.
    TokenRevoked,
    /// The token's time is over.
    TokenExpired,
    /// The token's stored policy cannot be read; nothing is let through by it (law 9).
    PolicyUnreadable,
    /// A secret token came from a browser and the gate is told to refuse that (`leaked_secret: refuse`).
    SecretTokenLeaked,
    /// A signature is asked for and there is none.
    SignatureMissing,
    /// The signature is wrong.
    SignatureInvalid(BadSignature),
    /// The signature is too old, or of a time to come.
    SignatureStale,
    /// The signature was used before.
    SignatureReplayed,
    /// No more signatures can be remembered now; one that is not remembered could be used twice.
    ReplayMemoryFull,
    /// Too many bodies of signed requests are held back at the moment.
    HeldBodiesFull,
    /// The body is too long to be held back until its hash is known.
    BodyTooLarge {
        /// Bytes that are held back at most.
        most: u64,
    },
    /// No rule of the token admits the page.
    DomainDenied(DomainRefusal),
    /// The token may not read core data.
    CoreDenied,
    /// The token may not read premium data.
    PremiumDenied,
    /// The token has no leave for this operation on this data set.
    DatasetDenied {
        /// The first data set without leave.
        dataset: String,
        /// What was to be done.
        operation: Operation,
    },
    /// Only a secret token may ask for this (`clients.md`, "Account endpoints").
    SecretTokenRequired,
    /// The values given to an endpoint of the gate itself are none that it takes.
    InvalidValues,
    /// The `Idempotency-Key` is no key: empty, too long, doubled.
    IdempotencyKeyInvalid,
    /// The `Idempotency-Key` was used for another request.
    IdempotencyKeyReused,
    /// Too many requests in a time.
    RateLimited {
        /// After how long one more is let through.
        retry_after: Duration,
    },
    /// The token's credits are used up.
    CreditsExhausted {
        /// In which pool.
        pool: Pool,
        /// After how long there are new ones; `None`: never by itself.
        retry_after: Option<Duration>,
    },
    /// The account's credits are used up.
    BudgetExhausted {
        /// In which pool.
        pool: Pool,
        /// After how long there are new ones; `None`: never by itself.
        retry_after: Option<Duration>,
    },
    /// The store cannot be asked (law 6).
    StoreUnavailable,
    /// The gate is about to stop; only a stream is ended by that.
    ShuttingDown,
}

impl Denial {
    /// The refusal's name: in bodies, logs and metrics. Fixed by `policy.md`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadFraming(_) => "bad_framing",
            Self::BadTarget(_) => "bad_target",
            Self::NoRoute => "no_route",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::TokenMissing => "token_missing",
            Self::TokenAmbiguous => "token_ambiguous",
            Self::TokenInvalid => "token_invalid",
            Self::TooManyInvalidTokens { .. } => "too_many_invalid_tokens",
            Self::TokenDisabled => "token_disabled",
            Self::TokenRevoked => "token_revoked",
            Self::TokenExpired => "token_expired",
            Self::PolicyUnreadable => "policy_unreadable",
            Self::SecretTokenLeaked => "secret_token_leaked",
            Self::SignatureMissing => "signature_missing",
            Self::SignatureInvalid(_) => "signature_invalid",
            Self::SignatureStale => "signature_stale",
            Self::SignatureReplayed => "signature_replayed",
            Self::ReplayMemoryFull => "replay_memory_full",
            Self::HeldBodiesFull => "held_bodies_full",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::DomainDenied(_) => "domain_denied",
            Self::CoreDenied => "core_denied",
            Self::PremiumDenied => "premium_denied",
            Self::DatasetDenied { .. } => "dataset_denied",
            Self::SecretTokenRequired => "secret_token_required",
            Self::InvalidValues => "invalid_values",
            Self::IdempotencyKeyInvalid => "idempotency_key_invalid",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::RateLimited { .. } => "rate_limited",
            Self::CreditsExhausted { .. } => "credits_exhausted",
            Self::BudgetExhausted { .. } => "budget_exhausted",
            Self::StoreUnavailable => "store_unavailable",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

impl From<SignatureRefusal> for Denial {
    fn from(refusal: SignatureRefusal) -> Self {
        match refusal {
            SignatureRefusal::Missing => Self::SignatureMissing,
            SignatureRefusal::Invalid(why) => Self::SignatureInvalid(why),
            SignatureRefusal::Stale => Self::SignatureStale,
            SignatureRefusal::BodyTooLarge { most } => Self::BodyTooLarge { most },
        }
    }
}
