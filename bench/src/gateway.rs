//! The gateway as users run it: the release binary with a configuration file and a store.

use std::{
    fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path, process::Stdio,
    sync::Arc, time::Duration,
};

use anyhow::{Context, Result, bail};
use claviger_seal::{KeyId, Keyring, RootKey};
use claviger_store::Store;
use claviger_store_sqlite::SqliteStore;
use secrecy::ExposeSecret;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{
    fill::{Filling, fill, random},
    load::{Load, Measured},
};

/// A running gateway with sessions in its store, which ends when this is dropped.
pub(crate) struct Gateway {
    process: Child,
    address: String,
    cookies: Vec<String>,
    _directory: TempDir,
}

impl Gateway {
    /// Starts it with a new SQLite file.
    pub(crate) async fn start(binary: &Path, sessions: u32) -> Result<Self> {
        Self::with_file(binary, sessions, None).await
    }

    /// Starts it before an app, with a new SQLite file.
    pub(crate) async fn before_app(binary: &Path, sessions: u32, app: &str) -> Result<Self> {
        Self::with_file(binary, sessions, Some(app)).await
    }

    async fn with_file(binary: &Path, sessions: u32, app: Option<&str>) -> Result<Self> {
        let directory = TempDir::new()?;
        let file = directory.path().join("claviger.db");
        let store = Arc::new(SqliteStore::open(&file)?);
        let setting = format!("path = {:?}", file.display());
        Self::with_store(binary, sessions, directory, store, &setting, app).await
    }

    /// Starts it with the store of this setting.
    pub(crate) async fn with_store(
        binary: &Path,
        sessions: u32,
        directory: TempDir,
        store: Arc<dyn Store>,
        setting: &str,
        app: Option<&str>,
    ) -> Result<Self> {
        let root = RootKey::new(KeyId(1), random()?);
        let keys = directory.path().join("claviger.keys");
        write_private(&keys, root.encode().expose_secret())?;
        let fillings = (0..sessions).map(Filling::made_up);
        let cookies = fill(store, &Keyring::new(vec![root])?, fillings).await?;
        let address = free_address()?;
        let config = directory.path().join("claviger.toml");
        std::fs::write(&config, configuration(&address, directory.path(), setting, app))?;
        let process = Command::new(binary)
            .args(["serve", "--config"])
            .arg(&config)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("the gateway does not start")?;
        let mut gateway = Self { process, address, cookies, _directory: directory };
        gateway.wait_until_ready().await?;
        Ok(gateway)
    }

    pub(crate) async fn measure(&self, load: &Load, assurance: &str) -> Result<Measured> {
        self.ask(load, &format!("/auth/check?assurance={assurance}")).await
    }

    pub(crate) async fn ask(&self, load: &Load, path: &str) -> Result<Measured> {
        load.run(self.id()?, &self.address, path).await
    }

    fn id(&self) -> Result<u32> {
        self.process.id().context("the gateway has ended")
    }

    pub(crate) fn cookies(&self) -> &[String] {
        &self.cookies
    }

    pub(crate) fn resident_mib(&self) -> Result<f64> {
        resident_mib(self.id()?)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        for _ in 0..200 {
            if let Some(status) = self.process.try_wait()? {
                bail!("the gateway ended at once: {status}");
            }
            let asked = reqwest::get(format!("http://{}/readyz", self.address)).await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the gateway was not ready in time")
    }
}

/// Writes a new file that only its owner can read.
fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

pub(crate) fn free_address() -> Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn configuration(address: &str, directory: &Path, store: &str, app: Option<&str>) -> String {
    let upstream = app.map(|app| format!("upstream = \"http://{app}\"")).unwrap_or_default();
    let port = address.rsplit(':').next().unwrap_or_default();
    let directory = directory.display();
    format!(
        r#"listen = "{address}"
public_url = "http://localhost:{port}"
trusted_proxies = ["127.0.0.1"]
insecure_plain_http_for_development = true
{upstream}
keyring_file = "{directory}/claviger.keys"

[provider]
client_id = "benchmark-client"
client_secret = "not-a-real-secret"
mock_url_for_development = "http://127.0.0.1:9"

[store]
{store}
"#
    )
}

/// A process's resident memory.
pub(crate) fn resident_mib(process: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
