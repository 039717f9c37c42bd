//! What must happen in a run of many histories, so that a run without a violation says something.

use std::collections::BTreeMap;

use crate::Point;

/// Everything that a run of a thousand histories reaches, besides the crashes of [`Point::ALL`].
pub const WANTED: &[&str] = &[
    "browser: callback sent twice",
    "browser: sign-out sent twice",
    "caller: asked to renew",
    "caller: connection lost",
    "caller: served",
    "caller: signed out",
    "caller: store trouble",
    "caller: told of our own mistake",
    "caller: told to come back",
    "caller: went away",
    "device: ended the others",
    "device: repaired",
    "device: signed out",
    "fault: access token died early",
    "fault: answer lost",
    "fault: commit done, answer lost",
    "fault: crash",
    "fault: gateway error after the deed",
    "fault: network",
    "fault: no answer",
    "fault: outage",
    "fault: provider unreachable",
    "fault: request late",
    "fault: request lost",
    "fault: stall",
    "fault: store down",
    "fault: token endpoint",
    "fault: validation",
    "fault: write failed",
    "mail: challenge answered",
    "mail: held",
    "mail: late",
    "mail: lost",
    "mail: refused",
    "mail: store trouble",
    "mail: taken",
    "mail: twice",
    "network: request sent twice",
    "outbox: postponed",
    "outbox: settled",
    "pair: owed, since no row could hold it",
    "provider: spent token arrived",
    "replay: a pair",
    "replay: turned away",
    "replay: used up without a pair",
    "row: another writer was first",
    "row: answer lost",
    "row: claimed",
    "row: claimed for a replay",
    "row: ended",
    "row: ended while in flight",
    "row: ended, account gone",
    "row: ended, disconnected",
    "row: ended, rejected",
    "row: parked",
    "row: proven",
    "row: recovered by replay",
    "row: released",
    "row: repaired",
    "row: rotated",
    "row: suspected",
    "user: account deleted",
    "user: disconnected",
    "user: disconnects around a sign-in",
];

/// What should have happened and did not.
pub fn missing(counts: &BTreeMap<&'static str, u64>) -> Vec<&'static str> {
    let crashes = Point::ALL.iter().map(|(_, name)| *name);
    WANTED.iter().copied().chain(crashes).filter(|name| !counts.contains_key(name)).collect()
}
