//! How the figures of signed requests are told.

use std::fmt::Write as _;

use super::{Bar, Verdict, millis, spread, table};
use crate::signed::Signed;

impl Signed {
    pub(super) fn add_bars(&self, bars: &mut Vec<Bar>) {
        let Some(signed) = self.rows.last() else { return };
        let what = format!("unsigned p50, beside {:.0} signed/s ÷ beside as many unsigned", self.wished);
        let mut bar = Bar::most(what, 1.10, &self.p50);
        // The load shares the cores; where it could not press as it should, nothing was shown.
        if signed.per_second.median < 0.95 * self.wished {
            bar.verdict = Verdict::SaysNothing("this machine cannot make so many");
        }
        bars.push(bar);
    }

    pub(super) fn write(&self, text: &mut String) {
        let _ = write!(
            text,
            "\n## Signed requests\n\nUnsigned requests that are watched, beside {:.0} others a second, each signed anew. Bodies of \
             0.4 KB, on Redis. Latency in ms; processor time and Redis reads for each request of both kinds.\n\n",
            self.wished
        );
        let rows = self.rows.iter().map(|row| {
            vec![
                row.beside.to_owned(),
                millis(&row.p50),
                millis(&row.p99),
                format!("{:.0}", row.per_second.median),
                millis(&row.beside_p50),
                millis(&row.beside_p99),
                spread(&row.cpu, 1),
                spread(&row.store_reads, 4),
            ]
        });
        let head = ["beside", "p50", "p99", "beside /s", "their p50", "their p99", "CPU µs", "store reads"];
        *text += &table(&head, rows);
        let _ = write!(
            text,
            "\nBeside signed ÷ beside unsigned: p50 {}, p99 {}.\n",
            spread(&self.p50, 2),
            spread(&self.p99, 2)
        );
    }
}
