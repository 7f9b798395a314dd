//! Tables without borders: capital headings, two blanks between columns.

use comfy_table::{ContentArrangement, Table, presets};

/// `rows` under `headings`, ready to print.
pub(crate) fn render<const N: usize>(headings: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    render_list(headings, rows.into_iter().map(Vec::from))
}

/// The same for columns that the user chooses.
pub(crate) fn render_list<'a>(
    headings: impl IntoIterator<Item = &'a str>,
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut table = Table::new();
    // Never wrapped: a line is a thing, for people and for awk.
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(headings.into_iter().collect::<Vec<_>>());
    for row in rows {
        table.add_row(row);
    }
    let columns = table.column_iter_mut().count();
    for (index, column) in table.column_iter_mut().enumerate() {
        let right = if index + 1 == columns { 0 } else { 2 };
        column.set_padding((0, right));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_content() {
        let rows = [["a".to_owned(), "long value".to_owned()], ["bcd".to_owned(), String::new()]];
        assert_eq!(render(["ID", "NAME"], rows), "ID   NAME\na    long value\nbcd");
    }
}
