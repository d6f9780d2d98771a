//! `access_log`: where one line for each request goes, and which requests get one.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::{Item, Keys, Read};

pub(super) const KEYS: Keys = Keys { known: &["to", "sample", "always", "slow"], later: &[] };

/// Where one line for each request goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// To the standard output.
    #[default]
    Stdout,
    /// Nowhere.
    Off,
    /// To the end of a file.
    File(PathBuf),
}

/// Which requests get a line where not all do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AccessLogSampling {
    /// The part of requests that get one, 0 to 1.
    pub sample: f64,
    /// Refused requests always get one.
    pub refused: bool,
    /// Failed ones always get one.
    pub errors: bool,
    /// Those that take as long always get one.
    pub slow: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq)]
enum Always {
    Refused,
    Errors,
}

const ALWAYS: [(&str, Always); 2] = [("refused", Always::Refused), ("errors", Always::Errors)];
const SLOWEST: Duration = Duration::from_hours(1);

/// Reads `access_log`, in its short or its long form.
pub(super) fn read(item: &Item<'_>) -> Read<(AccessLog, Option<AccessLogSampling>)> {
    if !item.is_mapping() {
        return read_to(item).map(|to| (to, None));
    }
    let fields = item.fields(&KEYS, "a mapping such as `to: stdout`")?;
    let to = fields.or("to", AccessLog::Stdout, read_to);
    let sample = fields.or("sample", 1.0, Item::part);
    let always = fields.or("always", vec![Always::Refused, Always::Errors], |item| {
        item.list_of("a list such as [refused, errors]", |item| item.choice(&ALWAYS))
    });
    let slow = fields.optional("slow", |item| item.duration(Duration::ZERO..=SLOWEST));
    let (sample, always, slow) = (sample?, always?, slow?);
    let sampling = AccessLogSampling {
        sample,
        refused: always.contains(&Always::Refused),
        errors: always.contains(&Always::Errors),
        slow,
    };
    Ok((to?, (sample < 1.0).then_some(sampling)))
}

fn read_to(item: &Item<'_>) -> Read<AccessLog> {
    item.parse("stdout, off or file:PATH", |text| match text {
        "stdout" => Some(AccessLog::Stdout),
        "off" => Some(AccessLog::Off),
        _ => {
            let path = text.strip_prefix("file:").filter(|path| !path.is_empty());
            path.map(|path| AccessLog::File(item.resolve(path)))
        }
    })
}
