//! A network of IP addresses, as operators write it: `10.0.0.0/8`, or one address.

use std::{fmt, net::IpAddr, str::FromStr};

/// The addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

/// The text is neither an IP address nor a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an IP address, such as \"127.0.0.1\", or a network, such as \"10.0.0.0/8\"")]
pub struct NoNetwork;

impl Network {
    /// Whether an address is in this network. An IPv4 address is the same in its IPv6 form.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => {
                alike(u128::from(ours.to_bits()), u128::from(other.to_bits()), 32 - self.prefix)
            }
            (IpAddr::V6(ours), IpAddr::V6(other)) => {
                alike(ours.to_bits(), other.to_bits(), 128 - self.prefix)
            }
            _ => false,
        }
    }
}

/// Whether two addresses are alike but for this many bits at their end.
fn alike(ours: u128, other: u128, rest: u32) -> bool {
    (ours ^ other).checked_shr(rest).unwrap_or(0) == 0
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let Some((address, prefix)) = text.split_once('/') else {
            return text.parse().map(IpAddr::into).map_err(|_| NoNetwork);
        };
        let address: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        let prefix = prefix.parse().map_err(|_| NoNetwork)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix <= longest { Ok(Self { address, prefix }) } else { Err(NoNetwork) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_the_addresses_that_begin_alike() {
        let table: [(&str, &[&str], &[&str]); 8] = [
            ("10.0.0.1", &["10.0.0.1", "::ffff:10.0.0.1"], &["10.0.0.2", "::1"]),
            ("10.0.0.0/8", &["10.0.0.0", "10.255.255.255"], &["11.0.0.0", "9.255.255.255"]),
            ("10.1.2.3/8", &["10.9.9.9"], &["11.1.2.3"]),
            ("172.16.0.0/12", &["172.16.0.1", "172.31.255.255"], &["172.32.0.0"]),
            ("0.0.0.0/0", &["6.6.6.6"], &["::1"]),
            ("::/0", &["::1", "2001:db8::1"], &["6.6.6.6"]),
            ("fd00::/8", &["fd12::1"], &["fe00::1"]),
            ("2001:db8::1", &["2001:db8::1"], &["2001:db8::2"]),
        ];
        for (network, inside, outside) in table {
            let network: Network = network.parse().unwrap();
            for (addresses, expected) in [(inside, true), (outside, false)] {
                for address in addresses {
                    assert_eq!(network.contains(address.parse().unwrap()), expected, "{network} {address}");
                }
            }
        }
    }

    #[test]
    fn anything_else_is_refused_with_examples() {
        for text in [
            "",
            "10.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "/8",
            "app.example",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NoNetwork), "{text}");
        }
        assert!(NoNetwork.to_string().contains("10.0.0.0/8"));
    }
}
