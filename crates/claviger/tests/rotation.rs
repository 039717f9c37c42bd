//! Keys roll while a gateway in a process of its own serves users whose tokens expire: no request fails, nobody is signed out,
//! nothing is left on the old key.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test may fail as a test does"
)]

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::Router;
use claviger_mock::{
    Config, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, LiveTokenLimit, MockTwitch, Rotation, Server, User,
};
use http::{StatusCode, header};
use serde_json::Value;

/// A wait that lasts so long is a failure.
const PATIENCE: Duration = Duration::from_secs(60);
const DEVICES: usize = 120;
const WORKERS: usize = 6;

/// A gateway, and what stands around it.
struct Site {
    mock: Server,
    address: SocketAddr,
    metrics: SocketAddr,
    directory: tempfile::TempDir,
    client: reqwest::Client,
    /// The cookie that each device holds now.
    cookies: Vec<Mutex<String>>,
    served: AtomicUsize,
    complaints: Mutex<Vec<String>>,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn claviger(arguments: &[&str], file: &Path) {
    let done = Command::new(env!("CARGO_BIN_EXE_claviger")).args(arguments).arg("--file").arg(file).output();
    let done = done.unwrap();
    assert!(done.status.success(), "{done:?}");
}

fn app() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let server = axum_server::from_tcp(listener).unwrap();
    let hello = Router::new().fallback(|| async { "hello" });
    tokio::spawn(async move { server.serve(hello.into_make_service()).await });
    address
}

impl Site {
    fn new() -> Self {
        claviger::choose_tls();
        let mock = MockTwitch::new(
            Config::demo().settings(|own| {
                own.rotation = Rotation::OneTime;
                own.live_token_limit = LiveTokenLimit::Off;
            }),
            7,
        );
        let site = Self {
            mock: Server::local(mock).unwrap(),
            address: free(),
            metrics: free(),
            directory: tempfile::tempdir().unwrap(),
            client: reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .timeout(Duration::from_secs(10))
                .build()
                .unwrap(),
            cookies: (0..DEVICES).map(|_| Mutex::default()).collect(),
            served: AtomicUsize::new(0),
            complaints: Mutex::default(),
        };
        let config = format!(
            r#"
            listen = "{address}"
            public_url = "http://localhost:{port}"
            upstream = "http://{app}"
            insecure_plain_http_for_development = true
            keyring_file = {keys:?}
            store.path = {store:?}
            session.custody = "server"
            provider.client_id = "{DEMO_CLIENT_ID}"
            provider.client_secret_file = {secret:?}
            provider.refreshes_per_second = 10000
            provider.rotation = "one_time"
            sweep.validations_per_second = 10000
            provider.mock_url_for_development = "{mock}"
            metrics.listen = "{metrics}"
            "#,
            address = site.address,
            port = site.address.port(),
            app = app(),
            keys = site.keys(),
            store = site.directory.path().join("claviger.db"),
            secret = site.secret(),
            mock = site.mock.url(),
            metrics = site.metrics,
        );
        std::fs::write(site.directory.path().join("claviger.toml"), config).unwrap();
        std::fs::write(site.secret(), DEMO_CLIENT_SECRET).unwrap();
        claviger(&["keys", "generate"], &site.keys());
        site
    }

    fn keys(&self) -> PathBuf {
        self.directory.path().join("claviger.keys")
    }

    fn secret(&self) -> PathBuf {
        self.directory.path().join("client.secret")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    async fn start(&self) -> Running {
        let log = std::fs::File::create(self.directory.path().join("log")).unwrap();
        let running =
            Running(self.serve().stdout(Stdio::from(log.try_clone().unwrap())).stderr(log).spawn().unwrap());
        self.until("it is ready", async || {
            let asked = self.client.get(format!("http://{}/readyz", self.address)).send().await;
            asked.is_ok_and(|answer| answer.status() == StatusCode::OK)
        })
        .await;
        running
    }

    fn serve(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
        command.arg("serve").arg("--config").arg(self.directory.path().join("claviger.toml"));
        command
    }

    async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let waiting = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(50));
            while !holds().await {
                ticks.tick().await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("{what}: never; the log says\n{}", self.log());
        }
    }

    /// The gateway's keys: id, role and rows of each.
    async fn listed(&self) -> Vec<(u64, String, u64)> {
        let asked = self.client.get(format!("http://{}/keys", self.metrics)).send().await.unwrap();
        let keys: Value = serde_json::from_str(&asked.text().await.unwrap()).unwrap();
        let row = |key: &Value| {
            let count = key["sessions"].as_u64().unwrap() + key["owed"].as_u64().unwrap();
            (key["id"].as_u64().unwrap(), key["role"].as_str().unwrap().to_owned(), count)
        };
        keys.as_array().unwrap().iter().map(row).collect()
    }

    /// Waits until these are the keys and what they are for.
    async fn until_roles(&self, expected: &[(u64, &str)]) {
        self.until(&format!("{expected:?}"), async || {
            let listed = self.listed().await;
            listed.iter().map(|(id, role, _)| (*id, role.as_str())).eq(expected.iter().copied())
        })
        .await;
    }

    async fn get(&self, path: &str, cookie: &str) -> reqwest::Response {
        let request = self.client.get(format!("http://{}{path}", self.address));
        request.header(header::COOKIE, cookie).send().await.unwrap()
    }

    async fn sign_in(&self) {
        for n in 0..DEVICES {
            let user = user(n);
            self.mock.with(|mock| {
                mock.add_user(User::new(user.as_str(), format!("user_{n}")));
                mock.settings_mut().authorize_at_once_as = Some(user);
            });
            let begun = self.get("/auth/login", "").await;
            let agreed = self.client.get(text(&begun, header::LOCATION)).send().await.unwrap();
            let callback = text(&agreed, header::LOCATION);
            let path = callback.split_once("/auth/").unwrap().1;
            let done = self.get(&format!("/auth/{path}"), &session_cookie(&begun, "-login-").unwrap()).await;
            *self.cookies[n].lock().unwrap() = session_cookie(&done, "=").unwrap();
        }
    }

    /// One request of a device, after which it holds what cookie it was given.
    async fn ask(&self, n: usize, round: usize) {
        let path = ["/a/page", "/auth/session", "/auth/check", "/auth/check?assurance=provider"][round % 4];
        if round.is_multiple_of(5) {
            self.mock.with(|mock| mock.expire_access_tokens(&user(n)));
        }
        let cookie = self.cookies[n].lock().unwrap().clone();
        let answer = self.get(path, &cookie).await;
        if let Some(renewed) = session_cookie(&answer, "=") {
            *self.cookies[n].lock().unwrap() = renewed;
        }
        let status = answer.status();
        if status == StatusCode::OK {
            self.served.fetch_add(1, Ordering::SeqCst);
        } else {
            let body = answer.text().await.unwrap();
            self.complaints.lock().unwrap().push(format!("{path}: {status} {body}"));
        }
    }

    /// Waits until so many more requests were served.
    async fn go_on_for(&self, requests: usize) {
        let until = self.served.load(Ordering::SeqCst) + requests;
        self.until("requests are served", async || self.served.load(Ordering::SeqCst) >= until).await;
    }

    fn assert_nobody_complains(&self, when: &str) {
        let complaints = self.complaints.lock().unwrap();
        assert!(complaints.is_empty(), "{when}: {complaints:#?}\n{}", self.log());
    }
}

fn user(n: usize) -> String {
    format!("{}", 600_000_000 + n)
}

fn text(answer: &reqwest::Response, name: http::HeaderName) -> String {
    answer.headers()[name].to_str().unwrap().to_owned()
}

/// The cookie of ours that an answer sets, whose name goes on so after the common beginning.
fn session_cookie(answer: &reqwest::Response, rest: &str) -> Option<String> {
    let set = answer.headers().get_all(header::SET_COOKIE).iter().map(|value| value.to_str().unwrap());
    let pairs = set.filter_map(|line| line.split(';').next());
    pairs.map(str::to_owned).find(|pair| pair.starts_with(&format!("claviger-insecure{rest}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_rotation_under_load_fails_no_request_and_signs_nobody_out() {
    let site = Arc::new(Site::new());
    let mut running = site.start().await;
    site.sign_in().await;
    let first_cookies: Vec<String> =
        site.cookies.iter().map(|cookie| cookie.lock().unwrap().clone()).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (site, stop) = (Arc::clone(&site), Arc::clone(&stop));
            tokio::spawn(async move {
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    // Each device is one worker's own, as a browser has one answer after the other.
                    let own = DEVICES / WORKERS;
                    site.ask(worker * own + round % own, round).await;
                }
            })
        })
        .collect();
    site.go_on_for(200).await;
    let old = std::fs::read_to_string(site.keys()).unwrap();

    // A file that lacks a key in use is refused, and so is one that is none.
    let only = site.directory.path().join("only");
    claviger(&["keys", "generate", "--id", "2"], &only);
    for (text, refusal) in [
        (std::fs::read_to_string(&only).unwrap(), "key 1 is in use by"),
        ("no keys\n".to_owned(), "a root key is written as"),
    ] {
        std::fs::write(site.keys(), text).unwrap();
        site.until(refusal, async || site.log().contains(refusal)).await;
        assert!(site.log().contains("the operator must act"), "{}", site.log());
    }
    site.go_on_for(100).await;
    site.until_roles(&[(1, "seals")]).await;
    site.assert_nobody_complains("what is refused changes nothing");

    // The new key is added, by a look at the file; then it seals, at SIGHUP.
    std::fs::write(site.keys(), old).unwrap();
    claviger(&["keys", "generate", "--next"], &site.keys());
    site.until_roles(&[(2, "next"), (1, "seals")]).await;
    site.go_on_for(200).await;
    claviger(&["keys", "promote"], &site.keys());
    let told = Command::new("kill").arg("-HUP").arg(running.0.id().to_string()).status().unwrap();
    assert!(told.success());
    site.until_roles(&[(2, "seals"), (1, "older")]).await;
    site.until("nothing is left on the old key", async || site.listed().await[1].2 == 0).await;
    site.until("every device has a new cookie", async || {
        site.cookies.iter().zip(&first_cookies).all(|(now, first)| *now.lock().unwrap() != *first)
    })
    .await;
    site.assert_nobody_complains("rotation");

    // The old key goes.
    let text = std::fs::read_to_string(site.keys()).unwrap();
    let kept: String =
        text.lines().filter(|line| line.starts_with("2:")).flat_map(|line| [line, "\n"]).collect();
    std::fs::write(site.keys(), kept).unwrap();
    site.until_roles(&[(2, "seals")]).await;
    site.go_on_for(400).await;
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await.unwrap();
    }
    site.assert_nobody_complains("without the old key");
    let reused = site.mock.with(|mock| mock.counters().reused_refresh_tokens);
    assert_eq!(reused, 0, "SPENT");
    assert!(site.log().contains("everything is sealed with the newest key"), "{}", site.log());

    // After a restart everybody is still signed in. Without the key in use it does not start.
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    let good = std::fs::read(site.keys()).unwrap();
    claviger(&["keys", "generate", "--id", "3"], &site.directory.path().join("another"));
    std::fs::copy(site.directory.path().join("another"), site.keys()).unwrap();
    let refused = site.serve().output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("key 2 is in use by 120 sessions"), "{told}");
    std::fs::write(site.keys(), good).unwrap();
    running = site.start().await;
    for n in 0..DEVICES {
        site.ask(n, 1).await;
    }
    site.assert_nobody_complains("after a restart");
    drop(running);
}
