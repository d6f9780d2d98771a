//! Any text at all: it loads or is refused with places, and never ends the program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;

use super::super::{ConfigError, load, parse};
use super::{env, yaml_files};

const SHIPPED: &str = include_str!("../../../proxy.yaml");

/// Problems lie within the text, stand in the order of their places, and say something.
fn check_problems(text: &str) -> Result<(), TestCaseError> {
    let Err(problems) = parse(text, Path::new("any.yaml"), &env) else { return Ok(()) };
    let breaks = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<&str> = breaks.lines().collect();
    let mut last = (0, 0);
    prop_assert!(problems.iter().count() > 0);
    for problem in &problems {
        prop_assert!((1..=lines.len().max(1)).contains(&problem.line), "{problem}");
        let line = lines.get(problem.line - 1).copied().unwrap_or_default();
        prop_assert!((1..=line.chars().count() + 2).contains(&problem.column), "{problem}");
        prop_assert!((problem.line, problem.column) >= last, "{problem}");
        prop_assert!(!problem.message.is_empty());
        prop_assert_eq!(problem.to_string().lines().count(), 1, "{}", problem);
        prop_assert!(!problem.message.contains("please report this"), "{problem}");
        last = (problem.line, problem.column);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_panics_on_any_text(text in "\\PC{0,200}|[ \\t\\r\\n:{}\\[\\],&*!|>'\"%@`#?a-z0-9$~<=-]{0,200}") {
        check_problems(&text)?;
    }

    #[test]
    fn never_panics_on_a_mutilated_file(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..40, "[ \\n:{}\\[\\],&*!|>'\"#a-z0-9${-]{0,6}"), 1..6),
    ) {
        let mut text: Vec<char> = SHIPPED.chars().collect();
        for (at, length, put) in cuts {
            let start = at.index(text.len().max(1)).min(text.len());
            let end = (start + length).min(text.len());
            text.splice(start..end, put.chars());
        }
        check_problems(&text.into_iter().collect::<String>())?;
    }

    #[test]
    fn tells_a_mistake_in_each_line_that_has_one(broken in prop::sample::subsequence(BREAKABLE.to_vec(), 1..=BREAKABLE.len())) {
        let mut lines: Vec<String> = SHIPPED.lines().map(str::to_owned).collect();
        for (good, bad, _) in &broken {
            let line = lines.iter_mut().find(|line| line.contains(good)).expect("a line of the shipped file");
            *line = line.replacen(good, bad, 1);
        }
        let text = lines.join("\n");
        let problems = parse(&text, Path::new("proxy.yaml"), &env).expect_err("mistakes");
        let told: Vec<(usize, &str)> = problems.iter().map(|problem| (problem.line, problem.key.as_str())).collect();
        let mut expected: Vec<(usize, &str)> = broken.iter().map(|(_, bad, key)| {
            (lines.iter().position(|line| line.contains(bad)).expect("the line") + 1, *key)
        }).collect();
        expected.sort_unstable();
        prop_assert_eq!(told, expected);
    }
}

/// A part of the shipped file, what it is broken into, and the key that is wrong then.
const BREAKABLE: [(&str, &str, &str); 14] = [
    ("state_dir: ./state", "state_dir: 12", "state_dir"),
    ("  - address: 127.0.0.1:8080", "  - address: nowhere", "listeners[0].address"),
    ("address: 127.0.0.1:8081", "address: [elsewhere]", "admin.address"),
    ("wait_replicas: 0", "wait_replicas: 0s", "store.wait_replicas"),
    ("dialect: standard", "dialect: iexx", "dialect"),
    ("master_key: ${TOLLGATE_MASTER_KEY}", "master_key: in the clear", "master_key"),
    ("leaked_secret: flag", "leaked_secrets: flag", "leaked_secrets"),
    ("max_age: 10m", "max_age: 10w", "cors.max_age"),
    ("access_log: stdout", "access_log: stderr", "access_log"),
    ("servers: [\"127.0.0.1:9000\"]", "servers: [\"127.0.0.1\"]", "upstreams.datasets.servers[0]"),
    ("connect_timeout: 2s", "connect_timeouts: 2s", "upstreams.datasets.connect_timeouts"),
    ("- path: /{version}/time-series/{id}/**", "- path: v1/time-series/{id}/**", "routes[4].path"),
    ("access: premium", "access: paid", "routes[8].access"),
    ("credits: 5", "credits: five", "routes[8].credits"),
];

#[test]
fn refuses_a_secret_that_others_can_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("proxy.yaml");
    let secret = folder.path().join("key");
    let minimal = fs::read_to_string("tests/config/good/minimal.yaml").expect("a good file");
    fs::write(&file, format!("master_key: file:key\n{minimal}")).expect("write");
    fs::write(&secret, "  0123456789\n").expect("write");

    let set_mode = |mode| fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).expect("a mode");
    for mode in [0o644, 0o640, 0o604] {
        set_mode(mode);
        let error = load(&file, &env).expect_err("an open secret").to_string();
        let expected =
            format!("master_key: the secret's file {} has mode {mode:04o}, so others can", secret.display());
        assert!(error.contains(&expected), "{error}");
        assert!(!error.contains("0123456789"), "{error}");
    }
    set_mode(0o600);
    let config = load(&file, &env).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.master_key.as_ref().map(super::super::Secret::expose), Some("0123456789"));

    fs::write(&secret, " \n").expect("write");
    let error = load(&file, &env).expect_err("an empty secret").to_string();
    assert!(error.contains("is empty"), "{error}");
}

#[test]
fn says_which_file_cannot_be_read() {
    let error = load(Path::new("no/such/proxy.yaml"), &env).expect_err("no file");
    assert!(matches!(&error, ConfigError::Read { path, .. } if path == Path::new("no/such/proxy.yaml")));
    assert_eq!(error.to_string(), "cannot read the configuration file no/such/proxy.yaml");
}

#[test]
fn never_repeats_a_secret() {
    for path in yaml_files("tests/config/bad") {
        let told = fs::read_to_string(path.with_extension("txt")).expect("a message");
        for secret in ["hunter2", "12345678", "horse", "s3cret", "p@ss", "p%40ss"] {
            assert!(!told.contains(secret), "{told}");
        }
    }
}

#[test]
fn reads_files_of_other_editors() {
    let minimal = fs::read_to_string("tests/config/good/minimal.yaml").expect("a good file");
    for text in [format!("\u{feff}{minimal}"), minimal.replace('\n', "\r\n"), format!("---\n{minimal}...\n")]
    {
        if let Err(problems) = parse(&text, Path::new("any.yaml"), &env) {
            panic!("{problems}\n{text:?}");
        }
    }
}
