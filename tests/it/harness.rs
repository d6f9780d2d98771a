//! What the tests stand on: real gate processes, real Redis servers, an upstream that records, a client that sends
//! exactly what it is told.

use std::future::Future;
use std::time::{Duration, Instant};

pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod collector;
pub(crate) mod evidence;
pub(crate) mod frames;
pub(crate) mod gate;
pub(crate) mod installed;
pub(crate) mod load;
pub(crate) mod redis_server;
pub(crate) mod redis_topology;
pub(crate) mod secure;
pub(crate) mod upstream;

/// As [`wait_for`], for what may take a minute on a loaded machine.
pub(crate) async fn wait_long<F: Future<Output = bool>>(what: &str, ask: impl FnMut() -> F) {
    wait_within(Duration::from_secs(90), what, ask).await;
}

/// Asks again and again until the answer is yes, at most for some seconds.
pub(crate) async fn wait_for<F: Future<Output = bool>>(what: &str, ask: impl FnMut() -> F) {
    wait_within(Duration::from_secs(20), what, ask).await;
}

async fn wait_within<F: Future<Output = bool>>(patience: Duration, what: &str, mut ask: impl FnMut() -> F) {
    let started = Instant::now();
    while !ask().await {
        assert!(started.elapsed() < patience, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
