//! What accounts are known by in the file.

use std::fmt;

use rusqlite::types::ValueRef;
use serde::{Serialize, Serializer};

/// The key of an account, as its row has it, or a task's row that names it. Two are the same key however they are written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// A whole number, also one that is written as text or with a fraction of nothing.
    Number(i64),
    /// A UUID, in its 16 bytes or as text.
    Uuid(u128),
    /// Any other text.
    Text(String),
    /// Any other bytes.
    Bytes(Vec<u8>),
}

impl Key {
    pub(super) fn read(value: ValueRef<'_>) -> Result<Self, String> {
        let key = match value {
            ValueRef::Null => None,
            ValueRef::Integer(number) => Some(Self::Number(number)),
            ValueRef::Real(number) => {
                Some(Self::of_real(number).ok_or_else(|| format!("is {number}, no whole number"))?)
            }
            ValueRef::Text(text) => Some(Self::of_text(text).ok_or_else(|| "is not UTF-8".to_owned())?),
            ValueRef::Blob(bytes) => Some(Self::of_bytes(bytes)),
        };
        key.filter(|key| *key != Self::Text(String::new())).ok_or_else(|| "is missing".to_owned())
    }

    fn of_real(number: f64) -> Option<Self> {
        let is_whole = number.fract() == 0.0;
        // Not by a cast, which bends numbers that are too great.
        is_whole.then(|| format!("{number:.0}").parse().ok().map(Self::Number))?
    }

    fn of_text(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
        let uuid = || uuid(text).map(Self::Uuid);
        Some(number.map(Self::Number).or_else(uuid).unwrap_or_else(|| Self::Text(text.to_owned())))
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        match <[u8; 16]>::try_from(bytes) {
            Ok(uuid) => Self::Uuid(u128::from_be_bytes(uuid)),
            // Some write text as a blob.
            Err(_) => Self::of_text(bytes).unwrap_or_else(|| Self::Bytes(bytes.to_owned())),
        }
    }
}

/// A UUID in hexadecimal digits of any case, with or without its dashes and braces.
fn uuid(text: &str) -> Option<u128> {
    let bare = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let parts: Vec<usize> = bare.split('-').map(str::len).collect();
    if !matches!(parts[..], [32] | [8, 4, 4, 4, 12]) {
        return None;
    }
    let digits = bare.replace('-', "");
    // `from_str_radix` alone would take a sign too.
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u128::from_str_radix(&digits, 16).ok())?
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Uuid(uuid) => {
                let digits = format!("{uuid:032x}");
                let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
                f.write_str(&parts.join("-"))
            }
            Self::Text(text) => f.write_str(text),
            Self::Bytes(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_i64(*number),
            other => serializer.collect_str(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Key {
        Key::read(ValueRef::Text(text.as_bytes())).unwrap()
    }

    #[test]
    fn one_uuid_in_many_spellings() {
        let bytes = 0x0b5c_1e0a_6e0b_4c41_9c5b_0d9b_1b0f_9a01_u128.to_be_bytes();
        let key = Key::read(ValueRef::Blob(&bytes)).unwrap();
        assert_eq!(key.to_string(), "0b5c1e0a-6e0b-4c41-9c5b-0d9b1b0f9a01");
        for spelling in [
            "0b5c1e0a-6e0b-4c41-9c5b-0d9b1b0f9a01",
            "0B5C1E0A-6E0B-4C41-9C5B-0D9B1B0F9A01",
            "0b5c1e0a6e0b4c419c5b0d9b1b0f9a01",
            "{0B5C1E0A-6E0B-4C41-9C5B-0D9B1B0F9A01}",
        ] {
            assert_eq!(text(spelling), key, "{spelling}");
            assert_eq!(Key::read(ValueRef::Blob(spelling.as_bytes())), Ok(key.clone()), "{spelling}");
        }
        for other in [
            "0b5c1e0a-6e0b-4c41-9c5b-0d9b1b0f9a02",
            "0b5c1e0a-6e0b4c41-9c5b-0d9b-1b0f9a01",
            "+b5c1e0a6e0b4c419c5b0d9b1b0f9a01",
            "0b5c1e0a6e0b4c419c5b0d9b1b0f9a0",
            "clx2k9q3v0000s6h1f0t8w2yz",
        ] {
            assert_ne!(text(other), key, "{other}");
        }
    }

    #[test]
    fn numbers_and_words() {
        for seven in [ValueRef::Integer(7), ValueRef::Real(7.0), ValueRef::Text(b"7")] {
            assert_eq!(Key::read(seven), Ok(Key::Number(7)), "{seven:?}");
        }
        assert_eq!(text("007"), Key::Text("007".to_owned()));
        assert_ne!(text("Ann"), text("ann"));
        assert_eq!(Key::read(ValueRef::Blob(&[0xff, 1])).unwrap().to_string(), "ff01");
        for none in
            [ValueRef::Null, ValueRef::Text(b""), ValueRef::Text(&[0xff]), ValueRef::Real(7.5), ValueRef::Real(1e300)]
        {
            assert!(Key::read(none).is_err(), "{none:?}");
        }
        assert_eq!(serde_json::to_string(&[text("7"), text("seven")]).unwrap(), "[7,\"seven\"]");
    }
}
