//! A Redis of a subject's own: started, asked how many commands it ran, gone when dropped.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;
use redis::{Client, Connection};

use super::process::{Process, free_address};

/// A running server. It keeps nothing on the disk: no subject pays for that.
pub(crate) struct RedisServer {
    pub(crate) process: Process,
    pub(crate) port: u16,
    client: Client,
}

/// What a server counted so far.
#[derive(Clone, Copy)]
pub(crate) struct Commands {
    /// All commands, those that scripts call too.
    pub(crate) all: u64,
    /// How often it read from a client: a round trip each, or several requests that came together.
    pub(crate) reads: u64,
}

impl RedisServer {
    pub(crate) fn start(place: &Path) -> anyhow::Result<Self> {
        let port = free_address()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--port").arg(port.to_string()).arg("--dir").arg(place);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::start("redis-server", &mut command)?;
        let client = Client::open(format!("redis://127.0.0.1:{port}"))?;
        process.await_with(|| {
            let mut connection = client.get_connection().ok()?;
            redis::cmd("PING").query::<String>(&mut connection).ok()
        })?;
        Ok(Self { process, port, client })
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn connect(&self) -> anyhow::Result<Connection> {
        self.client.get_connection().context("redis")
    }

    /// What it did so far. Asking is itself one command and one read.
    pub(crate) fn commands(connection: &mut Connection) -> anyhow::Result<Commands> {
        let stats: String = redis::cmd("INFO").arg("stats").query(connection)?;
        let field = |name: &str| -> anyhow::Result<u64> {
            let text = field_text(&stats, name).with_context(|| format!("INFO has no {name}"))?;
            Ok(text.parse()?)
        };
        Ok(Commands { all: field("total_commands_processed:")?, reads: field("total_reads_processed:")? })
    }

    /// Its commands by name, and how often each was called, those of scripts too.
    pub(crate) fn calls_by_name(connection: &mut Connection) -> anyhow::Result<BTreeMap<String, u64>> {
        let stats: String = redis::cmd("INFO").arg("commandstats").query(connection)?;
        let read = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        Ok(stats.lines().filter_map(read).collect())
    }
}

fn field_text<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}
