//! Times as databases keep them: numbers since 1970, or text.

use jiff::{Timestamp, civil, tz::TimeZone};
use rusqlite::types::ValueRef;

use super::mapping::Unit;

impl Unit {
    /// What numbers as great as this count, if they are times from 1970 to 5000.
    pub(super) fn of_numbers_up_to(greatest: f64) -> Self {
        match greatest {
            _ if greatest < 1e11 => Self::Seconds,
            _ if greatest < 1e14 => Self::Milliseconds,
            _ => Self::Microseconds,
        }
    }

    fn in_microseconds(self) -> i64 {
        match self {
            Self::Seconds => 1_000_000,
            Self::Milliseconds => 1_000,
            Self::Microseconds => 1,
        }
    }
}

/// A time, to the microsecond, where there is one. Text without a zone is UTC, as SQLite's own functions write it.
pub(super) fn read(value: ValueRef<'_>, unit: Unit) -> Result<Option<Timestamp>, String> {
    let micros = match value {
        ValueRef::Null => return Ok(None),
        ValueRef::Integer(number) => number.checked_mul(unit.in_microseconds()),
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a float is no more exact")]
        ValueRef::Real(number) => Some((number * unit.in_microseconds() as f64).round() as i64),
        ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(read_text),
        ValueRef::Blob(_) => None,
    };
    let at = micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
    at.map(Some).ok_or_else(|| "is no time: neither a number since 1970 nor text like 2024-01-31T12:00:00Z".to_owned())
}

fn read_text(text: &str) -> Option<i64> {
    let zoneless = || {
        let at: civil::DateTime = text.parse().ok()?;
        Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp())
    };
    let at: Timestamp = text.parse().ok().or_else(zoneless)?;
    // Cut off, not rounded, as everywhere.
    Some(at.as_nanosecond().div_euclid(1000)).and_then(|micros| i64::try_from(micros).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<String> {
        read(ValueRef::Text(text.as_bytes()), Unit::Seconds).ok().flatten().map(|at| at.to_string())
    }

    #[test]
    fn text() {
        assert_eq!(at("2024-01-31T12:00:00+02:00").as_deref(), Some("2024-01-31T10:00:00Z"));
        assert_eq!(at("2024-01-31 12:00:00").as_deref(), Some("2024-01-31T12:00:00Z"));
        assert_eq!(at("2024-01-31 12:00:00.1234567").as_deref(), Some("2024-01-31T12:00:00.123456Z"));
        assert_eq!(at("2024-01-31").as_deref(), Some("2024-01-31T00:00:00Z"));
        assert_eq!(at("yesterday"), None);
        assert_eq!(at(""), None);
    }

    #[test]
    fn numbers() {
        let second = 1_700_000_000;
        for (number, unit) in
            [(second, Unit::Seconds), (second * 1000, Unit::Milliseconds), (second * 1_000_000, Unit::Microseconds)]
        {
            #[expect(clippy::cast_precision_loss, reason = "it is far below 2^53")]
            let guessed = Unit::of_numbers_up_to(number as f64);
            assert_eq!(guessed, unit);
            assert_eq!(read(ValueRef::Integer(number), unit), Ok(Some(Timestamp::from_second(second).unwrap())));
        }
        let fraction = read(ValueRef::Real(1_700_000_000.25), Unit::Seconds).unwrap().unwrap();
        assert_eq!(fraction.as_microsecond(), 1_700_000_000_250_000);
        assert!(read(ValueRef::Integer(i64::MAX), Unit::Seconds).is_err());
        assert!(read(ValueRef::Blob(b"x"), Unit::Seconds).is_err());
        assert_eq!(read(ValueRef::Null, Unit::Seconds), Ok(None));
    }
}
