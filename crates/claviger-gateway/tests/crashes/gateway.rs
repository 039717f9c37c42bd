//! A gateway process on a store in a file, its users and their load.

use std::{net::SocketAddr, sync::Arc};

use claviger_mock::{DEMO_CLIENT_SECRET, Rotation};
use claviger_seal::{KeyId, Keyring, RootKey};
use claviger_store::Store as _;
use claviger_store_sqlite::SqliteStore;

use crate::{
    common::{
        history::Found,
        process::{self, Program, Running},
        users::{Device, Load, Users, chosen, provider},
    },
    journal::Journal,
};

/// The place where the gateway runs, dies and starts again.
pub(crate) struct Site {
    pub(crate) users: Users,
    address: SocketAddr,
    program: Program,
    client: reqwest::Client,
    directory: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new(rotation: Rotation, settings: &str) -> Self {
        claviger_gateway::choose_tls();
        let (mock, address) = (provider(rotation), process::free());
        let directory = tempfile::tempdir().unwrap();
        let further = format!(
            r#"
            keyring = ["1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"]
            provider.client_secret = "{DEMO_CLIENT_SECRET}"
            store.path = {path:?}
            {settings}
            "#,
            path = directory.path().join("claviger.db"),
        );
        let program = Program::ours(directory.path());
        program.configure(&process::settings(address, address.port(), &mock, &further));
        let ring = || Keyring::new(vec![RootKey::new(KeyId(1), [1; 32])]).unwrap();
        let (users, client) = (Users::new(mock, address, ring), process::client(process::PATIENCE));
        Self { users, address, program, client, directory }
    }

    /// Starts the gateway, and waits until it serves.
    pub(crate) async fn start(&self) -> Running {
        let running = self.program.start();
        let is_ready = || process::is_ready(&self.client, self.address);
        process::until("the gateway is ready", || self.program.last_words(), is_ready).await;
        running
    }

    /// Signs users in, each on one device.
    pub(crate) async fn sign_in(&self, count: usize) -> Vec<Arc<Device>> {
        self.users.sign_in(0..count).await
    }

    /// Starts workers that call the API with tokens that the provider has just let expire.
    pub(crate) fn load(self: &Arc<Self>, devices: &[Arc<Device>], workers: usize) -> Load {
        let (site, devices) = (Arc::clone(self), Arc::<[_]>::from(devices));
        Load::start(workers, move |n| {
            let (site, devices) = (Arc::clone(&site), Arc::clone(&devices));
            async move {
                site.users.call_expired(chosen(&devices, n)).await;
            }
        })
    }

    /// Starts to record every commit to the store's file. No process has it open.
    pub(crate) fn journal(&self) -> Journal {
        Journal::begin(&self.directory.path().join("claviger.db"))
    }

    /// Returns the rows as the dead gateway left them.
    pub(crate) async fn rows(&self, devices: &[Arc<Device>]) -> Vec<Found> {
        let store = SqliteStore::open(&self.directory.path().join("claviger.db")).unwrap();
        let mut found = Vec::new();
        for device in devices {
            found.extend(store.load(device.session).await.unwrap().as_ref().map(Found::of));
        }
        found
    }
}
