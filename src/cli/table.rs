//! Tables for people: with lines and colours on a terminal, plain columns elsewhere.

use std::borrow::Cow;
use std::io::IsTerminal;

use anstyle::{AnsiColor, Effects, Style};
use comfy_table::{ContentArrangement, Table, presets};

/// What stands between two cells of a row on a terminal.
const BORDERS: [char; 2] = ['│', '┆'];

/// A table under a header.
pub(super) fn rows<'a>(
    header: impl IntoIterator<Item = &'a str>,
    rows: impl IntoIterator<Item = impl IntoIterator<Item = String>>,
) -> String {
    let mut table = Table::new();
    table.set_header(header);
    table.add_rows(rows.into_iter().map(|row| row.into_iter().collect::<Vec<_>>()));
    render(table, true)
}

/// Names and their values.
pub(super) fn pairs(pairs: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let mut table = Table::new();
    table.add_rows(pairs.into_iter().map(|(name, value)| [name.to_owned(), value]));
    render(table, false)
}

fn render(mut table: Table, has_header: bool) -> String {
    table.set_content_arrangement(ContentArrangement::Disabled);
    if std::io::stdout().is_terminal() {
        table.load_style(presets::UTF8_FULL_CONDENSED);
        let text = format!("{table}\n");
        return if wants_colours(|name| std::env::var(name).ok()) { tinted(&text, has_header) } else { text };
    }
    table.load_style(presets::NOTHING);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// `NO_COLOR` (no-color.org) and terminals that cannot show colours switch them off.
fn wants_colours(variable: impl Fn(&str) -> Option<String>) -> bool {
    let off = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    !off && variable("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// The colour of a cell that says how something is.
fn style_of(cell: &str) -> Option<Style> {
    let colour = match cell {
        "active" | "passed" | "live" | "in step" | "yes" => AnsiColor::Green,
        "disabled" | "expired" | "noted" | "behind" | "invited" => AnsiColor::Yellow,
        "revoked" | "refused" | "silent" | "unreadable" => AnsiColor::Red,
        "not_reached" | "-" => AnsiColor::BrightBlack,
        _ => return None,
    };
    Some(colour.on_default())
}

/// A drawn table with its header in bold and its states in colour. Only whole cells are coloured, so no text of a user's is.
fn tinted(text: &str, has_header: bool) -> String {
    let bold = Style::new().effects(Effects::BOLD);
    let mut tinted = String::with_capacity(text.len() + text.len() / 4);
    for (at, line) in text.lines().enumerate() {
        let is_header = has_header && at == 1;
        for (cell, end) in cells(line) {
            let style = if is_header { Some(bold) } else { style_of(cell.trim()) };
            let painted = match style {
                Some(style) if !cell.trim().is_empty() => Cow::Owned(format!("{style}{cell}{style:#}")),
                _ => Cow::Borrowed(cell),
            };
            tinted.push_str(&painted);
            tinted.extend(end);
        }
        tinted.push('\n');
    }
    tinted
}

/// The cells of a line, each with the border behind it.
fn cells(line: &str) -> impl Iterator<Item = (&str, Option<char>)> {
    line.split_inclusive(BORDERS).map(|piece| match piece.chars().next_back() {
        Some(last) if BORDERS.contains(&last) => (piece.trim_end_matches(last), Some(last)),
        _ => (piece, None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_whole_cells_that_say_how_something_is() {
        let mut table = Table::new();
        table.set_header(["name", "status"]);
        table.add_rows([["active people", "active"], ["x", "revoked"]]);
        table.load_style(presets::UTF8_FULL_CONDENSED);
        let plain = format!("{table}\n");
        let text = tinted(&plain, true);
        assert!(text.contains("\u{1b}[1m name"), "{text:?}");
        assert!(text.contains("\u{1b}[32m active"), "{text:?}");
        assert!(text.contains("\u{1b}[31m revoked"), "{text:?}");
        assert!(!text.contains("\u{1b}[32m active people"), "{text:?}");
        let mut bare = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('\u{1b}') {
            bare.push_str(before);
            rest = after.split_once('m').unwrap().1;
        }
        assert_eq!(bare + rest, plain, "nothing but colours is added");
    }

    #[test]
    fn colours_can_be_switched_off() {
        let table = [
            (None, None, true),
            (Some("1"), None, false),
            (Some(""), None, true),
            (None, Some("dumb"), false),
            (None, Some("xterm"), true),
        ];
        for (no_color, term, expected) in table {
            let variable = |name: &str| {
                let value = if name == "NO_COLOR" { no_color } else { term };
                value.map(str::to_owned)
            };
            assert_eq!(wants_colours(variable), expected, "{no_color:?} {term:?}");
        }
    }
}
