//! How instances hear of each other's ends: PostgreSQL's NOTIFY, sent with the change that it tells of.
//!
//! Commits with a message wait for each other, which is a matter of a few hundred a second. Ends and suspicions are rare and must
//! not be missed. New pairs are many and may be missed by an instance that was killed just then: whoever waits for one looks
//! from time to time. So these are told afterwards, all at once that came up meanwhile.

use std::{future::poll_fn, time::Duration};

use async_trait::async_trait;
use claviger_core::{ids::SessionId, time::Timestamp};
use claviger_store::{Change, News};
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
    sessions,
};

/// Under this name changes are told, each as a list of session ids in hexadecimal digits.
pub(crate) const CHANNEL: &str = "claviger_changes";
/// A message has at most 8000 octets, and an id takes 33.
pub(crate) const IDS_A_MESSAGE: i64 = 200;

/// The link says so often that it is alive.
const BEAT: Duration = Duration::from_secs(2);
/// And is taken for lost if nothing is heard of that for so long.
const SILENCE: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// New pairs are told so often: what came up meanwhile, in one commit.
const PAIRS: Duration = Duration::from_millis(20);
/// So many changes wait for their reader. More wait in the database.
const WAITING: usize = 4096;

/// Tells of new pairs.
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

    /// Has it told soon. While the database is away more pairs come up than anybody waits for: those are not told.
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
        let telling = database.write("tell", |link| async move { sessions::tell(&link, told).await });
        if let Err(error) = telling.await {
            tracing::debug!(%error, "new pairs were not told to the other instances");
        }
        ids.clear();
        tokio::time::sleep(PAIRS).await;
    }
}

/// A stream of changes. It connects again by itself. Dropping it ends it.
#[derive(Debug)]
pub struct Changes {
    heard: mpsc::Receiver<Change>,
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
impl News for Changes {
    async fn next(&mut self) -> Change {
        match self.heard.recv().await {
            Some(change) => change,
            // The listener runs until it is dropped; should it not, then nothing is heard from now on.
            None if self.over => std::future::pending().await,
            None => {
                self.over = true;
                Change::Lost
            }
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// The reader went away.
struct Unread;

/// Why a link ended.
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
    changes: mpsc::Sender<Change>,
    clock: DatabaseClock,
    /// Whether the reader believes that it hears all.
    up: bool,
    pause: Duration,
}

impl Teller {
    async fn tell(&mut self, change: Change) -> Result<(), Unread> {
        match change {
            Change::Resync => (self.up, self.pause) = (true, FIRST_PAUSE),
            Change::Lost => self.up = false,
            Change::Session(_) | Change::Heard { .. } => {}
        }
        self.changes.send(change).await.map_err(|_| Unread)
    }

    /// Tells that everything was told that was committed before this time.
    async fn tell_all_heard(&mut self, before: Timestamp) -> Result<(), Unread> {
        self.tell(Change::Heard { until: before.after(BEAT + SILENCE) }).await
    }

    /// Tells what a message says. What a newer version says otherwise may concern anything.
    async fn pass_on(&mut self, payload: &str) -> Result<(), Unread> {
        for id in payload.split(',') {
            let change = match Uuid::try_parse(id) {
                Ok(id) => Change::Session(SessionId::from_bytes(id.into_bytes())),
                Err(_) => Change::Resync,
            };
            self.tell(change).await?;
        }
        Ok(())
    }
}

async fn listen(address: Address, changes: mpsc::Sender<Change>, clock: DatabaseClock) {
    let mut teller = Teller { changes, clock, up: false, pause: FIRST_PAUSE };
    loop {
        let Err(end) = link(&address, &mut teller).await;
        let why = match end {
            End::Unread => return,
            End::Lost(why) => why,
        };
        if teller.up {
            tracing::warn!(%why, "changes by other instances are not heard until the link is back");
            if teller.tell(Change::Lost).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(teller.pause).await;
        teller.pause = LONGEST_PAUSE.min(teller.pause * 2);
    }
}

type Never = std::convert::Infallible;

async fn link(address: &Address, teller: &mut Teller) -> Result<Never, End> {
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
/// The link tells itself something again and again, under a name of its own. Messages come in the order of their commits,
/// so hearing that proves that everything before it was heard, which an answer to a question would not. It says when it was sent,
/// since it may lie unread for a while.
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
    teller.tell(Change::Resync).await?;
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
    // It begins anew with each beat that is heard.
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
    End::Lost("nothing is heard".to_owned())
}

/// The next message, with the name under which it was told. None for what is no such message.
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
