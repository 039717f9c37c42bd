//! What is decided by a request's head: host, proxies, claims, path, framing, cookies.

use claviger_core::limits;
use http::{StatusCode, header};

use crate::world::{ADA, Told, World, echo, location, status_of};

const FRONT: &str = "trusted_proxies = [\"10.0.0.0/8\", \"127.0.0.0/30\"]\n";

/// The head of a request to this path, with these lines.
fn get(path: &str, lines: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nconnection: close\r\n{lines}\r\n").into_bytes()
}

#[tokio::test]
async fn the_app_learns_the_chain_that_trusted_proxies_appended() {
    let open = "routes = [{ path = \"/\", assurance = \"none\" }]\n";
    let table: &[(&[&[u8]], &str, &str)] = &[
        (&[b"6.6.6.6"], "6.6.6.6, 127.0.0.1", "127.0.0.1"),
        (&[b"\xff, 6.6.6.6"], "6.6.6.6, 127.0.0.1", "127.0.0.1"),
        (&[b"\xff", b"6.6.6.6"], "6.6.6.6, 127.0.0.1", "127.0.0.1"),
        (&[b"1.1.1.1, 6.6.6.6:4711"], "6.6.6.6, 127.0.0.1", "127.0.0.1"),
        (&[b"\xff"], "127.0.0.1", "127.0.0.1"),
        (&[], "127.0.0.1", "127.0.0.1"),
    ];
    let (front, nobody) =
        (World::new(echo(), &format!("{FRONT}{open}")).await, World::new(echo(), open).await);
    for (fields, from_front, from_anybody) in table {
        for (world, expected) in [(&front, from_front), (&nobody, from_anybody)] {
            let mut request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n".to_vec();
            for field in *fields {
                request.extend([b"x-forwarded-for: ", *field, b"\r\n"].concat());
            }
            request.extend(b"\r\n");
            let told = Told::parse(&world.raw(request).await);
            assert_eq!(told.all("x-forwarded-for"), [*expected], "{fields:?}");
        }
    }
}

#[tokio::test]
async fn no_claim_of_a_client_reaches_the_app_even_through_a_trusted_proxy() {
    let claims = "x-forwarded-host: evil.example\r\nx-forwarded-proto: ftp\r\nx-forwarded-port: 1\r\n\
                  x-forwarded-prefix: /evil\r\nx-forwarded-user: admin\r\nx-forwarded-email: a@b\r\n\
                  x-forwarded-groups: admin\r\nx-forwarded-access-token: x\r\nforwarded: for=6.6.6.6\r\n\
                  x-real-ip: 6.6.6.6\r\ntrue-client-ip: 6.6.6.6\r\nx-client-ip: 6.6.6.6\r\nproxy: http://evil\r\n\
                  remote-user: admin\r\nx-remote-user: admin\r\nx_remote_user: admin\r\nx-client-cert: x\r\n\
                  cf-connecting-ip: 6.6.6.6\r\nscript_name: /public\r\nSCRIPT-NAME: /public\r\npath_info: /x\r\n\
                  x-script-name: /public\r\noidc_claim_email: a@b\r\nhttp-client-ip: 6.6.6.6\r\n\
                  forwarded-for: 6.6.6.6\r\ntransfer_encoding: gzip\r\ncontent_length: 7\r\nx-http-method-override: DELETE\r\nx-original-url: /admin\r\n\
                  host: localhost\r\naccept: */*\r\n";
    let open = "routes = [{ path = \"/\", assurance = \"none\" }]\n";
    for settings in [open.to_owned(), format!("{FRONT}{open}")] {
        let world = World::new(echo(), &settings).await;
        let told = Told::parse(&world.raw(get("/", claims)).await);
        let mut names = told.names();
        names.sort_unstable();
        assert_eq!(names, ["accept", "host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]);
        assert_eq!(told.all("x-forwarded-host"), [format!("localhost:{}", world.address.port())]);
        assert_eq!(told.all("x-forwarded-proto"), ["http"]);
    }
    let settings = format!("{FRONT}{open}proxy.pass_headers = [\"X-Forwarded-Prefix\", \"X-Client-Cert\"]");
    let world = World::new(echo(), &settings).await;
    let told = Told::parse(&world.raw(get("/", claims)).await);
    assert_eq!((told.all("x-forwarded-prefix"), told.all("x-client-cert")), (vec!["/evil"], vec!["x"]));
    assert!(told.all("x-forwarded-user").is_empty());
}

#[tokio::test]
async fn a_request_names_one_valid_host() {
    let world = World::echoing().await;
    let refused = [
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nhost:\r\n",
        "GET / HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n",
        "GET / HTTP/1.1\r\nhost: a, b\r\n",
        "GET / HTTP/1.1\r\nhost: evil<x>\r\n",
        "GET / HTTP/1.1\r\nhost: evil@localhost\r\n",
        "GET http://evil@localhost/ HTTP/1.1\r\nhost: localhost\r\n",
        "GET /auth/check HTTP/1.1\r\n",
        "GET /healthz HTTP/1.1\r\nhost: a/b\r\n",
    ];
    for head in refused {
        let answer = world.raw(format!("{head}connection: close\r\n\r\n")).await;
        assert_eq!(status_of(&answer), 400, "{head:?}: {answer}");
    }
    let old = world.raw("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(status_of(&old), 401, "HTTP/1.0 names no host: {old}");
}

#[tokio::test]
async fn a_window_at_another_host_is_led_to_the_public_one_once() {
    let world = World::echoing().await;
    let (origin, window) = (world.origin(), "accept: text/html\r\n");
    for host in ["www.localhost", "127.0.0.1", "evil.example", "LOCALHOST.example:80"] {
        for path in
            ["/", "/auth/login?return_to=/x", "/auth/sign-in", "/auth/callback?state=x", "/a/b?c=d%20e"]
        {
            let request = get(path, &format!("host: {host}\r\n{window}"));
            let answer = world.raw(&request).await;
            assert!(answer.contains(&format!("location: {origin}{path}\r\n")), "{host}{path}: {answer}");
            assert_eq!(status_of(&answer), 303, "{host}{path}");
            let cookie = answer.split("set-cookie: ").nth(1).unwrap().split(';').next().unwrap();
            let again = get(path, &format!("host: {host}\r\n{window}cookie: {cookie}\r\n"));
            let answer = world.raw(again).await;
            assert_eq!(status_of(&answer), 421, "{host}{path}: {answer}");
            assert!(
                answer.contains(host) && answer.contains(&origin) && answer.contains("text/html"),
                "{answer}"
            );
        }
        let program = world.raw(get("/", &format!("host: {host}\r\n"))).await;
        assert_eq!(status_of(&program), 421, "{host}");
        assert!(program.contains("wrong_host") && !program.contains("location:"), "{program}");
        let form = format!(
            "POST / HTTP/1.1\r\nhost: {host}\r\n{window}content-length: 0\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(
            status_of(&world.raw(form).await),
            421,
            "{host}: what a form holds is not repeated elsewhere"
        );
    }
    let ours = world.raw(get("/", &format!("host: localhost:1\r\n{window}"))).await;
    assert!(ours.contains("location: /auth/sign-in"), "ports are not compared: {ours}");
}

#[tokio::test]
async fn a_sign_in_that_begins_at_another_host_ends_well() {
    let world = World::echoing().await;
    let begun = world.client.get(format!("http://{}/auth/login?return_to=/inbox", world.address));
    let led = begun.header(header::ACCEPT, "text/html").send().await.unwrap();
    assert_eq!(location(&led), format!("{}/auth/login?return_to=/inbox", world.origin()));
    assert!(!world.sign_in(ADA).await.is_empty());
}

#[tokio::test]
async fn some_paths_may_be_asked_by_any_name() {
    let world = World::echoing().await;
    for (path, status) in
        [("/healthz", 200), ("/readyz", 200), ("/auth/check", 401), ("/auth/check?denied=redirect", 401)]
    {
        let answer = world.raw(get(path, "host: inner.example\r\n")).await;
        assert_eq!(status_of(&answer), status, "{path}: {answer}");
    }
    let webhook = world.raw(get("/auth/webhook", "host: inner.example\r\n")).await;
    assert_ne!(status_of(&webhook), 421, "{webhook}");
    for path in ["/auth/checks", "/auth/session", "/api/twitch/users", "/"] {
        assert_eq!(status_of(&world.raw(get(path, "host: inner.example\r\n")).await), 421, "{path}");
    }
}

#[tokio::test]
async fn a_trusted_proxys_own_name_for_the_gateway_is_served_as_the_public_host() {
    let open = "routes = [{ path = \"/\", assurance = \"none\" }]\n";
    let world = World::new(echo(), &format!("{FRONT}{open}")).await;
    for host in ["127.0.0.1:8080", "[::1]", "claviger", "claviger:8080"] {
        let told = Told::parse(&world.raw(get("/", &format!("host: {host}\r\n"))).await);
        let public = format!("localhost:{}", world.address.port());
        assert_eq!(
            (told.all("host"), told.all("x-forwarded-host")),
            (vec![public.as_str()], vec![public.as_str()])
        );
    }
    assert_eq!(status_of(&world.raw(get("/", "host: inner.example\r\n")).await), 421);
    let stranger = World::new(echo(), open).await;
    assert_eq!(status_of(&stranger.raw(get("/", "host: claviger\r\n")).await), 421);
}

#[tokio::test]
async fn other_hosts_are_served_and_users_sign_in_at_the_public_one() {
    let settings = "other_hosts = [\"www.app.example\", \"shop.example:8443\"]\n\
                    routes = [{ path = \"/open\", assurance = \"none\" }]";
    let world = World::new(echo(), settings).await;
    for (host, expected) in [("www.app.example", "www.app.example"), ("SHOP.example", "shop.example:8443")] {
        let told = Told::parse(&world.raw(get("/open", &format!("host: {host}\r\n"))).await);
        assert_eq!((told.all("host"), told.all("x-forwarded-host")), (vec![expected], vec![expected]));
        let window = format!("host: {host}\r\naccept: text/html\r\n");
        let denied = world.raw(get("/closed", &window)).await;
        assert!(denied.contains("location: /auth/sign-in?return_to=%2Fclosed"), "{denied}");
        let led = world.raw(get("/auth/sign-in?return_to=%2Fclosed", &window)).await;
        let target = format!("location: {}/auth/sign-in?return_to=%2Fclosed\r\n", world.origin());
        assert!(led.contains(&target), "{led}");
        assert_eq!(status_of(&world.raw(get("/auth/style.css", &format!("host: {host}\r\n"))).await), 200);
        assert_eq!(status_of(&world.raw(get("/auth/session", &format!("host: {host}\r\n"))).await), 401);
    }
}

#[tokio::test]
async fn no_sign_in_begins_or_ends_at_another_host() {
    let world = World::new(echo(), "other_hosts = [\"www.app.example\"]").await;
    let host = "host: www.app.example\r\n";
    let window = format!("{host}accept: text/html\r\n");
    for path in
        ["/auth/login?return_to=/x", "/auth/sign-in", "/auth/callback?state=x&code=y", "/auth/devices"]
    {
        let led = world.raw(get(path, &window)).await;
        assert!(led.contains(&format!("location: {}{path}\r\n", world.origin())), "{path}: {led}");
        assert!(!led.contains("login-"), "no sign-in has begun: {led}");
        let mark = led.split("set-cookie: ").nth(1).unwrap().split(';').next().unwrap();
        assert!(!mark.contains("code"), "SECRET: {mark}");
        let again = world.raw(get(path, &format!("{window}cookie: {mark}\r\n"))).await;
        assert_eq!(status_of(&again), 421, "a circle ends: {path}: {again}");
        assert!(again.contains("text/html") && again.contains("www.app.example"), "{again}");
        for other in ["claviger-led-here=1", "claviger-led-here=0000000000000000"] {
            let planted = world.raw(get(path, &format!("{window}cookie: {other}\r\n"))).await;
            assert_eq!(status_of(&planted), 303, "another address: {path}: {planted}");
        }
    }
    let second_tab = {
        let led = world.raw(get("/auth/sign-in", &window)).await;
        let mark = led.split("set-cookie: ").nth(1).unwrap().split(';').next().unwrap();
        world.raw(get("/auth/devices", &format!("{window}cookie: {mark}\r\n"))).await
    };
    assert_eq!(status_of(&second_tab), 303, "{second_tab}");
    for path in ["/auth/login", "/auth/callback?state=x&code=y"] {
        let program = world.raw(get(path, host)).await;
        assert_eq!(status_of(&program), 421, "{path}: {program}");
        assert!(program.contains("sign in and out at"), "{program}");
    }
    for path in ["/auth/logout", "/auth/devices/end-others"] {
        for lines in [host, &window] {
            let post =
                format!("POST {path} HTTP/1.1\r\ncontent-length: 0\r\nconnection: close\r\n{lines}\r\n");
            let answer = world.raw(post).await;
            assert_eq!(status_of(&answer), 421, "{path}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_body_is_framed_clearly_or_refused() {
    let world = World::new(echo(), "routes = [{ path = \"/\", assurance = \"none\" }]").await;
    for coding in ["gzip, chunked", "chunked, chunked", "chunked\r\ntransfer-encoding: chunked", "gzip"] {
        let request = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: {coding}\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        );
        assert_eq!(status_of(&world.raw(request).await), 400, "{coding}");
        let request = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\ncookie: {}\r\ntransfer-encoding: {coding}\r\n\r\n\
             3\r\nabc\r\n0\r\n\r\nGET /second HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
            "x".repeat(limits::COOKIE_HEADER_BYTES + 1)
        );
        let answer = world.raw(request).await;
        assert!([400, 431].contains(&status_of(&answer)), "{coding}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "no second request was read: {answer}");
    }
    for method in ["GET", "DELETE", "OPTIONS", "POST"] {
        let request = format!(
            "{method} /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
             3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
        );
        let told = Told::parse(&world.raw(request).await);
        assert_eq!((told.0["method"].as_str(), told.0["body"].as_str()), (Some(method), Some("abcdefg")));
        let request = format!(
            "{method} /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc"
        );
        assert_eq!(Told::parse(&world.raw(request).await).0["body"], "abc", "{method}");
    }
}

/// Decision 0021 has this table.
#[tokio::test]
async fn some_things_are_decided_before_the_head_is_read() {
    let world =
        World::new(echo(), "routes = [{ path = \"/\", assurance = \"none\", tolerates_faults = true }]")
            .await;
    let body = "\r\n3\r\nabc\r\n0\r\n\r\nGET /second HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let both = format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 7\r\ntransfer-encoding: chunked\r\n{body}"
    );
    let answer = world.raw(both).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "it is the last on its connection: {answer}");
    let told = Told::parse(&answer);
    assert_eq!(told.0["body"], "abc");
    assert!(told.all("content-length").is_empty(), "{answer}");
    for lengths in
        ["content-length: 3\r\ncontent-length: 4\r\n", "content-length: 3, 4\r\n", "content-length: +3\r\n"]
    {
        let request = format!("POST / HTTP/1.1\r\nhost: localhost\r\n{lengths}\r\nabcd");
        assert_eq!(status_of(&world.raw(request).await), 400, "{lengths}");
    }
    let bare = "GET /x HTTP/1.1\nhost: localhost\nconnection: close\naccept: a/b\n\n";
    assert_eq!(Told::parse(&world.raw(bare).await).all("accept"), ["a/b"]);
    for target in ["/?\"", "/?<", "/?>", "/a`", "/a<", "/a>"] {
        let answer = world.raw(get(target, "host: localhost\r\naccept: text/html\r\n")).await;
        assert_eq!(status_of(&answer), 400, "{target}");
        assert!(!answer.contains("html"), "{answer}");
    }
    for target in [b"/?\xff", b"/a\xff"] {
        let request = [b"GET ", &target[..], b" HTTP/1.1\r\nhost: localhost\r\n\r\n"].concat();
        assert_eq!(status_of(&world.raw(request).await), 400, "{target:?}");
    }
}

#[tokio::test]
async fn too_many_cookies_are_never_no_session() {
    let world = World::new(echo(), "routes = [{ path = \"/open\", assurance = \"none\" }]").await;
    let cookie = world.sign_in(ADA).await;
    let with = |octets: usize| format!("{cookie}; app={}", "x".repeat(octets));
    for path in ["/", "/open", "/auth/session", "/auth/check", "/api/twitch/users"] {
        let answer = world.get(path).header(header::COOKIE, with(20 * 1024)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let answer =
            world.get(path).header(header::COOKIE, with(limits::COOKIE_HEADER_BYTES)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "{path}");
        assert!(answer.text().await.unwrap().contains("too_many_cookies"), "{path}");
    }
    for (path, octets, expected) in [
        ("/open", 20 * 1024, StatusCode::FORBIDDEN),
        ("/open", limits::COOKIE_HEADER_BYTES, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        ("/auth/logout", limits::COOKIE_HEADER_BYTES, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
    ] {
        let foreign = world.client.post(world.url(path)).header(header::ORIGIN, "https://evil.example");
        let answer = foreign.header(header::COOKIE, with(octets)).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{path}");
    }
    let out = world.post("/auth/logout").header(header::COOKIE, with(20 * 1024)).send().await.unwrap();
    assert_eq!(out.status(), StatusCode::NO_CONTENT);
    let gone = world.get("/auth/session").header(header::COOKIE, cookie).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_route_may_let_ambiguous_addresses_pass() {
    let settings = "routes = [\n\
        { path = \"/\", assurance = \"none\", tolerates_faults = true },\n\
        { path = \"/strict\", assurance = \"none\" },\n\
        { path = \"/admin\", assurance = \"session\" }]";
    let world = World::new(echo(), settings).await;
    for (path, status) in [
        ("//k8s/pods", 200),
        ("/wiki/100%", 200),
        ("/wiki/a%5Cb", 200),
        ("/wiki/what%3F", 200),
        ("/wiki/caf%e9", 200),
        ("/strict/100%", 400),
        ("/wiki/..%2fadmin", 400),
        ("/wiki/%u002e%u002e/admin", 400),
        ("/wiki/%.%./admin", 400),
        ("/%5Cadmin%3Fx", 401),
        ("/index.php/admin", 401),
        ("/admin.php/x", 401),
        ("/(S(x))/admin", 401),
        ("/admin%C2%A0", 401),
        ("/admin::$DATA", 401),
        ("/v1.2/x", 200),
        ("/a:b/@user", 200),
        ("/index.php/x", 200),
        ("/wiki/%00", 400),
        ("//x/admin", 401),
        ("/%5Cadmin", 401),
        ("/admin.json", 401),
        ("/admin%20", 401),
        ("/auth%5Cx", 200),
    ] {
        assert_eq!(world.raw_status(path, "").await, status, "{path}");
    }
    let told = Told::parse(&world.raw(get("//k8s/a%5Cb?q=%", "host: localhost\r\n")).await);
    assert_eq!(told.0["target"], "//k8s/a%5Cb?q=%", "passed on as it is");
    let closed = World::echoing().await;
    for (path, words) in
        [("/wiki/100%", "%25"), ("/a%5cb", "%5C"), ("//k8s", "two slashes"), ("/caf%e9", "%E9")]
    {
        let answer = closed.raw(get(path, "host: localhost\r\n")).await;
        assert_eq!(status_of(&answer), 400, "{path}");
        assert!(answer.contains(words) && answer.contains("tolerates_faults"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn an_upgrade_other_than_websocket_is_an_ordinary_request() {
    let world = World::echoing().await;
    let cookie = world.sign_in(ADA).await;
    for upgrade in ["TLS/1.2", "h2c"] {
        let lines = format!(
            "host: localhost\r\nconnection: upgrade, close\r\nupgrade: {upgrade}\r\norigin: https://evil.example\r\n\
             sec-fetch-site: cross-site\r\ncookie: {cookie}\r\n"
        );
        let answer = world.raw(get("/", &lines)).await;
        assert_eq!(status_of(&answer), 200, "{upgrade}: {answer}");
        assert!(Told::parse(&answer).all("upgrade").is_empty());
    }
}

#[tokio::test]
async fn an_answer_of_the_provider_can_run_nothing() {
    let world = World::echoing().await;
    let cookie = world.sign_in(ADA).await;
    let answer = world.get("/api/twitch/users").header(header::COOKIE, &cookie).send().await.unwrap();
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json; charset=utf-8");
    assert!(answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("sandbox"));
}
