//! From a document to a TaskPlatform that the API server would admit.

use std::fmt;

use kube::core::cel::{ValidationError, ValidationErrors};
use serde_json::Value;

use crate::{
    TaskPlatform,
    shape::{self, Misfit},
};

/// Why a document is no TaskPlatform.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The document does not have the shape that the definition asks for.
    #[error(transparent)]
    Shape(#[from] Misfits),
    /// The document cannot be read as the type.
    #[error("{0}")]
    Unreadable(#[from] serde_path_to_error::Error<serde_json::Error>),
    /// A rule of the type does not hold.
    #[error(transparent)]
    Rules(#[from] BrokenRules),
}

/// What does not fit the definition: each with its field and the way out.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Misfits(pub Vec<Misfit>);

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Rules of the type that do not hold: each with its field and the way out.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct BrokenRules(pub Vec<BrokenRule>);

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenRule {
    /// The field that it speaks of, such as `spec.scaling`.
    pub field: String,
    /// What is wrong, and the way out.
    pub message: String,
}

impl fmt::Display for BrokenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A rule of the whole has no field.
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl BrokenRules {
    fn of(broken: &ValidationErrors) -> Self {
        let rule =
            |rule: &ValidationError| BrokenRule { field: rule.field_path.clone(), message: rule.message.clone() };
        Self(broken.iter().map(rule).collect())
    }
}

impl TaskPlatform {
    /// Reads a TaskPlatform as the API server does when one is created: shape and defaults first, then the rules.
    ///
    /// # Errors
    /// Names every field that is wrong, what is wrong with it and the way out.
    pub fn parse(document: Value) -> Result<Self, ParseError> {
        let platform = Self::read(document)?;
        platform.check_rules()?;
        Ok(platform)
    }

    /// Reads a TaskPlatform whose rules are still to be checked.
    pub(crate) fn read(document: Value) -> Result<Self, ParseError> {
        let misfits = shape::misfits(&document);
        if !misfits.is_empty() {
            return Err(Misfits(misfits).into());
        }
        Ok(serde_path_to_error::deserialize(shape::normalized(document))?)
    }

    /// Checks the CEL rules that the API server would check on creation.
    ///
    /// # Errors
    /// Every rule that does not hold.
    pub fn check_rules(&self) -> Result<(), BrokenRules> {
        self.validate_cel().map_err(|broken| BrokenRules::of(&broken))
    }

    /// Checks the CEL rules that the API server would check when `before` becomes this one.
    ///
    /// # Errors
    /// Every rule that does not hold.
    pub fn check_change(&self, before: &Self) -> Result<(), BrokenRules> {
        self.validate_cel_update(before).map_err(|broken| BrokenRules::of(&broken))
    }
}
