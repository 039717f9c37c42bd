use super::*;

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect()
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn headers_of_one_connection_end_here() {
    let mut given = headers(&[
        ("connection", "close, X-Own , cookie, host"),
        ("connection", "x-other"),
        ("x-own", "1"),
        ("x-other", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic x"),
        ("cookie", "a=1"),
        ("host", "app.example"),
        ("accept", "*/*"),
    ]);
    end_hop(&mut given);
    assert_eq!(names(&given), ["accept", "cookie", "host"]);
}

#[test]
fn an_upgrade_is_asked_for_by_both_headers() {
    type Case<'a> = (&'a [(&'static str, &'a str)], Option<&'a str>);
    let table: [Case<'_>; 4] = [
        (&[("connection", "Upgrade"), ("upgrade", "websocket")], Some("websocket")),
        (&[("connection", "keep-alive, upgrade"), ("upgrade", "x")], Some("x")),
        (&[("upgrade", "websocket")], None),
        (&[("connection", "upgrade")], None),
    ];
    for (fields, expected) in table {
        assert_eq!(
            upgrade(&headers(fields)).as_ref().map(|value| value.to_str().unwrap()),
            expected,
            "{fields:?}"
        );
    }
}

#[test]
fn split_cookies_are_joined() {
    let mut given = headers(&[("cookie", "a=1"), ("cookie", "b=2; c=3")]);
    join_cookies(&mut given);
    let fields: Vec<_> = given.get_all("cookie").iter().collect();
    assert_eq!(fields, ["a=1; b=2; c=3"]);
}

#[test]
fn a_stranger_says_nothing_about_where_a_request_came_from() {
    let sent = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "ftp"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-prefix", "/evil"),
        ("x_forwarded_for", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("x-original-url", "/admin"),
        ("x-rewrite-url", "/admin"),
        ("accept", "*/*"),
    ];
    let client = |trusted| Client {
        peer: "10.0.0.9".parse().unwrap(),
        trusted,
        scheme: "https",
        host: Some(HeaderValue::from_static("app.example")),
    };
    let mut stranger = headers(&sent);
    forwarded(&mut stranger, &client(false));
    assert_eq!(names(&stranger), ["accept", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]);
    assert_eq!(stranger["x-forwarded-for"], "10.0.0.9");
    assert_eq!(stranger["x-forwarded-proto"], "https");
    assert_eq!(stranger["x-forwarded-host"], "app.example");

    let mut trusted = headers(&sent);
    forwarded(&mut trusted, &client(true));
    assert_eq!(trusted["x-forwarded-for"], "6.6.6.6, 10.0.0.9");
    assert_eq!(trusted["x-forwarded-host"], "evil.example");
    for gone in ["x_forwarded_for", "x-original-url", "x-rewrite-url"] {
        assert!(!trusted.contains_key(gone), "{gone}");
    }
}

#[test]
fn an_app_sets_its_own_cookies_only() {
    let mut given = headers(&[
        ("set-cookie", "app=1; Path=/"),
        ("set-cookie", "ours=evil; Path=/"),
        ("set-cookie", " ours =evil"),
        ("set-cookie", "ours"),
        ("set-cookie", "=ours=evil"),
        ("set-cookie", " = ours=evil"),
        ("set-cookie", "other=2"),
    ]);
    retain_set_cookies(&mut given, |name| name != "ours");
    let left: Vec<_> = given.get_all("set-cookie").iter().collect();
    assert_eq!(left, ["app=1; Path=/", "other=2"]);
}
