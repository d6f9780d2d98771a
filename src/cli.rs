//! The commands (`interface.md`, "CLI"): one file each under `cli/`.
//!
//! Owns arguments, what people read, and exit codes: 0 done, 1 failed, 2 misuse. Commands on tokens are clients of the
//! admin API ([`client`]); they know no store. This is the one room with `anyhow`: its errors end here, as text.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use client::AdminUrl;

mod account;
mod audit;
mod backup;
mod check;
mod client;
mod edit_all;
mod explain;
mod export;
mod flags;
mod health;
mod import;
mod member;
mod nodes;
mod patience;
mod receipt;
mod refusal;
mod serve;
mod sign;
mod table;
mod token;
mod usage;

/// A gate for data APIs: tokens that track, control and throttle.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
struct Global {
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = "proxy.yaml")]
    config: PathBuf,
    /// Where the admin API is; by default the configuration's `admin.address`
    #[arg(long, global = true, value_name = "URL")]
    admin: Option<AdminUrl>,
    /// Whom to trust where the admin API speaks TLS: a file of PEM certificates; by default the public authorities
    #[arg(long, global = true, value_name = "FILE", env = "TOLLGATE_ADMIN_CA")]
    admin_ca: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gate
    Serve(serve::ServeArgs),
    /// Validate configuration files
    Check(check::CheckArgs),
    /// Create, list, show, edit, revoke and rotate tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Show and edit the account's budget
    #[command(subcommand)]
    Account(account::AccountCommand),
    /// List, invite, edit and remove the members who use the console
    #[command(subcommand)]
    Member(member::MemberCommand),
    /// Show what all tokens have used, and what was refused
    Usage(usage::UsageArgs),
    /// Show who changed what, from what to what, when
    Audit(audit::AuditArgs),
    /// Does the gate live, and is it ready? Needs no token; for health checks of containers
    Health(health::HealthArgs),
    /// Write all that the embedded store holds to a file, while it is in use
    Backup(backup::BackupArgs),
    /// Make the embedded store of a backup, while no Tollgate uses it
    Restore(backup::RestoreArgs),
    /// List the nodes, and whether each has the last change
    Nodes,
    /// Would this request pass, and why?
    Explain(explain::ExplainArgs),
    /// Print the headers of a signed request, to debug a client
    Sign(Box<sign::SignArgs>),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// What a command has to say.
#[derive(Debug, Default)]
struct Output {
    /// For the standard output.
    text: String,
    /// For the standard error.
    notes: Vec<String>,
    /// Whether something failed all the same.
    failed: bool,
}

impl Output {
    fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// JSON as it came from the API.
    fn json(value: &serde_json::Value) -> anyhow::Result<Self> {
        Ok(Self::text(serde_json::to_string_pretty(value)? + "\n"))
    }
}

/// The command line makes no sense: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misuse(String);

/// Parses the command line, runs the command, and says how it went.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and versions come this way too, with code 0. Nobody reads them if this fails.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(cli).and_then(|output| print(&output).map(|()| output)) {
        Ok(output) if output.failed => ExitCode::from(1),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<Misuse>() { 2 } else { 1 })
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<Output> {
    let global = &cli.global;
    match cli.command {
        Command::Serve(args) => serve::run(global, args),
        Command::Check(args) => Ok(check::run(global, &args)),
        Command::Token(command) => token::run(global, command),
        Command::Account(command) => account::run(global, command),
        Command::Member(command) => member::run(global, command),
        Command::Usage(args) => usage::run(global, &args),
        Command::Audit(args) => audit::run(global, &args),
        Command::Health(args) => health::run(global, &args),
        Command::Backup(args) => backup::take(global, &args),
        Command::Restore(args) => backup::restore(global, &args),
        Command::Nodes => nodes::run(global),
        Command::Explain(args) => explain::run(global, &args),
        Command::Sign(args) => sign::run(global, &args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tollgate", &mut script);
            Ok(Output::text(String::from_utf8(script)?))
        }
    }
}

fn print(output: &Output) -> anyhow::Result<()> {
    for note in &output.notes {
        eprintln!("{note}");
    }
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(output.text.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever read our output has read enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_put_together_soundly() {
        Cli::command().debug_assert();
    }
}
