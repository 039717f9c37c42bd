//! The database is stolen, or the server's keys, or both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test may fail as a test does"
)]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use claviger_core::{
    Assurance, AuthorizationCode, ClientSecret, Custody, EndReason, RefreshToken, ReturnTo, Session,
    SessionId, SessionSecret, Subject,
};
use claviger_engine::{
    Callback, Denied, Engine, FinishedSignIn, HttpClient, OsEntropy, Parts, ProviderHttp, Settings,
    SystemClock, Target,
};
use claviger_mock::{Config, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, MockTwitch, Server};
use claviger_provider::{Registration, Unanswered, twitch};
use claviger_seal::{CookieIdentity, KeyId, Keyring, PairBinding, RefreshLock, RootKey, SessionCookie};
use claviger_store_sqlite::SqliteStore;
use tempfile::TempDir;

const USER: &str = "100000001";
const REDIRECT: &str = "http://localhost:9/auth/callback";

/// The way to the provider, with a record of the secrets that a thief would look for.
struct Overheard {
    http: HttpClient,
    tokens: Mutex<Vec<String>>,
}

#[async_trait]
impl ProviderHttp for Overheard {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, Unanswered> {
        let answer = self.http.send(request).await?;
        if let Ok(body) = serde_json::from_slice::<serde_json::Value>(answer.body()) {
            let found = ["access_token", "refresh_token"].iter().filter_map(|name| body.get(name)?.as_str());
            self.tokens.lock().unwrap().extend(found.map(str::to_owned));
        }
        Ok(answer)
    }
}

struct Victim {
    engine: Engine,
    http: Arc<Overheard>,
    mock: Server,
    directory: TempDir,
}

impl Victim {
    async fn new(custody: Custody) -> Self {
        claviger_gateway::choose_tls();
        let settings =
            |settings: &mut claviger_mock::Settings| settings.authorize_at_once_as = Some(USER.to_owned());
        let mock = Server::local(MockTwitch::new(Config::demo().settings(settings), 7)).unwrap();
        let directory = TempDir::new().unwrap();
        let http = Arc::new(Overheard { http: HttpClient::new().unwrap(), tokens: Mutex::default() });
        let secret = ClientSecret::new(DEMO_CLIENT_SECRET);
        let registration = Registration::new(DEMO_CLIENT_ID, secret, REDIRECT, Vec::new());
        let engine = Engine::start(Parts {
            store: Arc::new(SqliteStore::open(&directory.path().join("claviger.db")).unwrap()),
            http: Arc::clone(&http) as Arc<dyn ProviderHttp>,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            keyring: keyring(),
            provider: twitch::PRESET.mock_at(&mock.url().parse().unwrap(), registration),
            settings: Settings { custody, ..Settings::default() },
            webhook: None,
            assertions: None,
        })
        .await
        .unwrap();
        Self { engine, http, mock, directory }
    }

    /// Signs the user in and returns what the browser then holds.
    async fn sign_in(&self) -> FinishedSignIn {
        let started = self.engine.begin_login(ReturnTo::root(), false);
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let answer = client.get(&started.location).send().await.unwrap();
        let location =
            answer.headers()[http::header::LOCATION].to_str().unwrap().parse::<url::Url>().unwrap();
        let param = |name: &str| location.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned();
        let callback = Callback {
            state: param("state"),
            code: Some(AuthorizationCode::new(param("code"))),
            ..Callback::default()
        };
        self.engine.finish_login(callback, Some(&started.cookie), None, "Firefox/1 Linux").await.unwrap()
    }

    fn subject(&self) -> Subject {
        Subject { provider: self.engine.provider().name.clone(), id: USER.to_owned() }
    }

    async fn rows(&self) -> Vec<Session> {
        self.engine.devices(&self.subject()).await.unwrap()
    }

    /// Every byte of the stolen file, and of the files beside it.
    fn bytes(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.directory.path()).unwrap();
        files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }
}

/// The server's keys, which the thief has as well.
fn keyring() -> Keyring {
    Keyring::new(vec![RootKey::new(KeyId(1), [42; 32])]).unwrap()
}

fn try_open(row: &Session, lock: RefreshLock<'_>) -> Option<RefreshToken> {
    let pair = row.pair().unwrap();
    let at = PairBinding { provider: &row.subject.provider, session: row.id, generation: pair.generation };
    keyring().open_refresh(at, lock, pair.refresh.as_ref()?).ok()
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test(flavor = "multi_thread")]
async fn stolen_database_and_keys_open_no_refresh_token() {
    let victim = Victim::new(Custody::Device).await;
    let devices = [victim.sign_in().await, victim.sign_in().await];
    let rows = victim.rows().await;
    assert_eq!(rows.len(), 2);
    for row in &rows {
        assert!(row.pair().unwrap().refresh.is_some(), "the refresh token is there, sealed");
        assert!(try_open(row, RefreshLock::Server).is_none());
        for guess in [row.secret_hash.0, [0; 32], [42; 32]] {
            assert!(try_open(row, RefreshLock::Device(&SessionSecret::new(guess))).is_none());
        }
    }
    for device in &devices {
        let secret = victim.engine.open_cookie(device.cookie.as_ref().unwrap()).unwrap().secret;
        let opened = rows.iter().filter(|row| try_open(row, RefreshLock::Device(&secret)).is_some());
        assert_eq!(opened.map(|row| row.id).collect::<Vec<_>>(), [device.session], "its own, and no other");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_assurance_cookie_believes_a_cookie_made_with_stolen_keys() {
    let victim = Victim::new(Custody::Device).await;
    let stored = victim.sign_in().await.session;
    let made_up = SessionId::new(victim.engine.now(), [7; 10]);
    for session in [stored, made_up] {
        let identity = CookieIdentity { subject: victim.subject(), display_name: String::new() };
        let good_until = victim.engine.now().after(std::time::Duration::from_secs(60));
        let secret = SessionSecret::new([42; 32]);
        let forged = SessionCookie { session, secret, good_until, identity: Some(identity) };
        let cookie = victim.engine.open_cookie(&forged.seal(&keyring(), [0; 12])).unwrap();
        let caller = victim.engine.authenticate(cookie.clone(), Assurance::Cookie).await.unwrap();
        assert_eq!(caller.subject().id, USER);
        for assurance in [Assurance::Session, Assurance::Provider { max_age: std::time::Duration::MAX }] {
            let outcome = victim.engine.authenticate(cookie.clone(), assurance).await;
            assert_eq!(outcome.map(|caller| caller.session()), Err(Denied::NoSession), "{assurance:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn custody_server_lets_the_keys_open_them() {
    let victim = Victim::new(Custody::Server).await;
    victim.sign_in().await;
    assert!(try_open(&victim.rows().await[0], RefreshLock::Server).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn custody_none_stores_no_token() {
    let victim = Victim::new(Custody::None).await;
    victim.sign_in().await;
    assert!(victim.rows().await[0].pair().is_none());
    assert_eq!(victim.engine.carry_out_revocations().await.unwrap(), 1, "the token was revoked");
    assert_eq!(victim.mock.with(|mock| mock.live_access_tokens(USER)), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_holds_no_plain_secret() {
    let victim = Victim::new(Custody::Device).await;
    let device = victim.sign_in().await;
    let other = victim.sign_in().await;
    victim.engine.end(Target::One(other.session), EndReason::SignedOut).await.unwrap();
    let bytes = victim.bytes();
    assert!(contains(&bytes, USER.as_bytes()), "this is the right file");
    let tokens = victim.http.tokens.lock().unwrap().clone();
    assert_eq!(tokens.len(), 4, "two pairs were issued");
    let secret = victim.engine.open_cookie(device.cookie.as_ref().unwrap()).unwrap().secret;
    assert!(!contains(&bytes, secret.expose()), "SECRET: a session's secret");
    for secret in
        tokens.iter().map(String::as_str).chain([DEMO_CLIENT_SECRET, device.cookie.as_ref().unwrap()])
    {
        assert!(!contains(&bytes, secret.as_bytes()), "SECRET: {secret}");
    }
}
