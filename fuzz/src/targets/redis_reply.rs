//! Any bytes as what a Redis server says: who keeps which slot, and where it sends us.

use crate::store::redis::topology::{learn, redirected};

/// Checks one input.
pub fn check(data: &[u8]) {
    let Ok(value) = redis::parse_redis_value(data) else { return };
    if let Some(known) = learn(&value, &[0, 1, 5460, 5461, 16_383, u16::MAX]) {
        assert!(known.iter().flatten().all(|place| place.host != "?" && !place.host.is_empty()));
    }
    if let Err(error) = value.extract_error()
        && let Some(place) = redirected(&error)
    {
        assert!(!place.host.is_empty());
    }
}
