//! What to measure and for how long: from the environment, so that `make bench` needs no arguments.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

/// All parts.
const PARTS: &str = "matrix,tokens,propagation,outage,signed,metering,streams";

/// What to measure and for how long.
#[expect(clippy::struct_excessive_bools, reason = "switches that a person sets, each by itself")]
#[derive(Clone)]
pub(crate) struct Plan {
    /// A short run, to see that all works: `BENCH_QUICK=1`.
    pub(crate) quick: bool,
    /// Rounds of the main table; each goes through all subjects: `BENCH_ROUNDS`.
    pub(crate) rounds: usize,
    /// Worker threads or processes of each proxy: `BENCH_THREADS`; default one for each core.
    pub(crate) threads: usize,
    /// Connections of the load.
    pub(crate) connections: usize,
    /// How long the load runs before each window.
    pub(crate) warm: Duration,
    /// How long is measured at a time.
    pub(crate) window: Duration,
    /// Requests a second where latency is measured, at most: `BENCH_RATE`.
    pub(crate) rate: f64,
    /// Body sizes in bytes.
    pub(crate) bodies: Vec<usize>,
    /// Tokens in the store.
    pub(crate) stored: usize,
    /// Tokens in use, of those.
    pub(crate) active: usize,
    /// Look-ups of tokens never seen before.
    pub(crate) cold: usize,
    /// Edits whose way to three nodes is timed.
    pub(crate) edits: usize,
    /// The main table; the parts to run are listed in `BENCH_PARTS`, as in [`PARTS`]; default all.
    pub(crate) matrix: bool,
    /// Many tokens.
    pub(crate) tokens: bool,
    /// How fast edits arrive.
    pub(crate) propagation: bool,
    /// Signed requests beside unsigned ones.
    pub(crate) signed: bool,
    /// Signed requests a second there: `BENCH_SIGNED_RATE`.
    pub(crate) signed_rate: f64,
    /// Prices that the response tells, beside flat ones.
    pub(crate) metering: bool,
    /// What an open stream holds that nothing comes from.
    pub(crate) streams: bool,
    /// How many of those: `BENCH_STREAMS`. Open files may allow fewer.
    pub(crate) idle: usize,
    /// A store that stands still.
    pub(crate) outage_part: bool,
    /// How long the store stands still there.
    pub(crate) outage: Duration,
    /// Instructions for each request, by valgrind: `BENCH_CALLGRIND=1`.
    pub(crate) callgrind: bool,
    /// System calls for each request: `BENCH_STRACE=1`.
    pub(crate) strace: bool,
    /// The binary: `BENCH_TOLLGATE`; default the one just built.
    pub(crate) tollgate: PathBuf,
    /// It is not the one just built, so nothing says that bare Pingora was built as it was.
    pub(crate) foreign: bool,
    /// Where the report goes and, below `run/`, what the programs write: `BENCH_OUT`; default `target/bench`.
    pub(crate) directory: PathBuf,
}

impl Plan {
    pub(crate) fn from_env() -> anyhow::Result<Self> {
        let quick = is_on("BENCH_QUICK");
        let pick = |short: usize, long: usize| if quick { short } else { long };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let parts = env::var("BENCH_PARTS").unwrap_or_else(|_| PARTS.to_owned());
        let has = |part: &str| parts.split(',').any(|named| named.trim() == part);
        let millis = |short: usize, long: usize| Duration::from_millis(pick(short, long) as u64);
        let given = env::var_os("BENCH_TOLLGATE").map(PathBuf::from);
        let foreign = given.is_some();
        let tollgate = given.unwrap_or_else(|| env!("CARGO_BIN_EXE_tollgate").into());
        // The target directory: target/tmp is made for benches by cargo, and lies beside target/bench.
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let directory = match env::var_os("BENCH_OUT") {
            // nginx is told whole paths.
            Some(given) => std::path::absolute(given)?,
            None => target.parent().context("no target directory")?.join("bench"),
        };
        fs::create_dir_all(directory.join("run")).with_context(|| directory.display().to_string())?;
        Ok(Self {
            quick,
            rounds: number("BENCH_ROUNDS", pick(2, 5))?,
            threads: number("BENCH_THREADS", cores)?,
            connections: 32,
            warm: millis(200, 1000),
            window: millis(600, 1500),
            rate: number("BENCH_RATE", 2000)? as f64,
            bodies: vec![400, 1100, 16_384, 262_144],
            stored: pick(50_000, 1_000_000),
            active: pick(5_000, 100_000),
            cold: pick(500, 5_000),
            edits: pick(40, 300),
            matrix: has("matrix"),
            tokens: has("tokens"),
            propagation: has("propagation"),
            signed: has("signed"),
            signed_rate: number("BENCH_SIGNED_RATE", 10_000)? as f64,
            metering: has("metering"),
            streams: has("streams"),
            idle: number("BENCH_STREAMS", pick(1_000, 10_000))?,
            outage_part: has("outage"),
            outage: millis(3_000, 10_000),
            callgrind: is_on("BENCH_CALLGRIND"),
            strace: is_on("BENCH_STRACE"),
            tollgate,
            foreign,
            directory,
        })
    }

    /// Keeps other runs out of the directory until it is dropped: two would write over each other, and disturb each
    /// other's figures besides.
    pub(crate) fn lock(&self) -> anyhow::Result<fs::File> {
        let lock = fs::File::create(self.directory.join("lock"))?;
        lock.try_lock().context("another run is under way here; wait for it")?;
        Ok(lock)
    }

    /// A directory of this run for one program, empty.
    pub(crate) fn place(&self, name: &str) -> anyhow::Result<PathBuf> {
        let place = self.directory.join("run").join(name);
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).with_context(|| place.display().to_string())?;
        Ok(place)
    }
}

fn is_on(name: &str) -> bool {
    env::var(name).is_ok_and(|value| !value.is_empty() && value != "0")
}

fn number(name: &str, default: usize) -> anyhow::Result<usize> {
    match env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}: not a number")),
        Err(_) => Ok(default),
    }
}
