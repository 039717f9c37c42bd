//! Refreshes a second by the engine with its durable store, beside a bare loop of the same HTTP client.
//!
//! Both speak to the same mock over real HTTP, for as many callers at a time and on as many connections: who finds none free waits. The
//! engine reads the row, writes the claim, sends, and writes the new pair, each write durable when it returns; the bare loop only sends.
//! A refresh that waits for the disk holds no connection.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use claviger_core::{
    request::Assurance,
    return_to::ReturnTo,
    secret::{AuthorizationCode, ClientSecret, RefreshToken},
};
use claviger_engine::{
    Callback, Clock as _, Engine, HttpClient, OsEntropy, Parts, ProviderHttp, Settings, SystemClock,
};
use claviger_mock::{
    Config, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Endpoint, Fault, FaultKind, LiveTokenLimit, MockTwitch,
    Rotation, Server, User,
};
use claviger_provider::{Endpoints, Provider, Unanswered};
use claviger_seal::{KeyId, Keyring, RootKey, SessionCookie};
use claviger_store_sqlite::SqliteStore;
use futures_util::{StreamExt as _, stream};
use tokio::sync::Semaphore;

use crate::{fill::random, load::Measured};

const REDIRECT: &str = "http://localhost:9/auth/callback";
/// A token of this life has to be refreshed at once: the engine's margin is 30 seconds.
const WORN_SECS: u32 = 30;
const LONG_SECS: u32 = 14_000;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// So many refreshes in each measurement
    #[arg(long, default_value_t = 20_000)]
    refreshes: usize,
    /// So many callers at a time
    #[arg(long, default_value_t = 256)]
    callers: usize,
    /// So many connections to the provider
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Each is repeated so often, in turns; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Besides a provider that answers at once, one that takes so many milliseconds; a real one takes more
    #[arg(long, default_value_t = 5)]
    answers_after_ms: u64,
}

/// A client with no more connections than this.
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
        let endpoints = Endpoints::twitch_at(&mock.url().parse()?);
        let secret = ClientSecret::new(DEMO_CLIENT_SECRET);
        let provider = Provider::twitch(DEMO_CLIENT_ID, secret, REDIRECT, Vec::new(), endpoints);
        let directory = tempfile::TempDir::new()?;
        let engine = Engine::start(Parts {
            store: Arc::new(SqliteStore::open(&directory.path().join("claviger.db"))?),
            http: Arc::new(Limited::new(connections)?),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            keyring: Keyring::new(vec![RootKey::new(KeyId(1), random()?)])?,
            provider: provider.clone(),
            settings: Settings { refreshes_per_second: 1_000_000, ..Settings::default() },
            notices: None,
        })
        .await?;
        Ok(Self { mock, provider, http: Limited::new(connections)?, engine, _directory: directory })
    }

    /// Against a provider that takes so long to answer.
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

    /// Lets the provider take so long from now on.
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
            let request = self.provider.refresh(&RefreshToken::new(token.refresh_token));
            let answer = self.http.send(request).await;
            match self.provider.read_token(answer, SystemClock.now()) {
                claviger_core::verdict::TokenAnswer::Issued(_) => Ok(()),
                other => bail!("a bare refresh came to {other:?}"),
            }
        })
        .await
    }

    /// Serves requests of sessions whose tokens have to be refreshed first.
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

    /// The id of a user whom the mock knows.
    fn user(&self, number: usize) -> String {
        let id = format!("{}", 700_000_000 + number);
        self.mock.with(|mock| mock.add_user(User::new(id.as_str(), format!("user_{number}"))));
        id
    }

    async fn sign_in(&self, user: &str) -> Result<SessionCookie> {
        self.mock.with(|mock| mock.settings_mut().authorize_at_once_as = Some(user.to_owned()));
        let started = self.engine.begin_login(ReturnTo::root(), false);
        let answer = self.http.send(http::Request::get(started.location).body(Bytes::new())?).await?;
        let back: url::Url = answer.headers().get("location").context("no way back")?.to_str()?.parse()?;
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

/// How many of these are done in a second, so many at a time.
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
