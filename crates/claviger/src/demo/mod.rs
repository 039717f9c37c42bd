//! `claviger demo`: mock Twitch, a sample app and a gateway on this computer, with nothing to configure.
//!
//! The gateway is the one that `claviger serve` runs: only its configuration is written here instead of in a file.

mod app;

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use claviger_engine::{Entropy as _, OsEntropy};
use claviger_mock::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, MockTwitch, Server};
use toml::{Table, Value};

use crate::{
    cli::{put_key_on_top, told_to_stop},
    config::{CALLBACK, Config, Layers, LogFormat, secrets::Secrets},
    gateway::Gateway,
    server, telemetry,
};

/// The port that is tried first.
const USUAL_PORT: u16 = 8080;

/// The name of the file with the root keys.
const KEYS: &str = "claviger.keys";

/// Where the demo runs and what it prints.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Port of the gateway; 0 takes any free one [default: 8080 if it is free, else any]
    #[arg(long)]
    port: Option<u16>,
    /// Prints one line of JSON when everything is ready, and nothing else
    #[arg(long)]
    json: bool,
    /// Directory to keep sessions and keys in; without it they are gone when the demo ends
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Runs the demo until it is told to stop.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    telemetry::begin(LogFormat::Text, std::env::var("RUST_LOG").as_deref().unwrap_or("warn"));
    let stop = told_to_stop()?;
    let data = Data::at(args.data.as_deref())?;
    let mock =
        Server::local(MockTwitch::new(claviger_mock::Config::demo(), seed())).context("mock Twitch")?;
    let app = app::Sample::start(mock.url(), stop.clone()).context("the sample app")?;
    let listener = listener(args.port)?;
    let port = listener.local_addr()?.port();

    let layers =
        Layers::defaults().text(&settings(&data, &mock.url(), &app.url(), port).to_string(), "the demo")?;
    let config = Config::new(&layers)?;
    let gateway = Gateway::open(&config, Secrets::load(&config, &layers)?, stop.clone()).await?;
    announce(&args, port, &mock.url())?;
    server::serve(gateway, listener, &config.limits, stop).await?;
    app.stop();
    mock.stop().await;
    Ok(())
}

/// Where the demo keeps its files.
enum Data {
    Kept(PathBuf),
    Passing(tempfile::TempDir),
}

impl Data {
    fn at(directory: Option<&Path>) -> anyhow::Result<Self> {
        let data = match directory {
            Some(directory) => {
                std::fs::create_dir_all(directory)
                    .with_context(|| format!("{} cannot be made", directory.display()))?;
                Self::Kept(directory.to_owned())
            }
            None => Self::Passing(tempfile::Builder::new().prefix("claviger-demo-").tempdir()?),
        };
        let keys = data.file(KEYS);
        if !keys.exists() {
            put_key_on_top(&keys)?;
        }
        Ok(data)
    }

    fn file(&self, name: &str) -> PathBuf {
        match self {
            Self::Kept(directory) => directory.join(name),
            Self::Passing(directory) => directory.path().join(name),
        }
    }
}

fn settings(data: &Data, mock: &str, app: &str, port: u16) -> Table {
    let path = |name| Value::from(data.file(name).to_string_lossy().into_owned());
    let table = |entries: Vec<(&str, Value)>| -> Table {
        entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    };
    let provider = table(vec![
        ("client_id", DEMO_CLIENT_ID.into()),
        ("client_secret", DEMO_CLIENT_SECRET.into()),
        ("scopes", vec!["user:read:email"].into()),
        ("mock_url_for_development", mock.into()),
    ]);
    // The mock is told the address in numbers: what localhost means differs between computers.
    let webhook = table(vec![
        ("secret", secret().into()),
        ("callback_url", format!("http://127.0.0.1:{port}{CALLBACK}").into()),
    ]);
    table(vec![
        ("listen", format!("127.0.0.1:{port}").into()),
        ("public_url", format!("http://localhost:{port}").into()),
        ("upstream", app.into()),
        ("insecure_plain_http_for_development", true.into()),
        ("keyring_file", path(KEYS)),
        ("store", table(vec![("path", path("claviger.db"))]).into()),
        ("provider", provider.into()),
        ("webhook", webhook.into()),
        ("limits", table(vec![("shutdown", "5s".into())]).into()),
    ])
}

fn listener(port: Option<u16>) -> anyhow::Result<TcpListener> {
    const OPTION: &str = "--port";
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match port {
        Some(port) => server::bind(at(port), OPTION),
        None => server::bind(at(USUAL_PORT), OPTION).or_else(|_| server::bind(at(0), OPTION)),
    }
}

/// A secret for the webhook. The mock is a new one with every start, so nobody has to remember it.
fn secret() -> String {
    let mut bytes = [0; 32];
    OsEntropy.fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seed() -> u64 {
    let mut bytes = [0; 8];
    OsEntropy.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

fn announce(args: &DemoArgs, port: u16, mock: &str) -> anyhow::Result<()> {
    let app = format!("http://localhost:{port}");
    let text = if args.json {
        format!("{}\n", serde_json::json!({ "app": app, "mock": mock }))
    } else {
        let kept = match &args.data {
            Some(directory) => format!("Sessions and keys stay in {}.", directory.display()),
            None => "Sessions and keys are gone when it ends.".to_owned(),
        };
        format!(
            "The demo is ready. Open\n\n    {app}\n\n\
             You are led to a mock of Twitch: sign in as anybody.\n\n\
             Then try\n  \
               - signing in a second time in a private window, and looking at your devices\n  \
               - signing out one device from the other\n  \
               - taking the app's access away at {mock}/settings/connections, and watching the open page\n  \
               - making tokens expire and the provider fail at {mock}/\n\n\
             Everything runs on this computer only. {kept} Stop it with Ctrl+C.\n",
        )
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}
