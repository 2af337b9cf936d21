//! What is printed.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

/// For whom it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// People.
    Text,
    /// Programs.
    Json,
}

/// It cannot be printed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the standard output cannot be written")]
    Write(#[from] io::Error),
    #[error("this cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("this cannot be written as YAML")]
    Yaml(#[from] serde_saphyr::SerializeError),
}

pub(crate) fn write(text: &str) -> Result<(), Error> {
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Text with colours, which only a terminal gets to see, and not where `NO_COLOR` is set.
pub(crate) fn write_coloured(text: &str) -> Result<(), Error> {
    match anstream::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

pub(crate) fn json(value: &impl Serialize) -> Result<(), Error> {
    write(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// JSON in a line of its own.
pub(crate) fn json_line(value: &impl Serialize) -> Result<(), Error> {
    write(&format!("{}\n", serde_json::to_string(value)?))
}

/// `1 error`, `2 errors`.
pub(crate) fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Rows of text in columns; the first of `right` and those after it are numbers.
pub(crate) fn table(rows: &[Vec<String>], right: usize) -> String {
    aligned(rows, |column| column >= right)
}

/// Rows of text in columns, of which some are of numbers.
pub(crate) fn aligned(rows: &[Vec<String>], is_number: impl Fn(usize) -> bool) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if is_number(column) { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// How wide text is written.
const WIDTH: usize = 80;

/// Text in lines of at most 80 characters, indented; longer words are not broken.
pub(crate) fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        if let Some(line) = lines
            .last_mut()
            .filter(|line| line.is_empty() || indent + line.chars().count() + 1 + word.chars().count() <= WIDTH)
        {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    let margin = " ".repeat(indent);
    lines.into_iter().flat_map(|line| [margin.clone(), line, "\n".to_owned()]).collect()
}
