//! Keys roll while a gateway process serves users with expiring tokens: no request fails, no
//! session ends, and nothing stays on the old key.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test may fail as a test does"
)]

#[path = "common/mod.rs"]
mod common;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use axum::Router;
use claviger_mock::{DEMO_CLIENT_SECRET, Rotation};

use crate::common::{
    keys::{KeyFile, listed, until_roles},
    operations::Operation,
    process::{self, PATIENCE, Program, Running, until},
    users::{Device, Load, Users, provider},
};

const DEVICES: usize = 120;
const WORKERS: usize = 6;

/// A gateway and its surroundings.
struct Site {
    users: Users,
    keys: KeyFile,
    program: Program,
    address: SocketAddr,
    metrics: SocketAddr,
    directory: tempfile::TempDir,
    client: reqwest::Client,
}

fn app() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let server = axum_server::from_tcp(listener).unwrap();
    let hello = Router::new().fallback(|| async { "hello" });
    tokio::spawn(async move { server.serve(hello.into_make_service()).await });
    address
}

impl Site {
    fn new() -> Self {
        claviger_gateway::choose_tls();
        let (mock, directory) = (provider(Rotation::OneTime), tempfile::tempdir().unwrap());
        let (address, metrics) = (process::free(), process::free());
        let keys = KeyFile::generate(directory.path().join("claviger.keys"));
        let secret = directory.path().join("client.secret");
        std::fs::write(&secret, DEMO_CLIENT_SECRET).unwrap();
        let further = format!(
            r#"
            upstream = "http://{app}"
            keyring_file = {keys:?}
            store.path = {store:?}
            session.custody = "server"
            provider.client_secret_file = {secret:?}
            provider.rotation = "one_time"
            sweep.validations_per_second = 10000
            metrics.listen = "{metrics}"
            "#,
            app = app(),
            keys = keys.path(),
            store = directory.path().join("claviger.db"),
        );
        let program = Program::ours(directory.path());
        program.configure(&process::settings(address, address.port(), &mock, &further));
        let (ring, client) = (keys.clone(), process::client(PATIENCE));
        let users = Users::new(mock, address, move || ring.ring());
        Self { users, keys, program, address, metrics, directory, client }
    }

    async fn start(&self) -> Running {
        let running = self.program.start();
        let is_ready = || process::is_ready(&self.client, self.address);
        until("it is ready", || self.program.log(), is_ready).await;
        running
    }

    /// A file of one key that the gateway does not have.
    fn only(&self, id: u32) -> PathBuf {
        let path = self.directory.path().join(format!("only-{id}"));
        KeyFile::at(path.clone()).change(&format!("generate --id {id}"));
        path
    }

    async fn until_roles(&self, expected: &[(u64, &str)]) {
        until_roles(&self.client, self.metrics, expected, || self.program.log()).await;
    }

    /// Sends one request of a device.
    async fn ask(&self, device: &Device, round: usize) {
        if round.is_multiple_of(5) {
            self.users.mock.with(|mock| mock.expire_access_tokens(&device.user));
        }
        match round % 4 {
            0 => self.users.open_page(device, "/a/page").await,
            1 => self.users.look(device).await,
            2 => self.users.open_page(device, "/auth/check").await,
            _ => self.users.open_page(device, "/auth/check?assurance=provider").await,
        };
    }

    /// Devices take turns, so that none sends two requests at a time, like a browser that waits for
    /// one answer after the other.
    fn load(self: &Arc<Self>, devices: &[Arc<Device>]) -> Load {
        let (site, devices) = (Arc::clone(self), Arc::<[_]>::from(devices));
        Load::start(WORKERS, move |n| {
            let (site, device) = (Arc::clone(&site), Arc::clone(&devices[n % DEVICES]));
            async move { site.ask(&device, n + n / DEVICES).await }
        })
    }

    fn assert_nobody_complains(&self, when: &str) {
        let operations = self.users.operations();
        assert_eq!(operations.failed(), Vec::<&Operation>::new(), "{when}\n{}", self.program.log());
        assert_eq!(operations.violations(0), [], "{when}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_rotation_under_load_fails_no_request() {
    let site = Arc::new(Site::new());
    let mut running = site.start().await;
    let devices = site.users.sign_in(0..DEVICES).await;
    let first_cookies: Vec<_> = devices.iter().map(|device| device.cookie()).collect();
    let load = site.load(&devices);
    site.users.go_on_for(200).await;
    let old = std::fs::read_to_string(site.keys.path()).unwrap();

    // A file without a key in use is refused, and so is one that is no key file.
    let only = site.only(2);
    for (text, refusal) in [
        (std::fs::read_to_string(&only).unwrap(), "key 1 is in use by"),
        ("no keys\n".to_owned(), "a root key is written as"),
    ] {
        std::fs::write(site.keys.path(), text).unwrap();
        let is_refused = || std::future::ready(site.program.log().contains(refusal));
        until(refusal, || site.program.log(), is_refused).await;
        assert!(site.program.log().contains("the operator must act"), "{}", site.program.log());
    }
    site.users.go_on_for(100).await;
    site.until_roles(&[(1, "seals")]).await;
    site.assert_nobody_complains("what is refused changes nothing");

    // The new key is added by the file, and seals after SIGHUP.
    std::fs::write(site.keys.path(), old).unwrap();
    site.keys.change("generate --next");
    site.until_roles(&[(2, "next"), (1, "seals")]).await;
    site.users.go_on_for(200).await;
    site.keys.change("promote");
    running.tell("HUP");
    site.until_roles(&[(2, "seals"), (1, "older")]).await;
    let is_left = || async { listed(&site.client, site.metrics).await[1].2 == 0 };
    until("nothing is left on the old key", || site.program.log(), is_left).await;
    let has_new = |(device, first): (&Arc<Device>, &String)| device.cookie() != *first;
    let all_have = || std::future::ready(devices.iter().zip(&first_cookies).all(has_new));
    until("every device has a new cookie", || site.program.log(), all_have).await;
    site.assert_nobody_complains("rotation");

    // The old key is removed.
    site.keys.retire(1);
    site.until_roles(&[(2, "seals")]).await;
    site.users.go_on_for(400).await;
    load.stop().await;
    site.assert_nobody_complains("without the old key");
    assert_eq!(site.users.reused(), 0, "SPENT");
    assert!(
        site.program.log().contains("everything is sealed with the newest key"),
        "{}",
        site.program.log()
    );

    // After a restart every session is still in force. Without the key in use the gateway does not
    // start.
    running.kill();
    let good = std::fs::read(site.keys.path()).unwrap();
    std::fs::copy(site.only(3), site.keys.path()).unwrap();
    let refused = site.program.run("serve");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("key 2 is in use by 120 sessions"), "{told}");
    std::fs::write(site.keys.path(), good).unwrap();
    running = site.start().await;
    for device in &devices {
        site.ask(device, 1).await;
    }
    site.assert_nobody_complains("after a restart");
    drop(running);
}
