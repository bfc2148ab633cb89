//! A network of IP addresses, such as `10.0.0.0/8` or a single address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Addresses that share their first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

/// The text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address or a network such as `10.0.0.0/8`")]
pub struct NetworkError;

impl Network {
    /// Whether an address is part of it. An IPv4 address in IPv6's clothes counts as the IPv4 address.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                shared(u128::from(base.to_bits() ^ address.to_bits()) << 96, self.bits)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => shared(base.to_bits() ^ address.to_bits(), self.bits),
            _ => false,
        }
    }
}

/// Whether the first bits of a difference are zero.
const fn shared(difference: u128, bits: u8) -> bool {
    bits == 0 || difference >> (128 - bits as u32) == 0
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (base, bits) = text.split_once('/').map_or((text, None), |(base, bits)| (base, Some(bits)));
        let base: IpAddr = base.trim().parse().map_err(|_| NetworkError)?;
        let base = base.to_canonical();
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.trim().parse::<u8>().map_err(|_| NetworkError))?;
        if bits > most {
            return Err(NetworkError);
        }
        Ok(Self { base: masked(base, bits), bits })
    }
}

/// An address with all but its first bits zero, so that a network is written in one way only.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    let mask = |width: u32| u128::MAX.checked_shl(width - u32::from(bits)).unwrap_or(0);
    match address {
        IpAddr::V4(address) => {
            IpAddr::V4((address.to_bits() & u32::try_from(mask(32) & 0xffff_ffff).unwrap_or(0)).into())
        }
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & mask(128)).into()),
    }
}

impl fmt::Display for Network {
    /// As it is read back: `10.0.0.0/8`, or the address alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = if self.base.is_ipv4() { 32 } else { 128 };
        if self.bits == all { write!(f, "{}", self.base) } else { write!(f, "{}/{}", self.base, self.bits) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_the_addresses_that_share_its_bits() {
        let holds =
            |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
        assert!(holds("10.0.0.0/8", "10.255.1.2") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("127.0.0.1", "127.0.0.1") && !holds("127.0.0.1", "127.0.0.2"));
        assert!(holds("0.0.0.0/0", "8.8.8.8") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("fd00::/8", "fdff::1") && !holds("fd00::/8", "fe80::1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.1.1"));
        for (given, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1/32", "127.0.0.1"),
            ("8.8.8.8/0", "0.0.0.0/0"),
            ("::ffff:10.1.1.1", "10.1.1.1"),
            ("fdab::1/8", "fd00::/8"),
            ("::1/0", "::/0"),
            ("2001:db8::5/128", "2001:db8::5"),
        ] {
            let network: Network = given.parse().unwrap();
            assert_eq!(network.to_string(), shown);
            assert_eq!(shown.parse(), Ok(network));
        }
        for bad in ["", "10.0.0.0/33", "host", "10.0.0.0/x", "::/129"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
