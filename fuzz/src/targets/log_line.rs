//! Any texts in a line of the access log: one line, and JSON that says exactly them (no log injection).

use crate::telemetry::json_line::JsonLine;

/// Checks one input: a text, and the same as a list of lines.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines: Vec<&str> = text.split('\n').collect();
    let mut line = JsonLine::new();
    line.text("text", &text);
    line.texts("list", lines.iter().copied());
    let written = line.end();
    let Some((b'\n', inner)) = written.split_last() else { panic!("no end") };
    assert!(inner.iter().all(|byte| *byte >= b' '), "a control character stands raw");
    let read: serde_json::Value = serde_json::from_slice(inner).expect("JSON");
    assert_eq!(read["text"], *text);
    assert_eq!(read["list"], serde_json::json!(lines));
}
