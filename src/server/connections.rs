//! Open connections: how many there are, and how they come to their end without a request being lost.
//!
//! A connection that is kept open between requests cannot just be closed: its client may be sending the next request at
//! that very moment. So a stop lets each such connection have one more request, whose response says `Connection: close`,
//! and closes only those that stay idle. Pingora closes idle connections as soon as nobody listens any more; hence its
//! app stands behind this one, which is told when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;

/// How often it is looked whether all have ended.
const LOOK: Duration = Duration::from_millis(5);

/// An app with its connections counted.
pub(super) struct Counted<A> {
    app: Arc<A>,
    open: Arc<AtomicUsize>,
}

impl<A> Clone for Counted<A> {
    fn clone(&self) -> Self {
        Self { app: self.app.clone(), open: self.open.clone() }
    }
}

impl<A: ServerApp + Send + Sync + 'static> Counted<A> {
    pub(super) fn new(app: A) -> Self {
        Self { app: Arc::new(app), open: Arc::default() }
    }

    /// Nobody listens any more: waits for the connections to end by themselves, for `patience` at most, then closes those
    /// that are idle.
    pub(super) async fn close(&self, patience: Duration) {
        self.wait_closed(patience).await;
        self.app.cleanup().await;
    }

    /// Waits until all have ended, for `patience` at most.
    pub(super) async fn wait_closed(&self, patience: Duration) {
        let ended = async {
            while self.open.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(patience, ended).await;
    }
}

/// A connection that is open while this lives.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Counted<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        self.open.fetch_add(1, Ordering::AcqRel);
        let _open = Open(self.open.clone());
        let mut next = self.app.process_new(stream, shutdown).await;
        while let Some(stream) = next {
            next = self.app.process_new(stream, shutdown).await;
        }
        None
    }
}
