//! The commands.

mod check_config;
mod credentials;
mod keys;
mod migrate;
mod plan;
mod serve;
mod status;
mod store;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::anyhow;
use clap::{Args, Parser, Subcommand};

use crate::{
    config::{Config, Layers, Problems, reference},
    demo,
    signals::stop_on_signal,
};

/// Sign-in and sessions in front of any web app.
///
/// Claviger is a reverse proxy in front of an app, or the forward-auth of another proxy. It signs
/// users in at an OAuth 2.0 provider, keeps their sessions and tokens, and names the caller to the
/// app.
#[derive(Debug, Parser)]
#[command(name = "claviger", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  claviger demo                                     try it without configuration, credentials or network
  claviger keys generate --file claviger.keys
  claviger check-config --config claviger.toml      show every setting, its source, and all mistakes
  claviger plan --users 100000                      estimate what this number of users needs
  claviger serve --config claviger.toml
  claviger status --config claviger.toml            show the state of a running gateway
  claviger store copy --config claviger.toml        move from SQLite to PostgreSQL
  CLAVIGER_SESSION__IDLE=7d claviger serve --config claviger.toml";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until a signal stops it
    #[command(after_help = SERVE_HELP)]
    Serve(serve::ServeArgs),
    /// Show every setting with its value and its source, and report mistakes
    CheckConfig(ConfigArgs),
    /// Print the documentation of all settings, as Markdown
    ConfigReference,
    /// Make keys, and count the rows that each sealed
    Keys {
        #[command(subcommand)]
        command: keys::KeysCommand,
    },
    /// Make and revoke the credentials of the private listener
    Credentials {
        #[command(subcommand)]
        command: credentials::CredentialsCommand,
    },
    /// Migrate the database to the newest schema
    #[command(after_help = migrate::HELP)]
    Migrate(migrate::Args),
    /// Copy one store into another
    Store {
        #[command(subcommand)]
        command: store::StoreCommand,
    },
    /// Show the state of a running gateway
    #[command(after_help = status::HELP)]
    Status(ConfigArgs),
    /// Estimate the validations that a number of users needs, and whether a budget suffices
    Plan(plan::Args),
    /// Start a mock of Twitch, a sample app and a gateway on this computer
    Demo(demo::DemoArgs),
    /// Start only a mock of Twitch
    MockTwitch(claviger_mock::cli::Args),
}

const SERVE_HELP: &str = "\
Settings come from defaults, the file and environment variables; the last one given counts.
CLAVIGER_PUBLIC_URL is public_url, CLAVIGER_SESSION__IDLE is session.idle. `claviger config-reference` lists all.

The gateway reloads keys, client secret and credentials when their files change, and at SIGHUP. If the new ones are unusable, the log
reports it and the old ones stay in use.

SIGTERM and SIGINT stop the gateway. Requests in flight have limits.shutdown to finish.";

const NO_FILE: &str = "No file was read. If you have one, name it with --config FILE.";

/// The option that names the configuration.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The configuration file; without it, only defaults and environment variables count
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfigArgs {
    /// Merges defaults, file and environment.
    fn layers(&self) -> Result<Layers, Problems> {
        let layers = Layers::defaults();
        let layers = match &self.config {
            Some(path) => layers.file(path)?,
            None => layers,
        };
        // A variable that is not UTF-8 cannot be one of ours.
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Ok(layers.environment(variables))
    }

    /// Makes a configuration of merged layers.
    fn config(&self, layers: &Layers) -> anyhow::Result<Config> {
        Config::new(layers).map_err(|problems| {
            let forgotten = self.config.is_none() && layers.missing().next().is_some();
            if forgotten { anyhow!("{problems}\n{NO_FILE}") } else { problems.into() }
        })
    }
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Serve(args) => serve::run(&args),
            Command::CheckConfig(args) => check_config::run(&args),
            Command::ConfigReference => print(&reference::markdown()),
            Command::Keys { command } => keys::run(command),
            Command::Credentials { command } => credentials::run(command),
            Command::Migrate(args) => block_on(migrate::run(args)),
            Command::Store { command } => block_on(store::run(command)),
            Command::Status(args) => block_on(status::run(args)),
            Command::Plan(args) => plan::run(&args),
            Command::Demo(args) => block_on(demo::run(args)),
            Command::MockTwitch(args) => mock_twitch(args),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // There is nowhere to report a failure of this write.
                let _written = writeln!(io::stderr().lock(), "claviger: {error:#}");
                store::exit_code(&error).map_or(ExitCode::FAILURE, ExitCode::from)
            }
        }
    }
}

fn mock_twitch(args: claviger_mock::cli::Args) -> anyhow::Result<()> {
    block_on(async {
        let server = claviger_mock::cli::start(&args, &mut io::stdout().lock())?;
        stop_on_signal()?.cancelled().await;
        server.stop().await;
        Ok(())
    })
}

/// Runs a future to its end on a new runtime.
fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// Writes to standard output. A closed pipe is not an error, because its reader wants no more.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
