//! The commands.

mod check_config;
mod keys;
mod migrate;
mod plan;
mod serve;
mod signals;
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
};

pub(crate) use keys::put_on_top as put_key_on_top;
pub(crate) use signals::told_to_stop;

/// Sign-in and sessions in front of any web app.
///
/// Claviger stands in front of an app as a reverse proxy, or beside a proxy as its forward-auth. It signs users in
/// through Twitch, keeps their sessions and tokens, and tells the app who is calling.
#[derive(Debug, Parser)]
#[command(name = "claviger", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  claviger demo                                     try it, without configuration, credentials or network
  claviger keys generate --file claviger.keys
  claviger check-config --config claviger.toml      see every setting, where it comes from, and what is wrong
  claviger plan --users 100000                      see what so many users need
  claviger serve --config claviger.toml
  claviger status --config claviger.toml            see how it is doing
  claviger store copy --config claviger.toml        move from SQLite to PostgreSQL
  CLAVIGER_SESSION__IDLE=7d claviger serve --config claviger.toml";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the gateway until it is told to stop
    #[command(after_help = SERVE_HELP)]
    Serve(serve::ServeArgs),
    /// Shows every setting with its value and where the value came from, and says what is wrong
    CheckConfig(ConfigArgs),
    /// Prints the documentation of all settings, as Markdown
    ConfigReference,
    /// Makes keys, and counts what each sealed
    Keys {
        #[command(subcommand)]
        command: keys::Keys,
    },
    /// Brings the database to the newest schema
    #[command(after_help = migrate::HELP)]
    Migrate(migrate::Args),
    /// Copies all that is in one store into another
    Store {
        #[command(subcommand)]
        command: store::Store,
    },
    /// Asks a running gateway how things are, and prints it
    #[command(after_help = status::HELP)]
    Status(ConfigArgs),
    /// Says how many validations so many users need, and whether a budget suffices
    Plan(plan::Args),
    /// Starts a mock of Twitch, a sample app and a gateway on this computer
    Demo(demo::DemoArgs),
    /// Starts a mock of Twitch alone
    MockTwitch(claviger_mock::cli::Args),
}

const SERVE_HELP: &str = "\
Settings come from their defaults, the file, and environment variables, the last one given counting:
CLAVIGER_PUBLIC_URL is public_url, CLAVIGER_SESSION__IDLE is session.idle. `claviger config-reference` lists all.

Keys and client secret are read anew when their files change, and at SIGHUP. If the new ones cannot be used, the log says
so and the old ones stay in force.

SIGTERM and SIGINT stop the gateway after the requests in flight, within limits.shutdown.";

const NO_FILE: &str = "No file was read: if you have one, name it with --config FILE.";

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The file with the configuration; without it, defaults and environment variables are all there is
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
        // A variable that is not UTF-8 is none of ours: our names and values are.
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Ok(layers.environment(variables))
    }

    /// Makes a configuration of what was merged.
    fn config(&self, layers: &Layers) -> anyhow::Result<Config> {
        Config::new(layers).map_err(|problems| {
            let forgotten = self.config.is_none() && layers.missing().next().is_some();
            if forgotten { anyhow!("{problems}\n{NO_FILE}") } else { problems.into() }
        })
    }
}

impl Cli {
    /// Does what the command line says.
    pub fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Serve(args) => serve::run(&args),
            Command::CheckConfig(args) => check_config::run(&args),
            Command::ConfigReference => print(&reference::markdown()),
            Command::Keys { command } => keys::run(command),
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
                // Nobody is left to be told if this fails.
                let _written = writeln!(io::stderr().lock(), "claviger: {error:#}");
                store::exit_code(&error).map_or(ExitCode::FAILURE, ExitCode::from)
            }
        }
    }
}

fn mock_twitch(args: claviger_mock::cli::Args) -> anyhow::Result<()> {
    block_on(async {
        let server = claviger_mock::cli::start(&args, &mut io::stdout().lock())?;
        told_to_stop()?.cancelled().await;
        server.stop().await;
        Ok(())
    })
}

/// Runs to the end on all processors.
fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// Writes to standard output. A reader that went away wants no more.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
