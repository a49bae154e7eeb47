//! The host of a binding: a DNS name or an IP address, in one spelling.
//!
//! Owns: [`HostName`]. Promises: what it holds is read the same way by every resolver: no trailing
//! dot, no upper case, no zone, and none of the numeric spellings (`127.1`, `0x7f.1`, `2130706433`)
//! that some take for an address. Does not: resolve.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ids::{IdError, by_text};

/// A DNS name (RFC 1123, with `_`), an IPv4 address, or an IPv6 address in its canonical text (RFC
/// 5952) without brackets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(Box<str>);

impl HostName {
    /// Takes `text` if it has that form.
    pub fn parse(text: &str) -> Result<HostName, IdError> {
        if is_ipv6(text) || is_ipv4(text) || is_dns(text) {
            Ok(HostName(text.into()))
        } else {
            let rule = "a lower-case DNS name, an IPv4 address, or an IPv6 address in canonical form without brackets";
            Err(IdError::new("host", text, rule))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }

    /// As it stands in a URL: IPv6 in brackets.
    pub fn authority(&self) -> String {
        match self.ip() {
            Some(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => self.0.to_string(),
        }
    }
}

fn is_ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>()
        .is_ok_and(|ip| ip.to_string() == text)
}

fn is_ipv4(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok()
}

fn is_dns(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    text.len() <= 253 && text.split('.').all(label) && !number
}

by_text!(HostName, "a host name or address");
