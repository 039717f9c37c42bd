//! The path of a request. No app may read it as one that needs more than we asked for (GATE).

use std::{collections::BTreeSet, time::Duration};

use claviger_core::{
    Assurance,
    request::{
        path::{self, Fault},
        routes::{Admission, AskedMethod, Faults, Policy, Route},
    },
};

pub(crate) const OUTCOMES: [&str; 15] = [
    "public",
    "session",
    "provider",
    "not-a-path",
    "climbs",
    "control",
    "overlong",
    "too-deep",
    "wide-escape",
    "backslash",
    "names-a-host",
    "bad-escape",
    "not-utf8",
    "not-encoded",
    "ends-early",
];

const SESSION: Admission = Admission::Vouched(Assurance::Session);
const PROVIDER: Admission = Admission::Vouched(Assurance::Provider { max_age: Duration::ZERO });

/// An app that is open but for a part.
const OPEN: [(&str, Admission); 4] = [
    ("/", Admission::Anyone),
    ("/private", SESSION),
    ("/admin", PROVIDER),
    ("/admin/logo.png", Admission::Anyone),
];
/// An app that is closed but for a part.
const CLOSED: [(&str, Admission); 4] = [
    ("/public", Admission::Anyone),
    ("/public/private", SESSION),
    ("/public/private/robots.txt", Admission::Anyone),
    ("/admin", PROVIDER),
];

/// Longer paths have too many readings to try them all.
const LONGEST: usize = 256;
const MOST_READINGS: usize = 400;

/// Reads a path, and compares our decision with those of all apps that the model knows.
pub(crate) fn check(input: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(&input[..input.len().min(LONGEST)]);
    let raw = text.strip_suffix('\n').unwrap_or(&text);
    let readings = path::read(raw);
    let models = model_readings(raw.as_bytes());
    let admission =
        |policy: &Policy| policy.ruling(AskedMethod::Any, raw, &readings).map(|ruling| ruling.admission);
    for routes in [OPEN, CLOSED] {
        for faults in [Faults::Refused, Faults::Tolerated] {
            let policy = policy(&routes, faults);
            match admission(&policy) {
                Ok(ours) => check_admission(raw, ours, &routes, &models),
                Err(fault) => {
                    assert!(!fault.to_string().is_empty());
                    assert!(readings.fault().is_some(), "{raw:?}: only a fault refuses");
                }
            }
        }
    }
    if let Some(fault) = readings.fault() {
        return name(fault);
    }
    match admission(&policy(&OPEN, Faults::Refused)) {
        Ok(Admission::Anyone) => "public",
        Ok(Admission::Vouched(Assurance::Provider { .. })) => "provider",
        _ => "session",
    }
}

fn policy(routes: &[(&str, Admission)], faults: Faults) -> Policy {
    let route = |(path, admission): &(&str, Admission)| Route {
        path: (*path).to_owned(),
        admission: *admission,
        faults,
        ..Route::default()
    };
    Policy::new(routes.iter().map(route))
}

/// An app asks at least as much as the longest of its routes that its reading is below.
fn check_admission(raw: &str, ours: Admission, routes: &[(&str, Admission)], models: &BTreeSet<Vec<u8>>) {
    // A rule for exactly this path, suffix and all, speaks for it.
    let named = routes.iter().any(|(path, _)| *path == raw);
    for reading in models {
        let whole = segments(reading);
        let mut all = vec![whole.clone()];
        if !named {
            all.extend(without_suffix(&whole));
        }
        for read in all {
            let theirs = longest(routes, &read);
            assert_eq!(
                ours.stricter(theirs),
                ours,
                "{raw:?} passes with {ours:?}, but an app reads {read:?}, which needs {theirs:?}"
            );
        }
    }
}

fn longest(routes: &[(&str, Admission)], read: &[String]) -> Admission {
    let below = |path: &str| {
        let path = segments(path.as_bytes());
        read.starts_with(&path).then_some(path.len())
    };
    let matches = routes.iter().filter_map(|(path, admission)| Some((below(path)?, *admission)));
    matches.max_by_key(|(length, _)| *length).map_or(Admission::DEFAULT, |(_, admission)| admission)
}

/// The segments of a reading for an app that ignores case and merges slashes.
fn segments(reading: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(reading).to_uppercase().to_lowercase();
    text.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
}

/// The readings of apps that take the end of a path for the form of the answer.
fn without_suffix(whole: &[String]) -> Vec<Vec<String>> {
    let Some((last, rest)) = whole.split_last() else { return Vec::new() };
    let cuts = [last.find('.'), last.rfind('.')].into_iter().flatten().filter(|dot| *dot > 0);
    cuts.map(|dot| [rest, &[last[..dot].to_owned()]].concat()).collect()
}

type Step = fn(&[u8]) -> Vec<u8>;

/// What a server does to a path. Servers do some of these, in any order.
const STEPS: [Step; 8] = [
    without_parameters,
    |path| path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect(),
    |path| path.split(|byte| matches!(byte, b'?' | b'#' | 0)).next().unwrap_or_default().to_vec(),
    |path| path.iter().copied().filter(|byte| !matches!(byte, b'\t' | b'\n' | b'\r')).collect(),
    without_dot_segments,
    |path| {
        each_segment(path, |segment| {
            let end =
                segment.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
            segment[..end].to_vec()
        })
    },
    with_lax_utf8,
    with_narrow_forms,
];
/// Number of times that a server decodes escapes.
const DECODINGS: usize = 2;
/// Number of steps that one server takes, beside decoding.
const DEPTH: usize = 4;

/// What remains of a path, how often it was decoded, and whether a host was taken off it.
type State = (Vec<u8>, usize, bool);

fn model_readings(raw: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut all: BTreeSet<State> = BTreeSet::from([(raw.to_vec(), 0, false)]);
    let mut last = all.clone();
    for _ in 0..DEPTH + DECODINGS {
        let mut next = BTreeSet::new();
        for (path, decodings, without) in &last {
            next.extend(STEPS.iter().map(|step| (step(path), *decodings, *without)));
            if *decodings < DECODINGS {
                next.insert((decoded(path), decodings + 1, *without));
            }
            if !without {
                next.insert((without_host(path), *decodings, true));
            }
        }
        next.retain(|found| !all.contains(found));
        if next.is_empty() || all.len() + next.len() > MOST_READINGS {
            break;
        }
        all.extend(next.iter().cloned());
        last = next;
    }
    all.into_iter().map(|(path, ..)| path).collect()
}

fn each_segment(path: &[u8], change: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    path.split(|byte| *byte == b'/').map(change).collect::<Vec<_>>().join(&b'/')
}

fn without_parameters(path: &[u8]) -> Vec<u8> {
    each_segment(path, |segment| segment.split(|byte| *byte == b';').next().unwrap_or_default().to_vec())
}

/// RFC 3986 section 5.2.4.
fn without_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| *byte == b'/') {
        match segment {
            b"." => {}
            b".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    let joined = kept.join(&b'/');
    if joined.starts_with(b"/") { joined } else { [b"/", joined.as_slice()].concat() }
}

/// `//host/path` names a host.
fn without_host(path: &[u8]) -> Vec<u8> {
    let Some(rest) = path.strip_prefix(b"//") else { return path.to_vec() };
    let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    if end == rest.len() { b"/".to_vec() } else { rest[end..].to_vec() }
}

fn decoded(path: &[u8]) -> Vec<u8> {
    let hex = |byte: u8| char::from(byte).to_digit(16);
    let (mut found, mut at) = (Vec::new(), 0);
    while at < path.len() {
        let escape = match path[at..] {
            [b'%', high, low, ..] => hex(high).zip(hex(low)),
            _ => None,
        };
        found.push(escape.map_or(path[at], |(high, low)| u8::try_from(high * 16 + low).unwrap()));
        at += if escape.is_some() { 3 } else { 1 };
    }
    found
}

/// A decoder of UTF-8 that accepts ASCII in two or three bytes.
fn with_lax_utf8(path: &[u8]) -> Vec<u8> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < path.len() {
        let (byte, length) = match path[at..] {
            [first @ 0xc0..=0xc1, next @ 0x80..=0xbf, ..] => ((first & 1) << 6 | next & 0x3f, 2),
            [0xe0, second @ 0x80..=0x81, third @ 0x80..=0xbf, ..] => ((second & 1) << 6 | third & 0x3f, 3),
            _ => (path[at], 1),
        };
        found.push(byte);
        at += length;
    }
    found
}

/// The full-width forms of ASCII (U+FF01 to U+FF5E) as ASCII.
fn with_narrow_forms(path: &[u8]) -> Vec<u8> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < path.len() {
        let (byte, length) = match path[at..] {
            [0xef, 0xbc, third @ 0x81..=0xbf, ..] => (third - 0x81 + b'!', 3),
            [0xef, 0xbd, third @ 0x80..=0x9e, ..] => (third - 0x80 + b'`', 3),
            _ => (path[at], 1),
        };
        found.push(byte);
        at += length;
    }
    found
}

fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::NotAPath => "not-a-path",
        Fault::Climbs => "climbs",
        Fault::Control(_) => "control",
        Fault::Overlong => "overlong",
        Fault::TooDeep => "too-deep",
        Fault::TooManyReadings => "too-many-readings",
        Fault::WideEscape => "wide-escape",
        Fault::Backslash => "backslash",
        Fault::NamesAHost => "names-a-host",
        Fault::BadEscape => "bad-escape",
        Fault::NotUtf8(_) => "not-utf8",
        Fault::NotEncoded(_) => "not-encoded",
        Fault::EndsEarly(_) => "ends-early",
    }
}
