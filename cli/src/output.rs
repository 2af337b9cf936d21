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

/// `1 error`, `2 errors`.
pub(crate) fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Rows of text in columns; the first of `right` and those after it are numbers.
pub(crate) fn table(rows: &[Vec<String>], right: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column < right { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}
