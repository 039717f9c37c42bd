//! The private listener: what each right opens, and that nothing else does.

use std::{
    fs::File,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use claviger_mock::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Endpoint, Fault, FaultKind};
use http::{Method, StatusCode, header};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::world::{ADA, Process, World, echo, listen, patiently, status_of};

/// Every address, with the right that it needs.
const ADDRESSES: &[(Method, &str, &str)] = &[
    (Method::GET, "/v1/check", "check"),
    (Method::GET, "/v1/check/", "check"),
    (Method::GET, "/v1/check/some/page?x=y", "check"),
    (Method::GET, "/metrics", "metrics"),
    (Method::POST, "/v1/app-token", "app-token"),
];

/// A file of credentials, kept by the command.
struct Credentials {
    directory: tempfile::TempDir,
}

impl Credentials {
    fn none() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("claviger.credentials")
    }

    /// Runs `claviger credentials`, and returns what it printed.
    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
        command.env_clear().arg("credentials").args(arguments).arg("--file").arg(self.file());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn add(&self, name: &str, right: &str) -> String {
        self.run(&["add", name, "--right", right]).trim().to_owned()
    }

    /// A secret for each right that opens an address.
    fn of_each_right(&self) -> [(&'static str, String); 3] {
        ["check", "metrics", "app-token"].map(|right| (right, self.add(right, right)))
    }

    fn settings(&self, listen: &str) -> String {
        format!("private.listen = \"{listen}\"\nprivate.credentials_file = {:?}\n", self.file())
    }

    /// A gateway with these credentials, in front of an app that anybody may ask.
    async fn world(&self) -> World {
        let open = "routes = [{ path = \"/\", assurance = \"none\" }]\nmetrics.listen = \"127.0.0.1:0\"\n";
        World::new(echo(), &format!("{}{open}", self.settings("127.0.0.1:0"))).await
    }
}

fn ask(world: &World, method: &Method, path: &str, secret: &str) -> reqwest::RequestBuilder {
    let url = format!("http://{}{path}", world.private_at.as_ref().unwrap());
    world.client.request(method.clone(), url).bearer_auth(secret)
}

/// The status of an answer, and the code in its JSON.
async fn code(request: reqwest::RequestBuilder) -> (u16, String) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let body: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default();
    (status, body["error"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn the_document_names_each_address_and_its_right() {
    let document = claviger_gateway::private::document().unwrap();
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let documented = paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, operation)| {
            let right = operation["security"][0]["credential"][0].as_str().unwrap();
            format!("{} {path} {right}", method.to_uppercase())
        })
    });
    // What Envoy appends is no address of its own.
    let known = ADDRESSES.iter().filter(|(_, path, _)| !path.starts_with("/v1/check/"));
    let mut known: Vec<_> = known.map(|(method, path, right)| format!("{method} {path} {right}")).collect();
    let mut documented: Vec<_> = documented.collect();
    known.sort_unstable();
    documented.sort_unstable();
    assert_eq!(documented, known);
}

/// The headers that the document names for an answer of `GET /v1/check`.
fn documented_headers(status: &str) -> Vec<String> {
    let document = claviger_gateway::private::document().unwrap();
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let headers = &document["paths"]["/v1/check"]["get"]["responses"][status]["headers"];
    headers.as_object().unwrap().keys().map(|name| name.to_lowercase()).collect()
}

#[tokio::test]
async fn the_document_names_the_headers_of_the_check() {
    let credentials = Credentials::none();
    let secret = credentials.add("front", "check");
    let settings = format!("{}assertion.audience = \"the app\"\n", credentials.settings("127.0.0.1:0"));
    let world = World::new(echo(), &settings).await;
    let cookie = world.sign_in(ADA).await;
    let navigates = |asked: reqwest::RequestBuilder| {
        asked.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document")
    };
    let check = || navigates(ask(&world, &Method::GET, "/v1/check", &secret));
    for (asked, status) in [(check().header(header::COOKIE, cookie), "200"), (check(), "401")] {
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status().as_str(), status);
        let mut sent: Vec<_> = answer.headers().keys().map(|name| name.as_str().to_owned()).collect();
        sent.retain(|name| name.starts_with("x-auth-"));
        // A cookie is renewed after a change of keys only.
        sent.extend((status == "200").then(|| "set-cookie".to_owned()));
        let mut documented = documented_headers(status);
        sent.sort_unstable();
        documented.sort_unstable();
        assert_eq!(documented, sent, "{status}");
    }
}

#[tokio::test]
async fn each_right_opens_its_addresses_and_no_other() {
    let credentials = Credentials::none();
    let rights = ["check", "metrics", "app-token", "delegations:clips"];
    let secrets = rights.map(|right| (right, credentials.add(&right.replace(':', "-"), right)));
    let world = credentials.world().await;
    for (method, path, needed) in ADDRESSES {
        for (right, secret) in &secrets {
            let (status, code) = code(ask(&world, method, path, secret)).await;
            let is_refused = (status, code.as_str()) == (403, "right_missing");
            assert_eq!(is_refused, right != needed, "{method} {path} with {right}: {status} {code}");
        }
        let refused = ask(&world, method, path, &secrets[3].1).send().await.unwrap();
        let challenge = &refused.headers()[header::WWW_AUTHENTICATE];
        assert_eq!(challenge, &format!("Bearer error=\"insufficient_scope\", scope=\"{needed}\"") as &str);
        assert_eq!(refused.headers()[header::CACHE_CONTROL], "no-store");
    }
    let (_, secret) = &secrets[0];
    assert_eq!(code(ask(&world, &Method::GET, "/nothing", secret)).await, (404, "not_found".to_owned()));
    let metrics = ask(&world, &Method::POST, "/metrics", &secrets[1].1);
    assert_eq!(code(metrics).await, (405, "method_not_allowed".to_owned()));
}

#[tokio::test]
async fn without_a_valid_credential_nothing_opens_and_others_are_served() {
    let credentials = Credentials::none();
    let secret = credentials.add("prometheus", "metrics");
    let world = credentials.world().await;
    let at = |path: &str| format!("http://{}{path}", world.private_at.as_ref().unwrap());
    for (path, fields) in [
        ("/metrics", &[][..]),
        ("/nothing", &[]),
        ("/metrics", &["Basic cHJvbWV0aGV1czpt"]),
        ("/metrics", &[&format!("Bearer {secret}x")]),
        ("/metrics", &["Bearer claviger_credential_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
        ("/metrics", &[&format!("Bearer {secret}"), &format!("Bearer {secret}")]),
        (&format!("/metrics?access_token={secret}"), &[]),
    ] {
        let asked = fields
            .iter()
            .fold(world.client.get(at(path)), |asked, field| asked.header(header::AUTHORIZATION, *field));
        let answer = asked.send().await.unwrap();
        let challenge = answer.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().to_owned();
        assert!(answer.status() == StatusCode::UNAUTHORIZED && challenge.starts_with("Bearer"), "{path}");
        let body = answer.text().await.unwrap();
        assert!(body.contains("\"credential_") && !body.contains(&secret), "{path}: {body}");
    }
    let mut statuses = Vec::new();
    for _ in 0..30 {
        statuses.push(ask(&world, &Method::GET, "/metrics", "wrong").send().await.unwrap().status());
    }
    assert!(statuses.contains(&StatusCode::TOO_MANY_REQUESTS), "tries are limited: {statuses:?}");
    let shown = ask(&world, &Method::GET, "/metrics", &secret).send().await.unwrap();
    assert_eq!(shown.status(), StatusCode::OK, "a valid credential is served all the same");
    let shown = shown.text().await.unwrap();
    assert!(shown.contains("claviger_private_requests_total{outcome=\"wrong_credential\"} "), "{shown}");
    assert!(!shown.contains(&secret) && !shown.contains("prometheus"), "SECRET");
}

/// Anybody who reaches the port could keep all of its connections otherwise.
#[tokio::test]
async fn a_refused_request_ends_its_connection() {
    let credentials = Credentials::none();
    let secret = credentials.add("prometheus", "metrics");
    let world = credentials.world().await;
    let private = world.private_at.clone().unwrap();
    let served = format!("GET /nothing HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\n\r\n");
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut statuses = Vec::new();
    for _ in 0..30 {
        let answer = raw(&private, &format!("{served}{request}{served}")).await;
        let (first, last) = answer.split_at(answer.rfind("HTTP/1.1").unwrap());
        assert!(status_of(first) == 404 && !first.contains("connection: close"), "{first}");
        assert!(last.contains("connection: close"), "{last}");
        statuses.push(status_of(last));
    }
    assert!(statuses.contains(&401) && statuses.contains(&429), "{statuses:?}");

    for (shown, ends) in [(secret.as_str(), false), ("wrong", true)] {
        let stream = TcpStream::connect(&private).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        let mut over = tokio::spawn(connection);
        let mut ask = || {
            let request = http::Request::get(format!("http://{private}/nothing"))
                .header(header::AUTHORIZATION, format!("Bearer {shown}"));
            client.send_request(request.body(()).unwrap(), true).unwrap().0
        };
        let answer = patiently(ask()).await.unwrap();
        assert!(!answer.headers().contains_key(header::CONNECTION));
        assert_eq!(answer.status() == StatusCode::NOT_FOUND, !ends);
        drop(answer);
        if ends {
            patiently(&mut over).await.unwrap().expect("GOAWAY without an error");
        } else {
            assert_eq!(patiently(ask()).await.unwrap().status(), StatusCode::NOT_FOUND);
        }
    }
}

#[tokio::test]
async fn the_private_check_means_the_same_as_the_public_one() {
    let credentials = Credentials::none();
    let secret = credentials.add("front", "check");
    let world = credentials.world().await;
    let cookie = world.sign_in(ADA).await;
    for query in ["", "?assurance=cookie", "?assurance=provider&max_age=60", "/a?b=c", "?assurance=all"] {
        for cookie in [Some(&cookie), None] {
            let with = |asked: reqwest::RequestBuilder| match cookie {
                Some(cookie) => asked.header(header::COOKIE, cookie),
                None => asked,
            };
            let private = with(ask(&world, &Method::GET, &format!("/v1/check{query}"), &secret));
            let public = with(world.get(&format!("/auth/check{query}")));
            let [private, public] = [private.send().await.unwrap(), public.send().await.unwrap()];
            assert_eq!(private.status(), public.status(), "{query}");
            let names = |answer: &reqwest::Response| {
                let mut fields: Vec<_> =
                    answer.headers().iter().map(|(n, v)| (n.clone(), v.clone())).collect();
                fields.retain(|(name, _)| name != header::DATE);
                fields.sort_by_key(|(name, _)| name.to_string());
                fields
            };
            assert_eq!(names(&private), names(&public), "{query}");
            assert_eq!(private.text().await.unwrap(), public.text().await.unwrap(), "{query}");
        }
    }
}

#[tokio::test]
async fn the_apps_own_token_is_one_for_all_and_replaced_when_it_is_dead() {
    let credentials = Credentials::none();
    let secret = credentials.add("worker", "app-token");
    let world = credentials.world().await;
    let fetch = async |body: String| {
        let asked = ask(&world, &Method::POST, "/v1/app-token", &secret).body(body);
        let answer = asked.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
        let body: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        (status.as_u16(), headers.contains_key(header::RETRY_AFTER), body)
    };
    world.mock.with(|mock| mock.add_fault(Fault::once(Endpoint::Token, FaultKind::status(503))));
    let (status, has_pause, body) = fetch(String::new()).await;
    assert_eq!((status, has_pause, body["error"].as_str()), (503, true, Some("provider_unavailable")));

    // The pause after a failure is over.
    let (_, _, first) = patiently(async {
        loop {
            let answer = fetch(String::new()).await;
            if answer.0 == 200 {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!((first["provider"].as_str(), first["token_type"].as_str()), (Some("twitch"), Some("Bearer")));
    assert!(first["expires_in"].as_u64().unwrap() > 600, "{first}");
    let token = first["access_token"].as_str().unwrap();
    let of_another = fetch("{\"rejected\": \"another\"}".to_owned()).await.2;
    assert_eq!(of_another["access_token"], token, "a report about another token changes nothing");
    assert_eq!(world.mock.with(|mock| mock.token_calls("client_credentials")), 2);

    assert!(world.mock.with(|mock| mock.kill_token(token)));
    let report = |token: &str| format!("{{\"rejected\": \"{token}\"}}");
    let second = fetch(report(token)).await.2;
    let second = second["access_token"].as_str().unwrap();
    assert_ne!(second, token);
    let (status, has_pause, body) = fetch(report(second)).await;
    assert_eq!((status, has_pause, body["error"].as_str()), (503, true, Some("provider_unavailable")));
    assert_eq!(fetch(String::new()).await.2["access_token"], second, "a report is believed once a minute");
    for wrong in ["x", "[]", "{\"dead\": \"x\"}"] {
        assert_eq!(fetch(wrong.to_owned()).await.0, 400, "{wrong}");
    }
}

/// Sends these bytes to an address, and returns everything that comes back.
async fn raw(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is a close as well.
    let _closed = patiently(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Targets of requests that a careless server takes for this path.
fn tricks(path: &str, private: &str) -> Vec<String> {
    let (encoded, bare) = (path.replace('/', "%2f"), path.trim_start_matches('/'));
    vec![
        path.to_owned(),
        format!("/{path}"),
        format!("{path}/"),
        format!("{path};x"),
        format!("/.{path}"),
        format!("/x/..{path}"),
        format!("/auth/..{path}"),
        format!("/api/twitch/..{path}"),
        format!("/x/%2e%2e{path}"),
        format!("/x/..%2f{bare}"),
        format!("/{encoded}"),
        encoded,
        format!("/\\{bare}"),
        path.to_uppercase(),
        format!("http://{private}{path}"),
        format!("http://localhost@{private}{path}"),
        format!("http://localhost{path}"),
    ]
}

#[tokio::test]
async fn nothing_of_it_is_reached_through_the_other_listeners() {
    let credentials = Credentials::none();
    let secrets = credentials.of_each_right();
    let world = credentials.world().await;
    let cookie = world.sign_in(ADA).await;
    let (private, origin) = (world.private_at.clone().unwrap(), world.origin());
    for (right, secret) in &secrets {
        for (method, path, _) in ADDRESSES.iter().filter(|(_, _, needed)| needed == right) {
            for target in tricks(path, &private) {
                for host in ["localhost", private.as_str(), "private", "127.0.0.1"] {
                    let request = format!(
                        "{method} {target} HTTP/1.1\r\nhost: {host}\r\norigin: {origin}\r\ncookie: {cookie}\r\nauthorization: Bearer {secret}\r\n\
                         x-forwarded-host: {private}\r\nx-original-uri: {path}\r\nx-rewrite-url: {path}\r\n\
                         connection: close\r\n\r\n"
                    );
                    let answer = world.raw(&request).await;
                    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                    assert!(!head.contains("x-auth-user"), "{target} {host}: {answer}");
                    let shows = |words: &str| body.contains(words);
                    assert!(!shows("# TYPE") && !shows("access_token"), "{target} {host}: {answer}");
                    let from_app = body.contains("\"target\"");
                    let refused = status_of(&answer) >= 300 && !body.contains("credential_");
                    assert!(from_app || refused, "{target} {host}: {answer}");
                }
            }
        }
    }
    for path in ["/v1/check", "/v1/check/", "/v1%2fcheck", "/x/../v1/check"] {
        let address = world.metrics.unwrap().to_string();
        let secret = &secrets[0].1;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {secret}\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(status_of(&raw(&address, &request).await), 404, "{path}");
    }
}

#[tokio::test]
async fn a_right_is_not_widened_by_the_path_or_the_host() {
    let credentials = Credentials::none();
    let secret = credentials.add("front", "check");
    let world = credentials.world().await;
    let private = world.private_at.clone().unwrap();
    let mut targets = tricks("/metrics", &private);
    targets.extend(tricks("/v1/app-token", &private));
    targets.extend(["", "/..", "/%2e%2e"].map(|up| format!("/v1/check{up}/../metrics")));
    for target in targets {
        for (method, host) in [("GET", private.as_str()), ("POST", "localhost"), ("POST", "evil.example")] {
            let request = format!(
                "{method} {target} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {secret}\r\nx-original-uri: /metrics\r\n\
                 connection: close\r\n\r\n"
            );
            let answer = raw(&private, &request).await;
            let shows = answer.contains("# TYPE") || answer.contains("access_token");
            assert!(status_of(&answer) >= 400 && !shows, "{target} {host}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_script_of_a_page_gets_no_permission() {
    let credentials = Credentials::none();
    let secrets = credentials.of_each_right();
    let world = credentials.world().await;
    for (method, path, needed) in ADDRESSES {
        for origin in [&world.origin(), "https://evil.example", "null"] {
            let url = format!("http://{}{path}", world.private_at.as_ref().unwrap());
            let preflight = world.client.request(Method::OPTIONS, url).header(header::ORIGIN, origin);
            let preflight = preflight
                .header("access-control-request-method", method.as_str())
                .header("access-control-request-headers", "authorization");
            let secret = secrets.iter().find(|(right, _)| right == needed).map(|(_, secret)| secret).unwrap();
            let asked = ask(&world, method, path, secret).header(header::ORIGIN, origin);
            for (request, is_preflight) in [(preflight, true), (asked, false)] {
                let answer = request.send().await.unwrap();
                let allows = |name: &http::HeaderName| name.as_str().starts_with("access-control-");
                assert!(!answer.headers().keys().any(allows), "{path} {origin}: {answer:?}");
                assert!(!is_preflight || answer.status().is_client_error(), "{path} {origin}: {answer:?}");
            }
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn it_may_be_at_a_unix_socket() {
    let credentials = Credentials::none();
    let secret = credentials.add("prometheus", "metrics");
    let path = credentials.directory.path().join("private.sock");
    let world = World::new(echo(), &credentials.settings(&format!("unix:{}", path.display()))).await;
    for (secret, expected) in [(secret.as_str(), 200), ("wrong", 401)] {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let request = format!(
            "GET /metrics HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        patiently(stream.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(status_of(&answer), expected, "{answer}");
    }
    drop(world);
}

/// Each use is logged by its name. A change of the file takes effect without a restart.
#[tokio::test]
async fn a_change_of_credentials_needs_no_restart_and_uses_are_logged() {
    let credentials = Credentials::none();
    let old = credentials.add("front", "check");
    let free = || listen().local_addr().unwrap();
    let (address, private, nobody) = (free(), free(), free());
    let directory = credentials.directory.path();
    let config = directory.join("claviger.toml");
    let text = format!(
        r#"
        listen = "{address}"
        public_url = "http://localhost:{port}"
        insecure_plain_http_for_development = true
        keyring = ["1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"]
        store.path = {path:?}
        provider.client_id = "{DEMO_CLIENT_ID}"
        provider.client_secret = "{DEMO_CLIENT_SECRET}"
        provider.mock_url_for_development = "http://{nobody}"
        log.filter = "debug"
        {private_settings}
        "#,
        port = address.port(),
        path = directory.join("claviger.db"),
        private_settings = credentials.settings(&private.to_string()),
    );
    std::fs::write(&config, text).unwrap();
    let log = directory.join("log");
    let mut serve = Command::new(env!("CARGO_BIN_EXE_claviger"));
    serve.arg("serve").arg("--config").arg(&config);
    serve.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let _running = Process(serve.spawn().unwrap());

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let error = async |secret: &str| {
        let asked = client.get(format!("http://{private}/v1/check")).bearer_auth(secret);
        let body = asked.send().await.ok()?.bytes().await.ok()?;
        let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
        Some(body["error"].as_str()?.to_owned())
    };
    let until = async |secret: &str, expected: &str| {
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        patiently(async {
            while error(secret).await.as_deref() != Some(expected) {
                ticks.tick().await;
            }
        })
        .await;
    };
    until(&old, "sign_in_required").await;
    let new = credentials.run(&["add", "front"]).trim().to_owned();
    until(&new, "sign_in_required").await;
    assert_eq!(error(&old).await.as_deref(), Some("sign_in_required"), "both work");
    credentials.run(&["revoke", "front", "--older"]);
    until(&old, "credential_invalid").await;
    assert_eq!(error(&new).await.as_deref(), Some("sign_in_required"));

    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("used a credential") && log.contains("front"), "{log}");
    for secret in [&old, &new] {
        let (_, random) = secret.split_at("claviger_credential_".len());
        assert!(!log.contains(random), "SECRET");
    }
}

/// SECRET: a script in a page can ask the public check, but has no credential.
#[tokio::test]
async fn only_the_private_check_answers_with_an_assertion() {
    let credentials = Credentials::none();
    let secret = credentials.add("front", "check");
    let settings = format!("{}assertion.audience = \"the app\"\n", credentials.settings("127.0.0.1:0"));
    let world = World::new(echo(), &settings).await;
    let cookie = world.sign_in(ADA).await;
    for query in ["", "?assurance=cookie", "?assurance=optional", "?assurance=provider&max_age=1"] {
        let asked = |request: reqwest::RequestBuilder| async {
            let answer = request.header(header::COOKIE, &cookie).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{query}");
            answer.headers().get("x-auth-assertion").map(|value| value.to_str().unwrap().split('.').count())
        };
        let private = ask(&world, &Method::GET, &format!("/v1/check{query}"), &secret);
        assert_eq!(asked(private).await, Some(3), "{query}");
        assert_eq!(asked(world.get(&format!("/auth/check{query}"))).await, None, "{query}");
        let shown = world.get(&format!("/auth/check{query}")).bearer_auth(&secret);
        assert_eq!(asked(shown).await, None, "a credential counts at the private listener only");
    }
    let nobody = ask(&world, &Method::GET, "/v1/check?assurance=optional", &secret).send().await.unwrap();
    assert!(!nobody.headers().contains_key("x-auth-assertion"));
}
