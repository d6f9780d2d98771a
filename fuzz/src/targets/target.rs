//! Any bytes as a request target: an accepted one is in its one form, and stays in it.

use crate::policy::target::{MAX_TARGET, Target, decode};

/// Checks one input.
pub fn check(data: &[u8]) {
    // The first byte says how long the Host header is, which stands before the target.
    let Some((length, rest)) = data.split_first() else { return };
    let (host, raw) = rest.split_at(usize::from(*length).min(rest.len()));
    let _ = Target::parse(raw, Some(host)).map(|target| hold(&target));
    let _ = Target::parse(rest, None).map(|target| {
        hold(&target);
        let sent = rest.iter().position(|byte| *byte == b'?').map(|at| &rest[at + 1..]);
        assert_eq!(target.query().map(str::as_bytes), sent, "the query changed");
    });
}

fn hold(target: &Target) {
    let (path, wire) = (target.path(), target.to_wire());
    assert!(path.starts_with('/') && !path.contains("//"));
    assert!(wire.len() <= MAX_TARGET);
    assert!(wire.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#')));
    for segment in target.segments() {
        let text = decode(segment).expect("a canonical path is UTF-8");
        assert!(!text.contains('\\') && !text.chars().any(|c| c.is_ascii_control()));
        assert!(text.split('/').all(|piece| !matches!(piece.split(';').next(), Some("." | ".."))));
    }
    assert_eq!(Target::parse(wire.as_bytes(), None).as_ref(), Ok(target), "not its own canonical form");
    let _ = target.holds_token();
}
