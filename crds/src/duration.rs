//! Durations as Go writes them.

use std::{borrow::Cow, fmt, str::FromStr, time};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A span of time, written as Go does: `300s`, `5m`, `1h30m`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration(time::Duration);

/// The text is not a duration.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a duration: write whole hours, minutes, seconds or milliseconds, such as 300s, 5m or 1h30m")]
pub struct InvalidDuration(pub(crate) String);

pub(crate) const PATTERN: &str = "^([0-9]{1,5}h|[0-9]{1,7}m|[0-9]{1,9}(s|ms))+$";

/// The longest text. In so many characters, no duration gets longer than the 292 years that Go's durations hold.
const LONGEST: usize = 32;

impl Duration {
    /// A duration of whole seconds.
    pub const fn seconds(seconds: u32) -> Self {
        Self(time::Duration::from_secs(seconds as u64))
    }

    /// The duration in seconds, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0.as_secs()
    }

    /// The duration in whole seconds as the Kubernetes API's 32-bit fields want it.
    pub fn as_secs_i32(self) -> i32 {
        i32::try_from(self.0.as_secs()).unwrap_or(i32::MAX)
    }
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map(Self).ok_or_else(|| InvalidDuration(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<time::Duration> {
    let (mut rest, mut total) = (text, 0_u64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at_checked(digits)?;
        let (unit, milliseconds, most) = [("ms", 1, 9), ("s", 1_000, 9), ("m", 60_000, 7), ("h", 3_600_000, 5)]
            .into_iter()
            .find(|(unit, ..)| after.starts_with(unit))?;
        let number: u64 = Some(number).filter(|number| number.len() <= most)?.parse().ok()?;
        rest = &after[unit.len()..];
        total = total.checked_add(number.checked_mul(milliseconds)?)?;
    }
    (1..=LONGEST).contains(&text.len()).then(|| time::Duration::from_millis(total))
}

impl TryFrom<String> for Duration {
    type Error = InvalidDuration;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.to_string()
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subsec_millis() {
            0 => write!(f, "{}s", self.0.as_secs()),
            _ => write!(f, "{}ms", self.0.as_millis()),
        }
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": PATTERN, "maxLength": LONGEST})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_writes() {
        for (text, canonical) in [
            ("300s", "300s"),
            ("5m", "300s"),
            ("1h30m", "5400s"),
            ("500ms", "500ms"),
            ("1s500ms", "1500ms"),
            ("0s", "0s"),
        ] {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in ["", "5", "s", "5d", "-5s", "1.5h", "5 m", "99999999999s", "100000h", "5sx", "é"] {
            assert!(text.parse::<Duration>().is_err(), "{text:?} was taken for a duration");
        }
    }
}
