//! Which addresses a binding may reach: decided after the one resolution, before the connection.
//!
//! Owns: [`refusal`], the rule, and [`judge`], which applies it to an answer of the resolver or to a
//! host that is an address itself.
//! Promises: one refused address refuses the whole answer, so that a name cannot mix a public address
//! with a local one.
//! Does not: resolve or connect ([`super::connect`]).

use std::net::{IpAddr, Ipv4Addr};

use thiserror::Error;

/// Why an address is not connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AddressRefusal {
    /// Loopback (127.0.0.0/8, ::1).
    #[error("the host is a loopback address; an officer can allow local addresses in the binding")]
    Loopback,
    /// Link-local (169.254.0.0/16, fe80::/10), where cloud metadata services live.
    #[error(
        "the host is a link-local address; an officer can allow local addresses in the binding"
    )]
    LinkLocal,
    /// An address of this host.
    #[error(
        "the host is an address of this appliance; an officer can allow local addresses in the binding"
    )]
    Own,
    /// Unspecified, multicast or broadcast: never a service.
    #[error("the host's address is no unicast address")]
    NotUnicast,
    /// The host's own addresses could not be listed, so the rule cannot be applied.
    #[error("the appliance's own addresses could not be read")]
    Unknown,
}

/// IPv4 inside of IPv6: mapped (RFC 4291) and the NAT64 prefix 64:ff9b::/96 (RFC 6052).
fn inner(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
            }
            _ => IpAddr::V6(v6),
        },
        v4 => v4,
    }
}

/// Why `address` is refused, or `None`. `own` lists the host's addresses.
pub fn refusal(address: IpAddr, allow_local: bool, own: &[IpAddr]) -> Option<AddressRefusal> {
    let address = inner(address);
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    let this_network = matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 0);
    if address.is_unspecified() || address.is_multicast() || broadcast || this_network {
        return Some(AddressRefusal::NotUnicast);
    }
    if allow_local {
        return None;
    }
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_loopback() {
        Some(AddressRefusal::Loopback)
    } else if link_local {
        Some(AddressRefusal::LinkLocal)
    } else if own.iter().any(|own| inner(*own) == address) {
        Some(AddressRefusal::Own)
    } else {
        None
    }
}

/// Judges all of `addresses`; lists the host's own only where they matter.
pub(super) fn judge(
    addresses: impl IntoIterator<Item = IpAddr>,
    allow_local: bool,
) -> Result<(), AddressRefusal> {
    let own = if allow_local {
        Vec::new()
    } else {
        own_addresses()?
    };
    addresses
        .into_iter()
        .find_map(|a| refusal(a, allow_local, &own))
        .map_or(Ok(()), Err)
}

fn own_addresses() -> Result<Vec<IpAddr>, AddressRefusal> {
    let interfaces = nix::ifaddrs::getifaddrs().map_err(|_| AddressRefusal::Unknown)?;
    Ok(interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn judged(text: &str, allow_local: bool) -> Option<AddressRefusal> {
        let own = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        refusal(text.parse().unwrap(), allow_local, &own)
    }

    #[test]
    fn local_addresses_are_refused_in_every_spelling() {
        for (text, expected) in [
            ("127.0.0.1", AddressRefusal::Loopback),
            ("127.255.0.9", AddressRefusal::Loopback),
            ("::1", AddressRefusal::Loopback),
            ("::ffff:127.0.0.1", AddressRefusal::Loopback),
            ("64:ff9b::7f00:1", AddressRefusal::Loopback),
            ("169.254.169.254", AddressRefusal::LinkLocal),
            ("::ffff:169.254.169.254", AddressRefusal::LinkLocal),
            ("fe80::1", AddressRefusal::LinkLocal),
            ("192.0.2.7", AddressRefusal::Own),
            ("::ffff:192.0.2.7", AddressRefusal::Own),
            ("2001:db8::7", AddressRefusal::Own),
        ] {
            assert_eq!(judged(text, false), Some(expected), "{text}");
            assert_eq!(judged(text, true), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_unicast_address_is_never_reached() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "::ffff:0.0.0.0",
            "224.0.0.1",
            "ff02::1",
        ] {
            assert_eq!(
                judged(text, true),
                Some(AddressRefusal::NotUnicast),
                "{text}"
            );
        }
        assert_eq!(
            judged("255.255.255.255", true),
            Some(AddressRefusal::NotUnicast)
        );
    }

    #[test]
    fn addresses_of_the_lan_pass() {
        for text in [
            "10.0.0.1",
            "192.168.1.1",
            "fd00::1",
            "203.0.113.9",
            "64:ff9b::a00:1",
        ] {
            assert_eq!(judged(text, false), None, "{text}");
        }
    }

    #[test]
    fn every_address_of_this_host_is_seen() {
        let own = own_addresses().unwrap();
        assert!(own.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
        for address in own {
            assert!(judge([address], false).is_err(), "{address}");
        }
    }

    #[test]
    fn one_local_address_spoils_an_answer() {
        let mixed = ["203.0.113.9".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        assert_eq!(judge(mixed, false), Err(AddressRefusal::Loopback));
    }
}
