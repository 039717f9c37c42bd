//! `claviger demo`: mock Twitch, a sample app and a gateway on this computer, without
//! configuration.
//!
//! The gateway is the one that `claviger serve` runs, with the configuration built here.

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
use toml::Table;

use crate::{
    config::{CALLBACK, Config, Layers, LogFormat, secrets::Secrets},
    gateway::Gateway,
    key_file,
    server::{self, Listeners},
    signals::stop_on_signal,
    telemetry,
};

/// The port to try first.
const USUAL_PORT: u16 = 8080;

/// The name of the file with the root keys.
const KEYS: &str = "claviger.keys";

/// Where the demo runs and what it prints.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Port of the gateway; 0 takes any free port [default: 8080 if it is free, else any]
    #[arg(long)]
    port: Option<u16>,
    /// Print only one line of JSON, when the demo is ready
    #[arg(long)]
    json: bool,
    /// Directory for sessions and keys; without it the demo deletes them when it ends
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Runs the demo until a signal stops it.
///
/// # Errors
/// What prevents the start.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    telemetry::begin(LogFormat::Text, std::env::var("RUST_LOG").as_deref().unwrap_or("warn"));
    let stop = stop_on_signal()?;
    let data = Data::at(args.data.as_deref())?;
    let mock =
        Server::local(MockTwitch::new(claviger_mock::Config::demo(), seed())).context("mock Twitch")?;
    let app = app::Sample::start(mock.url(), stop.clone()).context("the sample app")?;
    let listener = listener(args.port)?;
    let port = listener.local_addr()?.port();

    let settings = settings(&data, &mock.url(), &app.url(), port)?;
    let layers = Layers::defaults().text(&settings.to_string(), "the demo")?;
    let config = Config::new(&layers)?;
    let gateway = Gateway::open(&config, Secrets::load(&config, &layers)?).await?;
    announce(&args, port, &mock.url())?;
    server::serve(gateway, Listeners { public: listener.try_into()?, private: None }, &config, stop).await?;
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
                    .with_context(|| format!("the directory {} cannot be created", directory.display()))?;
                Self::Kept(directory.to_owned())
            }
            None => Self::Passing(tempfile::Builder::new().prefix("claviger-demo-").tempdir()?),
        };
        let keys = data.file(KEYS);
        if !keys.exists() {
            key_file::put_on_top(&keys)?;
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

fn settings(data: &Data, mock: &str, app: &str, port: u16) -> Result<Table, toml::ser::Error> {
    let path = |name| data.file(name).to_string_lossy().into_owned();
    Table::try_from(serde_json::json!({
        "listen": format!("127.0.0.1:{port}"),
        "public_url": format!("http://localhost:{port}"),
        "upstream": app,
        "insecure_plain_http_for_development": true,
        "keyring_file": path(KEYS),
        "store": { "path": path("claviger.db") },
        "provider": {
            "client_id": DEMO_CLIENT_ID,
            "client_secret": DEMO_CLIENT_SECRET,
            "scopes": ["user:read:email"],
            "mock_url_for_development": mock,
        },
        // The mock gets a numeric address, because computers resolve localhost differently.
        "webhook": {
            "secret": secret(),
            "callback_url": format!("http://127.0.0.1:{port}{CALLBACK}"),
        },
        "limits": { "shutdown": "5s" },
    }))
}

fn listener(port: Option<u16>) -> anyhow::Result<TcpListener> {
    const OPTION: &str = "--port";
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match port {
        Some(port) => server::bind(at(port), OPTION),
        None => server::bind(at(USUAL_PORT), OPTION).or_else(|_| server::bind(at(0), OPTION)),
    }
}

/// A secret for the webhook. Each start has a new mock, so each start may have a new secret.
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
            Some(directory) => format!("Sessions and keys are kept in {}.", directory.display()),
            None => "Sessions and keys are deleted when the demo ends.".to_owned(),
        };
        format!(
            "The demo is ready. Open\n\n    {app}\n\n\
             It takes you to a mock of Twitch: sign in as anybody.\n\n\
             Then try\n  \
               - signing in a second time in a private window, and looking at your devices\n  \
               - signing out one device from the other\n  \
               - disconnecting the app at {mock}/settings/connections, and watching the open page\n  \
               - making tokens expire and the provider fail at {mock}/\n\n\
             Everything runs on this computer. {kept} Stop it with Ctrl+C.\n",
        )
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}
