//! Whole files: `tests/config/bad` holds one mistake in each, with its exact message beside it; `tests/config/good`
//! and the shipped `proxy.yaml` load.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Config, Problems, parse};

mod bad;
mod good;
mod hostile;

/// The environment of these tests.
fn env(name: &str) -> Option<String> {
    let value = match name {
        "SET" => "s3cret-value",
        "EMPTY" => "",
        "THREADS" => "3",
        "STATE_DIR" => "/var/lib/tollgate",
        "LISTEN" => "127.0.0.1:7000",
        "REDIS_URL" => "redis://gate:p%40ss@redis.internal/2",
        _ => return None,
    };
    Some(value.to_owned())
}

fn parse_file(path: &Path) -> Result<Config, Problems> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    parse(&text, path, &env)
}

/// The files of a folder that end in `.yaml`, by name.
fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect(folder);
    let paths = entries.map(|entry| entry.expect(folder).path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    paths.sort();
    paths
}
