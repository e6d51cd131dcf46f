//! Results on stdout: one JSON document, or text for people.

use std::io::{self, Write};

use serde::Serialize;

/// Where a command's result goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// Whether programs read it.
    pub(crate) json: bool,
}

impl Output {
    /// Writes a result: as JSON, or as the text that `people` makes of it. A reader that went away is no error.
    pub(crate) fn result<T: Serialize>(self, value: &T, people: impl FnOnce(&T) -> String) {
        let text =
            if self.json { serde_json::to_string_pretty(value).unwrap_or_default() } else { people(value) };
        let _ = writeln!(io::stdout(), "{}", text.trim_end());
    }
}

/// Writes a line for people to stderr.
pub(crate) fn say(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "{}", text.as_ref());
}

/// Lays out rows in columns; columns whose header starts with `>` are aligned to the right.
pub(crate) fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let titles: Vec<&str> = headers.iter().map(|header| header.trim_start_matches('>')).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([titles[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headers.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (column, cell) in cells.into_iter().enumerate() {
            let padding = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            let right = headers[column].starts_with('>');
            text.push_str(if column > 0 { "  " } else { "" });
            text.push_str(&if right { format!("{padding}{cell}") } else { format!("{cell}{padding}") });
        }
        text.trim_end().to_owned() + "\n"
    };
    let mut text = line(titles.clone());
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// Writes a score with a useful number of digits, or a dash.
pub(crate) fn score(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.2}"),
        // A score that rounds to zero is written without a sign.
        Some(value) if value.abs() < 0.000_05 => "0.0000".to_owned(),
        Some(value) => format!("{value:.4}"),
    }
}

/// Writes a number of seconds as people say it.
pub(crate) fn seconds(value: f64) -> String {
    if value < 100.0 {
        format!("{value:.0} s")
    } else {
        format!("{:.0} min {:02.0} s", (value / 60.0).floor(), value % 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".to_owned(), "1.0".to_owned()], vec!["long".to_owned(), "10.0".to_owned()]];
        assert_eq!(table(&["name", ">score"], &rows), "name  score\na       1.0\nlong   10.0\n");
    }

    #[test]
    fn times_and_scores_are_short() {
        assert_eq!(seconds(59.6), "60 s");
        assert_eq!(seconds(125.0), "2 min 05 s");
        assert_eq!(
            (score(None), score(Some(0.98765)), score(Some(163.0))),
            ("–".into(), "0.9877".into(), "163.00".into())
        );
    }
}
