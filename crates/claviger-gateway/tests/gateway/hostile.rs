//! Hostile requests to every public address: each gets a clear answer, never an error of ours.

use crate::world::{ADA, World, status_of};

const ADDRESSES: &[&str] = &[
    "/",
    "/app",
    "/auth/login",
    "/auth/callback",
    "/auth/logout",
    "/auth/session",
    "/auth/devices",
    "/auth/devices/end-others",
    "/auth/devices/x/end",
    "/auth/check",
    "/auth/sign-in",
    "/auth/style.css",
    "/auth/nothing",
    "/api/twitch/users",
    "/api/twitch",
    "/healthz",
    "/readyz",
];

const QUERIES: &[&str] = &[
    "",
    "?",
    "?return_to=//evil.example",
    "?return_to=%00",
    "?state=x&code=y",
    "?state=x&state=y",
    "?error=%FF%FE",
    "?code=%F0%28%8C%28&state=",
    "?assurance=all&max_age=-1",
    "?max_age=99999999999999999999",
    "?=&=&&&",
    "?%%%",
];

const HEADERS: &[&str] = &[
    "",
    "cookie: claviger-insecure=AAAA\r\n",
    "cookie: claviger-insecure=1; claviger-insecure=2\r\n",
    "cookie: \u{e9}=\u{e9}; ;;==\r\n",
    "accept: text/html\r\nsec-fetch-mode: navigate\r\n",
    "authorization: Bearer x\r\nrange: bytes=0-\r\n",
    "x-forwarded-for: a, b\r\nx-forwarded-proto: \u{1F600}\r\n",
    "content-type: application/json\r\n",
    "content-type: application/x-www-form-urlencoded\r\n",
    "if-none-match: *\r\naccept-encoding: gzip, br\r\n",
    "origin: null\r\nsec-fetch-site: nonsense\r\n",
];

#[tokio::test]
async fn garbage_gets_a_clear_refusal() {
    let world = World::echoing().await;
    let cookie = world.sign_in(ADA).await;
    for address in ADDRESSES {
        for (number, query) in QUERIES.iter().enumerate() {
            let field = HEADERS[number % HEADERS.len()];
            let method = ["GET", "POST", "HEAD", "OPTIONS", "DELETE", "PROPFIND"][number % 6];
            let signed_in = if number % 2 == 0 && !field.starts_with("cookie") {
                format!("cookie: {cookie}\r\n")
            } else {
                String::new()
            };
            let request = format!(
                "{method} {address}{query} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{field}{signed_in}content-length: 7\r\n\r\n{{\"\u{0}\u{1}x\u{7f}&"
            );
            let answer = world.raw(request).await;
            assert!(status_of(&answer) < 500, "{method} {address}{query} {field:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let world = World::echoing().await;
    let long = "x".repeat(100_000);
    let many: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    let table: Vec<(String, &[u16])> = vec![
        ("nonsense\r\n\r\n".to_owned(), &[400]),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), &[400]),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n".to_owned(), &[400]),
        ("GET /../x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(), &[400]),
        ("GET /a\\b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(), &[400]),
        ("GET /%5c HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(), &[400]),
        ("GET /%zz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(), &[400]),
        ("OPTIONS * HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(), &[400]),
        (
            "CONNECT evil.example:443 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(),
            &[400, 405],
        ),
        ("TRACE / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(), &[405]),
        (
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx"
                .to_owned(),
            &[400],
        ),
        ("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n".to_owned(), &[400]),
        ("POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n".to_owned(), &[400]),
        (format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n"), &[414, 431]),
        (format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n"), &[431]),
        (format!("GET / HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"), &[431]),
    ];
    for (request, expected) in table {
        let answer = world.raw(&request).await;
        let shown = request.chars().take(80).collect::<String>();
        assert!(expected.contains(&status_of(&answer)), "{shown:?}: {answer:?}");
    }
}
