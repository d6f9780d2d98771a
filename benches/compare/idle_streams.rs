//! What an open stream holds in memory while nothing comes from it: many are opened, and the gate's memory is read before
//! and after.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use super::http_upstream::Upstream;
use super::plan::Plan;
use super::subjects::Tollgate;

const ROUTES: &str = r#"  - {path: "/events/metered/**", upstream: datasets, access: core, credits: 0, per_event: 1}
  - {path: "/events/flat/**", upstream: datasets, access: core, credits: 1}
"#;
/// Streams that are open before the first reading, so that what the first ones set up is not counted.
const FIRST: usize = 100;
/// Open files of this process and of the gate that are no streams.
const OTHER_FILES: usize = 150;
/// How long it stands still before memory is read: what is idle for two seconds is given back.
const STILL: Duration = Duration::from_secs(4);

/// What open streams hold.
#[derive(Serialize)]
pub(crate) struct IdleStreams {
    pub(crate) wished: usize,
    pub(crate) rows: Vec<Row>,
}

/// Streams of one route.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) price: &'static str,
    pub(crate) streams: usize,
    /// Memory of the gate before and after, KiB.
    pub(crate) before: f64,
    pub(crate) after: f64,
    /// The difference, bytes for each stream.
    pub(crate) each: f64,
}

pub(crate) fn measure(plan: &Plan, upstream: &Upstream) -> anyhow::Result<IdleStreams> {
    let streams = plan.idle.min(files_allowed()?.saturating_sub(OTHER_FILES) / 2 - FIRST);
    println!("bench: {streams} open streams that nothing comes from");
    let rows = [("flat", "1 credit"), ("metered", "1 an event")];
    let rows = rows.into_iter().map(|(route, price)| measure_one(plan, upstream, streams, route, price));
    Ok(IdleStreams { wished: plan.idle, rows: rows.collect::<anyhow::Result<_>>()? })
}

fn measure_one(
    plan: &Plan,
    upstream: &Upstream,
    streams: usize,
    route: &str,
    price: &'static str,
) -> anyhow::Result<Row> {
    let node = Tollgate::start_with(plan, "tollgate-streams", upstream.address(), ROUTES)?;
    let token = node.admin().make_token()?.token;
    let open_all = |count: usize| -> anyhow::Result<Vec<TcpStream>> {
        (0..count).map(|_| open(node.address, route, &token)).collect()
    };
    let first = open_all(FIRST)?;
    thread::sleep(STILL);
    let before = node.process.memory()?;
    let others = open_all(streams)?;
    thread::sleep(STILL);
    let after = node.process.memory()?;
    drop((first, others));
    upstream.end_streams();
    Ok(Row { price, streams, before, after, each: (after - before) * 1024.0 / streams as f64 })
}

/// Opens a stream and reads its first event.
fn open(address: SocketAddr, route: &str, token: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = format!(
        "GET /events/{route}/x?token={token} HTTP/1.1\r\nHost: api.example.net\r\nAccept: text/event-stream\r\n\
         Origin: https://www.example.com\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    while !text.windows(2).any(|end| end == b"\n\n") {
        let read = stream.read(&mut piece).context("a stream")?;
        text.extend_from_slice(piece.get(..read).unwrap_or_default());
        if read == 0 {
            bail!("a stream ended: {}", String::from_utf8_lossy(&text));
        }
    }
    ensure!(text.starts_with(b"HTTP/1.1 200"), "refused: {}", String::from_utf8_lossy(&text));
    Ok(stream)
}

/// How many files a process may open here.
fn files_allowed() -> anyhow::Result<usize> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limit")?;
    Ok(line.split_whitespace().next().and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX))
}
