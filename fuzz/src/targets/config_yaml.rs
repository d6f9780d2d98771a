//! Any text as `proxy.yaml`, as a duration and as a size: a configuration or sentences, never a panic.

use std::path::Path;

use crate::config::{parse, units};

/// Checks one input.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let env = |name: &str| (name == "SET").then(|| "value".to_owned());
    if let Err(problems) = parse(text, Path::new("fuzz.yaml"), &env) {
        assert!(!problems.to_string().is_empty());
    }
    if let Ok(duration) = units::parse_duration(text) {
        assert_eq!(units::parse_duration(&units::format_duration(duration)), Ok(duration));
    }
    if let Ok(size) = units::parse_size(text) {
        assert_eq!(units::parse_size(&units::format_size(size)), Ok(size));
    }
}
