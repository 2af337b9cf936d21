//! Kubernetes quantities of CPU and of bytes.

use std::{borrow::Cow, fmt, str::FromStr};

use k8s_openapi::apimachinery::pkg::api::resource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount of CPU: `2`, `500m`. Kept in thousandths of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpu(u64);

/// An amount of memory or storage: `512Mi`, `100Gi`. Kept in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// The text is not a quantity.
#[derive(Debug, thiserror::Error)]
pub enum InvalidQuantity {
    /// Not an amount of CPU.
    #[error("{0:?} is not an amount of CPU: write cores (2, \"0.5\") or thousandths of one (500m)")]
    Cpu(String),
    /// Not an amount of bytes.
    #[error("{0:?} is not a size: write a whole number with a unit, such as 512Mi or 100Gi")]
    Size(String),
}

pub(crate) const CPU_PATTERN: &str = r"^([0-9]{1,6}(\.[0-9]{1,3})?|[0-9]{1,9}m)$";
/// No more digits than fit into 64 bits.
pub(crate) const SIZE_PATTERN: &str =
    "^([0-9]{1,15}(k|Ki)?|[0-9]{1,12}(M|Mi)|[0-9]{1,9}(G|Gi)|[0-9]{1,6}(T|Ti)|[0-9]{1,3}(P|Pi))$";

impl Cpu {
    /// An amount in thousandths of a core.
    pub const fn millicores(millicores: u64) -> Self {
        Self(millicores)
    }

    /// The amount in thousandths of a core.
    pub const fn as_millicores(self) -> u64 {
        self.0
    }
}

impl Size {
    /// A size in mebibytes (MiB).
    pub const fn mebibytes(mebibytes: u64) -> Self {
        Self(mebibytes << 20)
    }

    /// A size in gibibytes (GiB).
    pub const fn gibibytes(gibibytes: u64) -> Self {
        Self(gibibytes << 30)
    }

    /// A size in bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The size in bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// The size in mebibytes, rounded down.
    pub const fn as_mebibytes(self) -> u64 {
        self.0 >> 20
    }
}

impl FromStr for Cpu {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_cpu(text).map(Self).ok_or_else(|| InvalidQuantity::Cpu(text.to_owned()))
    }
}

fn parse_cpu(text: &str) -> Option<u64> {
    if let Some(millicores) = text.strip_suffix('m') {
        return digits(millicores, 9);
    }
    let (cores, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let thousandths = digits(&format!("{fraction:0<3}"), 3)?;
    Some(digits(cores, 6)? * 1000 + thousandths)
}

impl FromStr for Size {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_size(text).map(Self).ok_or_else(|| InvalidQuantity::Size(text.to_owned()))
    }
}

/// Units, their bytes, and the digits that may stand before them.
const UNITS: [(&str, u64, usize); 11] = [
    ("Ki", 1 << 10, 15),
    ("Mi", 1 << 20, 12),
    ("Gi", 1 << 30, 9),
    ("Ti", 1 << 40, 6),
    ("Pi", 1 << 50, 3),
    ("k", 1_000, 15),
    ("M", 1_000_000, 12),
    ("G", 1_000_000_000, 9),
    ("T", 1_000_000_000_000, 6),
    ("P", 1_000_000_000_000_000, 3),
    ("", 1, 15),
];

fn parse_size(text: &str) -> Option<u64> {
    let (number, (_, factor, most)) =
        UNITS.into_iter().find_map(|unit| text.strip_suffix(unit.0).map(|number| (number, unit)))?;
    digits(number, most)?.checked_mul(factor)
}

fn digits(text: &str, most: usize) -> Option<u64> {
    let plain = !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1000 {
            0 => write!(f, "{}", self.0 / 1000),
            _ => write!(f, "{}m", self.0),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = [("Pi", 1 << 50), ("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)]
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(("", 1_u64));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// Both quantities are written as Kubernetes does: a string, or a whole number. A fraction is in quotes: a schema that admits numbers
/// and text would admit anything.
macro_rules! kubernetes_quantity {
    ($type:ident, $pattern:ident, $most:literal) => {
        impl From<$type> for resource::Quantity {
            fn from(quantity: $type) -> Self {
                Self(quantity.to_string())
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = match IntOrString::deserialize(deserializer)? {
                    IntOrString::Int(number) => number.to_string(),
                    IntOrString::String(text) => text,
                };
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "x-kubernetes-int-or-string": true,
                    "pattern": $pattern,
                    "maxLength": 20,
                    "minimum": 0,
                    "maximum": $most,
                })
            }
        }
    };
}

#[derive(Deserialize)]
#[serde(untagged)]
enum IntOrString {
    Int(u64),
    String(String),
}

kubernetes_quantity!(Cpu, CPU_PATTERN, 999_999);
kubernetes_quantity!(Size, SIZE_PATTERN, 999_999_999_999_999_i64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_kept_in_thousandths() {
        for (text, millicores, canonical) in [
            ("2", 2000, "2"),
            ("0.5", 500, "500m"),
            ("250m", 250, "250m"),
            ("1.25", 1250, "1250m"),
            ("1000m", 1000, "1"),
        ] {
            let cpu: Cpu = text.parse().unwrap();
            assert_eq!((cpu.as_millicores(), cpu.to_string().as_str()), (millicores, canonical), "{text}");
        }
        for text in ["", "m", "-1", "1.2345", "1Gi", "."] {
            assert!(text.parse::<Cpu>().is_err(), "{text:?} was taken for CPU");
        }
    }

    #[test]
    fn sizes_are_kept_in_bytes() {
        for (text, bytes) in
            [("512Mi", 512 << 20), ("1Gi", 1 << 30), ("1024Mi", 1 << 30), ("1G", 1_000_000_000), ("10", 10)]
        {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.as_bytes(), bytes, "{text}");
            assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
        }
        for text in ["", "Gi", "1.5Gi", "-1Gi", "1gb", "999999999999999Pi"] {
            assert!(text.parse::<Size>().is_err(), "{text:?} was taken for a size");
        }
    }

    #[test]
    fn a_bare_number_is_a_quantity() {
        assert_eq!(serde_json::from_str::<Cpu>("2").unwrap(), Cpu::millicores(2000));
        assert_eq!(serde_json::from_str::<Size>("\"1Gi\"").unwrap(), Size::gibibytes(1));
    }
}
