//! Reads the tables of cases in `tables/`, which are data for the tests of this room.
//!
//! A line is a case; a line that starts with `# ` is a comment. Two or more spaces stand between columns. In a column
//! `""` is the empty text, `-` alone is absent, `\xNN` is a byte, `{pk}`, `{pk2}` and `{sk}` are tokens. Where several
//! values may stand, ` ++ ` separates them.

/// A publishable token.
pub(super) const PK: &str = "pk_0123456789abcdef0123456789abcdef";
/// Another publishable token.
pub(super) const PK2: &str = "pk_fedcba9876543210fedcba9876543210";
/// A secret token.
pub(super) const SK: &str = "sk_00112233445566778899aabbccddeeff";

/// The cases of a table, each with `N` columns.
pub(super) fn rows<const N: usize>(table: &str) -> Vec<[&str; N]> {
    let lines = table.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    let rows: Vec<_> = lines.map(row).collect();
    assert!(!rows.is_empty(), "a table without cases tests nothing");
    rows
}

fn row<const N: usize>(line: &str) -> [&str; N] {
    let columns: Vec<_> = line.split("  ").map(str::trim).filter(|column| !column.is_empty()).collect();
    columns.try_into().unwrap_or_else(|columns| panic!("{N} columns expected: {columns:?}"))
}

/// The bytes a column stands for.
pub(super) fn bytes(column: &str) -> Vec<u8> {
    if column == r#""""# {
        return Vec::new();
    }
    let column = column.replace("{pk}", PK).replace("{pk2}", PK2).replace("{sk}", SK);
    let mut pieces = column.split(r"\x");
    let mut out = pieces.next().unwrap().as_bytes().to_vec();
    for piece in pieces {
        out.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        out.extend_from_slice(&piece.as_bytes()[2..]);
    }
    out
}

/// The text a column stands for.
pub(super) fn text(column: &str) -> String {
    String::from_utf8(bytes(column)).unwrap()
}

/// The text a column stands for, if it is not absent.
pub(super) fn optional(column: &str) -> Option<String> {
    (column != "-").then(|| text(column))
}

/// The values a column stands for, in their order.
pub(super) fn several(column: &str) -> Vec<Vec<u8>> {
    if column == "-" { Vec::new() } else { column.split(" ++ ").map(bytes).collect() }
}

/// Borrows values as the functions under test take them.
pub(super) fn slices(values: &[Vec<u8>]) -> Vec<&[u8]> {
    values.iter().map(Vec::as_slice).collect()
}
