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
fn the_app_learns_the_chain_of_proxies_and_the_public_address() {
    let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    let host = HeaderValue::from_static("app.example");
    for (front, expected) in [("10.0.0.9", "6.6.6.6, 10.0.0.9"), ("9.9.9.9", "9.9.9.9")] {
        let sent: [&[u8]; 1] = [b"1.1.1.1, 6.6.6.6"];
        let peer = Peer::read(Some(ip(front)), |address| address == ip("10.0.0.9"), sent.into_iter());
        let mut given = headers(&[("accept", "*/*")]);
        forwarded(&mut given, &Client { peer: &peer, scheme: "https", host: &host });
        assert_eq!(names(&given), ["accept", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]);
        assert_eq!(given["x-forwarded-for"], expected);
        assert_eq!(given["x-forwarded-proto"], "https");
        assert_eq!(given["x-forwarded-host"], "app.example");
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
