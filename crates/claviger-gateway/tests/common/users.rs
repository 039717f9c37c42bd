//! Users with browsers: they sign in, call, sign out and renew their sessions, and record every
//! answer.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use claviger_core::SessionId;
use claviger_mock::{Config, LiveTokenLimit, MockTwitch, Rotation, Server, User};
use claviger_seal::{Keyring, SessionCookie};
use futures_util::StreamExt as _;
use http::{StatusCode, header};
use serde_json::Value;
use tokio::{sync::Semaphore, task::JoinHandle};

use super::{
    operations::{Answer, Asked, Millis, Operation, Operations},
    process::{self, PATIENCE},
    sends::Sends,
};

const API: &str = "/api/twitch/users";
/// Timeout of a browser, longer than that of the proxies before a gateway.
const BROWSER_PATIENCE: Duration = PATIENCE;
/// Number of devices that sign in or recover at the same time.
const AT_ONCE: usize = 16;
/// Header of an answer that says that there is none.
pub const NO_ANSWER: &str = "x-no-answer";
/// Header that names the gateway, where there are several.
pub const ANSWERED_BY: &str = "x-answered-by";

/// All users of an app, and their provider.
pub struct Users {
    pub mock: Server,
    /// The app's address.
    address: SocketAddr,
    client: reqwest::Client,
    /// The operator's current keys.
    ring: Box<dyn Fn() -> Keyring + Send + Sync>,
    operations: Mutex<Operations>,
    /// One permit for each finished request, answered or not.
    answers: Semaphore,
    /// How often each device went to the provider and back, and got an answer.
    repairs: Mutex<BTreeMap<SessionId, usize>>,
    /// How often each refresh token reached the provider.
    sends: Mutex<Sends>,
    /// The mock agrees at once as one user at a time.
    consent: tokio::sync::Mutex<()>,
}

/// A signed-in device.
pub struct Device {
    pub session: SessionId,
    pub user: String,
    /// The browser's cookie.
    cookie: Mutex<String>,
    /// Tabs of one browser renew one at a time.
    renewing: tokio::sync::Mutex<()>,
    /// Whether its user has asked for a sign-out.
    leaves: AtomicBool,
}

impl Device {
    pub fn new(session: SessionId, user: String, cookie: String) -> Self {
        let (cookie, renewing) = (Mutex::new(cookie), tokio::sync::Mutex::default());
        Self { session, user, cookie, renewing, leaves: AtomicBool::new(false) }
    }

    pub fn leaves(&self) -> bool {
        self.leaves.load(Ordering::SeqCst)
    }

    pub fn cookie(&self) -> String {
        lock(&self.cookie).clone()
    }
}

/// Picks the device of the n-th piece of work. Neighbours meet on one device, and in the end all
/// have had their turn.
pub fn chosen(devices: &[Arc<Device>], n: usize) -> &Device {
    &devices[(n - n % 3) * 7 % devices.len()]
}

/// Requests that continue until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts workers. Each does one piece of work after the other, numbered over all workers.
    pub fn start<F>(workers: usize, work: impl Fn(usize) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send,
    {
        let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let worker = |_| {
            let (stop, next, work) = (Arc::clone(&stop), Arc::clone(&next), work.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    work(next.fetch_add(1, Ordering::SeqCst)).await;
                    tokio::task::yield_now().await;
                }
            })
        };
        let workers = (0..workers).map(worker).collect();
        Self { stop, workers }
    }

    pub async fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for worker in self.workers {
            worker.await.unwrap();
        }
    }
}

/// A provider with this habit and without users.
pub fn provider(rotation: Rotation) -> Server {
    let mock = MockTwitch::new(
        Config::demo().settings(|own| {
            own.rotation = rotation;
            own.live_token_limit = LiveTokenLimit::Off;
        }),
        7,
    );
    Server::local(mock).unwrap()
}

impl Users {
    pub fn new(
        mock: Server,
        address: SocketAddr,
        ring: impl Fn() -> Keyring + Send + Sync + 'static,
    ) -> Self {
        Self {
            mock,
            address,
            ring: Box::new(ring),
            client: process::client(BROWSER_PATIENCE),
            operations: Mutex::default(),
            answers: Semaphore::new(0),
            repairs: Mutex::default(),
            sends: Mutex::default(),
            consent: tokio::sync::Mutex::default(),
        }
    }

    /// Signs in a device for each of these users, who may be named several times.
    pub async fn sign_in(&self, people: impl Iterator<Item = usize>) -> Vec<Arc<Device>> {
        let signing_in = futures_util::stream::iter(people).map(|n| self.sign_in_one(n));
        signing_in.buffered(AT_ONCE).collect().await
    }

    async fn sign_in_one(&self, n: usize) -> Arc<Device> {
        let user = format!("{}", 600_000_000 + n);
        self.mock.with(|mock| mock.add_user(User::new(user.as_str(), format!("user_{n}"))));
        let done = self.go_to_provider_and_back(&user, "").await.expect("nothing disturbs the sign-in");
        let cookie = session_cookie(&done).expect("a sign-in sets the session's cookie");
        let session = self.session_of(&cookie).expect("it opens");
        Arc::new(Device::new(session, user, cookie))
    }

    /// Returns `None` without an answer: the gateway was killed, or has not started.
    async fn get(&self, path: &str, cookie: &str) -> Option<reqwest::Response> {
        self.get_at(self.address, path, cookie).await
    }

    async fn get_at(&self, address: SocketAddr, path: &str, cookie: &str) -> Option<reqwest::Response> {
        let request = self.client.get(format!("http://localhost:{}{path}", address.port()));
        answered(request.header(header::COOKIE, cookie)).await
    }

    async fn post_at(&self, address: SocketAddr, path: &str, cookie: &str) -> Option<reqwest::Response> {
        let request = self.client.post(format!("http://localhost:{}{path}", address.port()));
        let origin = format!("http://localhost:{}", self.address.port());
        answered(request.header(header::COOKIE, cookie).header(header::ORIGIN, origin)).await
    }

    /// Follows a browser from `/auth/login` to the provider and back.
    async fn go_to_provider_and_back(&self, user: &str, cookie: &str) -> Option<reqwest::Response> {
        let begun = self.get("/auth/login", cookie).await?;
        let login = begun.headers().get(header::SET_COOKIE)?.to_str().ok()?.split(';').next()?.to_owned();
        let location = begun.headers().get(header::LOCATION)?.to_str().ok()?.to_owned();
        let agreed = {
            let _one_at_a_time = self.consent.lock().await;
            self.mock.with(|mock| mock.settings_mut().authorize_at_once_as = Some(user.to_owned()));
            self.client.get(location).send().await.ok()?
        };
        let callback = agreed.headers().get(header::LOCATION)?.to_str().ok()?;
        let path = callback.split_once("/auth/")?.1;
        let cookies = if cookie.is_empty() { login } else { format!("{cookie}; {login}") };
        self.get(&format!("/auth/{path}"), &cookies).await
    }

    /// Calls the API with a token that the provider has just let expire.
    pub async fn call_expired(&self, device: &Device) -> Answer {
        self.mock.with(|mock| mock.expire_access_tokens(&device.user));
        self.call(device).await
    }

    /// Makes one call. A device that must renew its session does so.
    pub async fn call(&self, device: &Device) -> Answer {
        let answer = self.ask(device, Asked::Call, self.get(API, &device.cookie())).await;
        if answer == Answer::RenewalNeeded {
            self.renew(device).await;
        }
        answer
    }

    /// Asks for the session's identity.
    pub async fn look(&self, device: &Device) -> Answer {
        self.look_at(self.address, device).await
    }

    /// As above at one gateway, past the front.
    pub async fn look_at(&self, gateway: SocketAddr, device: &Device) -> Answer {
        self.ask(device, Asked::Look, self.get_at(gateway, "/auth/session", &device.cookie())).await
    }

    /// Asks for another route that needs a session.
    pub async fn open_page(&self, device: &Device, path: &str) -> Answer {
        self.ask(device, Asked::Page, self.get(path, &device.cookie())).await
    }

    /// Signs this device out.
    pub async fn sign_out(&self, device: &Device) -> Answer {
        self.sign_out_at(self.address, device).await
    }

    /// As above at one gateway, past the front.
    pub async fn sign_out_at(&self, gateway: SocketAddr, device: &Device) -> Answer {
        device.leaves.store(true, Ordering::SeqCst);
        self.ask(device, Asked::SignOut, self.post_at(gateway, "/auth/logout", &device.cookie())).await
    }

    /// Goes to the provider and back, unless another tab did meanwhile. A signed-in browser that
    /// goes there again gets a new session.
    async fn renew(&self, device: &Device) {
        let _one_at_a_time = device.renewing.lock().await;
        if self.ask(device, Asked::Call, self.get(API, &device.cookie())).await != Answer::RenewalNeeded {
            return;
        }
        let cookie = device.cookie();
        let back = self.go_to_provider_and_back(&device.user, &cookie);
        if self.ask(device, Asked::Renewal, back).await != Answer::None {
            *lock(&self.repairs).entry(device.session).or_default() += 1;
        }
    }

    /// Records a request and its answer.
    async fn ask(
        &self,
        device: &Device,
        asked: Asked,
        sent: impl Future<Output = Option<reqwest::Response>>,
    ) -> Answer {
        let began = now();
        let (by, cookie_touched, answer) = match sent.await {
            None => (None, false, Answer::None),
            Some(response) => {
                let by = response.headers().get(ANSWERED_BY).map(|by| by.to_str().unwrap().to_owned());
                (by, self.keep_cookie(device, &response), read(asked, response).await)
            }
        };
        let (session, user, told) = (device.session, device.user.clone(), answer.clone());
        let operation =
            Operation { session, user, asked, began, ended: now(), answer: told, by, cookie_touched };
        lock(&self.operations).add(operation);
        self.answers.add_permits(1);
        answer
    }

    /// Stores the cookie of an answer. Returns whether the browser lost its session by that.
    fn keep_cookie(&self, device: &Device, answer: &reqwest::Response) -> bool {
        let Some(cookie) = session_cookie(answer) else { return false };
        let same = self.session_of(&cookie) == Some(device.session);
        if same {
            *lock(&device.cookie) = cookie;
        }
        !same
    }

    fn session_of(&self, cookie: &str) -> Option<SessionId> {
        let (_, value) = cookie.split_once('=')?;
        SessionCookie::open(&(self.ring)(), value).ok().map(|cookie| cookie.session)
    }

    pub fn operations(&self) -> MutexGuard<'_, Operations> {
        lock(&self.operations)
    }

    /// Returns how often each device went to the provider and back.
    pub fn repairs(&self) -> BTreeMap<SessionId, usize> {
        lock(&self.repairs).clone()
    }

    /// Counts the refresh tokens that reached the provider since the last look.
    pub fn sends(&self) -> Sends {
        let mut sends = lock(&self.sends);
        self.mock.with(|mock| sends.look_at(mock.log()));
        sends.clone()
    }

    /// Waits until this many more requests are finished.
    pub async fn go_on_for(&self, requests: u32) {
        self.answers.forget_permits(self.answers.available_permits());
        let enough = self.answers.acquire_many(requests);
        tokio::time::timeout(PATIENCE, enough).await.expect("requests are answered").unwrap().forget();
    }

    /// LIVE: every device is served within this time, unless its user signed it out.
    pub async fn all_recover(&self, devices: &[Arc<Device>], within: Duration) {
        let left = &AtomicUsize::new(devices.len());
        let recovering =
            futures_util::stream::iter(devices).for_each_concurrent(AT_ONCE, |device| async move {
                self.recover(device).await;
                left.fetch_sub(1, Ordering::SeqCst);
            });
        let outcome = tokio::time::timeout(within, recovering).await;
        assert!(outcome.is_ok(), "LIVE: {left:?} devices are not served");
    }

    async fn recover(&self, device: &Device) {
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        loop {
            ticks.tick().await;
            match self.call_expired(device).await {
                Answer::Served(_) => return,
                Answer::Over(_) if device.leaves() => return,
                _ => {}
            }
        }
    }

    pub fn refreshes(&self) -> u64 {
        self.mock.with(|mock| mock.token_calls("refresh_token"))
    }

    pub fn reused(&self) -> u64 {
        self.mock.with(|mock| mock.counters().reused_refresh_tokens)
    }
}

/// Reads an answer.
async fn read(asked: Asked, response: reqwest::Response) -> Answer {
    let status = response.status();
    // An answer that breaks off does not count.
    let Ok(text) = response.text().await else { return Answer::None };
    let told: Value = serde_json::from_str(&text).unwrap_or_default();
    match (asked, status) {
        (_, StatusCode::SERVICE_UNAVAILABLE) => Answer::Later,
        (Asked::Call | Asked::Look, StatusCode::OK) => {
            let user = told["data"][0]["id"].as_str().or(told["user"].as_str());
            user.map_or_else(|| Answer::Other(text.clone()), |user| Answer::Served(user.to_owned()))
        }
        (Asked::Page, StatusCode::OK) | (Asked::SignOut, StatusCode::NO_CONTENT) => Answer::Done,
        (Asked::Call | Asked::Look | Asked::Page, StatusCode::UNAUTHORIZED) => refusal(&told, &text),
        // Failures on the way to the provider and back are pages. The device will be sent there
        // again.
        (Asked::Renewal, _) => Answer::Done,
        _ => Answer::Other(format!("{status} {text}")),
    }
}

/// Reads a 401.
fn refusal(told: &Value, text: &str) -> Answer {
    let reason = told["reason"].as_str();
    match reason {
        Some("renewal_needed") => Answer::RenewalNeeded,
        _ if told["message"] == "Invalid OAuth token" => Answer::PassedOn,
        _ if told["error"] == "sign_in_required" => Answer::Over(reason.map(str::to_owned)),
        _ => Answer::Other(text.to_owned()),
    }
}

async fn answered(request: reqwest::RequestBuilder) -> Option<reqwest::Response> {
    request.send().await.ok().filter(|answer| !answer.headers().contains_key(NO_ANSWER))
}

/// Returns the session's cookie, if the answer sets it.
fn session_cookie(answer: &reqwest::Response) -> Option<String> {
    let set = answer.headers().get_all(header::SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = set.filter_map(|line| line.split(';').next());
    pairs.find(|pair| pair.starts_with("claviger-insecure=")).map(str::to_owned)
}

#[expect(
    clippy::disallowed_methods,
    reason = "real requests to real programs are written down with their times"
)]
fn now() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Millis::try_from(since.as_millis()).unwrap()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
