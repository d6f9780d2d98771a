//! Holds the direction of dependencies by reading the sources (`ARCHITECTURE.md`, "Rooms").

use std::fs;
use std::path::{Path, PathBuf};

/// Each room, what it may use of the crate, and words that must not stand in it at all.
const ROOMS: &[(&str, &[&str], &[&str])] = &[
    (
        "policy",
        &[],
        &[
            "pingora",
            "redis::",
            "redb",
            "tokio",
            "std::fs",
            "std::net::Tcp",
            "SystemTime",
            "Instant",
            "Timestamp::now",
            "axum",
        ],
    ),
    (
        "ledger",
        &["policy"],
        &[
            "pingora",
            "redis::",
            "redb",
            "tokio",
            "std::fs",
            "std::net",
            "SystemTime",
            "Instant",
            "Timestamp::now",
            "axum",
        ],
    ),
    ("store", &["policy", "ledger"], &["pingora", "axum", "http::"]),
    ("telemetry", &["policy", "store"], &["axum"]),
    ("gate", &["policy", "ledger", "store", "telemetry"], &["axum", "redis::", "redb"]),
    ("config", &["policy"], &["pingora", "axum", "tokio", "redb::", "redis::"]),
    ("proxy", &["policy", "gate", "telemetry", "config"], &["axum", "redis::", "redb"]),
    ("admin", &["policy", "ledger", "store", "gate", "config"], &["pingora", "redis::", "redb"]),
    ("console", &["admin", "policy", "store"], &["pingora", "redis::", "redb"]),
    ("cli", &["policy", "config", "server", "admin"], &["pingora", "redb", "redis::"]),
];

fn files_of(room: &str) -> Vec<PathBuf> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![src.join(format!("{room}.rs"))];
    let mut open = vec![src.join(room)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// The code of a file: without comments, and without unit tests.
fn code_of(path: &Path) -> String {
    let test = |part: std::path::Component<'_>| part.as_os_str() == "tests";
    if path.file_stem().is_some_and(|stem| stem == "tests" || stem == "tables") || path.components().any(test)
    {
        return String::new();
    }
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let before_tests = text.split("#[cfg(test)]").next().unwrap_or_default();
    before_tests.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn violations(room: &str, code: &str, may_use: &[&str], must_not_say: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for piece in code.split("crate::").skip(1) {
        let names: Vec<&str> = match piece.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default().split(',').collect(),
            None => vec![piece],
        };
        for name in names {
            let name =
                name.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            if !name.is_empty() && name != room && !may_use.contains(&name) {
                found.push(format!("uses crate::{name}"));
            }
        }
    }
    found.extend(
        must_not_say.iter().filter(|word| code.contains(**word)).map(|word| format!("says `{word}`")),
    );
    found
}

#[test]
fn dependencies_point_one_way() {
    let mut wrong = Vec::new();
    for (room, may_use, must_not_say) in ROOMS {
        for file in files_of(room) {
            // The journal is a file by nature; everything else in its room is pure.
            let journal =
                file.components().any(|part| part.as_os_str().to_string_lossy().starts_with("journal"));
            let words = if journal { &[] } else { *must_not_say };
            let found = violations(room, &code_of(&file), may_use, words);
            wrong.extend(found.into_iter().map(|what| format!("{} {what}", file.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_itself_finds_what_it_looks_for() {
    assert_eq!(violations("policy", "use crate::store::Store;", &[], &[]), ["uses crate::store"]);
    assert_eq!(violations("policy", "use crate::{policy, gate::Gate};", &[], &[]), ["uses crate::gate"]);
    assert_eq!(violations("policy", "tokio::spawn(x)", &[], &["tokio"]), ["says `tokio`"]);
    assert!(violations("gate", "use crate::policy::Policy;", &["policy"], &["axum"]).is_empty());
}

#[test]
fn every_room_is_held() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(src).expect("the sources") {
        let path = entry.expect("an entry").path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        let known = ["lib", "main", "server"].contains(&stem.as_str())
            || ROOMS.iter().any(|(room, ..)| *room == stem);
        assert!(known, "{stem} is a room that no rule holds");
    }
}
