use proptest::prelude::*;

use super::*;

fn headers(fields: &[&[u8]]) -> HeaderMap {
    fields.iter().map(|field| (header::COOKIE, HeaderValue::from_bytes(field).unwrap())).collect()
}

fn read(headers: &HeaderMap) -> Result<Cookies, TooLarge> {
    Cookies::read(&Site::new("https://app.example"), headers)
}

#[test]
fn one_session_cookie_is_found_and_two_that_differ_are_refused() {
    let table: &[(&[&[u8]], Option<&str>)] = &[
        (&[b"a=1; __Host-claviger=2"], Some("2")),
        (&[b"__Host-claviger=2"], Some("2")),
        (&[b"a=1", b"__Host-claviger=2"], Some("2")),
        (&[b"__Host-claviger=2=="], Some("2==")),
        (&[b"__Host-claviger=2; __Host-claviger=2"], Some("2")),
        (&[b"__Host-claviger=2", b"__Host-claviger=2"], Some("2")),
        (&[b"__Host-claviger=1; __Host-claviger=2"], None),
        (&[b"__Host-claviger=1", b"__Host-claviger=2"], None),
        (&[b"__host-claviger=1"], None),
        (&[b"__Host-claviger2=1"], None),
        (&[b"__Host-claviger"], None),
        (&[b"claviger-insecure=1"], None),
        (&[], None),
        (&[b"a=\xc3\xab; __Host-claviger=1"], Some("1")),
        (&[b"\xff=\xfe; __Host-claviger=1; \xff"], Some("1")),
        (&[b"__Host-claviger=1; __Host-claviger=\xff"], None),
        (&[b"__Host-claviger\xff=1"], None),
        (&[b";;==; __Host-claviger=1;"], Some("1")),
    ];
    for (fields, expected) in table {
        assert_eq!(read(&headers(fields)).unwrap().session(), *expected, "{fields:?}");
    }
}

#[test]
fn a_session_cookie_that_is_sent_often_ends_one_session() {
    let field = format!("{}__Host-claviger=b", "__Host-claviger=a; ".repeat(100));
    let cookies = read(&headers(&[field.as_bytes()])).unwrap();
    assert_eq!(cookies.sessions().count(), 101);
    assert_eq!(Vec::from_iter(cookies.distinct_sessions()), ["a", "b"]);
}

#[test]
fn sign_in_cookies_are_found_by_name_in_their_order() {
    let given =
        headers(&[b"__Host-claviger-login-b=1; x=y", b"__Host-claviger-login-a=2; __Host-claviger-hint=3"]);
    let cookies = read(&given).unwrap();
    assert_eq!(cookies.logins().collect::<Vec<_>>(), ["__Host-claviger-login-b", "__Host-claviger-login-a"]);
    assert_eq!(cookies.login("__Host-claviger-login-a"), Some("2"));
    assert_eq!(cookies.login("__Host-claviger-login-c"), None);
    assert_eq!((cookies.cached_token(), cookies.session()), (Some("3"), None));
    assert!(cookies.is_any() && !read(&headers(&[b"x=y"])).unwrap().is_any());
}

#[test]
fn too_many_octets_are_never_no_cookie() {
    let of = |octets: usize| format!("a={}", "x".repeat(octets - 2)).into_bytes();
    let half = limits::COOKIE_HEADER_BYTES / 2;
    let session: &[u8] = b"__Host-claviger=1";
    let table: &[(&[&[u8]], bool)] = &[
        (&[session, &of(limits::COOKIE_HEADER_BYTES - session.len())], true),
        (&[&of(20 * 1024), session], true),
        (&[session, &of(limits::COOKIE_HEADER_BYTES)], false),
        (&[&of(half), &of(half), session], false),
        (&[&of(limits::COOKIE_HEADER_BYTES + 1)], false),
    ];
    for (fields, fits) in table {
        let read = read(&headers(fields));
        assert_eq!(read.is_ok(), *fits, "{} fields", fields.len());
        assert!(read.is_err() || read.is_ok_and(|cookies| cookies.session() == Some("1")));
    }
}

#[test]
fn answers_for_shared_caches_are_left_alone() {
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

fn stripped(fields: &[&[u8]]) -> Vec<String> {
    let mut headers = headers(fields);
    read(&headers).unwrap().strip(&mut headers);
    headers
        .get_all(header::COOKIE)
        .iter()
        .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
        .collect()
}

#[test]
fn our_cookies_are_stripped_and_the_rest_is_one_field() {
    let table: &[(&[&[u8]], &[&str])] = &[
        (&[b"a=1; __Host-claviger=x; b=2"], &["a=1; b=2"]),
        (&[b"__Host-claviger=x"], &[]),
        (&[b"a=1", b"__Host-claviger-login-abc=x; claviger-insecure=y"], &["a=1"]),
        (&[b"__Host-claviger-hint=x;a=1"], &["a=1"]),
        (&[b"a=1;__Host-claviger=x"], &["a=1"]),
        (&[b"a=1; __Host-claviger=x;"], &["a=1"]),
        (&[b"__Host-claviger=x; __Host-claviger=y; a=1"], &["a=1"]),
        (&[b"__Host-claviger =x; claviger-insecure; a=1"], &["a=1"]),
        (&[b"__Host-clavigerette=x"], &["__Host-clavigerette=x"]),
        (&[b"a=1", b"b=2; c=3"], &["a=1; b=2; c=3"]),
        (&[b"__Host-claviger=x", b"b=2"], &["b=2"]),
        (&[b"b=2;  x", b" ", b"c"], &["b=2;  x; c"]),
        (&[b" a=1 ; b"], &[" a=1 ; b"]),
    ];
    for (before, after) in table {
        assert_eq!(stripped(before), *after, "{before:?}");
    }
}

proptest! {
    #[test]
    fn no_spelling_hides_our_cookies(
        one in "([ab;= ]|__Host-claviger|claviger-insecure|-hint|-login-x)*",
        two in "([ab;= ]|__Host-claviger|claviger-insecure|-hint|-login-x)*",
    ) {
        let mut headers = headers(&[one.as_bytes(), two.as_bytes()]);
        let kept = |headers: &HeaderMap| {
            let fields = headers.get_all(header::COOKIE).iter();
            let text: Vec<String> = fields.map(|field| field.to_str().unwrap().to_owned()).collect();
            let pairs = text.iter().flat_map(|field| field.split(';')).map(str::trim).filter(|pair| !pair.is_empty());
            let ours = |pair: &str| Site::is_ours(pair.split('=').next().unwrap().trim());
            pairs.filter(|pair| !ours(pair)).map(str::to_owned).collect::<Vec<_>>()
        };
        let before = kept(&headers);
        read(&headers).unwrap().strip(&mut headers);
        prop_assert_eq!(kept(&headers), before, "the app's cookies stay");
        prop_assert!(!read(&headers).unwrap().is_any());
    }
}
