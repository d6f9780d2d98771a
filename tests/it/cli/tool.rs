//! Runs the binary.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::admin::desk::{Desk, SECRET};

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    pub(crate) fn new(output: Output) -> Self {
        Self {
            code: output.status.code().expect("the command was killed"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    /// Expects an exit code, and hands itself on.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Expects every piece in the standard error.
    #[track_caller]
    pub(crate) fn says(self, pieces: &[&str]) -> Self {
        for piece in pieces {
            assert!(self.err.contains(piece), "`{piece}` is not in: {}", self.err);
        }
        self
    }
}

/// A command with nothing of the tests' own environment that it would look at.
pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(args).current_dir(folder).stdin(Stdio::null()).env_remove("TOLLGATE_SECRET_TOKEN");
    // Nobody listens there: were the proxy used, nothing would work.
    command.env("http_proxy", "http://127.0.0.1:1").env("HTTP_PROXY", "http://127.0.0.1:1");
    command
}

/// Runs a command in a folder, without a token in the environment.
pub(crate) fn run_in(folder: &Path, args: &[&str]) -> Done {
    Done::new(command(folder, args).output().unwrap())
}

/// Runs a command against a desk, with its secret token in the environment.
pub(crate) fn run(desk: &Desk, args: &[&str]) -> Done {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path(), args);
    command.args(["--admin", &desk.url]).env("TOLLGATE_SECRET_TOKEN", SECRET);
    Done::new(command.output().unwrap())
}

/// A configuration that is valid, with its admin API at `admin`.
pub(crate) fn config(admin: &str) -> String {
    format!(
        "state_dir: ./state\n\
         listeners:\n  - address: 127.0.0.1:0\n\
         admin: {{ address: \"{admin}\" }}\n\
         store: {{ url: \"embedded:\" }}\n\
         upstreams:\n  data: {{ servers: [\"127.0.0.1:9000\"] }}\n\
         routes:\n  - path: /v1/data/CORE/{{dataset}}/**\n    upstream: data\n    access: core\n    \
         dataset: CORE/{{dataset}}\n"
    )
}
