//! Reads, sets and removes our cookies. An app's own cookies stay as they are.

use std::{collections::BTreeSet, fmt, ops::Range};

use claviger_core::limits;
use cookie::Cookie;
use http::{HeaderMap, HeaderValue, header};

use crate::site::{Ours, Site, mark};

/// Our cookies in a request, read once.
#[derive(Clone, Default)]
pub(crate) struct Cookies {
    /// Most requests have one of ours, which needs no list.
    first: Option<Piece>,
    more: Vec<Piece>,
    fields: usize,
}

/// The request has more octets of cookies than are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// One of our cookies in a field.
#[derive(Clone)]
struct Piece {
    ours: Ours,
    field: HeaderValue,
    /// The number of the field among all of this name.
    number: usize,
    name: Range<usize>,
    value: Range<usize>,
    /// All that goes if the cookie is removed.
    whole: Range<usize>,
}

impl Cookies {
    /// Finds our cookies. HTTP/2 may split them over several fields (RFC 9113 section 8.2.3).
    pub(crate) fn read(site: &Site, headers: &HeaderMap) -> Result<Self, TooLarge> {
        let (mut found, mut octets) = (Self::default(), 0);
        for (number, field) in headers.get_all(header::COOKIE).iter().enumerate() {
            octets += field.len();
            if octets > limits::COOKIE_HEADER_BYTES {
                return Err(TooLarge);
            }
            found.fields = number + 1;
            for whole in pieces(field.as_bytes()) {
                if let Some(piece) = Piece::read(site, field, number, whole) {
                    found.push(piece);
                }
            }
        }
        Ok(found)
    }

    fn push(&mut self, piece: Piece) {
        match &self.first {
            None => self.first = Some(piece),
            Some(_) => self.more.push(piece),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Piece> {
        self.first.iter().chain(&self.more)
    }

    fn of(&self, ours: Ours) -> impl Iterator<Item = &Piece> {
        self.all().filter(move |piece| piece.ours == ours)
    }

    /// Whether there is any that a session or a sign-in may have.
    pub(crate) fn is_any(&self) -> bool {
        self.all().any(|piece| piece.ours != Ours::LedHere)
    }

    /// Whether the browser was just led to this address at the public host.
    pub(crate) fn led_here(&self, target: &str) -> bool {
        let mark = mark(target);
        self.of(Ours::LedHere).any(|piece| piece.value() == mark)
    }

    /// The values of all session cookies.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = &str> {
        self.of(Ours::Session).map(Piece::value)
    }

    /// The values of all session cookies, each once.
    pub(crate) fn distinct_sessions(&self) -> BTreeSet<&str> {
        self.sessions().collect()
    }

    /// The value of the session cookie.
    pub(crate) fn session(&self) -> Option<&str> {
        only(self.sessions())
    }

    /// The value of the cookie that carries an access token.
    pub(crate) fn cached_token(&self) -> Option<&str> {
        only(self.of(Ours::CachedToken).map(Piece::value))
    }

    /// The value of the sign-in cookie of this name.
    pub(crate) fn login(&self, name: &str) -> Option<&str> {
        only(self.of(Ours::Login).filter(|piece| piece.name() == name).map(Piece::value))
    }

    /// The values of the sign-in cookies.
    pub(crate) fn login_values(&self) -> impl Iterator<Item = &str> {
        self.of(Ours::Login).map(Piece::value)
    }

    /// The names of the sign-in cookies, in the order of the request.
    pub(crate) fn logins(&self) -> impl Iterator<Item = &str> {
        self.of(Ours::Login).map(Piece::name)
    }

    /// Removes our cookies from the request that they were read of, and leaves the app's own in one
    /// field.
    pub(crate) fn strip(&self, headers: &mut HeaderMap) {
        if self.first.is_none() && self.fields < 2 {
            return;
        }
        let mut kept: Vec<u8> = Vec::new();
        for (number, field) in headers.get_all(header::COOKIE).iter().enumerate() {
            let (field, mut rest, mut from) = (field.as_bytes(), Vec::new(), 0);
            for Piece { whole, .. } in self.all().filter(|piece| piece.number == number) {
                rest.extend(field.get(from..whole.start).unwrap_or_default());
                from = whole.end;
            }
            rest.extend(field.get(from..).unwrap_or_default());
            let rest = without_blank_ends(&rest);
            if !kept.is_empty() && !rest.is_empty() {
                kept.extend(b"; ");
            }
            kept.extend(rest);
        }
        headers.remove(header::COOKIE);
        if let Some(mut value) = HeaderValue::from_bytes(&kept).ok().filter(|value| !value.is_empty()) {
            value.set_sensitive(true);
            headers.insert(header::COOKIE, value);
        }
    }
}

/// It never shows a value.
impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all().map(|piece| piece.ours)).finish()
    }
}

impl Piece {
    fn read(site: &Site, field: &HeaderValue, number: usize, whole: Range<usize>) -> Option<Self> {
        let bytes = field.as_bytes().get(whole.clone())?;
        let start = whole.start + bytes.len() - bytes.trim_ascii_start().len();
        let pair = bytes.trim_ascii();
        let equals = memchr::memchr(b'=', pair);
        let name = start..start + equals.unwrap_or(pair.len());
        let ours = site.ours(field.as_bytes().get(name.clone())?, equals.is_some())?;
        let value = (name.end + 1).min(start + pair.len())..start + pair.len();
        // The semicolon after it goes along.
        let whole = whole.start..(whole.end + 1).min(field.len());
        Some(Self { ours, field: field.clone(), number, name, value, whole })
    }

    fn name(&self) -> &str {
        text(&self.field, &self.name)
    }

    fn value(&self) -> &str {
        text(&self.field, &self.value)
    }
}

fn without_blank_ends(field: &[u8]) -> &[u8] {
    let counts = |byte: &u8| !byte.is_ascii_whitespace() && *byte != b';';
    match (field.iter().position(counts), field.iter().rposition(counts)) {
        (Some(first), Some(last)) => field.get(first..=last).unwrap_or_default(),
        _ => b"",
    }
}

/// A part of a field. Bytes that are not UTF-8 become empty text, so that the cookie still counts.
fn text<'a>(field: &'a HeaderValue, part: &Range<usize>) -> &'a str {
    let bytes = field.as_bytes().get(part.clone()).unwrap_or_default();
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// The places between the semicolons of a field. It runs on every request, so memchr finds them.
fn pieces(field: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let ends = memchr::memchr_iter(b';', field).chain([field.len()]);
    ends.scan(0, |from, end| Some(std::mem::replace(from, end + 1)..end))
}

/// The value that all cookies of a name have. If they differ, one was planted, and choosing would
/// be a guess.
fn only<'a>(mut values: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let value = values.next()?;
    values.all(|other| other == value).then_some(value)
}

/// Adds a `Set-Cookie` field.
pub(crate) fn set(headers: &mut HeaderMap, cookie: &Cookie<'_>) {
    match HeaderValue::try_from(cookie.to_string()) {
        Ok(mut value) => {
            value.set_sensitive(true);
            headers.append(header::SET_COOKIE, value);
        }
        Err(_) => tracing::error!("a cookie was not set: its value is not valid in a header"),
    }
}

/// Returns whether only one client may keep this answer. An answer without `Cache-Control` is made
/// private; a value that the app set is left alone.
pub(crate) fn make_private(headers: &mut HeaderMap) -> bool {
    if headers.contains_key("surrogate-control") || headers.contains_key("cdn-cache-control") {
        return false;
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
        return true;
    }
    let fields = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|field| field.to_str().ok());
    let mut words = fields.flat_map(|field| field.split(',')).map(str::trim);
    words.any(|word| ["private", "no-store"].iter().any(|private| word.eq_ignore_ascii_case(private)))
}

#[cfg(test)]
mod tests;
