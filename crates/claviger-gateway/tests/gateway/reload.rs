//! Files of secrets that change while a gateway starts or runs.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use claviger_gateway::{
    config::{Config, Layers, secrets::Secrets},
    gateway::Gateway,
    private::credentials::{CredentialsInForce, PREFIX},
    reload::{self, Source, Users, Watched},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::world::{listen, patiently};

/// The hash of the 32 bytes whose base64 [`SECRET`] holds.
const LINE: &str = "worker sha256:Zmh6rfhivXdsj8GLjp-OIAiXFIVu4jOzkCpZHQ1fKSU check\n";
const SECRET: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const KEYS: &str = "1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\n";

/// A configuration with files of secrets.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        claviger_gateway::choose_tls();
        let files = Self { directory: tempfile::tempdir().unwrap() };
        files.write("credentials", LINE);
        files.write("keys", KEYS);
        files.configure("credentials");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Replaces a file, so that nobody reads half of it.
    fn write(&self, name: &str, text: &str) {
        let new = self.path("new");
        std::fs::write(&new, text).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    /// Names this file of credentials.
    fn configure(&self, credentials: &str) {
        let text = format!(
            r#"
            listen = "127.0.0.1:1"
            public_url = "http://localhost:1"
            insecure_plain_http_for_development = true
            keyring_file = {keys:?}
            store.path = {store:?}
            provider.client_id = "id"
            provider.client_secret = "secret"
            provider.mock_url_for_development = "http://{nobody}"
            private.listen = "127.0.0.1:2"
            private.credentials_file = {credentials:?}
            "#,
            keys = self.path("keys"),
            store = self.path("claviger.db"),
            nobody = listen().local_addr().unwrap(),
            credentials = self.path(credentials),
        );
        self.write("claviger.toml", &text);
    }

    /// Starts a gateway. What `meanwhile` does happens between the first look at the files and the
    /// first reload.
    async fn start(&self, meanwhile: impl FnOnce()) -> Running {
        let (config, started) = load_file(&self.path("claviger.toml")).unwrap();
        let watched = Watched::new(&config);
        let secrets = Secrets::load(&config, &started).unwrap();
        let gateway = Gateway::open(&config, secrets).await.unwrap();
        meanwhile();
        let credentials = gateway.credentials().clone();
        let users = Users { engine: gateway.claviger().engine().clone(), credentials: credentials.clone() };
        let source = Source { config: Some(self.path("claviger.toml")), started, load };
        let (asked, stop) = (Arc::<Notify>::default(), CancellationToken::new());
        let _reloading = tokio::spawn({
            let (asked, stop) = (Arc::clone(&asked), stop.clone());
            async move { reload::keep(source, watched, &users, &asked, stop).await }
        });
        Running { credentials, asked, _stop: stop.drop_guard() }
    }
}

fn load_file(path: &Path) -> anyhow::Result<(Config, Layers)> {
    let layers = Layers::defaults().file(path)?;
    Ok((Config::new(&layers)?, layers))
}

fn load(source: &Source) -> anyhow::Result<(Config, Layers)> {
    load_file(source.config.as_ref().unwrap())
}

struct Running {
    credentials: CredentialsInForce,
    asked: Arc<Notify>,
    _stop: tokio_util::sync::DropGuard,
}

impl Running {
    fn knows_the_secret(&self) -> bool {
        self.credentials.find(&format!("{PREFIX}{SECRET}")).is_some()
    }

    async fn until_it_knows_the_secret(&self, expected: bool) {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        patiently(async {
            while self.knows_the_secret() != expected {
                ticks.tick().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_credential_that_is_revoked_during_the_start_is_not_in_force() {
    let files = Files::new();
    let running = files.start(|| files.write("credentials", "")).await;
    running.until_it_knows_the_secret(false).await;
}

#[tokio::test]
async fn a_credential_is_revoked_whatever_else_is_unreadable() {
    for broken in ["keys", "claviger.toml"] {
        let files = Files::new();
        let running = files.start(|| ()).await;
        assert!(running.knows_the_secret());
        files.write(broken, "nothing of use");
        files.write("credentials", "");
        running.until_it_knows_the_secret(false).await;
        // The file is watched all the same.
        files.write("credentials", LINE);
        running.until_it_knows_the_secret(true).await;
    }
}

#[tokio::test]
async fn another_file_is_read_at_a_reload_and_watched_from_then_on() {
    let files = Files::new();
    let running = files.start(|| ()).await;
    files.write("others", "");
    files.configure("others");
    running.asked.notify_one();
    running.until_it_knows_the_secret(false).await;
    files.write("others", LINE);
    running.until_it_knows_the_secret(true).await;
}
