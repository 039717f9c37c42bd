//! Notifies instances of each other's changes by PostgreSQL's NOTIFY.
//!
//! Commits that notify wait for each other, so PostgreSQL does only a few hundred a second. Ends
//! and suspicions are rare and must not be missed, so the change itself sends their notification.
//! New pairs are frequent, and a waiting instance also polls for them. So their notifications are
//! sent afterwards in batches, and may be lost if an instance is killed.

use std::{future::poll_fn, time::Duration};

use async_trait::async_trait;
use claviger_core::{SessionId, Timestamp};
use claviger_store::{FeedEvent, Subscriber};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket};
use uuid::Uuid;

use crate::{
    address::{Address, CONNECT},
    clock::DatabaseClock,
    database::Database,
    error::words,
    notify::{CHANNEL, notify},
};

/// Interval of the connection's heartbeats.
const BEAT: Duration = Duration::from_secs(2);
/// A connection is lost if its heartbeat is this late.
const SILENCE: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Interval between two batches of notifications of new pairs.
const PAIRS: Duration = Duration::from_millis(20);
/// At most this many changes wait in memory for their reader. More wait in the database.
const WAITING: usize = 4096;

/// Notifies other instances of new pairs.
#[derive(Debug)]
pub(crate) struct PairTeller {
    untold: mpsc::Sender<Uuid>,
    teller: JoinHandle<()>,
}

impl PairTeller {
    pub(crate) fn start(database: Database) -> Self {
        let (untold, queue) = mpsc::channel(WAITING);
        Self { untold, teller: tokio::spawn(tell(database, queue)) }
    }

    /// Queues a notification of a new pair. Drops it if the queue is full, as while the database is
    /// away.
    pub(crate) fn of(&self, session: Uuid) {
        let _told = self.untold.try_send(session);
    }
}

impl Drop for PairTeller {
    fn drop(&mut self) {
        self.teller.abort();
    }
}

async fn tell(database: Database, mut queue: mpsc::Receiver<Uuid>) {
    let mut ids = Vec::new();
    while queue.recv_many(&mut ids, WAITING).await > 0 {
        let told = &ids;
        let telling = database.write("tell", |connection| async move { notify(&connection, told).await });
        if let Err(error) = telling.await {
            tracing::debug!(%error, "other instances were not notified of new pairs");
        }
        ids.clear();
        tokio::time::sleep(PAIRS).await;
    }
}

/// A stream of changes that reconnects by itself until it is dropped.
#[derive(Debug)]
pub struct Changes {
    heard: mpsc::Receiver<FeedEvent>,
    over: bool,
    listener: JoinHandle<()>,
}

impl Changes {
    pub(crate) fn listen(address: Address, clock: DatabaseClock) -> Self {
        let (teller, heard) = mpsc::channel(WAITING);
        Self { heard, over: false, listener: tokio::spawn(listen(address, teller, clock)) }
    }
}

#[async_trait]
impl Subscriber for Changes {
    async fn next(&mut self) -> FeedEvent {
        match self.heard.recv().await {
            Some(change) => change,
            // The listener ends only with this stream. If it ended early, no further change
            // arrives.
            None if self.over => std::future::pending().await,
            None => {
                self.over = true;
                FeedEvent::Lost
            }
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// The reader was dropped.
struct Unread;

/// Why a connection ended.
enum End {
    Unread,
    Lost(String),
}

impl From<Unread> for End {
    fn from(_: Unread) -> Self {
        Self::Unread
    }
}

impl From<tokio_postgres::Error> for End {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Lost(words(&error))
    }
}

struct Teller {
    changes: mpsc::Sender<FeedEvent>,
    clock: DatabaseClock,
    /// Whether the reader believes that it receives every change.
    up: bool,
    pause: Duration,
}

impl Teller {
    async fn tell(&mut self, change: FeedEvent) -> Result<(), Unread> {
        match change {
            FeedEvent::Resync => (self.up, self.pause) = (true, FIRST_PAUSE),
            FeedEvent::Lost => self.up = false,
            FeedEvent::Session(_) | FeedEvent::UpToDate { .. } => {}
        }
        self.changes.send(change).await.map_err(|_| Unread)
    }

    /// Reports that every change committed before this time was delivered.
    async fn tell_all_heard(&mut self, before: Timestamp) -> Result<(), Unread> {
        self.tell(FeedEvent::UpToDate { until: before.after(BEAT + SILENCE) }).await
    }

    /// Passes on a notification's session ids. A payload of a newer version may concern anything,
    /// so it becomes a resync.
    async fn pass_on(&mut self, payload: &str) -> Result<(), Unread> {
        for id in payload.split(',') {
            let change = match Uuid::try_parse(id) {
                Ok(id) => FeedEvent::Session(SessionId::from_bytes(id.into_bytes())),
                Err(_) => FeedEvent::Resync,
            };
            self.tell(change).await?;
        }
        Ok(())
    }
}

async fn listen(address: Address, changes: mpsc::Sender<FeedEvent>, clock: DatabaseClock) {
    let mut teller = Teller { changes, clock, up: false, pause: FIRST_PAUSE };
    loop {
        let Err(end) = connect_and_follow(&address, &mut teller).await;
        let why = match end {
            End::Unread => return,
            End::Lost(why) => why,
        };
        if teller.up {
            tracing::warn!(%why, "changes by other instances do not arrive until the connection is back");
            if teller.tell(FeedEvent::Lost).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(teller.pause).await;
        teller.pause = LONGEST_PAUSE.min(teller.pause * 2);
    }
}

type Never = std::convert::Infallible;

async fn connect_and_follow(address: &Address, teller: &mut Teller) -> Result<Never, End> {
    let slow = |_| End::Lost("no connection in time".to_owned());
    match address.tls.clone() {
        Some(tls) => {
            let (client, connection) =
                timeout(2 * CONNECT, address.config.connect(tls)).await.map_err(slow)??;
            follow(&client, connection, teller).await
        }
        None => {
            let (client, connection) =
                timeout(2 * CONNECT, address.config.connect(NoTls)).await.map_err(slow)??;
            follow(&client, connection, teller).await
        }
    }
}

/// Listens until the connection is lost.
///
/// The connection sends heartbeats to a channel of its own. Notifications arrive in the order of
/// their commits, so a heartbeat proves that every earlier change has arrived. The answer to a
/// query would not prove that. Each heartbeat carries the time at which it was sent, since it may
/// lie unread for a while.
async fn follow<T>(
    client: &Client,
    mut connection: Connection<Socket, T>,
    teller: &mut Teller,
) -> Result<Never, End>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let own = "SELECT format('LISTEN %s', 'claviger_beat_' || pg_backend_pid())";
    let begin = async {
        let listen = client.simple_query(own).await?;
        let listen = listen.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        let listen = listen.unwrap_or_default().to_owned();
        client.batch_execute(&format!("LISTEN {CHANNEL}; {listen}")).await?;
        Ok::<_, tokio_postgres::Error>(listen.replacen("LISTEN", "NOTIFY", 1))
    };
    let begun_at = teller.clock.now();
    let mut begin = std::pin::pin!(timeout(SILENCE, begin));
    let notify = loop {
        tokio::select! {
            begun = &mut begin => break begun.map_err(|_| silent())??,
            payload = hear(&mut connection) => drop(payload?),
        }
    };
    teller.tell(FeedEvent::Resync).await?;
    teller.tell_all_heard(begun_at).await?;
    let own = notify.trim_start_matches("NOTIFY ").to_owned();
    let clock = teller.clock.clone();
    let mut beats = std::pin::pin!(async {
        loop {
            tokio::time::sleep(BEAT).await;
            let beat = format!("{notify}, '{}'", clock.now().as_millis());
            if let Err(error) = client.batch_execute(&beat).await {
                return error;
            }
        }
    });
    // Each heartbeat restarts it.
    let mut deaf = std::pin::pin!(tokio::time::sleep(BEAT + SILENCE));
    loop {
        tokio::select! {
            error = &mut beats => return Err(error.into()),
            () = &mut deaf => return Err(silent()),
            message = hear(&mut connection) => {
                let Some((channel, payload)) = message? else { continue };
                if channel == own {
                    deaf.set(tokio::time::sleep(BEAT + SILENCE));
                    if let Ok(sent_at) = payload.parse() {
                        teller.tell_all_heard(Timestamp::from_millis(sent_at)).await?;
                    }
                } else if channel == CHANNEL {
                    teller.pass_on(&payload).await?;
                }
            }
        }
    }
}

fn silent() -> End {
    End::Lost("no heartbeat in time".to_owned())
}

/// The next notification, as channel and payload. None for any other message.
async fn hear<T>(connection: &mut Connection<Socket, T>) -> Result<Option<(String, String)>, End>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    match poll_fn(|context| connection.poll_message(context)).await {
        Some(Ok(AsyncMessage::Notification(told))) => {
            Ok(Some((told.channel().to_owned(), told.payload().to_owned())))
        }
        Some(Ok(_)) => Ok(None),
        Some(Err(error)) => Err(error.into()),
        None => Err(End::Lost("the connection was closed".to_owned())),
    }
}
