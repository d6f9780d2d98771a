//! Where a token stands once its request is counted; what the credit headers of a response tell.

use std::time::Duration;

use jiff::Timestamp;

use crate::policy::{Credits, Limit};

/// Where a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What the token used in its limit's period, this request included; without a limit, in this month. Of other nodes'
    /// spending it knows what they have settled.
    pub used: Credits,
    /// The token's limit.
    pub limit: Option<Limit>,
    /// What is left under the token's limit and the account's budget, the smaller of both; `None`: no end. Credits that
    /// other nodes hold are not in it.
    pub remaining: Option<Credits>,
    /// After how long the token's limit starts anew; `None`: never, or no limit.
    pub resets_in: Option<Duration>,
    /// How many more passes of the throttle are in hand; `None`: no throttle.
    pub burst_left: Option<u32>,
    /// The store's clock when it last told.
    pub at: Timestamp,
}
