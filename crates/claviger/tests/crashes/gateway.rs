//! A gateway in a process of its own, its users, and the load that they make.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use claviger_core::ids::SessionId;
use claviger_mock::{
    Config, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, LiveTokenLimit, MockTwitch, Rotation, Server, User,
};
use claviger_seal::{KeyId, Keyring, RootKey, SessionCookie};
use claviger_store::Store as _;
use claviger_store_sqlite::SqliteStore;
use http::{StatusCode, header};
use serde_json::Value;
use tokio::{sync::Semaphore, task::JoinHandle};

use crate::{history::Found, journal::Journal, sends::Sends};

/// A wait that lasts so long is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the gateway runs, dies and starts again.
pub(crate) struct Site {
    mock: Server,
    address: SocketAddr,
    directory: tempfile::TempDir,
    client: reqwest::Client,
    /// One permit for each answer.
    answers: Semaphore,
    complaints: Mutex<Vec<String>>,
    /// How often each device had to go to the provider and back, and got a new pair there.
    repairs: Mutex<BTreeMap<SessionId, usize>>,
    renewing: tokio::sync::Mutex<()>,
    /// How often each refresh token came to the provider.
    sends: Mutex<Sends>,
    /// The mock agrees at once as one user at a time.
    consent: tokio::sync::Mutex<()>,
}

/// A device that is signed in.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) session: SessionId,
    user: String,
    cookie: String,
}

/// A running gateway.
pub(crate) struct Running(Child);

impl Running {
    /// Kills it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Requests that go on until they are stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for worker in self.workers {
            worker.await.unwrap();
        }
    }
}

impl Site {
    pub(crate) async fn new(rotation: Rotation, settings: &str) -> Self {
        claviger::choose_tls();
        let mock = MockTwitch::new(
            Config::demo().settings(|own| {
                own.rotation = rotation;
                own.live_token_limit = LiveTokenLimit::Off;
            }),
            7,
        );
        let mock = Server::local(mock).unwrap();
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            r#"
            listen = "{address}"
            public_url = "http://localhost:{port}"
            insecure_plain_http_for_development = true
            keyring = ["1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
            store.path = {path:?}
            provider.client_id = "{DEMO_CLIENT_ID}"
            provider.client_secret = "{DEMO_CLIENT_SECRET}"
            provider.refreshes_per_second = 10000
            provider.mock_url_for_development = "{mock}"
            {settings}
            "#,
            port = address.port(),
            path = directory.path().join("claviger.db"),
            mock = mock.url(),
        );
        std::fs::write(directory.path().join("claviger.toml"), config).unwrap();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_secs(3))
            .build()
            .unwrap();
        Self {
            mock,
            address,
            directory,
            client,
            answers: Semaphore::new(0),
            complaints: Mutex::default(),
            repairs: Mutex::default(),
            renewing: tokio::sync::Mutex::default(),
            sends: Mutex::default(),
            consent: tokio::sync::Mutex::default(),
        }
    }

    /// Starts the gateway, and waits until it serves.
    pub(crate) async fn start(&self) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
        command.arg("serve").arg("--config").arg(self.directory.path().join("claviger.toml"));
        let log = std::fs::File::create(self.directory.path().join("log")).unwrap();
        let running = Running(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        let ready = async {
            while self.get("/readyz", "").await.is_none_or(|answer| answer.status() != StatusCode::OK) {
                ticks.tick().await;
            }
        };
        if tokio::time::timeout(PATIENCE, ready).await.is_err() {
            panic!("{}", std::fs::read_to_string(self.directory.path().join("log")).unwrap());
        }
        running
    }

    /// None if no answer came: the gateway was killed, or is not there yet.
    async fn get(&self, path: &str, cookie: &str) -> Option<reqwest::Response> {
        let request = self.client.get(format!("http://{}{path}", self.address));
        request.header(header::COOKIE, cookie).send().await.ok()
    }

    /// Signs users in, each on one device.
    pub(crate) async fn sign_in(&self, count: usize) -> Vec<Device> {
        let ring = Keyring::new(vec![RootKey::new(KeyId(1), [0; 32])]).unwrap();
        let mut devices = Vec::new();
        for n in 0..count {
            let user = format!("{}", 600_000_000 + n);
            self.mock.with(|mock| mock.add_user(User::new(user.as_str(), format!("user_{n}"))));
            let done = self.go_to_provider_and_back(&user, "").await.unwrap();
            let set = done.headers().get_all(header::SET_COOKIE).iter().map(|value| value.to_str().unwrap());
            let cookie = set.filter_map(|line| line.split(';').next());
            let cookie =
                cookie.into_iter().find(|pair| pair.starts_with("claviger-insecure=")).unwrap().to_owned();
            let value = cookie.split_once('=').unwrap().1;
            let session = SessionCookie::open(&ring, value).unwrap().session;
            devices.push(Device { session, user, cookie });
        }
        devices
    }

    /// Leads a browser from `/auth/login` to the provider and back.
    async fn go_to_provider_and_back(&self, user: &str, cookie: &str) -> Option<reqwest::Response> {
        let begun = self.get("/auth/login", cookie).await?;
        let login = begun.headers().get(header::SET_COOKIE)?.to_str().ok()?.split(';').next()?.to_owned();
        let location = begun.headers().get(header::LOCATION)?.to_str().ok()?.to_owned();
        let agreed = {
            let _one_at_a_time = self.consent.lock().await;
            self.mock.with(|mock| mock.settings_mut().authorize_at_once_as = Some(user.to_owned()));
            self.client.get(location).send().await.ok()?
        };
        let callback =
            agreed.headers().get(header::LOCATION)?.to_str().ok()?.replace("localhost", "127.0.0.1");
        let cookies = if cookie.is_empty() { login } else { format!("{cookie}; {login}") };
        self.client.get(callback).header(header::COOKIE, cookies).send().await.ok()
    }

    /// Lets workers call the API, with tokens that the provider has just let expire.
    pub(crate) fn load(self: &Arc<Self>, devices: &[Device], workers: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicUsize::new(0));
        let work = |_| {
            let (site, stop, next, devices) =
                (Arc::clone(self), Arc::clone(&stop), Arc::clone(&next), devices.to_vec());
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    // Neighbours meet on the same device now and then.
                    let device = &devices[(n - n % 3) * 7 % devices.len()];
                    site.mock.with(|mock| mock.expire_access_tokens(&device.user));
                    if site.serves(device).await.is_none() {
                        tokio::task::yield_now().await;
                    }
                    site.answers.add_permits(1);
                }
            })
        };
        Load { stop: Arc::clone(&stop), workers: (0..workers).map(work).collect() }
    }

    /// Whether a call is served; none if no answer came. A device that is told to renew its sign-in does so.
    async fn serves(&self, device: &Device) -> Option<bool> {
        let answer = self.get("/api/twitch/users", &device.cookie).await?;
        self.inspect(&answer);
        let status = answer.status();
        if status == StatusCode::OK {
            return Some(true);
        }
        let told: Value = serde_json::from_str(&answer.text().await.ok()?).unwrap_or_default();
        match (status, told["reason"].as_str()) {
            (StatusCode::SERVICE_UNAVAILABLE, _) => {}
            (StatusCode::UNAUTHORIZED, Some("renewal_needed")) => {
                self.renew(device).await?;
            }
            // The provider's own refusal of a token that expired on the way is passed on.
            (StatusCode::UNAUTHORIZED, _) if told["message"] == "Invalid OAuth token" => {}
            _ => self.complain(format!("{status} {told}")),
        }
        Some(false)
    }

    /// Goes to the provider and back, unless another tab did that meanwhile: who is signed in and goes there all the same signs in anew.
    async fn renew(&self, device: &Device) -> Option<()> {
        let _one_at_a_time = self.renewing.lock().await;
        let answer = self.get("/api/twitch/users", &device.cookie).await?;
        let told: Value = serde_json::from_str(&answer.text().await.ok()?).unwrap_or_default();
        if told["reason"] == "renewal_needed" {
            let back = self.go_to_provider_and_back(&device.user, &device.cookie).await?;
            self.inspect(&back);
            *self.repairs.lock().unwrap().entry(device.session).or_default() += 1;
        }
        Some(())
    }

    /// No answer clears or replaces the session's cookie.
    fn inspect(&self, answer: &reqwest::Response) {
        let set = answer.headers().get_all(header::SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
        if let Some(line) = set.into_iter().find(|line| line.starts_with("claviger-insecure=")) {
            self.complain(format!("the session's cookie was touched: {}", line.len()));
        }
    }

    fn complain(&self, what: String) {
        self.complaints.lock().unwrap().push(what);
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap().clone()
    }

    /// How often each device was sent to the provider and back.
    pub(crate) fn repairs(&self) -> BTreeMap<SessionId, usize> {
        self.repairs.lock().unwrap().clone()
    }

    /// Begins to write down every commit to the store's file. Nobody has it open.
    pub(crate) fn journal(&self) -> Journal {
        Journal::begin(&self.directory.path().join("claviger.db"))
    }

    /// Takes note of the refresh tokens that came to the provider since the last look, and gives how often each came so far.
    pub(crate) fn sends(&self) -> Sends {
        let mut sends = self.sends.lock().unwrap();
        self.mock.with(|mock| sends.look_at(mock.log()));
        sends.clone()
    }

    pub(crate) async fn await_answers(&self, count: u32) {
        let enough = self.answers.acquire_many(count);
        tokio::time::timeout(PATIENCE, enough).await.expect("requests are answered").unwrap().forget();
    }

    /// The rows as the dead gateway left them.
    pub(crate) async fn rows(&self, devices: &[Device]) -> Vec<Found> {
        let store = SqliteStore::open(&self.directory.path().join("claviger.db")).unwrap();
        let mut found = Vec::new();
        for device in devices {
            found.extend(store.load(device.session).await.unwrap().as_ref().map(Found::of));
        }
        found
    }

    /// LIVE: every device is served within this time.
    pub(crate) async fn all_recover(&self, devices: &[Device], within: Duration) {
        let mut waiting: BTreeMap<SessionId, &Device> =
            devices.iter().map(|device| (device.session, device)).collect();
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        let recovered = async {
            while !waiting.is_empty() {
                ticks.tick().await;
                for device in waiting.values().copied().collect::<Vec<_>>() {
                    self.mock.with(|mock| mock.expire_access_tokens(&device.user));
                    if self.serves(device).await == Some(true) {
                        waiting.remove(&device.session);
                    }
                }
            }
        };
        let outcome = tokio::time::timeout(within, recovered).await;
        assert!(outcome.is_ok(), "LIVE: {} devices are not served", waiting.len());
        assert_eq!(self.complaints(), Vec::<String>::new(), "TRANSIENT");
    }

    pub(crate) fn refreshes(&self) -> u64 {
        self.mock.with(|mock| mock.token_calls("refresh_token"))
    }

    pub(crate) fn reused(&self) -> u64 {
        self.mock.with(|mock| mock.counters().reused_refresh_tokens)
    }
}
