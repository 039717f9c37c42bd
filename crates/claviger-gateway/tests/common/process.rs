//! Gateways as processes: their configuration, start, signals and end.

use std::{
    fs::{File, OpenOptions},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use claviger_mock::{DEMO_CLIENT_ID, Server};
use http::StatusCode;

/// A wait of this length is a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway that can be started: its binary, its settings and its log.
pub struct Program {
    /// The gateway's binary, of this or another release.
    pub binary: PathBuf,
    pub directory: PathBuf,
}

impl Program {
    /// The gateway of this build.
    pub fn ours(directory: &Path) -> Self {
        Self { binary: env!("CARGO_BIN_EXE_claviger").into(), directory: directory.to_owned() }
    }

    /// Writes the settings for its next start.
    pub fn configure(&self, settings: &str) {
        std::fs::write(self.config(), settings).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.directory.join("claviger.toml")
    }

    /// Returns its log of all lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Returns the end of that log.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Starts it. It may exit at once if something is wrong.
    pub fn start(&self) -> Running {
        let log = self.log_file();
        let mut command = self.command("serve");
        Running(command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null()).spawn().unwrap())
    }

    /// Runs a command on its own configuration, such as `keys list`.
    pub fn run(&self, command: &str) -> Output {
        self.command(command).output().unwrap()
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(words.split(' ')).arg("--config").arg(self.config());
        command
    }

    fn log_file(&self) -> File {
        OpenOptions::new().create(true).append(true).open(self.directory.join("log")).unwrap()
    }
}

/// A running gateway. Dropping it kills it.
pub struct Running(Child);

impl Running {
    /// Kills it like `kill -9`.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Sends it a signal, such as `STOP`, `CONT` or `HUP`.
    pub fn tell(&self, signal: &str) {
        let told = Command::new("kill").arg(format!("-{signal}")).arg(self.0.id().to_string()).status();
        assert!(told.unwrap().success(), "{signal}");
    }

    /// Returns the id of its process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Returns whether it exited.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns whether the gateway at this address is ready.
pub async fn is_ready(client: &reqwest::Client, address: SocketAddr) -> bool {
    let asked = client.get(format!("http://{address}/readyz")).send().await;
    asked.is_ok_and(|answer| answer.status() == StatusCode::OK)
}

/// Returns an address at which nothing listens.
pub fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Returns a client that follows no redirects and has a timeout.
pub fn client(patience: Duration) -> reqwest::Client {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .resolve("localhost", (Ipv4Addr::LOCALHOST, 0).into())
        .timeout(patience)
        .build()
        .unwrap()
}

/// Returns settings of a gateway at this port in front of the mock.
pub fn settings(listen: SocketAddr, reached_by: u16, mock: &Server, further: &str) -> String {
    format!(
        r#"
        listen = "{listen}"
        public_url = "http://localhost:{reached_by}"
        insecure_plain_http_for_development = true
        provider.client_id = "{DEMO_CLIENT_ID}"
        provider.refreshes_per_second = 10000
        provider.mock_url_for_development = "{mock}"
        {further}
        "#,
        mock = mock.url(),
    )
}

/// Waits until this holds. After a timeout it fails with what `story` returns.
pub async fn until<F: Future<Output = bool>>(
    what: &str,
    story: impl Fn() -> String,
    mut holds: impl FnMut() -> F,
) {
    let waiting = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while !holds().await {
            ticks.tick().await;
        }
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        panic!("it takes too long until {what}\n{}", story());
    }
}
