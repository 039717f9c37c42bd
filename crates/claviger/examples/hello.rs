//! A whole app with "Log in with Twitch" in one file:
//! `cargo run -p claviger --features mock --example hello`.
//!
//! It signs in at a mock Twitch that it starts itself, so it needs no credentials. With your own,
//! leave the mock out and take `twitch::PRESET.provider(registration)`.

use std::sync::Arc;

use axum::{Router, response::Html, routing::get};
use claviger::{
    Claviger, ClientSecret, Engine, Entropy, HttpClient, KeyId, Keyring, MaybeSignedIn, OsEntropy, Parts,
    Registration, RootKey, Settings, SignedIn, Site, SqliteStore, SystemClock,
    mock::{Config, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, MockTwitch, Server},
    twitch,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A page for everybody.
async fn home(MaybeSignedIn(caller): MaybeSignedIn) -> Html<String> {
    let name = caller.as_ref().map_or("stranger", |caller| caller.display_name());
    Html(format!("<p>Hello {name}</p><p><a href=/private>a private page</a></p>"))
}

/// A page for users. Everybody else is asked to sign in.
async fn private(SignedIn(caller): SignedIn) -> Html<String> {
    let user = &caller.subject().id;
    Html(format!("<p>You are user {user}</p><p><a href=/auth/devices>your devices</a></p>"))
}

/// The app, with the engine that keeps its sessions.
pub async fn app(
    origin: &str,
    mock: &Server,
    directory: &std::path::Path,
) -> Result<(Router, Engine), Error> {
    let redirect_uri = format!("{origin}/auth/callback");
    let secret = ClientSecret::new(DEMO_CLIENT_SECRET);
    let registration = Registration::new(DEMO_CLIENT_ID, secret, redirect_uri, Vec::new());
    let mut key = [0; 32];
    OsEntropy.fill(&mut key);
    let provider = twitch::PRESET.mock_at(&mock.url().parse()?, registration);
    let engine = Engine::start(Parts {
        store: Arc::new(SqliteStore::open(&directory.join("hello.db"))?),
        http: Arc::new(HttpClient::new()?),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(OsEntropy),
        // A real app keeps its key: `claviger keys generate` makes one, `RootKey::parse` reads it.
        keyring: Keyring::new(vec![RootKey::new(KeyId(1), key)])?,
        settings: Settings::at(&provider),
        provider,
        webhook: None,
        assertions: None,
    })
    .await?;
    // `insecure` is for plain http on this computer only.
    let claviger = Claviger::new(engine.clone(), Site { insecure: true, ..Site::new(origin) });
    let app = Router::new()
        .route("/", get(home))
        .route("/private", get(private))
        .layer(claviger.layer())
        .merge(claviger.routes());
    Ok((app, engine))
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example says where to look")]
#[allow(dead_code, reason = "the test that runs this example has a main of its own")]
async fn main() -> Result<(), Error> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://localhost:{}", listener.local_addr()?.port());
    let mock = Server::local(MockTwitch::new(Config::demo(), 1))?;
    let directory = tempfile::tempdir()?;
    let (app, engine) = app(&origin, &mock, directory.path()).await?;
    println!("open {origin}");
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(async move { engine.run(stop).await });
    Ok(axum::serve(listener, app).await?)
}
