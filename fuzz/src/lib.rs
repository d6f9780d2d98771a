//! What reads foreign bytes, compiled from the very sources of the main crate, and for each of it a target.
//!
//! The rooms are symbolic links and not the crate `tollgate`: building Pingora and the rest under a sanitizer takes
//! many minutes and adds nothing to what is fuzzed. `policy`, `ledger` and `config` know only each other; of the
//! store, the telemetry, the server and the command line only what reads or writes is here. A target is a plain function of bytes, so libFuzzer runs it
//! (`fuzz_targets`) and so does an ordinary test, over the corpus that is kept (`tests/it/hostile/corpus.rs`).
#![allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the modules document themselves, and not all of each is used here"
)]

pub mod cli;
pub mod config;
pub mod ledger;
pub mod policy;
pub mod store;
pub mod targets;
pub mod server {
    pub mod accept {
        pub mod proxy_protocol;
    }
}
pub mod telemetry {
    pub mod json_line;
    pub mod traces {
        mod context;

        pub use context::{TRACEPARENT, TRACESTATE, TraceParent};

        /// The `tracestate` that is passed on.
        pub fn tracestate(headers: &http::HeaderMap) -> Option<http::HeaderValue> {
            context::find_tracestate(headers)
        }
    }
}
