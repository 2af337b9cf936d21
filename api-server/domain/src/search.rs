//! What a search asks for: every one of some words and "phrases", and none that has a `-` before it.
//!
//! Each store has a syntax of its own for full-text queries. None of them sees what a user typed: it is taken apart here, and each store puts
//! its query together from the terms.

use std::fmt;

use serde_json::Value;

use crate::validation;

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

/// How a term is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// In any of its forms, where the store knows English.
    Stem,
    /// As it is: English has it in every sentence, and stores that know English leave it out.
    Word,
    /// Within words too: its script has no blanks between them.
    Part,
}

impl Term {
    /// How it is found.
    pub fn by(&self) -> By {
        if self.text.contains(is_without_blanks) {
            By::Part
        } else if self.words().all(|word| STOP_WORDS.contains(&&*word)) {
            By::Word
        } else {
            By::Stem
        }
    }

    /// Its words, in small letters.
    pub fn words(&self) -> impl Iterator<Item = String> {
        let words = self.text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_lowercase)
    }
}

/// Whether a character belongs to a script whose words stand together, or carry their endings with them.
fn is_without_blanks(c: char) -> bool {
    matches!(c,
        // Thai and Lao, Burmese, Khmer.
        '\u{E00}'..='\u{EFF}' | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17FF}'
        // Kana, Han, Hangul.
        | '\u{3040}'..='\u{30FF}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7AF}'
        | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}')
}

/// What PostgreSQL's dictionary of English leaves out.
const STOP_WORDS: [&str; 127] = [
    "i",
    "me",
    "my",
    "myself",
    "we",
    "our",
    "ours",
    "ourselves",
    "you",
    "your",
    "yours",
    "yourself",
    "yourselves",
    "he",
    "him",
    "his",
    "himself",
    "she",
    "her",
    "hers",
    "herself",
    "it",
    "its",
    "itself",
    "they",
    "them",
    "their",
    "theirs",
    "themselves",
    "what",
    "which",
    "who",
    "whom",
    "this",
    "that",
    "these",
    "those",
    "am",
    "is",
    "are",
    "was",
    "were",
    "be",
    "been",
    "being",
    "have",
    "has",
    "had",
    "having",
    "do",
    "does",
    "did",
    "doing",
    "a",
    "an",
    "the",
    "and",
    "but",
    "if",
    "or",
    "because",
    "as",
    "until",
    "while",
    "of",
    "at",
    "by",
    "for",
    "with",
    "about",
    "against",
    "between",
    "into",
    "through",
    "during",
    "before",
    "after",
    "above",
    "below",
    "to",
    "from",
    "up",
    "down",
    "in",
    "out",
    "on",
    "off",
    "over",
    "under",
    "again",
    "further",
    "then",
    "once",
    "here",
    "there",
    "when",
    "where",
    "why",
    "how",
    "all",
    "any",
    "both",
    "each",
    "few",
    "more",
    "most",
    "other",
    "some",
    "such",
    "no",
    "nor",
    "not",
    "only",
    "own",
    "same",
    "so",
    "than",
    "too",
    "very",
    "s",
    "t",
    "can",
    "will",
    "just",
    "don",
    "should",
    "now",
];

impl SearchQuery {
    /// The terms that are found so, if there are any.
    pub fn only(&self, by: By) -> Option<Self> {
        let terms: Vec<Term> = self.0.iter().filter(|term| term.by() == by).cloned().collect();
        (!terms.is_empty()).then_some(Self(terms))
    }

    /// Reads `q` of `GET /api/tasks/search`.
    pub fn rule(value: Value) -> Result<Self, String> {
        Self::parse(&validation::text(value, 1, MAX_QUERY)?).ok_or_else(|| "must contain a word".to_owned())
    }

    /// What `text` asks for, if it contains a word. What English has in every sentence, such as `the`, is asked for only in quotation marks,
    /// or where nothing else is.
    pub fn parse(text: &str) -> Option<Self> {
        let (mut terms, mut fillers) = (Vec::new(), Vec::new());
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
            let is_quoted = rest.starts_with('"');
            rest = after;
            if term.contains(char::is_alphanumeric) {
                let term = Term { text: term.replace(char::is_control, " "), excluded };
                let is_filler = !is_quoted && !excluded && term.by() == By::Word;
                if is_filler { &mut fillers } else { &mut terms }.push(term);
            }
        }
        if terms.iter().all(|term| term.excluded) {
            terms.append(&mut fillers);
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
        assert_eq!(normal(r#"x"b c"d"#), r#""x" "b c" "d""#);
        assert_eq!(normal(r#""never closed"#), r#""never closed""#);
        assert_eq!(normal("well-known AND x* OR (y)"), r#""well-known" "x*" "(y)""#);
        assert_eq!(normal("buy the milk"), r#""buy" "milk""#);
        assert_eq!(normal("to do -milk"), r#"-"milk" "to" "do""#, "there is nothing else");
        assert_eq!(normal(r#""to do" list"#), r#""to do" "list""#);
        assert_eq!(normal("-only"), r#"-"only""#);
    }

    #[test]
    fn terms_are_found_by_what_they_are() {
        let by = |text: &str| SearchQuery::parse(text).unwrap().terms().iter().map(Term::by).collect::<Vec<_>>();
        assert_eq!(by("\"IT\" \"to do\" milk -\"to-do list\" \"can't\" 牛乳 ไทย 한국"), {
            use By::{Part, Stem, Word};
            [Word, Word, Stem, Stem, Word, Part, Part, Part]
        });
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
