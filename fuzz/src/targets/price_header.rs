//! What an upstream says a response cost: a plain number of credits, or nothing.

use crate::policy::cost::{Form, MAX_CREDITS, Price};

/// Checks one input: lines are values of the header.
pub fn check(data: &[u8]) {
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    if let Some(credits) = Price::parse_header(lines.iter().copied()) {
        assert!(credits.0 <= MAX_CREDITS);
        assert!(lines.iter().any(|line| line.trim_ascii().iter().all(u8::is_ascii_digit)));
    }
    let _ = Price::new(Form::default());
}
