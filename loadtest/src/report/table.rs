//! Plain-text tables.

use comfy_table::{CellAlignment, Table, presets};

/// A table with `headings`; every column but the first is right-aligned. It has no colour and no
/// fixed width: it reads the same in a terminal, a file and a log.
pub fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(headings);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Milliseconds with the digits that matter: two below 10, one below 1,000, else none.
pub fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2}"),
        ms if ms < 1000.0 => format!("{ms:.1}"),
        ms => format!("{ms:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_colour() {
        let rows = [["warm".into(), "91.6".into()], ["round-robin".into(), "9.7".into()]];
        let text = table(["policy", "hit %"], rows).to_string();
        assert_eq!(
            text,
            "| policy      | hit % |\n\
             |-------------|-------|\n\
             | warm        |  91.6 |\n\
             | round-robin |   9.7 |"
        );
    }

    #[test]
    fn milliseconds_keep_three_digits_or_so() {
        assert_eq!([0.5, 12.34, 4321.0].map(milliseconds), ["0.50", "12.3", "4321"]);
    }
}
