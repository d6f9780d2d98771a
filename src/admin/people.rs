//! STUB
pub(crate) mod door;
