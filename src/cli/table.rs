//! Tables for people: with lines on a terminal, plain columns elsewhere.

use std::io::IsTerminal;

use comfy_table::{ContentArrangement, Table, presets};

/// A table under a header.
pub(super) fn rows<'a>(
    header: impl IntoIterator<Item = &'a str>,
    rows: impl IntoIterator<Item = impl IntoIterator<Item = String>>,
) -> String {
    let mut table = Table::new();
    table.set_header(header);
    table.add_rows(rows.into_iter().map(|row| row.into_iter().collect::<Vec<_>>()));
    render(table)
}

/// Names and their values.
pub(super) fn pairs(pairs: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let mut table = Table::new();
    table.add_rows(pairs.into_iter().map(|(name, value)| [name.to_owned(), value]));
    render(table)
}

fn render(mut table: Table) -> String {
    table.set_content_arrangement(ContentArrangement::Disabled);
    if std::io::stdout().is_terminal() {
        table.load_style(presets::UTF8_FULL_CONDENSED);
        return format!("{table}\n");
    }
    table.load_style(presets::NOTHING);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}
