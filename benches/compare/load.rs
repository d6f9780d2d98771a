//! The load: threads with a kept connection each, as fast as they can (closed) or at a fixed rate (open).
//!
//! At a fixed rate each request has a time at which it is due, whatever became of the one before, and its latency
//! counts from then: a subject that stalls pays for every request that had to wait (no coordinated omission).

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use tollgate::policy::Token;
use tollgate::policy::signature::{DATE_HEADER, SigningSecret, sign};

use super::admin::SECRET;
use super::connection::Connection;

/// What is asked: one request, with a token put in.
pub(crate) struct Requests {
    before: Vec<u8>,
    after: Vec<u8>,
    tokens: Arc<Vec<String>>,
    order: Order,
    signer: Option<Signer>,
    /// The first ones, signed before the clock runs.
    ready: Vec<Vec<u8>>,
}

/// Which token a request carries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Any of them, evenly.
    Random,
    /// Each once, in their order; then the run is over.
    Once,
}

impl Requests {
    /// Requests for a body of `bytes`, as a page in a browser sends them.
    pub(crate) fn new(bytes: usize, tokens: Arc<Vec<String>>, order: Order) -> Self {
        let before = format!("GET /v1/data/MY/CARS/{bytes}?token=");
        let after = " HTTP/1.1\r\nHost: api.example.net\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
                     Accept: application/json\r\nOrigin: https://www.example.com\r\n\
                     Referer: https://www.example.com/app\r\n\r\n";
        let (before, after) = (before.into_bytes(), after.as_bytes().to_vec());
        Self { before, after, tokens, order, signer: None, ready: Vec::new() }
    }

    /// The same with one token, each signed anew with the account's secret. `run` tells those of one run from those of
    /// the next. The first `ready` of them are signed now: who signs them later takes the cores from the gate.
    pub(crate) fn signed(bytes: usize, token: &str, run: usize, ready: usize) -> anyhow::Result<Self> {
        let signer = Signer {
            target: format!("/v1/data/MY/CARS/{bytes}?token={token}&run={run}&number="),
            secret: SigningSecret::of_token(&Token::parse(SECRET.as_bytes()).context("no token")?),
        };
        let mut requests = Self { signer: Some(signer), ..Self::one(bytes, token) };
        for number in 0..ready {
            let mut request = Vec::new();
            requests.write(number, &mut request);
            requests.ready.push(request);
        }
        Ok(requests)
    }

    /// The same with one token, for a body of `bytes` on another route.
    pub(crate) fn on(route: &str, bytes: usize, token: &str) -> Self {
        let before = format!("GET /{route}/{bytes}?token=").into_bytes();
        Self { before, ..Self::one(bytes, token) }
    }

    /// The same with one token.
    pub(crate) fn one(bytes: usize, token: &str) -> Self {
        Self::new(bytes, Arc::new(vec![token.to_owned()]), Order::Random)
    }

    /// Writes the next request; `false`: there is none.
    fn write(&self, number: usize, into: &mut Vec<u8>) -> bool {
        let token = match (self.order, self.tokens.len()) {
            (Order::Once, _) => self.tokens.get(number),
            (Order::Random, count) => self.tokens.get(scatter(number) % count.max(1)),
        };
        let Some(token) = token else { return false };
        into.clear();
        if let Some(ready) = self.ready.get(number) {
            into.extend_from_slice(ready);
            return true;
        }
        if let Some(signer) = &self.signer {
            return signer.write(token, number, &self.after, into);
        }
        into.extend_from_slice(&self.before);
        into.extend_from_slice(token.as_bytes());
        into.extend_from_slice(&self.after);
        true
    }

    /// The first request, whole.
    pub(crate) fn first(&self) -> Vec<u8> {
        let mut request = Vec::new();
        self.write(0, &mut request);
        request
    }
}

/// Signs requests.
struct Signer {
    /// The target, up to a number of its own.
    target: String,
    secret: SigningSecret,
}

impl Signer {
    fn write(&self, token: &str, number: usize, after: &[u8], into: &mut Vec<u8>) -> bool {
        let target = format!("{}{number}", self.target);
        let (host, now) = ("api.example.net", Timestamp::now());
        let Some(signing) = sign("GET", target.as_bytes(), host, b"", token, &self.secret, now) else {
            return false;
        };
        into.extend_from_slice(format!("GET {target}").as_bytes());
        // The headers that all requests have, and those of the signature.
        into.extend_from_slice(after.strip_suffix(b"\r\n").unwrap_or(after));
        let (date, authorization) = (signing.date, signing.authorization);
        into.extend_from_slice(
            format!("{DATE_HEADER}: {date}\r\nAuthorization: {authorization}\r\n\r\n").as_bytes(),
        );
        true
    }
}

/// A number that looks random (the finaliser of `SplitMix64`), so that runs ask in the same order.
fn scatter(number: usize) -> usize {
    let mut x = (number as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((x ^ (x >> 31)) >> 1).unwrap_or(number)
}

/// How fast.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// Each connection asks again when it has its answer.
    Full,
    /// So many requests a second, all connections together.
    PerSecond(f64),
}

/// What came of it.
pub(crate) struct Sample {
    /// Answers in the window.
    pub(crate) requests: usize,
    /// Those that were not 200.
    pub(crate) refused: usize,
    /// Those that were neither 200 nor 503.
    pub(crate) others: usize,
    /// How long the window was.
    pub(crate) seconds: f64,
    /// In order.
    pub(crate) latencies: Vec<Duration>,
}

impl Sample {
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// The latency below which this share of the requests lies, in microseconds.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        super::figures::percentile(&self.latencies, share)
    }
}

const WARM: u8 = 0;
const MEASURE: u8 = 1;
const STOP: u8 = 2;

struct Shared {
    requests: Requests,
    phase: AtomicU8,
    number: AtomicUsize,
    start: Instant,
    period: Option<Duration>,
    step: Duration,
}

#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    refused: usize,
    others: usize,
}

/// A load to be run against an address.
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) pace: Pace,
}

impl Load {
    /// Runs for `warm` and then for `window`; `read` is called at both ends of the window.
    pub(crate) fn run<T>(
        &self,
        requests: Requests,
        (warm, window): (Duration, Duration),
        mut read: impl FnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<(Sample, T, T)> {
        let (shared, threads) = self.start(requests, WARM)?;
        thread::sleep(warm);
        let before = read()?;
        let started = Instant::now();
        shared.phase.store(MEASURE, Ordering::SeqCst);
        thread::sleep(window);
        shared.phase.store(STOP, Ordering::SeqCst);
        let seconds = started.elapsed().as_secs_f64();
        let after = read()?;
        Ok((finish(threads, seconds)?, before, after))
    }

    /// Runs until all tokens were used once.
    pub(crate) fn run_out(&self, requests: Requests) -> anyhow::Result<Sample> {
        let (shared, threads) = self.start(requests, MEASURE)?;
        let mut sample = finish(threads, 1.0)?;
        sample.seconds = shared.start.elapsed().as_secs_f64();
        Ok(sample)
    }

    #[expect(clippy::type_complexity, reason = "two values of one start")]
    fn start(
        &self,
        requests: Requests,
        phase: u8,
    ) -> anyhow::Result<(Arc<Shared>, Vec<thread::JoinHandle<anyhow::Result<Tally>>>)> {
        let step = match self.pace {
            Pace::Full => None,
            Pace::PerSecond(rate) => Some(Duration::from_secs_f64(1.0 / rate)),
        };
        let connections = u32::try_from(self.connections)?;
        let opened: Result<Vec<_>, _> = (0..connections).map(|_| Connection::open(self.address)).collect();
        let opened = opened.with_context(|| format!("cannot connect to {}", self.address))?;
        let shared = Arc::new(Shared {
            requests,
            phase: AtomicU8::new(phase),
            number: AtomicUsize::new(0),
            start: Instant::now(),
            period: step.map(|step| step * connections),
            step: step.unwrap_or_default(),
        });
        let begin = |(at, connection)| {
            let shared = shared.clone();
            thread::spawn(move || work(&shared, connection, at))
        };
        let threads = (0..connections).zip(opened).map(begin).collect();
        Ok((shared, threads))
    }
}

fn work(shared: &Shared, mut connection: Connection, at: u32) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let mut request = Vec::new();
    let mut due = shared.start + shared.step * at;
    loop {
        if shared.phase.load(Ordering::Relaxed) == STOP {
            break;
        }
        if !shared.requests.write(shared.number.fetch_add(1, Ordering::Relaxed), &mut request) {
            break;
        }
        let from = match shared.period {
            None => Instant::now(),
            Some(period) => {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let from = due;
                due += period;
                from
            }
        };
        let status = connection.ask(&request)?;
        if shared.phase.load(Ordering::Relaxed) == MEASURE {
            tally.latencies.push(from.elapsed());
            tally.refused += usize::from(status != 200);
            tally.others += usize::from(!matches!(status, 200 | 503));
        }
    }
    Ok(tally)
}

fn finish(threads: Vec<thread::JoinHandle<anyhow::Result<Tally>>>, seconds: f64) -> anyhow::Result<Sample> {
    let mut latencies = Vec::new();
    let (mut refused, mut others) = (0, 0);
    for thread in threads {
        let tally = thread.join().map_err(|_| anyhow::anyhow!("a thread of the load ended by itself"))??;
        latencies.extend(tally.latencies);
        refused += tally.refused;
        others += tally.others;
    }
    latencies.sort_unstable();
    Ok(Sample { requests: latencies.len(), refused, others, seconds, latencies })
}

/// Has sleeps of this process end when they are due, not up to 50 µs later, as Linux would have it. Threads started
/// from here on inherit it.
pub(crate) fn sharpen_sleep() {
    let _ = fs::write("/proc/self/timerslack_ns", "1");
}
