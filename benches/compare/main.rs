//! `make bench`: Tollgate and its peers side by side, on this machine, with the same upstream and the same load.
//!
//! Owns the order of the parts and nothing of what is measured. It drives programs and public HTTP only, so it
//! measures whatever `tollgate` binary it is given. Go on to `benches/README.md` for the method, `subjects` for what
//! is compared, `matrix` for the main table, `report` for what comes out.
//!
//! Started by `cargo bench --bench compare`. As `cargo test` starts it (without `--bench`) it does nothing: nothing
//! here is a test. `compare bare-pingora …` is one of the peers.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a command, and prints its report")]
#![expect(clippy::cast_precision_loss, reason = "figures are rounded for people anyway")]

use std::process::ExitCode;

use anyhow::Context;

mod admin;
#[path = "../peers/bare_pingora.rs"]
mod bare_pingora;
mod connection;
mod counted;
mod figures;
mod http_upstream;
mod idle_streams;
mod load;
mod matrix;
mod metering;
mod outage;
mod plan;
mod process;
mod propagation;
mod redis_server;
mod report;
mod seed;
mod signed;
mod subjects;
mod tokens;

use plan::Plan;
use report::Report;

/// The same allocator as Tollgate's: the bare proxy runs in this very program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["bare-pingora", listen, upstream, threads] => bare_pingora::serve(listen, upstream, threads),
        arguments if arguments.contains(&"--bench") => run(),
        _ => return ExitCode::SUCCESS,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let plan = Plan::from_env()?;
    let _alone = plan.lock()?;
    let mut report = Report::new(&plan)?;
    load::sharpen_sleep();
    let upstream = http_upstream::Upstream::start().context("the upstream")?;
    if plan.matrix {
        report.matrix = Some(matrix::measure(&plan, &upstream)?);
    }
    if plan.tokens {
        report.tokens = Some(tokens::measure(&plan, &upstream)?);
    }
    if plan.propagation {
        report.propagation = Some(propagation::measure(&plan, &upstream)?);
    }
    if plan.signed {
        report.signed = Some(signed::measure(&plan, &upstream)?);
    }
    if plan.metering {
        report.metering = Some(metering::measure(&plan, &upstream)?);
    }
    if plan.streams {
        report.streams = Some(idle_streams::measure(&plan, &upstream)?);
    }
    if plan.outage_part {
        report.outage = Some(outage::measure(&plan, &upstream)?);
    }
    if plan.callgrind || plan.strace {
        report.counted = counted::measure(&plan, &upstream)?;
    }
    report.finish(&plan)
}
