//! Whole numbers that cannot leave their range.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i32")]
pub struct Count<const MIN: i32, const MAX: i32>(i32);

/// A whole percentage.
pub type Percent = Count<1, 100>;

/// The number is outside its range.
#[derive(Debug, thiserror::Error)]
#[error("{value} is out of range: give a whole number from {min} to {max}")]
pub struct OutOfRange {
    value: i64,
    min: i32,
    max: i32,
}

impl<const MIN: i32, const MAX: i32> Count<MIN, MAX> {
    /// The number, brought into the range where it lies outside.
    pub const fn clamped(value: i32) -> Self {
        if value < MIN {
            Self(MIN)
        } else if value > MAX {
            Self(MAX)
        } else {
            Self(value)
        }
    }

    /// The number.
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl<const MIN: i32, const MAX: i32> TryFrom<i64> for Count<MIN, MAX> {
    type Error = OutOfRange;

    fn try_from(value: i64) -> Result<Self, Self::Error> {
        i32::try_from(value).ok().filter(|value| (MIN..=MAX).contains(value)).map(Self).ok_or(OutOfRange {
            value,
            min: MIN,
            max: MAX,
        })
    }
}

impl<const MIN: i32, const MAX: i32> From<Count<MIN, MAX>> for i32 {
    fn from(count: Count<MIN, MAX>) -> Self {
        count.0
    }
}

impl<const MIN: i32, const MAX: i32> fmt::Display for Count<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const MIN: i32, const MAX: i32> JsonSchema for Count<MIN, MAX> {
    fn schema_name() -> Cow<'static, str> {
        format!("Count{MIN}To{MAX}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "format": "int32", "minimum": MIN, "maximum": MAX})
    }
}
