//! Refreshes a second by the engine with its durable store, beside a bare loop of the same HTTP
//! client.
//!
//! Both use the same mock over real HTTP, with the same number of callers and connections. A caller
//! without a free connection waits. The engine reads the row, writes the claim, sends, and writes
//! the new pair. Each write is durable when it returns. The bare loop only sends. A refresh that
//! waits for the disk holds no connection.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use claviger_core::{Assurance, AuthorizationCode, ClientSecret, RefreshToken, ReturnTo};
use claviger_engine::{
    Callback, Clock as _, Engine, HttpClient, OsEntropy, Parts, ProviderHttp, Settings, SystemClock,
};
use claviger_mock::{
    Config, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Endpoint, Fault, FaultKind, LiveTokenLimit, MockTwitch,
    Rotation, Server, User,
};
use claviger_provider::{Provider, Registration, Unanswered, twitch};
use claviger_seal::{KeyId, Keyring, RootKey, SessionCookie};
use claviger_store_sqlite::SqliteStore;
use futures_util::{StreamExt as _, stream};
use tokio::sync::Semaphore;

use crate::{fill::random, load::Measured};

const REDIRECT: &str = "http://localhost:9/auth/callback";
/// A token of this lifetime is due at once: the engine's margin is 30 seconds.
const WORN_SECS: u32 = 30;
const LONG_SECS: u32 = 14_000;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number of refreshes in each measurement
    #[arg(long, default_value_t = 20_000)]
    refreshes: usize,
    /// Number of concurrent callers
    #[arg(long, default_value_t = 256)]
    callers: usize,
    /// Number of connections to the provider
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Rounds of measurements, in turns; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Delay of a second provider, in milliseconds; the first answers at once, a real one is slower
    #[arg(long, default_value_t = 5)]
    answers_after_ms: u64,
}

/// A client with at most this number of connections.
struct Limited {
    client: HttpClient,
    connections: Semaphore,
}

impl Limited {
    fn new(connections: usize) -> Result<Self> {
        Ok(Self { client: HttpClient::new()?, connections: Semaphore::new(connections) })
    }
}

#[async_trait]
impl ProviderHttp for Limited {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, Unanswered> {
        let _connection = self.connections.acquire().await.map_err(|_| Unanswered::NotSent)?;
        self.client.send(request).await
    }
}

struct World {
    mock: Server,
    provider: Provider,
    http: Limited,
    engine: Engine,
    _directory: tempfile::TempDir,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let world = World::new(options.connections).await?;
    for after in [Duration::ZERO, Duration::from_millis(options.answers_after_ms)] {
        world.compare(options, after).await?;
    }
    Ok(())
}

impl World {
    async fn new(connections: usize) -> Result<Self> {
        let config = Config::demo().settings(|own| {
            own.rotation = Rotation::OneTime;
            own.live_token_limit = LiveTokenLimit::Off;
        });
        let mock = Server::local(MockTwitch::new(config, 7))?;
        let secret = ClientSecret::new(DEMO_CLIENT_SECRET);
        let registration = Registration::new(DEMO_CLIENT_ID, secret, REDIRECT, Vec::new());
        let provider = twitch::PRESET.mock_at(&mock.url().parse()?, registration);
        let directory = tempfile::TempDir::new()?;
        let engine = Engine::start(Parts {
            store: Arc::new(SqliteStore::open(&directory.path().join("claviger.db"))?),
            http: Arc::new(Limited::new(connections)?),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            keyring: Keyring::new(vec![RootKey::new(KeyId(1), random()?)])?,
            provider: provider.clone(),
            settings: Settings { refreshes_per_second: 1_000_000, ..Settings::default() },
            webhook: None,
            assertions: None,
        })
        .await?;
        Ok(Self { mock, provider, http: Limited::new(connections)?, engine, _directory: directory })
    }

    /// Measures with a provider that takes this time to answer.
    async fn compare(&self, options: &Options, after: Duration) -> Result<()> {
        let (mut bare, mut engine) = (Vec::new(), Vec::new());
        for round in 1..=options.rounds {
            println!("a provider that answers after {after:?}: round {round} of {}", options.rounds);
            bare.push(self.bare(options, after).await?);
            engine.push(self.engine(options, after).await?);
        }
        let (bare, engine) = (Measured::median(&bare).per_second, Measured::median(&engine).per_second);
        let provider = format!("a provider that answers after {after:?}");
        println!("\n{provider:<40}{:>14}{:>8}{:>12}", "refreshes/s", "ratio", "to reach");
        println!("{:<40}{bare:>14.0}{:>8.2}", "bare loop of the HTTP client", 1.0);
        println!(
            "{:<40}{engine:>14.0}{:>8.2}{:>12}\n",
            "engine, SQLite durable on commit",
            engine / bare,
            "0.70"
        );
        Ok(())
    }

    /// Sets the time that the provider takes to answer.
    fn slow(&self, after: Duration) {
        self.mock.with(|mock| {
            mock.clear_faults();
            if !after.is_zero() {
                mock.add_fault(Fault::always(Endpoint::Token, FaultKind::delay(after)));
            }
        });
    }

    /// Sends refreshes and reads the answers.
    async fn bare(&self, options: &Options, after: Duration) -> Result<Measured> {
        self.slow(after);
        let now_ms = SystemClock.now().as_millis();
        let sign_in = |number: usize| {
            let user = self.user(number);
            self.mock.with(|mock| mock.sign_in(&user, DEMO_CLIENT_ID, &[], now_ms))
        };
        let tokens: Option<Vec<_>> = (0..options.refreshes).map(sign_in).collect();
        let tokens = tokens.context("the mock knows its users")?;
        measure(options, tokens, |token| async move {
            let request = self.provider.client.refresh(&RefreshToken::new(token.refresh_token));
            let answer = self.http.send(request).await;
            match self.provider.client.read_token(answer, SystemClock.now()) {
                claviger_core::verdict::TokenAnswer::Issued(_) => Ok(()),
                other => bail!("a bare refresh gave {other:?}"),
            }
        })
        .await
    }

    /// Serves requests of sessions whose tokens are due for a refresh.
    async fn engine(&self, options: &Options, after: Duration) -> Result<Measured> {
        self.slow(Duration::ZERO);
        self.mock.with(|mock| mock.settings_mut().token_lifetime_secs = WORN_SECS);
        let mut cookies = Vec::with_capacity(options.refreshes);
        for number in 0..options.refreshes {
            cookies.push(self.sign_in(&self.user(number)).await?);
        }
        self.mock.with(|mock| mock.settings_mut().token_lifetime_secs = LONG_SECS);
        self.slow(after);
        let before = self.mock.with(|mock| mock.token_calls("refresh_token"));
        let measured = measure(options, cookies, |cookie| async move {
            self.engine.authenticate(cookie, Assurance::Session).await?;
            Ok(())
        })
        .await?;
        let sent = self.mock.with(|mock| mock.token_calls("refresh_token")) - before;
        if sent != u64::try_from(options.refreshes)? {
            bail!("{sent} refreshes were sent for {} sessions", options.refreshes);
        }
        Ok(measured)
    }

    /// The id of a user of the mock.
    fn user(&self, number: usize) -> String {
        let id = format!("{}", 700_000_000 + number);
        self.mock.with(|mock| mock.add_user(User::new(id.as_str(), format!("user_{number}"))));
        id
    }

    async fn sign_in(&self, user: &str) -> Result<SessionCookie> {
        self.mock.with(|mock| mock.settings_mut().authorize_at_once_as = Some(user.to_owned()));
        let started = self.engine.begin_login(ReturnTo::root(), false);
        let answer = self.http.send(http::Request::get(started.location).body(Bytes::new())?).await?;
        let back: url::Url = answer.headers().get("location").context("no redirect")?.to_str()?.parse()?;
        let param = |name: &str| back.query_pairs().find(|(key, _)| key == name).map(|(_, v)| v.into_owned());
        let callback = Callback {
            state: param("state").unwrap_or_default(),
            code: param("code").map(AuthorizationCode::new),
            ..Callback::default()
        };
        let signed_in = self.engine.finish_login(callback, Some(&started.cookie), None, "").await?;
        let cookie = signed_in.cookie.context("a new session has a new cookie")?;
        Ok(self.engine.open_cookie(&cookie)?)
    }
}

/// Number of tasks done in a second, with this concurrency.
#[expect(clippy::disallowed_methods, reason = "a benchmark looks at real time")]
async fn measure<T, F>(options: &Options, work: Vec<T>, done: impl Fn(T) -> F) -> Result<Measured>
where
    F: Future<Output = Result<()>>,
{
    let begun = std::time::Instant::now();
    let count = u32::try_from(work.len())?;
    let mut running = stream::iter(work.into_iter().map(done)).buffer_unordered(options.callers);
    while let Some(outcome) = running.next().await {
        outcome?;
    }
    let took = begun.elapsed().max(Duration::from_millis(1));
    Ok(Measured { per_second: f64::from(count) / took.as_secs_f64(), ..Measured::default() })
}
