//! One JSON object on one line, written field by field: what a log line costs is what its bytes cost.

use std::io::Write;
use std::net::IpAddr;

use crate::policy::byte_set::{ByteSet, byte_set};

/// A JSON object in the making. Field names are ours and need no escape.
pub struct JsonLine(Vec<u8>);

impl JsonLine {
    /// An object without fields, with room for a usual line.
    pub fn new() -> Self {
        let mut line = Vec::with_capacity(768);
        line.push(b'{');
        Self(line)
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// A text.
    pub fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        self.string(text);
    }

    /// A text, or `null`.
    pub fn maybe(&mut self, name: &str, text: Option<&str>) {
        match text {
            Some(text) => self.text(name, text),
            None => self.null(name),
        }
    }

    /// Several texts.
    pub fn texts<'t>(&mut self, name: &str, texts: impl IntoIterator<Item = &'t str>) {
        self.name(name);
        self.0.push(b'[');
        for (at, text) in texts.into_iter().enumerate() {
            if at > 0 {
                self.0.push(b',');
            }
            self.string(text);
        }
        self.0.push(b']');
    }

    /// A whole number.
    pub fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        self.0.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    /// A part of one.
    pub fn part(&mut self, name: &str, part: f64) {
        self.name(name);
        // Writing into memory does not fail, and JSON knows no number that is none.
        let _ = write!(self.0, "{}", if part.is_finite() { part } else { 0.0 });
    }

    /// A time in milliseconds, to the microsecond.
    pub fn millis(&mut self, name: &str, time: std::time::Duration) {
        self.name(name);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.extend_from_slice(itoa::Buffer::new().format(micros / 1000).as_bytes());
        let thousandths = [micros / 100 % 10, micros / 10 % 10, micros % 10];
        self.0.push(b'.');
        self.0.extend(thousandths.map(|digit| b'0' + u8::try_from(digit).unwrap_or(0)));
    }

    /// An address, or `null`.
    pub fn address(&mut self, name: &str, address: Option<IpAddr>) {
        let Some(address) = address else { return self.null(name) };
        self.name(name);
        self.0.push(b'"');
        write_address(&mut self.0, address);
        self.0.push(b'"');
    }

    /// Nothing.
    pub fn null(&mut self, name: &str) {
        self.name(name);
        self.0.extend_from_slice(b"null");
    }

    /// The line, with its end.
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"}\n");
        self.0
    }

    fn string(&mut self, text: &str) {
        if PLAIN.has_all(text.as_bytes()) {
            self.0.push(b'"');
            self.0.extend_from_slice(text.as_bytes());
            self.0.push(b'"');
        } else if serde_json::to_writer(&mut self.0, text).is_err() {
            self.0.extend_from_slice(b"null");
        }
    }
}

/// Bytes that stand in a JSON text as they are.
static PLAIN: ByteSet = byte_set!(byte => byte >= b' ' && byte != b'"' && byte != b'\\');

/// Writes an address as its text, without the general machine for formats.
pub fn write_address(text: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (at, octet) in address.octets().into_iter().enumerate() {
                if at > 0 {
                    text.push(b'.');
                }
                text.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        // Writing into memory does not fail.
        IpAddr::V6(address) => drop(write!(text, "{address}")),
    }
}

impl Default for JsonLine {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            text in any::<String>(), maybe in any::<Option<String>>(), texts in prop::collection::vec(any::<String>(), 0..4),
            number in any::<u64>(), micros in 0u64..1 << 40, address in any::<Option<IpAddr>>(),
        ) {
            let mut line = JsonLine::new();
            line.text("text", &text);
            line.maybe("maybe", maybe.as_deref());
            line.texts("texts", texts.iter().map(String::as_str));
            line.number("number", number);
            line.millis("millis", Duration::from_micros(micros));
            line.address("address", address);
            let line = line.end();
            prop_assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
            let read: Value = serde_json::from_slice(&line).unwrap();
            let millis = Duration::from_micros(micros).as_secs_f64() * 1000.0;
            prop_assert!((read["millis"].as_f64().unwrap() - millis).abs() < 1e-3);
            let expected = json!({
                "text": text, "maybe": maybe, "texts": texts, "number": number, "millis": read["millis"],
                "address": address.map(|address| address.to_string()),
            });
            prop_assert_eq!(read, expected);
        }
    }

    #[test]
    fn an_object_without_fields_is_one() {
        assert_eq!(JsonLine::new().end(), b"{}\n");
    }
}
