//! YAML that is not ours, as plain values: dumps of other programs. Anchors, tags and doubled keys are refused here too.

use serde_json::{Map, Number, Value};

use super::tree::{self, Data, Node};

/// Reads a YAML document. The error says where what is wrong.
pub(crate) fn read_yaml(text: &str) -> Result<Value, String> {
    let (root, faults) = tree::parse(text);
    let told: Vec<_> = faults
        .iter()
        .take(5)
        .map(|fault| format!("line {}, column {}: {}", fault.place.line, fault.place.column, fault.message))
        .collect();
    match root {
        Some(root) if told.is_empty() => Ok(value(root)),
        Some(_) | None => Err(told.join("; ")),
    }
}

fn value(node: Node) -> Value {
    match node.data {
        Data::Scalar { text, quoted: true } => Value::String(text),
        Data::Scalar { text, quoted: false } => scalar(text),
        Data::List(entries) => entries.into_iter().map(value).collect(),
        Data::Mapping(entries) => Value::Object(
            entries.into_iter().map(|entry| (entry.key, value(entry.value))).collect::<Map<_, _>>(),
        ),
        Data::Refused => Value::Null,
    }
}

/// A scalar without quotes, by YAML's core schema.
fn scalar(text: String) -> Value {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    // A number that would be written in another way is a name: `007`, `1e5` and `1.0` stay what they are.
    let whole = text.parse::<i64>().ok().filter(|number| number.to_string() == text).map(Number::from);
    let plain = |c: char| c.is_ascii_digit() || c == '.' || c == '-';
    let broken = || text.parse::<f64>().ok().filter(|_| text.contains('.') && text.chars().all(plain));
    match whole.or_else(|| broken().and_then(Number::from_f64)) {
        Some(number) => Value::Number(number),
        None => Value::String(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_what_they_look_like_unless_quoted() {
        let text = "a: 1\nb: \"1\"\nc: [true, ~, x, 007, 0.5]\nd: {e: }\n#END\n";
        let expected = json!({"a": 1, "b": "1", "c": [true, null, "x", "007", 0.5], "d": {"e": null}});
        assert_eq!(read_yaml(text).unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        let wrong = read_yaml("a: 1\na: 2\n").unwrap_err();
        assert!(wrong.starts_with("line 2, column 1: "), "{wrong}");
        assert!(read_yaml("a: [").is_err());
    }
}
