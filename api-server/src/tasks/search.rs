//! What a search asks for: every one of some words and "phrases", and none that has a `-` before it.
//!
//! Each store has a syntax of its own for full-text queries. None of them sees what a user typed: it is taken apart here, and each store puts
//! its query together from the terms.

use std::fmt;

use serde_json::Value;

use crate::form;

/// The most characters in a search.
pub const MAX_QUERY: usize = 200;

/// A search: all terms must hold. At least one is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SearchQuery(Vec<Term>);

/// A word, or words in a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    /// At least one letter or digit, and neither a quotation mark nor a control character. What a store takes for more than one word
    /// (`well-known`) stands for them in a row.
    pub text: String,
    /// Whether a task must not contain it.
    pub excluded: bool,
}

impl SearchQuery {
    /// Reads `q` of `GET /api/tasks/search`.
    pub fn rule(value: Value) -> Result<Self, String> {
        Self::parse(&form::text(value, 1, MAX_QUERY)?).ok_or_else(|| "must contain a word".to_owned())
    }

    /// What `text` asks for, if it contains a word.
    pub fn parse(text: &str) -> Option<Self> {
        let mut terms = Vec::new();
        let mut rest = text;
        loop {
            rest = rest.trim_start();
            if rest.is_empty() {
                break;
            }
            let excluded = rest.starts_with('-');
            rest = rest.strip_prefix('-').unwrap_or(rest);
            // A quotation mark without a second one reaches to the end.
            let (term, after) = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
                None => rest.split_at(rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len())),
            };
            rest = after;
            if term.contains(char::is_alphanumeric) {
                terms.push(Term { text: term.replace(char::is_control, " "), excluded });
            }
        }
        (!terms.is_empty()).then_some(Self(terms))
    }

    /// What it asks for.
    pub fn terms(&self) -> &[Term] {
        &self.0
    }
}

/// The same query, every term quoted: `"a" -"b c"`. PostgreSQL's `websearch_to_tsquery` understands it, and so does [`SearchQuery::parse`].
impl fmt::Display for SearchQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Term { text, excluded }) in self.0.iter().enumerate() {
            let (space, minus) = (if index > 0 { " " } else { "" }, if *excluded { "-" } else { "" });
            write!(f, "{space}{minus}\"{text}\"")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn normal(text: &str) -> String {
        SearchQuery::parse(text).map(|query| query.to_string()).unwrap_or_default()
    }

    #[test]
    fn words_phrases_and_exclusions() {
        assert_eq!(normal("buy  milk"), r#""buy" "milk""#);
        assert_eq!(normal(r#"buy "oat milk" -soy -"for free""#), r#""buy" "oat milk" -"soy" -"for free""#);
        assert_eq!(normal(r#"a"b c"d"#), r#""a" "b c" "d""#);
        assert_eq!(normal(r#""never closed"#), r#""never closed""#);
        assert_eq!(normal("well-known AND x* OR (y)"), r#""well-known" "AND" "x*" "OR" "(y)""#);
        assert_eq!(normal("-only"), r#"-"only""#);
    }

    #[test]
    fn a_query_has_a_word() {
        for empty in ["", "  ", "-", "\"\"", "-\" \"", "!? ..."] {
            assert_eq!(SearchQuery::parse(empty), None, "{empty:?}");
        }
        assert!(SearchQuery::rule(json!("*")).is_err());
        assert!(SearchQuery::rule(json!("a".repeat(MAX_QUERY + 1))).is_err());
        assert!(SearchQuery::rule(json!("a")).is_ok());
    }

    proptest! {
        #[test]
        fn the_normal_form_says_the_same(text in r#"[a-c "\-\PC\n\t]{0,40}"#) {
            if let Some(query) = SearchQuery::parse(&text) {
                prop_assert!(query.terms().iter().all(|term| !term.text.contains(|c: char| c == '"' || c.is_control())));
                prop_assert_eq!(SearchQuery::parse(&query.to_string()), Some(query));
            }
        }
    }
}
