//! Who is at the other end of a connection, and who stands behind.

use std::net::{IpAddr, SocketAddr};

/// The other end of a connection, and whom its trusted proxies name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    address: Option<IpAddr>,
    is_front: bool,
    /// Whether the client's own address is known, and not only that of a proxy.
    is_client_known: bool,
    /// Whom trusted proxies named, the farthest first.
    behind: Vec<IpAddr>,
}

impl Peer {
    /// Reads `X-Forwarded-For`, whose elements each proxy appends to. From the right, an element
    /// counts as long as a trusted proxy appended it: up to and with the first address that is not
    /// trusted, which is the client's. All before that is the client's own word.
    pub fn read<'a>(
        address: Option<IpAddr>,
        is_trusted: impl Fn(IpAddr) -> bool,
        forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> Self {
        // A dual-stack socket shows IPv4 peers as IPv6 addresses (RFC 4291 section 2.5.5.2).
        let address = address.map(|address| address.to_canonical());
        let is_front = address.is_some_and(&is_trusted);
        Self::with(address, is_front, is_trusted, forwarded_for)
    }

    /// Reads the same of a peer that has no address, because it uses a Unix socket.
    pub fn read_local<'a>(
        is_front: bool,
        is_trusted: impl Fn(IpAddr) -> bool,
        forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> Self {
        Self::with(None, is_front, is_trusted, forwarded_for)
    }

    fn with<'a>(
        address: Option<IpAddr>,
        is_front: bool,
        is_trusted: impl Fn(IpAddr) -> bool,
        forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> Self {
        let mut behind = Vec::new();
        if is_front {
            let elements = forwarded_for.rev().flat_map(|field| field.rsplit(|byte| *byte == b','));
            for element in elements.map(<[u8]>::trim_ascii) {
                match Element::read(element) {
                    Element::Nothing => {}
                    Element::Address(address) => {
                        behind.push(address);
                        if !is_trusted(address) {
                            break;
                        }
                    }
                    Element::NoAddress => break,
                }
            }
            behind.reverse();
        }
        let is_client_known = if is_front {
            behind.first().is_some_and(|address| !is_trusted(*address))
        } else {
            address.is_some_and(is_public)
        };
        Self { address, is_front, is_client_known, behind }
    }

    /// The address of the connected peer.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Whether the connected peer is a trusted proxy.
    pub fn is_front(&self) -> bool {
        self.is_front
    }

    /// The client, as far as it is known.
    pub fn client(&self) -> Option<IpAddr> {
        self.behind.first().copied().or(self.address)
    }

    /// The client's own address, which no other client has. None if only a proxy's
    /// is known. A peer with a private address may be a proxy that the operator did not list.
    pub fn own_address(&self) -> Option<IpAddr> {
        self.client().filter(|_| self.is_client_known)
    }

    /// All that is known: the client first, then the proxies, the connected peer last.
    pub fn chain(&self) -> impl Iterator<Item = IpAddr> {
        self.behind.iter().copied().chain(self.address)
    }
}

/// Whether an address can be reached from everywhere, so that it is hardly that of a proxy beside
/// us.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            // RFC 6598: between a provider and its customers.
            let is_shared = first == 100 && (64..128).contains(&second);
            !(address.is_loopback() || address.is_private() || address.is_link_local() || is_shared)
        }
        IpAddr::V6(address) => {
            !(address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local())
        }
    }
}

/// An element of `X-Forwarded-For`.
enum Element {
    /// Empty.
    Nothing,
    Address(IpAddr),
    /// Text that is no address, such as the `unix:` by which nginx says that it was asked through a
    /// socket in the file system. It is not known who stands behind it.
    NoAddress,
}

impl Element {
    fn read(element: &[u8]) -> Self {
        if element.is_empty() {
            return Self::Nothing;
        }
        let Ok(text) = std::str::from_utf8(element) else { return Self::NoAddress };
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let address = bare.parse::<IpAddr>().ok();
        // Some proxies append the client's port.
        let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
        address.map_or(Self::NoAddress, |address| Self::Address(address.to_canonical()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The chain behind the peer 10.0.0.1, where 10.0.0.1 and 10.0.0.2 are trusted.
    fn chain(peer: &str, fields: &[&[u8]]) -> Vec<String> {
        let trusted = [ip("10.0.0.1"), ip("10.0.0.2")];
        let peer = Peer::read(Some(ip(peer)), |address| trusted.contains(&address), fields.iter().copied());
        peer.chain().map(|address| address.to_string()).collect()
    }

    #[test]
    fn a_peer_without_an_address_is_trusted_if_that_is_said() {
        let read = |is_front| {
            let fields = [&b"1.1.1.1, 6.6.6.6, 10.0.0.2"[..]];
            let peer = Peer::read_local(is_front, |address| address == ip("10.0.0.2"), fields.into_iter());
            (peer.is_front(), peer.own_address(), peer.chain().map(|address| address.to_string()).collect())
        };
        let chain: Vec<_> = ["6.6.6.6", "10.0.0.2"].map(str::to_owned).to_vec();
        assert_eq!(read(true), (true, Some(ip("6.6.6.6")), chain));
        assert_eq!(read(false), (false, None, Vec::new()));
    }

    #[test]
    fn only_what_trusted_proxies_appended_counts() {
        let table: &[(&[&[u8]], &[&str])] = &[
            (&[], &["10.0.0.1"]),
            (&[b"6.6.6.6"], &["6.6.6.6", "10.0.0.1"]),
            (&[b"1.1.1.1, 6.6.6.6"], &["6.6.6.6", "10.0.0.1"]),
            (&[b"1.1.1.1", b"6.6.6.6"], &["6.6.6.6", "10.0.0.1"]),
            (&[b"1.1.1.1, 6.6.6.6, 10.0.0.2"], &["6.6.6.6", "10.0.0.2", "10.0.0.1"]),
            (&[b"10.0.0.2, 6.6.6.6"], &["6.6.6.6", "10.0.0.1"]),
            (&[b"\xff"], &["10.0.0.1"]),
            (&[b"\xff, 6.6.6.6"], &["6.6.6.6", "10.0.0.1"]),
            (&[b"\xff", b"6.6.6.6"], &["6.6.6.6", "10.0.0.1"]),
            (&[b"1.1.1.1, \xff, 6.6.6.6"], &["6.6.6.6", "10.0.0.1"]),
            (&[b"1.1.1.1, unknown"], &["10.0.0.1"]),
            (&[b"1.1.1.1, unknown, 10.0.0.2"], &["10.0.0.2", "10.0.0.1"]),
            (&[b"6.6.6.6, unix:"], &["10.0.0.1"]),
            (&[b"6.6.6.6, unix:, 10.0.0.2"], &["10.0.0.2", "10.0.0.1"]),
            (&[b"unix:"], &["10.0.0.1"]),
            (&[b"6.6.6.6,, "], &["6.6.6.6", "10.0.0.1"]),
            (&[b"6.6.6.6:4711"], &["6.6.6.6", "10.0.0.1"]),
            (&[b"[2001:db8::1]:4711"], &["2001:db8::1", "10.0.0.1"]),
            (&[b"[2001:db8::1]"], &["2001:db8::1", "10.0.0.1"]),
            (&[b"2001:db8::1"], &["2001:db8::1", "10.0.0.1"]),
            (&[b"::ffff:6.6.6.6"], &["6.6.6.6", "10.0.0.1"]),
            (&[b"evil.example"], &["10.0.0.1"]),
            (&[b"6.6.6.6; rm"], &["10.0.0.1"]),
        ];
        for (fields, expected) in table {
            assert_eq!(chain("10.0.0.1", fields), *expected, "{fields:?}");
            assert_eq!(chain("::ffff:10.0.0.1", fields), *expected, "{fields:?}");
            assert_eq!(chain("9.9.9.9", fields), ["9.9.9.9"], "a stranger's word: {fields:?}");
        }
    }

    #[test]
    fn a_client_has_an_address_of_its_own_or_only_that_of_a_proxy() {
        let trusted = [ip("10.0.0.1"), ip("9.9.9.1")];
        let table: &[(&str, &[u8], Option<&str>)] = &[
            ("6.6.6.6", b"", Some("6.6.6.6")),
            ("6.6.6.6", b"1.1.1.1", Some("6.6.6.6")),
            ("10.0.0.1", b"6.6.6.6", Some("6.6.6.6")),
            ("10.0.0.1", b"10.0.0.9", Some("10.0.0.9")),
            ("10.0.0.1", b"", None),
            ("10.0.0.1", b"unknown", None),
            ("10.0.0.1", b"9.9.9.1", None),
            ("9.9.9.1", b"", None),
            ("127.0.0.1", b"", None),
            ("10.0.0.2", b"6.6.6.6", None),
            ("172.17.0.1", b"", None),
            ("100.64.0.1", b"", None),
            ("::1", b"", None),
            ("fd00::1", b"", None),
            ("fe80::1", b"", None),
            ("2001:db8::1", b"", Some("2001:db8::1")),
        ];
        for (address, field, expected) in table {
            let peer =
                Peer::read(Some(ip(address)), |address| trusted.contains(&address), [*field].into_iter());
            assert_eq!(peer.own_address(), expected.map(ip), "{address} {field:?}");
        }
    }

    #[test]
    fn the_client_is_the_farthest_that_is_known() {
        let trusted = |address| address == ip("10.0.0.1");
        let none = std::iter::empty::<&[u8]>;
        let read = |address, fields: &[&'static [u8]]| Peer::read(address, trusted, fields.iter().copied());
        assert_eq!(Peer::read(None, trusted, none()).client(), None);
        assert_eq!(read(Some(ip("9.9.9.9")), &[b"6.6.6.6"]).client(), Some(ip("9.9.9.9")));
        assert_eq!(read(Some(ip("10.0.0.1")), &[b"6.6.6.6"]).client(), Some(ip("6.6.6.6")));
        assert_eq!(read(Some(ip("10.0.0.1")), &[]).client(), Some(ip("10.0.0.1")));
    }
}
