//! Results on stdout: one JSON document, or text for people.
//!
//! Much of what is shown was written by an agent, so nothing that a terminal would obey gets through here.

use std::borrow::Cow;
use std::io::{self, Write as _};

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
        let text = if self.json {
            escape(&serde_json::to_string_pretty(value).unwrap_or_default(), |c| {
                // Such characters stand only within JSON's strings, where this is how they are written.
                c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
            })
            .into_owned()
        } else {
            printable(&people(value)).into_owned()
        };
        let _ = writeln!(io::stdout(), "{}", text.trim_end());
    }
}

/// Writes a line for people to stderr.
pub(crate) fn say(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "{}", printable(text.as_ref()));
}

/// Writes what a terminal would obey or hide (control characters but line ends and tabs, and marks that turn the
/// direction of writing or are invisible) as `\u{…}`.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    escape(text, |c| c.escape_unicode().collect())
}

fn escape(text: &str, written: impl Fn(char) -> String) -> Cow<'_, str> {
    let is_hostile = |c: char| match c {
        '\n' | '\t' => false,
        '\u{61c}'
        | '\u{200b}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' => true,
        '\u{feff}' | '\u{e0000}'..='\u{e007f}' => true,
        c => c.is_control(),
    };
    if !text.contains(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hostile(c) { shown.push_str(&written(c)) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// Indents all lines but the first, so that text from elsewhere cannot pass for a line of ours.
pub(crate) fn hanging(text: &str) -> String {
    text.trim().lines().collect::<Vec<_>>().join("\n       ")
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
    // Rounded first: there is no minute with 60 seconds.
    let value = value.round();
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
    fn a_terminal_gets_nothing_that_it_would_obey() {
        assert_eq!(
            printable("a\tb\n\x1b[31mred\r\u{9b}2J\u{202e}dne"),
            "a\tb\n\\u{1b}[31mred\\u{d}\\u{9b}2J\\u{202e}dne"
        );
        assert!(matches!(printable("plain – text 😀"), Cow::Borrowed(_)));
        assert_eq!(hanging("bad\nrun 1: score 1.0\n"), "bad\n       run 1: score 1.0");
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".to_owned(), "1.0".to_owned()], vec!["long".to_owned(), "10.0".to_owned()]];
        assert_eq!(table(&["name", ">score"], &rows), "name  score\na       1.0\nlong   10.0\n");
    }

    #[test]
    fn times_and_scores_are_short() {
        assert_eq!(seconds(59.6), "60 s");
        assert_eq!(seconds(125.0), "2 min 05 s");
        assert_eq!(seconds(359.7), "6 min 00 s");
        assert_eq!(
            (score(None), score(Some(0.98765)), score(Some(163.0))),
            ("–".into(), "0.9877".into(), "163.00".into())
        );
    }
}
