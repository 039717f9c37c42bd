//! Reading, setting and removing our cookies. An app's own cookies are never touched.

use claviger_core::policy::limits;
use cookie::Cookie;
use http::{HeaderMap, HeaderValue, header};

use crate::site::Site;

/// Every cookie of a request with its value, as the browser sent them. HTTP/2 may split them over several fields.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter(|field| field.len() <= limits::COOKIE_HEADER_BYTES)
        .flat_map(|field| pieces(field.as_bytes()))
        .filter_map(|pair| {
            let pair = pair.trim_ascii();
            let (name, rest) = pair.split_at(memchr::memchr(b'=', pair)?);
            Some((name, rest.get(1..)?))
        })
}

/// What stands between the semicolons. On the way of every request, so the semicolons are looked for many bytes at a time.
fn pieces(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = memchr::memchr_iter(b';', field).chain([field.len()]);
    ends.scan(0, |from, end| {
        let piece = field.get(*from..end);
        *from = end + 1;
        piece
    })
}

/// Other cookies may hold any bytes and hide none of ours. A value that is no text still shows that its cookie is there.
fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or_default()
}

/// The value of the only cookie of this name. None if there is none, or more than one: then one of them was planted
/// by somebody else, and taking either would be a guess.
pub(crate) fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = every(headers, name);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// The values of all cookies of this name.
pub(crate) fn every<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    pairs(headers).filter(move |(known, _)| *known == name.as_bytes()).map(|(_, value)| text(value))
}

/// The names of cookies that begin so, in the order of the request.
pub(crate) fn with_prefix<'a>(headers: &'a HeaderMap, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    pairs(headers).filter(move |(name, _)| name.starts_with(prefix.as_bytes())).map(|(name, _)| text(name))
}

/// Adds a Set-Cookie field.
pub(crate) fn set(headers: &mut HeaderMap, cookie: &Cookie<'_>) {
    match HeaderValue::try_from(cookie.to_string()) {
        Ok(mut value) => {
            value.set_sensitive(true);
            headers.append(header::SET_COOKIE, value);
        }
        Err(_) => tracing::error!("a cookie could not be written: its value is not fit for a header"),
    }
}

/// Whether an answer is for one client only; one that says nothing of caches is made so. An app's own word is left alone.
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

/// Takes our cookies out of a request and leaves the app's as they are.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let fields: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    headers.remove(header::COOKIE);
    for field in fields {
        let kept = without_ours(field.as_bytes()).and_then(|kept| HeaderValue::from_bytes(&kept).ok());
        if let Some(mut value) = kept {
            value.set_sensitive(true);
            headers.append(header::COOKIE, value);
        }
    }
}

fn without_ours(field: &[u8]) -> Option<Vec<u8>> {
    let kept: Vec<&[u8]> =
        pieces(field).map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty() && !is_ours(pair)).collect();
    (!kept.is_empty()).then(|| kept.join(&b"; "[..]))
}

fn is_ours(pair: &[u8]) -> bool {
    let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
    std::str::from_utf8(name).is_ok_and(Site::is_ours)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(fields: &[&str]) -> HeaderMap {
        fields.iter().map(|field| (header::COOKIE, HeaderValue::from_str(field).unwrap())).collect()
    }

    #[test]
    fn one_cookie_is_found_and_two_of_a_name_are_refused() {
        let table = [
            (vec!["a=1; n=2"], Some("2")),
            (vec!["n=2"], Some("2")),
            (vec!["a=1", "n=2"], Some("2")),
            (vec!["n=2=="], Some("2==")),
            (vec!["n=1; n=2"], None),
            (vec!["n=1", "n=1"], None),
            (vec!["N=1"], None),
            (vec!["nn=1"], None),
            (vec![], None),
        ];
        for (fields, expected) in table {
            assert_eq!(only(&headers(&fields), "n"), expected, "{fields:?}");
        }
    }

    #[test]
    fn bytes_of_others_hide_nothing() {
        let table: [(&[u8], Option<&str>); 4] = [
            (b"a=\xc3\xab; n=1", Some("1")),
            (b"\xff=\xfe; n=1; \xff", Some("1")),
            (b"n=1; n=\xff", None),
            (b"n\xff=1", None),
        ];
        for (field, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::from_bytes(field).unwrap());
            assert_eq!(only(&headers, "n"), expected, "{field:?}");
        }
    }

    #[test]
    fn what_a_shared_cache_may_keep_is_not_made_private() {
        let table: [(&[(&str, &str)], bool); 8] = [
            (&[], true),
            (&[("cache-control", "no-store")], true),
            (&[("cache-control", "max-age=60, Private")], true),
            (&[("cache-control", "max-age=60"), ("cache-control", "private")], true),
            (&[("cache-control", "public, max-age=60")], false),
            (&[("cache-control", "no-cache")], false),
            (&[("cache-control", "private=\"set-cookie\"")], false),
            (&[("cdn-cache-control", "max-age=60")], false),
        ];
        for (fields, expected) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(make_private(&mut headers), expected, "{fields:?}");
            assert!(!expected || headers.contains_key(header::CACHE_CONTROL), "{fields:?}");
        }
    }

    #[test]
    fn an_oversized_field_is_not_read() {
        let long = format!("n=1; a={}", "x".repeat(limits::COOKIE_HEADER_BYTES));
        assert_eq!(only(&headers(&[&long]), "n"), None);
    }

    #[test]
    fn an_app_sees_its_own_cookies_only() {
        let table: [(&[&str], &[&str]); 5] = [
            (&["a=1; __Host-claviger=x; b=2"], &["a=1; b=2"]),
            (&["__Host-claviger=x"], &[]),
            (&["a=1", "__Host-claviger-login-abc=x; claviger-insecure=y"], &["a=1"]),
            (&["__Host-claviger-hint=x;a=1"], &["a=1"]),
            (&["__Host-clavigerette=x"], &["__Host-clavigerette=x"]),
        ];
        for (before, after) in table {
            let mut stripped = headers(before);
            strip(&mut stripped);
            let left: Vec<_> = stripped.get_all(header::COOKIE).iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(left, after, "{before:?}");
        }
    }

    proptest! {
        #[test]
        fn no_cookie_of_ours_reaches_an_app(field in "([ab;= ]|__Host-claviger|claviger-insecure|-hint|-login-x)*") {
            let mut stripped = headers(&[&field]);
            strip(&mut stripped);
            let ours = pairs(&stripped).any(|(name, _)| Site::is_ours(text(name).trim()));
            prop_assert!(!ours);
        }
    }
}
