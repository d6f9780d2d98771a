//! What integration tests stand on.

pub mod redis_server;
