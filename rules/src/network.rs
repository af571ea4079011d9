//! A network in CIDR form, for `flow.src in "10.0.0.0/8"`. A plain value: parsed at load time (guards) or
//! by the judge (bodies), asked on any thread.

use std::net::IpAddr;

/// An address with a prefix length; a bare address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// `10.0.0.0/8`, `2001:db8::/32`, `10.0.0.1`. Bits beyond the prefix must be zero, as a set one is
    /// more likely a slip than a wish.
    pub(crate) fn parse(text: &str) -> Result<Network, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr =
            address.parse().map_err(|_| format!("\"{text}\" is not an IP address or network"))?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => width,
            Some(prefix) => match prefix.parse::<u8>() {
                Ok(prefix) if prefix <= width => prefix,
                _ => return Err(format!("\"{text}\": the prefix length must be 0 to {width}")),
            },
        };
        let network = Network { address, prefix };
        if bits(address) & !network.mask() != 0 {
            return Err(format!("\"{text}\" has bits set beyond its prefix length"));
        }
        Ok(network)
    }

    /// Always false across address families.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && bits(address) & self.mask() == bits(self.address)
    }

    /// In the low 32 bits for IPv4.
    fn mask(&self) -> u128 {
        let width = if self.address.is_ipv4() { 32 } else { 128 };
        let all = u128::MAX >> (128 - width);
        let host_bits = width - u32::from(self.prefix);
        u128::MAX.checked_shl(host_bits).unwrap_or(0) & all
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(network: &str, address: &str) -> bool {
        Network::parse(network).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn prefixes_cut_where_they_should() {
        assert!(holds("10.0.0.0/8", "10.255.0.1"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("10.1.2.3", "10.1.2.3"));
        assert!(!holds("10.1.2.3", "10.1.2.4"));
        assert!(holds("0.0.0.0/0", "255.255.255.255"));
        assert!(holds("192.168.1.128/25", "192.168.1.200"));
        assert!(!holds("192.168.1.128/25", "192.168.1.100"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("::/0", "::1"));
    }

    #[test]
    fn families_do_not_mix() {
        assert!(!holds("0.0.0.0/0", "::1"));
        assert!(!holds("::/0", "10.0.0.1"));
    }

    #[test]
    fn bad_networks_are_refused() {
        for bad in
            ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.1/8", "::1/129", "x/8", "10.0.0.0/8/8"]
        {
            assert!(Network::parse(bad).is_err(), "{bad}");
        }
    }
}
