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

/// YAML, with quotes around each text that a reader of YAML 1.1, such as kubectl, would take for something else.
pub(crate) fn yaml(value: &impl Serialize) -> Result<String, Error> {
    Ok(serde_saphyr::to_string(value)?)
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::LazyLock};

    use proptest::prelude::*;
    use regex::RegexSet;

    use super::*;

    /// What YAML 1.1 takes for something else than text, by its types' own expressions, and what kubectl's reader takes for a float.
    static NOT_TEXT: LazyLock<RegexSet> = LazyLock::new(|| {
        RegexSet::new([
            "^(y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$",
            "^(~|null|Null|NULL|)$",
            "^[-+]?(0b[0-1_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*(:[0-5]?[0-9])+)$",
            "^[-+]?([0-9][0-9_]*)?[.][0-9.]*([eE][-+][0-9]+)?$",
            "^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+[.][0-9_]*$",
            "^([-+]?[.](inf|Inf|INF)|[.](nan|NaN|NAN))$",
            "^[-+]?([.][0-9]+|[0-9]+([.][0-9]*)?)([eE][-+]?[0-9]+)?$",
            "^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
            "^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt]|[ \\t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}([.][0-9]*)?([ \\t]*(Z|[-+][0-9]{1,2}(:[0-9]{2})?))?$",
            "^(<<|=)$",
        ])
        .unwrap()
    });

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            prop::sample::select(vec![
                "no",
                "on",
                "y",
                "null",
                "~",
                "",
                "1e3",
                "0x1",
                "012",
                "0o7",
                "12:30:45",
                "1_000",
                ".5",
                "+1",
                "-.inf",
                "=",
                "<<",
                "- a",
                "a: b",
                "a #b",
                "---",
                "2026-01-02"
            ])
            .prop_map(ToOwned::to_owned),
            "[-+]?[0-9_.:xobeE]{1,6}",
            "[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2})?Z?",
            "[yYnNoOeEsSfFtTrRuUaAlL]{1,5}",
            "[ -~]{0,8}",
            any::<String>(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

        #[test]
        fn text_stays_text_for_every_reader(text in text()) {
            let written = yaml(&BTreeMap::from([("key", &text)])).unwrap();
            let read: BTreeMap<String, String> = serde_saphyr::from_str(&written).unwrap();
            prop_assert_eq!(&read["key"], &text, "{}", written);
            // In quotes, or in a block, it is text.
            let value = written.strip_prefix("key:").unwrap().trim();
            prop_assert!(value.starts_with(['"', '\'', '|', '>']) || !NOT_TEXT.is_match(value), "{}", written);
        }
    }
}
