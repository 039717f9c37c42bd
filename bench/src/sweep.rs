//! Validations a second by the sweep with its durable store, beside a bare loop of the same HTTP
//! client, and whether they depend on the number of sessions.
//!
//! Each runs in its own process and asks the same mock over real HTTP, with the same concurrency.
//! The sweep reads each row, opens its token, asks, and writes the proof. The bare loop only asks.
//! When all sessions are validated, the sweep's clock jumps to the next period.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use claviger_core::{AccessToken, ClientSecret, Expiry, Schedule, Timestamp, ValidateAnswer, limits};
use claviger_engine::{Clock, Engine, HttpClient, OsEntropy, Parts, ProviderHttp, Settings, SystemClock};
use claviger_mock::{
    Config, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Endpoint, Fault, FaultKind, LiveTokenLimit, MockTwitch,
    Server, User,
};
use claviger_provider::{Provider, Registration, Unanswered, twitch};
use claviger_seal::{KeyId, Keyring, RootKey};
use claviger_store_sqlite::SqliteStore;
use tokio::process::Command;

use crate::{
    fill::{Filling, fill},
    load::Measured,
};

const REDIRECT: &str = "http://localhost:9/auth/callback";
/// A key for temporary files.
const KEY: [u8; 32] = [7; 32];
const SESSIONS_PER_USER: u32 = 20;
/// The concurrency of the sweep.
const AT_ONCE: usize = limits::VALIDATIONS_AT_ONCE;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number of sessions in the larger store
    #[arg(long, default_value_t = 1_000_000)]
    sessions: u32,
    /// Number of sessions in the smaller one
    #[arg(long, default_value_t = 10_000)]
    few: u32,
    /// Duration of each measurement, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Rounds of measurements, in turns; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Delay of a second provider, in milliseconds; the first answers at once, a real one is slower
    #[arg(long, default_value_t = 5)]
    answers_after_ms: u64,
}

/// One measurement, as a process of its own.
#[derive(clap::Args)]
pub(crate) struct Part {
    /// The address of the mock
    #[arg(long)]
    mock: String,
    /// The store to sweep; without it, the bare loop
    #[arg(long)]
    store: Option<PathBuf>,
    /// A file with access tokens for the bare loop, one in each line
    #[arg(long)]
    tokens: Option<PathBuf>,
    #[arg(long)]
    seconds: u64,
}

/// The result of one measurement.
#[derive(Clone, Copy, Default)]
struct Figures {
    per_second: f64,
    resident_mib: f64,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let directory = tempfile::TempDir::new()?;
    let config = Config::demo().settings(|own| {
        own.live_token_limit = LiveTokenLimit::Off;
        own.token_lifetime_secs = 10 * 365 * 24 * 60 * 60;
    });
    let mock = Server::local(MockTwitch::new(config, 7))?;
    let (few, many) = (directory.path().join("few.db"), directory.path().join("many.db"));
    let tokens = prepare(&mock, &few, options.few).await?;
    let list = directory.path().join("tokens");
    std::fs::write(&list, tokens.join("\n"))?;
    prepare(&mock, &many, options.sessions).await?;

    let stores = Stores { list, few: (few, options.few), many: (many, options.sessions) };
    compare(options, &mock, &stores, "a provider that answers at once").await?;
    let after = Duration::from_millis(options.answers_after_ms);
    mock.with(|mock| mock.add_fault(Fault::always(Endpoint::Validate, FaultKind::delay(after))));
    compare(options, &mock, &stores, &format!("a provider that answers after {after:?}")).await
}

/// The baseline's or the sweep's input.
struct Stores {
    /// A file with access tokens.
    list: PathBuf,
    few: (PathBuf, u32),
    many: (PathBuf, u32),
}

async fn compare(options: &Options, mock: &Server, stores: &Stores, provider: &str) -> Result<()> {
    let Stores { list, few, many } = stores;
    let (mut bare, mut swept_few, mut swept_many) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        println!("{provider}: round {round} of {}", options.rounds);
        bare.push(part(mock, None, Some(list), options.seconds).await?);
        swept_few.push(part(mock, Some(&few.0), None, options.seconds).await?);
        swept_many.push(part(mock, Some(&many.0), None, options.seconds).await?);
    }
    let base = median(&bare).per_second;
    println!("\n{provider:<40}{:>16}{:>8}{:>10}{:>10}", "validations/s", "ratio", "to reach", "MiB");
    for (name, runs, reach) in [
        ("bare loop of the HTTP client".to_owned(), &bare, ""),
        (format!("sweep, {} sessions", few.1), &swept_few, "0.80"),
        (format!("sweep, {} sessions", many.1), &swept_many, "0.80"),
    ] {
        let Figures { per_second, resident_mib } = median(runs);
        println!("{name:<40}{per_second:>16.0}{:>8.2}{reach:>10}{resident_mib:>10.1}", per_second / base);
    }
    let flat = median(&swept_many).per_second / median(&swept_few).per_second;
    println!("many beside few: {flat:.2} (to reach: 0.85 to 1.15); memory with many to reach: 128 MiB\n");
    Ok(())
}

fn median(runs: &[Figures]) -> Figures {
    let one = |figure: fn(&Figures) -> f64| {
        let runs: Vec<_> =
            runs.iter().map(|run| Measured { per_second: figure(run), ..Measured::default() }).collect();
        Measured::median(&runs).per_second
    };
    Figures { per_second: one(|run| run.per_second), resident_mib: one(|run| run.resident_mib) }
}

/// Fills a store with sessions whose tokens the mock knows, all of them overdue. Returns the
/// tokens.
async fn prepare(mock: &Server, file: &Path, count: u32) -> Result<Vec<String>> {
    println!("filling a store with {count} sessions");
    let now_ms = SystemClock.now().as_millis();
    let mut tokens = Vec::with_capacity(count as usize);
    let fillings = (0..count).map(|number| {
        let user = format!("{}", 700_000_000 + number / SESSIONS_PER_USER);
        let signed_in = mock.with(|mock| {
            if number % SESSIONS_PER_USER == 0 {
                mock.add_user(User::new(user.as_str(), format!("user_{user}")));
            }
            mock.sign_in(&user, DEMO_CLIENT_ID, &[], now_ms)
        });
        let access_token = signed_in.context("the mock knows its users")?.access_token;
        tokens.push(access_token.clone());
        Ok(Filling { user, access_token, proven_ago: Schedule::default().period * 2, expiry: Expiry::Never })
    });
    fill(Arc::new(SqliteStore::open(file)?), &keyring()?, fillings.collect::<Vec<_>>()).await?;
    Ok(tokens)
}

fn keyring() -> Result<Keyring> {
    Ok(Keyring::new(vec![RootKey::new(KeyId(1), KEY)])?)
}

async fn part(mock: &Server, store: Option<&Path>, tokens: Option<&Path>, seconds: u64) -> Result<Figures> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["sweep-part", "--mock", &mock.url(), "--seconds", &seconds.to_string()]);
    for (name, file) in [("--store", store), ("--tokens", tokens)] {
        command.args(file.map(|_| name)).args(file);
    }
    let output = command.kill_on_drop(true).stderr(std::process::Stdio::inherit()).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut figures = text.split_whitespace().map(str::parse);
    match (output.status.success(), figures.next(), figures.next()) {
        (true, Some(Ok(per_second)), Some(Ok(resident_mib))) => Ok(Figures { per_second, resident_mib }),
        _ => bail!("a measurement failed:\n{text}"),
    }
}

/// Measures, and prints validations a second and the resident memory in MiB.
#[expect(clippy::disallowed_methods, reason = "a benchmark looks at real time")]
pub(crate) async fn measure(part: &Part) -> Result<()> {
    let http = Arc::new(Counting { http: HttpClient::new()?, sent: AtomicU64::new(0) });
    let secret = ClientSecret::new(DEMO_CLIENT_SECRET);
    let registration = Registration::new(DEMO_CLIENT_ID, secret, REDIRECT, Vec::new());
    let provider = twitch::PRESET.mock_at(&part.mock.parse()?, registration);
    let span = Duration::from_secs(part.seconds);
    let begun = std::time::Instant::now();
    let work = async {
        match (&part.store, &part.tokens) {
            (Some(store), _) => sweep(store, Arc::clone(&http), provider).await,
            (None, Some(tokens)) => ask(&std::fs::read_to_string(tokens)?, &http, &provider).await,
            (None, None) => bail!("neither a store nor tokens"),
        }
    };
    if let Ok(ended) = tokio::time::timeout(span, work).await {
        ended?;
        bail!("the work ended before its time");
    }
    let per_second = http.sent.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    println!("{per_second} {}", crate::gateway::resident_mib(std::process::id())?);
    // Requests in flight are not waited for.
    std::process::exit(0);
}

/// Validates all sessions repeatedly.
async fn sweep(store: &Path, http: Arc<Counting>, provider: Provider) -> Result<()> {
    let clock = Arc::new(Jumping::default());
    let mut settings = Settings::at(&provider);
    settings.sweep.validations_per_second = 1_000_000;
    let engine = Engine::start(Parts {
        store: Arc::new(SqliteStore::open(store)?),
        http,
        clock: Arc::clone(&clock) as _,
        entropy: Arc::new(OsEntropy),
        keyring: keyring()?,
        provider,
        settings,
        webhook: None,
        assertions: None,
    })
    .await?;
    loop {
        engine.sweep_due().await?;
        clock.jump(Schedule::default().period);
    }
}

/// Asks about all tokens repeatedly.
async fn ask(tokens: &str, http: &Counting, provider: &Provider) -> Result<()> {
    use futures_util::{StreamExt as _, stream};
    let ask = |token: &str| {
        let request = provider.identity.request(&provider.client, &AccessToken::new(token));
        async move {
            match provider.identity.read(&provider.client, http.send(request).await, SystemClock.now()) {
                ValidateAnswer::Valid(_) => Ok(()),
                other => bail!("a bare validation gave {other:?}"),
            }
        }
    };
    let mut running = stream::iter(tokens.lines().cycle()).map(ask).buffer_unordered(AT_ONCE);
    while let Some(outcome) = running.next().await {
        outcome?;
    }
    Ok(())
}

/// Counts the answers.
struct Counting {
    http: HttpClient,
    sent: AtomicU64,
}

#[async_trait]
impl ProviderHttp for Counting {
    async fn send(
        &self,
        request: http::Request<bytes::Bytes>,
    ) -> Result<http::Response<bytes::Bytes>, Unanswered> {
        let answer = self.http.send(request).await;
        self.sent.fetch_add(1, Ordering::Relaxed);
        answer
    }
}

/// The machine's clock, which can be set forward.
#[derive(Default)]
struct Jumping(AtomicI64);

impl Jumping {
    fn jump(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for Jumping {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(SystemClock.now().as_millis() + self.0.load(Ordering::SeqCst))
    }
}
