//! The conformance suite on databases of a real server: directly, and through a pooler.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, and so may what it calls")]

use std::sync::Arc;

use claviger_store::{FeedEvent, Harness, Subscriber as _, archive::Archive, conformance};
use claviger_store_postgres::{Address, OpenError, Options, PostgresStore, Way};
use common::server::{Server, eventually, free_port};

mod common;
#[path = "common/whole.rs"]
mod whole;

struct Databases {
    server: Server,
    /// A setting of each database.
    setting: &'static str,
}

impl Harness for Databases {
    async fn fresh(&self) -> Arc<dyn Archive> {
        let database = self.server.database().await;
        let set = format!("ALTER DATABASE {database} SET {}", self.setting);
        self.server.client(&database).await.batch_execute(&set).await.unwrap();
        let store = PostgresStore::open(&self.server.address(&database), &Options::default()).await.unwrap();
        self.server.client(&database).await.batch_execute(whole::WHOLE).await.unwrap();
        Arc::new(store)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_conforms() {
    let setting = "default_transaction_isolation = 'read committed'";
    conformance(&Databases { server: Server::start(""), setting }).await;
}

/// There the database rolls collisions back, and the store has to repeat them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_conforms_under_repeatable_read() {
    let setting = "default_transaction_isolation = 'repeatable read'";
    conformance(&Databases { server: Server::start(""), setting }).await;
}

struct Pooled {
    server: Server,
    port: u16,
}

impl Pooled {
    /// Starts a pooler in transaction mode, with fewer connections than its clients compete for.
    async fn start() -> Self {
        let server = Server::start("");
        let (port, directory) = (free_port(), server.directory().to_owned());
        let settings = format!(
            "[databases]\n* = host={0} port={1} user=claviger\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 500\n\
             pidfile = {0}/bouncer.pid\nlogfile = {0}/bouncer.log\n",
            directory.display(),
            server.port
        );
        server.run(&format!("cat >bouncer.ini <<'END'\n{settings}\nEND\npgbouncer -q -d bouncer.ini"));
        eventually("the pooler accepts connections", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        Self { server, port }
    }

    fn address(&self, database: &str) -> Address {
        let text = format!("postgres://claviger@127.0.0.1:{}/{database}", self.port);
        Address::parse(&text, &Way::InsecurePlaintext).unwrap()
    }
}

fn through_a_pooler() -> Options {
    Options { transaction_pooler: true, ..Options::default() }
}

impl Harness for Pooled {
    async fn fresh(&self) -> Arc<dyn Archive> {
        let database = self.server.database().await;
        Arc::new(PostgresStore::open(&self.address(&database), &through_a_pooler()).await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_conforms_behind_a_transaction_pooler() {
    conformance(&Pooled::start().await).await;
}

#[tokio::test]
async fn an_unannounced_pooler_is_detected() {
    let pooled = Pooled::start().await;
    let database = pooled.server.database().await;
    let unaware = PostgresStore::open(&pooled.address(&database), &Options::default()).await;
    assert!(matches!(unaware, Err(OpenError::Pooler)), "{unaware:?}");
    let listening = Options { listen_address: Some(pooled.address(&database)), ..through_a_pooler() };
    let unaware = PostgresStore::open(&pooled.address(&database), &listening).await;
    assert!(
        matches!(unaware, Err(OpenError::Pooler)),
        "a listener needs a connection of its own: {unaware:?}"
    );

    let aware = PostgresStore::open(&pooled.address(&database), &through_a_pooler()).await.unwrap();
    assert!(aware.changes().is_none(), "nothing is heard through a pooler");
    let direct = Options { listen_address: Some(pooled.server.address(&database)), ..through_a_pooler() };
    let aware = PostgresStore::open(&pooled.address(&database), &direct).await.unwrap();
    assert_eq!(aware.changes().unwrap().next().await, FeedEvent::Resync);
}
