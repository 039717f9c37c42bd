//! The command line: `claviger mock-twitch`.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};

use crate::clock;
use crate::config::{
    Client, Config, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, DEMO_REDIRECT_URI, LiveTokenLimit, Rotation, User,
};
use crate::faults::{Fault, HELP};
use crate::mock::MockTwitch;
use crate::secret::Secret;
use crate::server::Server;

/// Runs a local stand-in for Twitch's login, to try "Log in with Twitch" without credentials.
///
/// It offers a consent page with users to pick from, tokens, validation, revocation, OpenID
/// Connect, a little of Helix, and EventSub webhooks. Point your app at the addresses that it
/// prints. Settings and faults can be changed while it runs: open its address in a browser, or use
/// the JSON API under /mock/.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Address and port to listen on; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:8410", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,

    /// Allows an address that other machines can reach; anybody on them can then sign in as anybody
    #[arg(long)]
    pub allow_anyone_on_the_network: bool,

    /// Address under which apps and browsers reach the mock, if not that of their requests
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,

    /// Client id to register
    #[arg(long, default_value = DEMO_CLIENT_ID)]
    pub client_id: String,

    /// Client secret to register; make one up, never use a real one
    #[arg(long, default_value = DEMO_CLIENT_SECRET, hide_default_value = true, value_parser = parse_secret)]
    pub client_secret: Secret,

    /// Redirect URI to register; may be given several times
    #[arg(long = "redirect-uri", default_value = DEMO_REDIRECT_URI, value_name = "URI")]
    pub redirect_uris: Vec<String>,

    /// Compares redirect URIs exactly, as Twitch does, instead of accepting any on localhost
    #[arg(long)]
    pub strict_redirects: bool,

    /// User who can sign in, as ID:LOGIN; may be given several times, and replaces the three demo
    /// users
    #[arg(long = "user", value_name = "ID:LOGIN", value_parser = parse_user)]
    pub users: Vec<User>,

    /// Lifetime of user access tokens in seconds
    #[arg(long, default_value_t = 14_000, value_name = "SECONDS")]
    pub token_lifetime_secs: u32,

    /// What a refresh does to the refresh token
    #[arg(long, value_enum, default_value_t = Rotation::Rotates)]
    pub rotation: Rotation,

    /// A refresh kills the access tokens that came from the same sign-in
    #[arg(long)]
    pub refresh_kills_old_access_token: bool,

    /// Limit of live access tokens for each user and client: off, kills-oldest:N or refuses:N
    #[arg(long, default_value_t = LiveTokenLimit::KillsOldest(50), value_name = "LIMIT")]
    pub live_token_limit: LiveTokenLimit,

    /// Fault from the start on, as described below; may be given several times
    #[arg(long = "fault", value_name = "FAULT")]
    pub faults: Vec<Fault>,

    /// Checks PKCE, which Twitch ignores
    #[arg(long)]
    pub pkce: bool,

    /// Seed of all tokens, for repeatable runs; random by default
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Why the mock does not start.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The address is not loopback, and the option that allows it is missing.
    #[error(
        "{0} can be reached from other machines, and anybody who reaches the mock can sign in as anybody; \
         listen on 127.0.0.1, or add --allow-anyone-on-the-network"
    )]
    ReachableByOthers(SocketAddr),
    /// An option has a value that cannot be used.
    #[error("{0}")]
    Option(String),
    /// The address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The banner cannot be written.
    #[error("cannot write: {0}")]
    Output(#[source] io::Error),
    /// The system gives no random seed.
    #[error("the system gives no random seed: {0}")]
    Seed(#[source] getrandom::Error),
}

/// Starts the mock, writes the banner, and serves until the future is dropped.
///
/// # Errors
/// The options contradict each other, or the address cannot be used.
pub async fn run(args: Args, out: &mut (impl Write + Send)) -> Result<(), CliError> {
    let _server = start(&args, out)?;
    std::future::pending::<()>().await;
    Ok(())
}

/// Starts the mock and writes the banner; the mock serves until the server is stopped or dropped.
///
/// # Errors
/// The options contradict each other, or the address cannot be used.
pub fn start(args: &Args, out: &mut impl Write) -> Result<Server, CliError> {
    if !args.listen.ip().is_loopback() && !args.allow_anyone_on_the_network {
        return Err(CliError::ReachableByOthers(args.listen));
    }
    let config = config(args)?;
    let seed = match args.seed {
        Some(seed) => seed,
        None => clock::random_seed().map_err(CliError::Seed)?,
    };
    let mut mock = MockTwitch::new(config, seed);
    args.faults.iter().for_each(|fault| mock.add_fault(fault.clone()));
    let listener = TcpListener::bind(args.listen);
    let server = listener.and_then(|listener| Server::start(mock, listener));
    let server = server.map_err(|source| CliError::Listen { address: args.listen, source })?;
    out.write_all(banner(args, &server).as_bytes()).and_then(|()| out.flush()).map_err(CliError::Output)?;
    Ok(server)
}

fn config(args: &Args) -> Result<Config, CliError> {
    let client = Client {
        client_id: args.client_id.clone(),
        client_secret: Some(args.client_secret.clone()),
        name: "Demo app".to_owned(),
        redirect_uris: args.redirect_uris.clone(),
    };
    client.check().map_err(CliError::Option)?;
    if args.token_lifetime_secs == 0 {
        return Err(CliError::Option("--token-lifetime-secs must be at least 1".to_owned()));
    }
    let mut config = Config::demo().settings(|settings| {
        settings.allow_any_loopback_redirect = !args.strict_redirects;
        settings.token_lifetime_secs = args.token_lifetime_secs;
        settings.rotation = args.rotation;
        settings.refresh_kills_old_access_token = args.refresh_kills_old_access_token;
        settings.live_token_limit = args.live_token_limit;
        settings.pkce = args.pkce;
    });
    config.clients = vec![client];
    if !args.users.is_empty() {
        config.users = args.users.clone();
    }
    Ok(match &args.public_url {
        Some(url) => config.public_url(url),
        None => config,
    })
}

fn banner(args: &Args, server: &Server) -> String {
    let url = args.public_url.clone().unwrap_or_else(|| server.url());
    let url = url.trim_end_matches('/');
    let redirect_uris = if args.strict_redirects {
        args.redirect_uris.join("\n                 ")
    } else {
        format!(
            "{}\n                 and any http address on localhost",
            args.redirect_uris.join("\n                 ")
        )
    };
    let users: Vec<String> =
        server.with(|mock| mock.users().map(|user| format!("{} ({})", user.login, user.id)).collect());
    format!(
        "Mock Twitch listens on {listen}\n\
         It is a stand-in for local development: anybody can sign in as anybody.\n\n\
         Set in your app:\n  \
           authorize URL  {url}/oauth2/authorize\n  \
           token URL      {url}/oauth2/token\n  \
           validate URL   {url}/oauth2/validate\n  \
           revoke URL     {url}/oauth2/revoke\n  \
           issuer         {url}/oauth2\n  \
           Helix          {url}/helix\n  \
           client id      {client_id}\n  \
           client secret  {client_secret}\n\n\
         Redirect URIs    {redirect_uris}\n\
         Users            {users}\n\
         Connections      {url}/settings/connections\n\n\
         For Claviger in front of an app on port 3000, this is the whole claviger.toml:\n\n\
         {gateway}\n\
         Make the key with `claviger keys generate --file claviger.keys`, start the gateway with\n\
         `claviger serve --config claviger.toml`, and open http://localhost:8080.\n\n\
         Change users, tokens, faults and settings, and watch the requests, at\n  {url}/\n",
        gateway = gateway_config(url, &args.client_id, args.client_secret.expose()),
        listen = server.address(),
        client_id = args.client_id,
        client_secret = args.client_secret.expose(),
        users = users.join("\n                 "),
    )
}

/// A configuration of the gateway that goes with this mock. The README shows it, too.
fn gateway_config(url: &str, client_id: &str, client_secret: &str) -> String {
    format!(
        "public_url = \"http://localhost:8080\"\n\
         upstream = \"http://127.0.0.1:3000\"\n\
         keyring_file = \"claviger.keys\"\n\
         insecure_plain_http_for_development = true\n\n\
         [provider]\n\
         client_id = \"{client_id}\"\n\
         client_secret = \"{client_secret}\"\n\
         mock_url_for_development = \"{url}\"\n"
    )
}

fn parse_secret(text: &str) -> Result<Secret, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(Secret::new(text)) }
}

fn parse_user(text: &str) -> Result<User, String> {
    let (id, login) = text.split_once(':').ok_or("must be ID:LOGIN, such as 1001:ada")?;
    let user = User::new(id, login);
    user.check()?;
    Ok(user)
}
