//! Several gateways on one database, each with its own relay to it, behind a front, and their
//! users.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use claviger_mock::{DEMO_CLIENT_SECRET, Rotation};
use claviger_store::Store as _;
use claviger_store_postgres::{Options, PostgresStore};

use crate::{
    common::{
        history::Found,
        keys::KeyFile,
        operations::Answer,
        process::{self, Program, Running},
        relay::Relay,
        users::{Device, Users, provider},
    },
    front::Front,
    server::Server,
};

/// Maximum time of an instance's readiness check.
const READY: Duration = Duration::from_secs(2);

/// Everything on this computer.
pub(crate) struct Fleet {
    pub(crate) server: Arc<Server>,
    pub(crate) database: String,
    pub(crate) instances: Vec<Arc<Instance>>,
    pub(crate) users: Users,
    pub(crate) front: Arc<Front>,
    /// The operator's keys, of which each instance gets a copy.
    pub(crate) keys: KeyFile,
    directory: tempfile::TempDir,
}

impl Drop for Fleet {
    /// Keeps the instances' logs after a failed run.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.directory.disable_cleanup(true);
            eprintln!("the logs are in {}", self.directory.path().display());
        }
    }
}

/// One gateway.
pub(crate) struct Instance {
    pub(crate) program: Program,
    /// Its relay to the database.
    pub(crate) way: Relay,
    pub(crate) metrics: SocketAddr,
    pub(crate) address: SocketAddr,
    pub(crate) client: reqwest::Client,
    running: Mutex<Option<Running>>,
}

/// The gateway of this build.
pub(crate) fn ours() -> PathBuf {
    env!("CARGO_BIN_EXE_claviger").into()
}

impl Fleet {
    /// Sets up an instance of each of these binaries, with these settings, in front of a provider
    /// with this habit. None is started.
    pub(crate) async fn of(binaries: &[PathBuf], rotation: Rotation, settings: &str) -> Self {
        // Processes that are killed may leave a partial profile page.
        let server = Server::start("full_page_writes = on");
        Self::on(server, None, binaries, rotation, settings).await
    }

    /// The same on this server, which may have a standby.
    pub(crate) async fn on(
        server: Server,
        standby: Option<&Server>,
        binaries: &[PathBuf],
        rotation: Rotation,
        settings: &str,
    ) -> Self {
        claviger_gateway::choose_tls();
        let server = Arc::new(server);
        let database = server.database().await;
        let (mock, directory) = (provider(rotation), tempfile::tempdir().unwrap());
        let addresses: Vec<_> = binaries.iter().map(|_| process::free()).collect();
        let front = Front::before(&addresses);
        let mut instances = Vec::new();
        for (n, (binary, address)) in binaries.iter().zip(addresses).enumerate() {
            let own = directory.path().join(format!("instance-{n}"));
            std::fs::create_dir(&own).unwrap();
            let instance = Instance::new(binary, &own, address, server.port).await;
            let url = match standby {
                None => format!("host=127.0.0.1 port={}", instance.way.port),
                Some(standby) => format!(
                    "host=127.0.0.1,127.0.0.1 port={},{} target_session_attrs=read-write",
                    instance.way.port, standby.port
                ),
            };
            let further = instance.settings(&format!("{url} user=claviger dbname={database}"), settings);
            instance.program.configure(&process::settings(address, front.address.port(), &mock, &further));
            instances.push(Arc::new(instance));
        }
        let keys = KeyFile::generate(directory.path().join("claviger.keys"));
        let ring = keys.clone();
        let users = Users::new(mock, front.address, move || ring.ring());
        let fleet = Self { server, database, instances, users, front, keys, directory };
        fleet.instances.iter().for_each(|instance| fleet.hand_keys_to(instance));
        fleet
    }

    /// Gives the operator's keys to an instance.
    pub(crate) fn hand_keys_to(&self, instance: &Instance) {
        std::fs::copy(self.keys.path(), instance.program.directory.join("claviger.keys")).unwrap();
    }

    pub(crate) async fn start(&self) {
        futures_util::future::join_all(self.instances.iter().map(|instance| instance.start())).await;
    }

    /// Kills all instances, and waits until the database has finished their statements.
    pub(crate) async fn stop(&self) {
        self.instances.iter().for_each(|instance| instance.kill());
        let client = self.server.client(&self.database).await;
        let others = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let is_alone = || async { client.query_one(others, &[]).await.unwrap().get::<_, i64>(0) == 0 };
        process::until("the database is left alone", || self.logs(), is_alone).await;
    }

    /// Returns the rows in the database.
    pub(crate) async fn rows(&self, devices: &[Arc<Device>]) -> Vec<Found> {
        let store =
            PostgresStore::open(&self.server.address(&self.database), &Options::default()).await.unwrap();
        let mut found = Vec::new();
        for device in devices {
            found.extend(store.load(device.session).await.unwrap().as_ref().map(Found::of));
        }
        found
    }

    /// Returns the end of each instance's log.
    pub(crate) fn logs(&self) -> String {
        let words = self.instances.iter().map(|instance| instance.program.last_words());
        words.collect::<Vec<_>>().join("\n---\n")
    }
}

impl Instance {
    async fn new(binary: &Path, directory: &Path, address: SocketAddr, database: u16) -> Self {
        Self {
            program: Program { binary: binary.to_owned(), directory: directory.to_owned() },
            way: Relay::to(database).await,
            metrics: process::free(),
            address,
            client: process::client(READY),
            running: Mutex::default(),
        }
    }

    fn settings(&self, url: &str, further: &str) -> String {
        format!(
            r#"
            keyring_file = {keys:?}
            store.url = "{url}"
            store.insecure_plaintext_to_database = true
            provider.client_secret = "{DEMO_CLIENT_SECRET}"
            metrics.listen = "{metrics}"
            {further}
            "#,
            keys = self.program.directory.join("claviger.keys"),
            metrics = self.metrics,
        )
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it until it serves, again and again if the database makes it exit, as a supervisor
    /// would.
    pub(crate) async fn start(&self) {
        let is_ready = || {
            self.keep_up();
            process::is_ready(&self.client, self.address)
        };
        process::until("an instance is ready", || self.program.last_words(), is_ready).await;
    }

    /// Starts it, unless it runs.
    pub(crate) fn keep_up(&self) {
        let mut running = self.running();
        if running.as_mut().is_none_or(Running::has_ended) {
            *running = Some(self.program.start());
        }
    }

    /// Kills it like `kill -9`, if it runs.
    pub(crate) fn kill(&self) {
        if let Some(mut running) = self.running().take() {
            running.kill();
        }
    }

    /// Checks that no failure of the database or the network ended it.
    pub(crate) fn require_running(&self) {
        let runs = self.running().as_mut().is_some_and(|running| !running.has_ended());
        assert!(runs, "an instance ended by itself:\n{}", self.program.last_words());
    }

    /// LIVE: it runs, is ready, and serves this device.
    pub(crate) async fn require_serving(&self, users: &Users, device: &Device) {
        self.require_running();
        let is_ready = || process::is_ready(&self.client, self.address);
        process::until("an instance is ready again", || self.program.last_words(), is_ready).await;
        let answer = users.look_at(self.address, device).await;
        assert!(matches!(answer, Answer::Served(_)), "LIVE: {answer:?}\n{}", self.program.last_words());
    }

    /// Stops it (SIGTERM), and waits until it has exited.
    pub(crate) async fn stop(&self) {
        self.tell("TERM");
        let has_ended = || std::future::ready(self.running().as_mut().is_none_or(Running::has_ended));
        process::until("an instance has stopped", || self.program.last_words(), has_ended).await;
    }

    /// Sends it a signal.
    pub(crate) fn tell(&self, signal: &str) {
        self.running().as_ref().expect("it runs").tell(signal);
    }
}
