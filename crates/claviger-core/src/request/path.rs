//! Reads the path of a request in every way that a server behind the gateway might.
//!
//! The path is forwarded byte for byte, and apps read it in different ways. Some decode `%2F`
//! before they split, some merge slashes, drop `;parameters`, suffixes or final dots, or ignore
//! case. A rule that guards `/admin` must hold for all of them.
//!
//! | what servers do | where |
//! |---|---|
//! | decode, fold letters, split at `\` or `?`, take a host off | here, one reading for each |
//! | take a segment out, such as a script's name | `aliases`, one reading for each |
//! | drop the end of a segment, such as `.json` | `segments`, when a rule is compared |
//!
//! A path that servers read too differently has a [`Fault`]. Some faults are refused everywhere:
//! no honest address has them. Others pass where a route says so. For all other differences the
//! strictest reading decides ([`super::routes`]).

mod aliases;
mod segments;

use std::{borrow::Cow, fmt};

pub(super) use aliases::are_none as has_no_aliases;
pub(super) use segments::may_be_below;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is `*`, empty, or an address in place of a path.
    NotAPath,
    /// A segment has only dots and spaces.
    Climbs,
    /// A control character.
    Control(char),
    /// A character in more bytes than UTF-8 allows.
    Overlong,
    /// An escape such as `%u0041`, which Microsoft's servers decode.
    WideEscape,
    /// It is percent-encoded more often than it is decoded here.
    TooDeep,
    /// It has more readings than are compared here.
    TooManyReadings,
    /// A backslash, which some servers read as a slash.
    Backslash,
    /// Two slashes at the start, after which some servers expect a host.
    NamesAHost,
    /// A `%` that begins no escape.
    BadEscape,
    /// Bytes that are not UTF-8.
    NotUtf8(u8),
    /// A character that should be percent-encoded.
    NotEncoded(char),
    /// An encoded `?` or `#`, which some servers take for the end of the path.
    EndsEarly(char),
}

impl Fault {
    /// Whether a route may let the path pass nevertheless.
    pub fn may_pass(self) -> bool {
        match self {
            Self::NotAPath
            | Self::Climbs
            | Self::Control(_)
            | Self::Overlong
            | Self::WideEscape
            | Self::TooDeep
            | Self::TooManyReadings => false,
            Self::Backslash
            | Self::NamesAHost
            | Self::BadEscape
            | Self::NotUtf8(_)
            | Self::NotEncoded(_)
            | Self::EndsEarly(_) => true,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotAPath => f.write_str("it does not begin with a slash"),
            Self::Climbs => f.write_str("it has a part of dots or spaces only, such as '..'"),
            Self::Control(c) => write!(f, "it has a control character, %{:02X}", u32::from(c)),
            Self::Overlong => f.write_str("it encodes a character in more bytes than UTF-8 allows"),
            Self::WideEscape => f.write_str("it has an escape with %u, which only some servers decode"),
            Self::TooDeep => write!(f, "it is percent-encoded more than {DECODINGS} times"),
            Self::TooManyReadings => write!(f, "it can be read in more than {MAX_READINGS} ways"),
            Self::Backslash => {
                f.write_str("it has a backslash (%5C), which some servers read as a slash and others do not")
            }
            Self::NamesAHost => {
                f.write_str("it begins with two slashes, and some servers take what follows for a host")
            }
            Self::BadEscape => f.write_str(
                "it has a '%' that two hexadecimal digits do not follow; a percent sign is written as %25",
            ),
            Self::NotUtf8(byte) => write!(f, "it has %{byte:02X}, which is not UTF-8"),
            Self::NotEncoded(c) => write!(f, "it has the character {c:?}, which must be percent-encoded"),
            Self::EndsEarly(c) => write!(
                f,
                "it has an encoded '{c}' (%{:02X}), which some servers take for the end of the path",
                u32::from(c)
            ),
        }
    }
}

/// All readings of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Those of the whole path, in the form of [`canonical`]. Empty if there is only the path as it
    /// was sent.
    whole: Vec<String>,
    /// Those without some of its segments, in the same form.
    aliases: Vec<String>,
    /// Whether all servers read it alike, except for case, a final slash, and what `aliases` and
    /// `segments` drop.
    plain: bool,
    fault: Option<Fault>,
}

impl Readings {
    /// Why the path is refused, unless a route says otherwise.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Whether all servers read the path alike, except for case, a final slash, and what some of
    /// them drop: suffixes, final dots and names of scripts.
    pub fn is_plain(&self) -> bool {
        self.plain && self.fault.is_none()
    }

    /// The canonical readings of the whole path.
    pub(super) fn whole<'a>(&'a self, raw: &'a str) -> impl Iterator<Item = &'a str> {
        let only = self.whole.is_empty().then_some(raw);
        only.into_iter().chain(self.whole.iter().map(String::as_str))
    }

    /// The canonical readings without some of its segments.
    pub(super) fn aliases(&self) -> impl Iterator<Item = &str> {
        self.aliases.iter().map(String::as_str)
    }

    /// Notes a fault. One that never passes outweighs one that may.
    fn found(&mut self, fault: Fault) {
        if self.fault.is_none_or(|known| known.may_pass() && !fault.may_pass()) {
            self.fault = Some(fault);
        }
    }

    /// Adds the readings of servers that decode these paths, from never to [`DECODINGS`] times.
    fn decode(&mut self, mut stages: Vec<Vec<u8>>, as_sent: &str) {
        for decodings in 0..=DECODINGS {
            // Some servers drop parameters before they decode, and an encoded slash in one with it.
            stages
                .extend(stages.iter().filter_map(|stage| without_all_parameters(stage)).collect::<Vec<_>>());
            let mut next = Vec::with_capacity(stages.len());
            for stage in &stages {
                let text = text(stage, self);
                judge(&text, decodings, self);
                for variant in variants(&text) {
                    let reading = canonical(&variant);
                    self.plain &= reading == as_sent;
                    self.add(reading);
                    // Others take this step before they decode.
                    push(&mut next, decode(variant.as_bytes()));
                }
                // Others replace what is not UTF-8, and read the rest.
                push(&mut next, decode(String::from_utf8_lossy(stage).as_bytes()));
                // It is refused, however it is read.
                if self.fault.is_some_and(|fault| !fault.may_pass()) {
                    return;
                }
                push(&mut next, decode(stage));
            }
            if next.iter().all(|decoded| stages.contains(decoded)) {
                return;
            }
            stages = next;
        }
        self.found(Fault::TooDeep);
    }

    /// Adds a canonical reading of the whole path, and its aliases.
    fn add(&mut self, reading: String) {
        let aliases = aliases::of(&reading);
        if aliases.iter().chain([&reading]).any(|path| segments::climbs(path)) {
            self.found(Fault::Climbs);
        }
        push(&mut self.whole, reading);
        for alias in aliases {
            push(&mut self.aliases, alias);
        }
        if self.whole.len() + self.aliases.len() > MAX_READINGS {
            self.found(Fault::TooManyReadings);
        }
    }
}

/// Maximum number of times that a path is decoded.
const DECODINGS: usize = 3;

/// Maximum number of readings of a path.
const MAX_READINGS: usize = 64;

/// Reads a path. It allocates nothing for the usual plain paths.
pub fn read(raw: &str) -> Readings {
    let mut readings = Readings { plain: true, ..Readings::default() };
    if is_simple(raw) {
        return readings;
    }
    if !raw.starts_with('/') {
        readings.found(Fault::NotAPath);
    }
    if let Some(c) = raw.chars().find(|c| !c.is_ascii_graphic()) {
        readings.found(if c.is_control() { Fault::Control(c) } else { Fault::NotEncoded(c) });
    }
    let lower = raw.to_lowercase();
    let as_sent = lower.strip_suffix('/').unwrap_or(&lower);
    let mut stages = vec![raw.as_bytes().to_vec()];
    stages.extend(without_stray_percents(raw.as_bytes()));
    let has_stray = stages.len() > 1;
    readings.decode(stages, as_sent);
    if has_stray {
        readings.found(Fault::BadEscape);
    }
    readings
}

/// The form in which a path without escapes, such as that of a rule, is compared: in lower case,
/// without parameters, empty segments and a final slash.
pub fn canonical(path: &str) -> String {
    let mut folded = String::with_capacity(path.len());
    for segment in path.split('/').map(without_parameters).filter(|segment| !segment.is_empty()) {
        folded.push('/');
        match segment.is_ascii() {
            true => folded.extend(segment.chars().map(|c| c.to_ascii_lowercase())),
            // Some letters, such as the long s, have a capital in ASCII.
            false => folded.extend(segment.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase)),
        }
    }
    folded
}

/// Whether a path is this prefix or lies below it, segment by segment.
pub fn is_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a path has one reading, which is the path itself.
fn is_simple(raw: &str) -> bool {
    let simple = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.');
    raw.starts_with('/')
        && raw.bytes().all(simple)
        && !raw.ends_with('.')
        && !raw.as_bytes().windows(2).any(|pair| matches!(pair, [b'/', b'/' | b'.'] | [b'.', b'/']))
        && aliases::script(raw).is_none()
}

/// Decodes once. A `%` that begins no escape stays.
fn decode(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match (escaped(rest), byte) {
            (Some(octet), b'%') => {
                decoded.push(octet);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => decoded.push(*byte),
        }
    }
    decoded
}

/// A path without each `%` that begins no escape, as some servers read it. `None` if it has none.
fn without_stray_percents(bytes: &[u8]) -> Option<Vec<u8>> {
    let is_stray = |at: usize| {
        bytes.get(at) == Some(&b'%') && escaped(bytes.get(at + 1..).unwrap_or_default()).is_none()
    };
    (0..bytes.len()).any(is_stray).then(|| {
        let kept = bytes.iter().enumerate().filter(|(at, _)| !is_stray(*at));
        kept.map(|(_, byte)| *byte).collect()
    })
}

/// The octet that the two digits behind a `%` stand for.
fn escaped(digits: &[u8]) -> Option<u8> {
    let [high, low, ..] = digits else { return None };
    Some(hex(*high)? << 4 | hex(*low)?)
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The bytes as text. Bytes that are not UTF-8 are read as Latin-1.
fn text<'a>(bytes: &'a [u8], readings: &mut Readings) -> Cow<'a, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(error) => {
            let bad = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
            readings.found(if has_overlong(bytes) { Fault::Overlong } else { Fault::NotUtf8(bad) });
            Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect())
        }
    }
}

/// Whether a lax decoder of UTF-8 could find a character in a form that is too long.
fn has_overlong(bytes: &[u8]) -> bool {
    let follows = |byte: u8| byte & 0xc0 == 0x80;
    bytes.windows(2).any(|pair| match *pair {
        [0xc0 | 0xc1, next] => follows(next),
        [0xe0, next] => (0x80..0xa0).contains(&next),
        [0xf0, next] => (0x80..0x90).contains(&next),
        _ => false,
    })
}

/// Notes what is wrong with a path that was decoded this number of times.
fn judge(text: &str, decodings: usize, readings: &mut Readings) {
    let text = narrow(text);
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        readings.found(Fault::Control(c));
    }
    if has_wide_escape(&text) {
        readings.found(Fault::WideEscape);
    }
    if text.contains('\\') {
        readings.found(Fault::Backslash);
    }
    if text.starts_with(['/', '\\']) && text.get(1..).is_some_and(|rest| rest.starts_with(['/', '\\'])) {
        readings.found(Fault::NamesAHost);
    }
    if let Some(c) = text.chars().find(|c| matches!(c, '?' | '#')).filter(|_| decodings > 0) {
        readings.found(Fault::EndsEarly(c));
    }
}

/// Whether there is a `%u` with four digits.
fn has_wide_escape(text: &str) -> bool {
    text.as_bytes().windows(6).any(|escape| match escape {
        [b'%', b'u' | b'U', digits @ ..] => digits.iter().all(u8::is_ascii_hexdigit),
        _ => false,
    })
}

/// The ways to read a path that is decoded.
///
/// A rule has no backslash, `?` or `#`. So where such a character stays, no rule matches that would
/// not match without it, and the combinations of those that stay need no reading of their own.
fn variants(text: &str) -> Vec<Cow<'_, str>> {
    let mut all = vec![Cow::Borrowed(text)];
    let narrow = narrow(text);
    let path = match narrow.contains('\\') {
        true => Cow::Owned(narrow.replace('\\', "/")),
        false => narrow.clone(),
    };
    if narrow != text {
        all.push(narrow);
    }
    // A backslash may stand in the host.
    let hosts = [behind_host(text), behind_host(&path)].map(|path| path.map(Cow::Owned));
    for path in [Some(path)].into_iter().chain(hosts).flatten() {
        let end = path.find(['?', '#']).map(|end| path.get(..end).unwrap_or_default().to_owned());
        all.push(path);
        all.extend(end.map(Cow::Owned));
    }
    all
}

/// What follows the host in a path that begins with two slashes.
fn behind_host(path: &str) -> Option<String> {
    let rest = path.strip_prefix("//")?.trim_start_matches('/');
    Some(rest.find('/').map_or("/", |slash| &rest[slash..]).to_owned())
}

/// Characters that some servers fold to ASCII: full-width forms, and other dots.
fn narrow(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{2024}' | '\u{fe52}' | '\u{3002}' | '\u{ff61}' => folded.push('.'),
            '\u{2025}' => folded.push_str(".."),
            '\u{2026}' => folded.push_str("..."),
            '\u{2044}' | '\u{2215}' => folded.push('/'),
            // Its small letter is an `i` and a combining dot.
            '\u{130}' => folded.push('i'),
            '\u{ff01}'..='\u{ff5e}' => {
                folded.push(char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c));
            }
            _ => folded.push(c),
        }
    }
    Cow::Owned(folded)
}

fn without_parameters(segment: &str) -> &str {
    segment.split(';').next().unwrap_or_default()
}

/// A path that is not decoded, without its parameters. `None` if it has none.
fn without_all_parameters(bytes: &[u8]) -> Option<Vec<u8>> {
    let name = |segment: &[u8]| segment.split(|byte| *byte == b';').next().unwrap_or_default().to_vec();
    let segments = || bytes.split(|byte| *byte == b'/').map(name);
    bytes.contains(&b';').then(|| segments().collect::<Vec<_>>().join(&b'/'))
}

fn push<T: PartialEq>(all: &mut Vec<T>, reading: T) {
    if !all.contains(&reading) {
        all.push(reading);
    }
}

#[cfg(test)]
mod tests;
