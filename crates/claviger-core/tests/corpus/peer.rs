//! `X-Forwarded-For`. No word of a client's own becomes its address.
//!
//! The first line of an input is the connected peer, `none` if it has no address. The second lists
//! the trusted proxies. Each further line is one field.

use std::net::IpAddr;

use claviger_core::request::peer::Peer;

pub(crate) const OUTCOMES: [&str; 5] = ["no-address", "stranger", "front", "named", "no-input"];

/// Reads the fields, and compares the client with what the trusted proxies appended.
pub(crate) fn check(input: &[u8]) -> &'static str {
    let mut lines = input.strip_suffix(b"\n").unwrap_or(input).split(|byte| *byte == b'\n');
    let mut line = || lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let (Some(peer), Some(trusted)) = (line(), line()) else { return "no-input" };
    let address = peer.parse::<IpAddr>().ok();
    if address.is_none() && peer != "none" {
        return "no-input";
    }
    let trusted: Vec<IpAddr> = trusted.split(' ').filter_map(|text| text.parse().ok()).collect();
    let fields: Vec<&[u8]> = lines.collect();
    let is_trusted = |address: IpAddr| trusted.contains(&address);
    let read = |fields: &[&[u8]]| Peer::read(address, is_trusted, fields.iter().copied());

    let found = read(&fields);
    let address = address.map(|address| address.to_canonical());
    assert_eq!(found.address(), address);
    assert_eq!(found.is_front(), address.is_some_and(is_trusted));
    let chain: Vec<IpAddr> = found.chain().collect();
    assert_eq!(found.client(), chain.first().copied());
    assert_eq!(chain.last().copied(), address);
    assert!(chain.iter().skip(1).copied().all(is_trusted), "only a trusted proxy names anybody: {chain:?}");
    assert!(chain.iter().all(|address| *address == address.to_canonical()), "{chain:?}");

    let joined = fields.join(&b","[..]);
    assert_eq!(read(&[&joined]), found, "fields are one list (RFC 9110 section 5.3)");
    let named = appended(&joined, is_trusted);
    if found.is_front() {
        assert_eq!(chain[..chain.len() - 1], named[..], "{:?}", joined.escape_ascii().to_string());
    } else {
        assert!(chain.len() <= 1, "a stranger names nobody: {chain:?}");
    }
    // Before all others the client may write whatever it likes.
    if chain.first().is_some_and(|client| !is_trusted(*client)) {
        for forged in [&b"6.6.6.6"[..], b"\xff", b"10.0.0.1, ", b"\""] {
            assert_eq!(read(&[&[forged], &fields[..]].concat()), found, "the client's own word");
            let longer = [forged, b",", &joined].concat();
            assert_eq!(read(&[&longer]), found, "the client's own word");
        }
    }
    match (chain.len(), found.is_front()) {
        (0, _) => "no-address",
        (_, false) => "stranger",
        (1, true) => "front",
        (_, true) => "named",
    }
}

/// The addresses at the end of the list, up to the first that is not a trusted proxy's.
fn appended(list: &[u8], is_trusted: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let mut named = Vec::new();
    for element in list.split(|byte| *byte == b',').rev() {
        let element = String::from_utf8_lossy(element);
        let text = element.trim_matches(|c: char| c.is_ascii_whitespace());
        if text.is_empty() {
            continue;
        }
        let Some(address) = address(text) else { break };
        named.insert(0, address);
        if !is_trusted(address) {
            break;
        }
    }
    named
}

/// An address, also in brackets, also with a port.
fn address(text: &str) -> Option<IpAddr> {
    let without_port = match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && !port.starts_with('+') => {
            let bracketed = host.starts_with('[') && host.ends_with(']');
            if bracketed || !host.contains(':') { host } else { text }
        }
        _ => text,
    };
    let is_v6 = without_port.contains(':');
    let bare = without_port.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let bare = bare.filter(|_| is_v6 || without_port == text).unwrap_or(without_port);
    // A zone stands only before a port. It names a link of the proxy's own.
    let bare = match bare.split_once('%') {
        Some((bare, zone)) if without_port != text && zone.parse::<u32>().is_ok() => bare,
        _ => bare,
    };
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}
