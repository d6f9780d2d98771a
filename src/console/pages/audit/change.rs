//! Values of fields as people read them. Pure.

use serde_json::Value;

use crate::console::shape::a_period;
use crate::console::words::{grouped, moment};

/// The longest value on the page, in characters; the API and the command line show all of it.
const MAX_SHOWN: usize = 300;

/// A JSON pointer as the name of a field.
pub(super) fn field(pointer: &str) -> String {
    let names = pointer.trim_start_matches('/').split('/');
    names
        .map(|name| name.replace('_', " ").replace("~1", "/").replace("~0", "~"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// What a field was, or is.
pub(super) fn tell(value: &Value) -> String {
    let told = words(value);
    if told.chars().count() <= MAX_SHOWN {
        return told;
    }
    let rest = told.chars().count() - MAX_SHOWN;
    let shown: String = told.chars().take(MAX_SHOWN).collect();
    format!("{shown}… and {} more characters", grouped(rest as u64))
}

fn words(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), grouped),
        Value::String(text) if text.is_empty() => "nothing".to_owned(),
        Value::String(text) if is_time(text) => format!("{} UTC", moment(text)),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "nothing".to_owned(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::Object(_) => object(value),
    }
}

fn is_time(text: &str) -> bool {
    text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok()
}

/// Limits, rates and grants in words; whatever else as it is.
fn object(value: &Value) -> String {
    let number = |name: &str| value.get(name).and_then(Value::as_u64);
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    if let (Some(credits), Some(period)) = (number("credits"), text("period")) {
        return format!("{} {}", grouped(credits), a_period(period));
    }
    if let Some(rate) = number("requests_per_second") {
        let burst = number("burst").filter(|burst| *burst != rate);
        let burst = burst.map_or_else(String::new, |burst| format!(", burst {}", grouped(burst)));
        return format!("{} a second{burst}", grouped(rate));
    }
    if let (Some(dataset), Some(Value::Array(operations))) = (text("dataset"), value.get("operations")) {
        let operations: Vec<_> = operations.iter().filter_map(Value::as_str).collect();
        return format!("{dataset} - {}", operations.join(" "));
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_told_in_words() {
        let table = [
            (json!(null), "nothing"),
            (json!(""), "nothing"),
            (json!([]), "nothing"),
            (json!(true), "on"),
            (json!(false), "off"),
            (json!(100_000), "100,000"),
            (json!("Customer XYZ"), "Customer XYZ"),
            (json!("2026-11-24T10:00:00Z"), "2026-11-24 10:00 UTC"),
            (json!(["a.test", "b.test"]), "a.test, b.test"),
            (json!({ "credits": 100_000, "period": "month" }), "100,000 a month"),
            (json!({ "credits": 5, "period": "none" }), "5 in all"),
            (json!({ "requests_per_second": 50, "burst": 100 }), "50 a second, burst 100"),
            (json!({ "requests_per_second": 50, "burst": 50 }), "50 a second"),
            (json!([{ "dataset": "MY/CARS", "operations": ["read", "write"] }]), "MY/CARS - read write"),
            (json!({ "new": 1 }), "{\"new\":1}"),
            (json!(-1.5), "-1.5"),
        ];
        for (value, told) in table {
            assert_eq!(tell(&value), told, "{value}");
        }
    }

    #[test]
    fn fields_are_named_and_long_values_cut() {
        for (pointer, name) in
            [("/core_access", "core access"), ("/credit_limit/core", "credit limit, core"), ("", "")]
        {
            assert_eq!(field(pointer), name);
        }
        let told = tell(&json!("x".repeat(1_400)));
        assert!(told.ends_with("x… and 1,100 more characters"), "{told}");
    }
}
