//! Everything the suite produces is kept under `target/evidence`, and searched for tokens: at once by the test that
//! made it, and once more over all of it by `make test` (law 7).

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

/// Where evidence is kept.
pub(crate) fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("evidence")
}

/// Keeps something a gate produced.
pub(crate) fn add(name: &str, bytes: &[u8]) {
    fs::create_dir_all(directory()).expect("a directory for evidence");
    let path = directory().join(format!("{name}-{}.txt", std::process::id()));
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file for evidence");
    file.write_all(bytes).and_then(|()| file.write_all(b"\n")).expect("to keep evidence");
}

/// Nothing with the shape of a token, and no signature, may stand in `bytes`.
pub(crate) fn assert_sealed(name: &str, bytes: &[u8]) {
    if std::thread::panicking() {
        return;
    }
    if let Some(found) = find_token(bytes) {
        panic!("law 7: {name} holds a token at byte {found}");
    }
    if let Some(found) = find_signature(bytes) {
        panic!("law 7: {name} holds a signature at byte {found}");
    }
}

/// A signature as it stands in `Authorization`.
fn find_signature(bytes: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"Signature=";
    let is_one = |window: &[u8]| {
        window.strip_prefix(NAME).is_some_and(|value| value.iter().all(u8::is_ascii_hexdigit))
    };
    bytes.windows(NAME.len() + 64).position(is_one)
}

pub(crate) fn find_token(bytes: &[u8]) -> Option<usize> {
    bytes.windows(35).position(|window| {
        (window.starts_with(b"pk_") || window.starts_with(b"sk_"))
            && window[3..].iter().all(u8::is_ascii_hexdigit)
    })
}
