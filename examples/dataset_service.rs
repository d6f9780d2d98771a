//! A small data-set service over real public data: the upstream that `make run` puts behind Tollgate, and that the
//! end-to-end tests, real client libraries and browsers reach through the gate.
//!
//! It serves records by workspace, data set, key and subkey; filters, batches, writes, deletes; stock quotes and charts;
//! server-sent ticks; and a few paths that show how a proxy treats long bodies and failures. It knows no tokens: that is
//! the gate's work. What is written lives in memory and is gone at the end. The data and its licences:
//! `examples/data/SOURCES.md`. The route table, a good place to go next: `dataset_service/routes.rs`.
//!
//! | data set | key | subkey |
//! | --- | --- | --- |
//! | `CORE/QUOTE` (read-only) | symbol | |
//! | `CORE/HISTORICAL_PRICES` (read-only) | symbol | date |
//! | `MY/CARS` | make | model (`id` tells the variants apart) |
//! | `MY/WEATHER` | location (`Seattle`, `New York`) | date |
//!
//! ```sh
//! cargo run --example dataset_service -- --listen 127.0.0.1:9000
//! curl 'http://127.0.0.1:9000/v1/data/CORE/HISTORICAL_PRICES/AAPL,MSFT?last=2&filter=symbol,date,close'
//! curl 'http://127.0.0.1:9000/v1/record/MY/CARS' -d '[{"make": "audi", "model": "a2", "year": 2008}]'
//! curl -N 'http://127.0.0.1:9000/v1/stocksUS1Second?symbols=aapl,msft&events=5'
//! ```
//!
//! Reads take `last=N`, `first=N` (per key that was asked for), `limit=N` (over all), `from=`, `to=` (dates), `sort=asc|desc`,
//! `filter=a,b` (fields to keep), `where=field:value` (repeatable), `batchSeparator=|` (instead of the comma). A parameter
//! that may stand once is refused when it stands twice; unknown ones are ignored.

use std::env;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

#[path = "dataset_service/catalog.rs"]
mod catalog;
#[path = "dataset_service/data.rs"]
mod data;
#[path = "dataset_service/dataset.rs"]
mod dataset;
#[path = "dataset_service/datasets.rs"]
mod datasets;
#[path = "dataset_service/probe.rs"]
mod probe;
#[path = "dataset_service/reply.rs"]
mod reply;
#[path = "dataset_service/request.rs"]
mod request;
#[path = "dataset_service/routes.rs"]
mod routes;
#[path = "dataset_service/select.rs"]
mod select;
#[path = "dataset_service/stock.rs"]
mod stock;
#[cfg(test)]
#[path = "dataset_service/tests.rs"]
mod tests;
#[path = "dataset_service/ticks.rs"]
mod ticks;

const USAGE: &str = "usage: dataset_service [--listen 127.0.0.1:9000]    (port 0 takes any free port)";

/// How long open answers may go on after a signal. Streams of ticks never end by themselves.
const GRACE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let address = match parse_arguments(env::args().skip(1)) {
        Ok(address) => address,
        Err(reason) => {
            eprintln!("{reason}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let served = tokio::runtime::Runtime::new().map_err(anyhow::Error::from);
    match served.and_then(|runtime| runtime.block_on(serve(address))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dataset_service: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Reads `--listen ADDRESS` or `--listen=ADDRESS`. The error is a sentence for the person who typed it.
fn parse_arguments(mut arguments: impl Iterator<Item = String>) -> Result<SocketAddr, String> {
    let mut address = "127.0.0.1:9000".to_owned();
    while let Some(argument) = arguments.next() {
        match argument.split_once('=') {
            Some(("--listen", value)) => value.clone_into(&mut address),
            None if argument == "--listen" => {
                address = arguments.next().ok_or("--listen wants an address")?;
            }
            _ => return Err(format!("unknown argument {argument}")),
        }
    }
    address.parse().map_err(|_| format!("{address} is not an address with a port, like 127.0.0.1:9000"))
}

/// Serves until SIGINT or SIGTERM.
async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let app = routes::router(routes::Service::shipped()?);
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    announce(listener.local_addr()?);
    // Ticks are small and must leave at once. A socket that refuses the option still works.
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));

    let (stop, mut stopped) = watch::channel(());
    let until = async move { drop(stopped.changed().await) };
    let server = axum::serve(listener, app).with_graceful_shutdown(until).into_future();
    tokio::pin!(server);
    tokio::select! {
        ended = &mut server => return ended.context("the server ended by itself"),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    drop(stop);
    // Past the grace, open streams end with the process.
    match tokio::time::timeout(GRACE, server).await {
        Ok(ended) => ended.context("the server failed while it stopped"),
        Err(_) => Ok(()),
    }
}

#[expect(clippy::print_stdout, reason = "whoever starts the service waits for this one line")]
fn announce(address: SocketAddr) {
    println!("listening on {address}");
}
