//! Scalars: text, numbers, words, durations, paths, and `${ENV}` for any of them.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::{Data, Item, Noted, Read, did_you_mean};
use crate::config::tree::quote;
use crate::config::units::{format_duration, format_size, parse_duration, parse_size};

/// A scalar's text, after `${ENV}` was looked up.
pub(in crate::config) struct Scalar {
    pub(in crate::config) text: String,
    quoted: bool,
    variable: Option<String>,
}

impl Scalar {
    /// A scalar as it stands in the file.
    pub(super) fn new(text: &str, quoted: bool) -> Self {
        Self { text: text.to_owned(), quoted, variable: None }
    }

    /// Whether the text comes from the environment, where secrets may stand.
    pub(in crate::config) fn is_from_env(&self) -> bool {
        self.variable.is_some()
    }

    /// How a message names what was found. A value of the environment may be a secret, so it is not shown.
    pub(in crate::config) fn shown(&self) -> String {
        match &self.variable {
            Some(name) => format!("the value of ${{{name}}}"),
            None if self.quoted => quote(&self.text),
            None => match self.text.as_str() {
                "" | "~" | "null" | "Null" | "NULL" => "nothing".to_owned(),
                text if parse_boolean(text).is_some() => format!("the boolean {text}"),
                text if is_number(text) => format!("the number {text}"),
                text => quote(text),
            },
        }
    }

    fn is_text(&self) -> bool {
        self.variable.is_some() || self.quoted || self.shown().starts_with('"')
    }
}

impl Item<'_> {
    /// A scalar of any type.
    pub(in crate::config) fn scalar(&self, expected: &str) -> Read<Scalar> {
        let Data::Scalar { text, quoted } = &self.node.data else { return Err(self.refuse_kind(expected)) };
        if !text.contains("${") {
            return Ok(Scalar::new(text, *quoted));
        }
        let name = self.variable(text)?;
        let Some(text) = (self.reader.env)(name) else {
            return Err(self.refuse(format!("the environment variable {name} is not set")));
        };
        Ok(Scalar { text, quoted: false, variable: Some(name.to_owned()) })
    }

    /// The name in `${NAME}`.
    pub(super) fn variable<'t>(&self, text: &'t str) -> Read<&'t str> {
        let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        name.filter(|name| is_variable(name)).ok_or_else(|| {
            self.refuse(
                "`${NAME}` stands for a whole value; expected nothing before or after it, \
                 and a name of letters, digits and `_`",
            )
        })
    }

    fn refuse_scalar(&self, expected: &str, scalar: &Scalar, why: &str) -> Noted {
        self.refuse(format!("expected {expected}, found {}{why}", scalar.shown()))
    }

    /// A text that `parse` can read.
    pub(in crate::config) fn parse<T>(
        &self,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Read<T> {
        let scalar = self.scalar(expected)?;
        let value = if scalar.is_text() { parse(&scalar.text) } else { None };
        value.ok_or_else(|| self.refuse_scalar(expected, &scalar, ""))
    }

    /// A text that `parse` can read; its error says what is wrong with it.
    pub(in crate::config) fn try_parse<T, E: Display>(
        &self,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Read<T> {
        let scalar = self.scalar(expected)?;
        if !scalar.is_text() {
            return Err(self.refuse_scalar(expected, &scalar, ""));
        }
        parse(&scalar.text).map_err(|error| self.refuse_scalar(expected, &scalar, &format!(": {error}")))
    }

    /// A text that is not empty.
    pub(in crate::config) fn text(&self, expected: &str) -> Read<String> {
        self.parse(expected, |text| (!text.is_empty()).then(|| text.to_owned()))
    }

    /// A path, taken from the file's directory.
    pub(in crate::config) fn path(&self, expected: &str) -> Read<PathBuf> {
        self.text(expected).map(|text| self.resolve(&text))
    }

    /// A whole number in a range.
    pub(in crate::config) fn integer(&self, range: RangeInclusive<u64>) -> Read<u64> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let scalar = self.scalar(&expected)?;
        let number = if scalar.quoted { None } else { scalar.text.parse().ok() };
        let number = number.filter(|number| range.contains(number));
        number.ok_or_else(|| self.refuse_scalar(&expected, &scalar, ""))
    }

    /// A part of one: `0`, `0.01`, `1`.
    pub(in crate::config) fn part(&self) -> Read<f64> {
        let expected = "a number from 0 to 1 such as 0.01";
        let scalar = self.scalar(expected)?;
        let plain = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let number = Some(scalar.text.as_str()).filter(|_| !scalar.quoted).filter(plain);
        let number = number.and_then(|text| text.parse().ok()).filter(|part| (0.0..=1.0).contains(part));
        number.ok_or_else(|| self.refuse_scalar(expected, &scalar, ""))
    }

    /// `true` or `false`.
    pub(in crate::config) fn boolean(&self) -> Read<bool> {
        let expected = "true or false";
        let scalar = self.scalar(expected)?;
        let value = if scalar.quoted { None } else { parse_boolean(&scalar.text) };
        value.ok_or_else(|| self.refuse_scalar(expected, &scalar, ""))
    }

    /// A duration in a range.
    pub(in crate::config) fn duration(&self, range: RangeInclusive<Duration>) -> Read<Duration> {
        let duration = self.try_parse("a duration such as 250ms, 10s or 5m", parse_duration)?;
        if range.contains(&duration) {
            return Ok(duration);
        }
        let [from, to, found] = [*range.start(), *range.end(), duration].map(format_duration);
        Err(self.refuse(format!("expected a duration from {from} to {to}, found {found}")))
    }

    /// A size in bytes, in a range.
    pub(in crate::config) fn size(&self, range: RangeInclusive<u64>) -> Read<u64> {
        let size = self.try_parse("a size such as 64KiB or 1MiB", parse_size)?;
        if range.contains(&size) {
            return Ok(size);
        }
        let [from, to, found] = [*range.start(), *range.end(), size].map(format_size);
        Err(self.refuse(format!("expected a size from {from} to {to}, found {found}")))
    }

    /// One of a few words.
    pub(in crate::config) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Read<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let expected = one_of(&words);
        let scalar = self.scalar(&expected)?;
        let chosen = choices.iter().find(|(word, _)| *word == scalar.text && scalar.is_text());
        chosen.map(|(_, value)| *value).ok_or_else(|| {
            self.refuse_scalar(&expected, &scalar, &did_you_mean(&scalar.text, words.iter().copied()))
        })
    }
}

/// `a`, `a or b`, `a, b or c`.
fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [all @ .., last] => format!("{} or {last}", all.join(", ")),
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn parse_boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// YAML 1.2's numbers, by the core schema.
fn is_number(text: &str) -> bool {
    let in_base = |start: &str, base: u32| {
        text.strip_prefix(start)
            .is_some_and(|digits| !digits.is_empty() && digits.chars().all(|c| c.is_digit(base)))
    };
    (text.bytes().any(|b| b.is_ascii_digit()) && text.parse::<f64>().is_ok())
        || in_base("0x", 16)
        || in_base("0o", 8)
}
