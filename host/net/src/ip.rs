//! An address with its prefix length.

use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An IP address and the length of its network's prefix, in the notation of RFC 4632, section 3.1: `10.1.2.3/16`. Host
/// bits are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpNet {
    address: IpAddr,
    prefix: u8,
}

#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not an IP address with a prefix length, such as 10.1.2.3/16 or fd00::1/64")]
pub struct BadIpNet {
    text: String,
}

impl IpNet {
    /// `prefix` is at most 32 for IPv4 and 128 for IPv6.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, BadIpNet> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix > bits {
            return Err(BadIpNet { text: format!("{address}/{prefix}") });
        }
        Ok(Self { address, prefix })
    }

    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }
}

impl std::fmt::Display for IpNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for IpNet {
    type Err = BadIpNet;

    fn from_str(text: &str) -> Result<Self, BadIpNet> {
        let bad = || BadIpNet { text: text.chars().take(64).collect() };
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let prefix = prefix.bytes().all(|byte| byte.is_ascii_digit()).then(|| prefix.parse().ok()).flatten();
        Self::new(address.parse().map_err(|_| bad())?, prefix.ok_or_else(bad)?).map_err(|_| bad())
    }
}

impl Serialize for IpNet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IpNet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notation_is_read_and_written() {
        for text in ["10.1.2.3/16", "0.0.0.0/0", "fd00::1/64", "::/0", "1.2.3.4/32"] {
            assert_eq!(text.parse::<IpNet>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_network_is_named() {
        for text in ["", "10.1.2.3", "10.1.2.3/", "10.1.2.3/33", "fd00::1/129", "10.1.2.3/+8", "10.1.2/8", "a/8"] {
            assert!(text.parse::<IpNet>().unwrap_err().to_string().contains("such as 10.1.2.3/16"), "{text}");
        }
    }
}
