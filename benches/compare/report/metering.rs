//! How the figures of metering and of open streams are told.

use std::fmt::Write as _;

use super::{Bar, size, spread, table};
use crate::idle_streams::IdleStreams;
use crate::metering::Metering;

impl Metering {
    pub(super) fn add_bars(&self, bars: &mut Vec<Bar>) {
        for row in self.rows.iter().skip(1) {
            let what = format!("CPU, {} ÷ flat price, {}", row.price, size(self.body));
            bars.push(Bar::most(what, 1.03, &row.over_flat));
        }
    }

    pub(super) fn write(&self, text: &mut String) {
        let _ = write!(
            text,
            "\n## Metering\n\nA JSON array of {}, one worker thread, on the embedded store; routes take turns. Processor time of the \
             gate for each response, in µs.\n\n",
            size(self.body)
        );
        let rows = self.rows.iter().map(|row| {
            let (cpu, over) = (spread(&row.cpu, 0), spread(&row.over_flat, 3));
            vec![row.price.to_owned(), cpu, over, format!("{:.0}", row.per_second.median)]
        });
        *text += &table(&["price", "CPU µs", "÷ flat", "full load /s"], rows);
    }
}

impl IdleStreams {
    pub(super) fn write(&self, text: &mut String) {
        *text += "\n## Open streams\n\nServer-sent events that nothing comes from after the first. Memory of the gate (PSS).\n\n";
        let rows = self.rows.iter().map(|row| {
            let mib = |kib: f64| format!("{:.1} MiB", kib / 1024.0);
            let (before, after) = (mib(row.before), mib(row.after));
            vec![
                row.price.to_owned(),
                row.streams.to_string(),
                before,
                after,
                format!("{:.1} KiB", row.each / 1024.0),
            ]
        });
        *text += &table(&["price", "streams", "before", "after", "each"], rows);
        if self.rows.iter().any(|row| row.streams < self.wished) {
            *text += "\nFewer than wished: `ulimit -n` allows no more.\n";
        }
    }
}
