//! Networks of addresses.

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The addresses that begin alike (`10.0.0.0/8`, `2001:db8::/32`), or a single one (`192.0.2.7`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    /// How many bits of it are alike; all without.
    prefix: Option<u8>,
}

/// The text is not a network.
#[derive(Debug, thiserror::Error)]
pub enum InvalidNetwork {
    /// Something else.
    #[error(
        "{0:?} is not a network: write an address and how many of its bits are alike, such as 10.0.0.0/8 or 2001:db8::/32"
    )]
    Text(String),
    /// An address within it.
    #[error("{0:?} has an address within the network: write {1}, or the address alone")]
    Within(String, Network),
}

/// What can be an IPv4 or IPv6 address, and the length of a prefix.
pub(crate) const PATTERN: &str = r"^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}(/([0-9]|[12][0-9]|3[0-2]))?|[0-9a-fA-F:]*:[0-9a-fA-F:]*(/([0-9]|[1-9][0-9]|1[01][0-9]|12[0-8]))?)$";

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidNetwork::Text(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let plain = |prefix: &&str| {
            prefix.bytes().all(|byte| byte.is_ascii_digit()) && (*prefix == "0" || !prefix.starts_with('0'))
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => None,
            Some(prefix) => {
                let length = Some(prefix).filter(plain).and_then(|prefix| prefix.parse().ok());
                Some(length.filter(|length: &u8| *length <= most).ok_or_else(invalid)?)
            }
        };
        let network = Self { address: first(address, prefix.unwrap_or(most)), prefix };
        if network.address == address { Ok(network) } else { Err(InvalidNetwork::Within(text.to_owned(), network)) }
    }
}

/// The first address of the network that an address is in.
fn first(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

impl TryFrom<String> for Network {
    type Error = InvalidNetwork;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            Some(prefix) => write!(f, "{}/{prefix}", self.address),
            None => self.address.fmt(f),
        }
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 49, "pattern": PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_networks_and_writes_them_back() {
        for text in ["10.0.0.0/8", "192.0.2.7", "192.0.2.7/32", "0.0.0.0/0", "2001:db8::/32", "::1", "::/0", "fd00::/8"]
        {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "localhost",
            "1.2.3.4/8/8",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text:?} was taken for a network");
        }
        let within = "10.1.2.3/8".parse::<Network>().unwrap_err();
        assert!(within.to_string().contains("write 10.0.0.0/8"), "{within}");
    }
}
