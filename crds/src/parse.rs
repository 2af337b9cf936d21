//! From a document to a TaskPlatform that the API server would admit.

use serde_json::Value;

use crate::TaskPlatform;

/// Why a document is no TaskPlatform.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The document does not have the type's shape: an unknown field, a value out of range.
    #[error("{0}")]
    Shape(#[from] serde_path_to_error::Error<serde_json::Error>),
    /// A rule of the type does not hold.
    #[error(transparent)]
    Rules(#[from] BrokenRules),
}

/// Rules of the type that do not hold: each with its field and the way out.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct BrokenRules(pub Vec<String>);

impl TaskPlatform {
    /// Reads a TaskPlatform as the API server does: defaults and shape first, then the rules.
    ///
    /// # Errors
    /// Names the field, what is wrong with it and the way out.
    pub fn parse(document: Value) -> Result<Self, ParseError> {
        let platform: Self = serde_path_to_error::deserialize(document)?;
        platform.check_rules()?;
        Ok(platform)
    }

    /// Checks the CEL rules that the API server would check on creation.
    ///
    /// # Errors
    /// Every rule that does not hold.
    pub fn check_rules(&self) -> Result<(), BrokenRules> {
        self.validate_cel().map_err(|broken| {
            BrokenRules(broken.iter().map(|rule| format!("{}: {}", rule.field_path, rule.message)).collect())
        })
    }
}
