//! Request rates as nginx writes them.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Requests in a second (`100r/s`) or in a minute (`5r/m`), as nginx writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Rate {
    /// Requests a second.
    PerSecond(u32),
    /// Requests a minute.
    PerMinute(u32),
}

/// The text is not a rate.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a rate: write requests a second (100r/s) or a minute (5r/m), at least 1")]
pub struct InvalidRate(pub(crate) String);

pub(crate) const PATTERN: &str = "^[1-9][0-9]{0,6}r/(s|m)$";

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidRate(text.to_owned());
        let (number, unit) = text.split_once("r/").ok_or_else(invalid)?;
        let plain = !number.starts_with('0') && number.len() <= 7 && number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|_| plain).ok_or_else(invalid)?;
        match unit {
            "s" => Ok(Self::PerSecond(number)),
            "m" => Ok(Self::PerMinute(number)),
            _ => Err(invalid()),
        }
    }
}

impl TryFrom<String> for Rate {
    type Error = InvalidRate;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerSecond(requests) => write!(f, "{requests}r/s"),
            Self::PerMinute(requests) => write!(f, "{requests}r/m"),
        }
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rates_and_writes_them_back() {
        for text in ["100r/s", "5r/m", "1000r/s"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["", "100", "0r/s", "-1r/s", "5r/h", "r/s", "+5r/s", "12345678r/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text:?} was taken for a rate");
        }
    }
}
