//! The store: each method of the trait is one statement, or one transaction. A change of a session that was not written asks once more
//! by itself, for what is stored.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use claviger_core::{
    ids::{AttemptId, SessionId, Subject},
    session::{EndReason, OwedRevocation, Session},
    suspicion::Suspicion,
    sweep::Slot,
    time::Timestamp,
};
use claviger_store::{
    Backlog, Census, HeadCount, Memo, Others, Owed, OwedId, Placement, Replaced, Selection, Store,
    StoreError, Suspected, SuspicionKey, Visit, Wheel,
    archive::{MARKER, is_unfinished},
};
use tokio::task::JoinHandle;

use crate::{
    address::Address,
    changes::{Changes, PairTeller},
    clock::DatabaseClock,
    database::{self, Database, Link, bounds},
    error::OpenError,
    gather::Gatherer,
    logins, memos, owed, replace,
    schema::{self, Occasion, Plan},
    sessions, slots, suspicions,
    values::session_column,
};

/// A change of the schema may take so long, the wait for another instance's included.
const MIGRATION: Duration = Duration::from_secs(10 * 60);
/// And what goes through all sessions, or many.
const SURVEY: Duration = Duration::from_secs(60);

/// How the store uses the database. The defaults are right for most.
#[derive(Clone, Debug)]
pub struct Options {
    /// So many connections are made at most, without the one that listens. Of several a quarter is kept for reads. Those of all
    /// instances together have to be fewer than the database's `max_connections`.
    pub connections: usize,
    /// Whether the address leads to a pooler that gives a connection for one transaction at a time.
    pub transaction_pooler: bool,
    /// Where changes are listened to, if not at the address itself. Needed with a pooler.
    pub listen_address: Option<Address>,
    /// So many statements write claims and new pairs at a time: what comes up meanwhile goes together into the next one. With
    /// [`usize::MAX`] each is written alone.
    pub writers: usize,
    /// Each try of a call may take so long, and each of its waits: for a free connection, and of a claim or a new pair for its turn.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 16,
            transaction_pooler: false,
            listen_address: None,
            writers: 2,
            patience: Duration::from_secs(10),
        }
    }
}

/// Sessions in a PostgreSQL database that several instances share.
pub struct PostgresStore {
    database: Database,
    /// With more patience, for what goes through all sessions.
    survey: Database,
    clock: DatabaseClock,
    clock_keeper: JoinHandle<()>,
    pair_teller: PairTeller,
    gatherer: Arc<Gatherer>,
    listen_address: Option<Address>,
    address: Address,
    transaction_pooler: bool,
}

impl PostgresStore {
    /// Connects, and brings the database to the newest schema.
    ///
    /// # Errors
    /// [`OpenError`]; each says what the operator can do.
    pub async fn open(address: &Address, options: &Options) -> Result<Self, OpenError> {
        let store = Self::open_unasked(address, options).await?;
        let marker = store.memo(MARKER).await?;
        if is_unfinished(marker.as_ref()) { Err(OpenError::Unfinished) } else { Ok(store) }
    }

    /// Connects to copy all that is in the database, or to copy into it, although a copy into it may not have been finished. The
    /// database tells these connections from those of gateways.
    ///
    /// # Errors
    /// [`OpenError`]; each says what the operator can do.
    pub async fn open_archive(address: &Address, options: &Options) -> Result<Self, OpenError> {
        Self::open_unasked(&address.of_copy(), &of_copy(options)).await
    }

    /// Connects to compare all that is in the database. Nothing is made and nothing is changed: a database without our tables, or
    /// with those of an older schema, is refused.
    ///
    /// # Errors
    /// [`OpenError`]; each says what the operator can do.
    pub async fn open_to_compare(address: &Address, options: &Options) -> Result<Self, OpenError> {
        let (address, options) = (address.of_copy(), of_copy(options));
        let plan = Self::plan(&address, &options).await?;
        if !plan.steps.is_empty() {
            return Err(OpenError::Older { found: plan.found });
        }
        Self::open_unasked(&address, &options).await
    }

    /// Connects without asking whether a copy into the database was finished.
    async fn open_unasked(address: &Address, options: &Options) -> Result<Self, OpenError> {
        let Options { connections, transaction_pooler, listen_address, writers, patience } = options;
        let pooler = *transaction_pooler;
        let listen_address = listen_address.clone().or_else(|| (!pooler).then(|| address.clone()));
        if let Some(address) = &listen_address
            && database::is_pooled(&address.of_opening()).await.map_err(StoreError::from)?
        {
            return Err(OpenError::Pooler);
        }
        let migrating = Database::new(&address.of_opening(), 1, pooler, MIGRATION)?;
        schema::migrate(&migrating, Occasion::Start).await?;
        let database = Database::new(address, *connections, pooler, *patience)?;
        let clock = DatabaseClock::read(&database).await?;
        let clock_keeper = tokio::spawn(clock.clone().keep(database.clone()));
        let survey = Database::new(address, 1, pooler, SURVEY)?;
        let pair_teller = PairTeller::start(database.clone());
        let gatherer = Gatherer::new(database.clone(), *writers, *patience);
        let (address, transaction_pooler) = (address.clone(), pooler);
        Ok(Self {
            database,
            survey,
            clock,
            clock_keeper,
            pair_teller,
            gatherer,
            listen_address,
            address,
            transaction_pooler,
        })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn is_pooled(&self) -> bool {
        self.transaction_pooler
    }

    /// With more patience, for what goes through many rows.
    pub(crate) fn survey(&self) -> &Database {
        &self.survey
    }

    /// Says what [`PostgresStore::migrate`] would do, and changes nothing.
    ///
    /// # Errors
    /// [`OpenError`]; each says what the operator can do.
    pub async fn plan(address: &Address, options: &Options) -> Result<Plan, OpenError> {
        let database = Database::new(address, 1, options.transaction_pooler, options.patience)?;
        schema::plan(&database).await
    }

    /// Brings the database to the newest schema, and says what was done. Any number of instances may do so at once. What gateways
    /// of a release before the last cannot work with is done only here, and while no gateway is connected.
    ///
    /// # Errors
    /// [`OpenError`]; each says what the operator can do.
    pub async fn migrate(address: &Address, options: &Options) -> Result<Plan, OpenError> {
        let database = Database::new(&address.of_opening(), 1, options.transaction_pooler, MIGRATION)?;
        schema::migrate(&database, Occasion::Command).await
    }

    /// The clock that all instances share. Give the store times of this one alone: then leases mean the same to all.
    pub fn clock(&self) -> DatabaseClock {
        self.clock.clone()
    }

    /// Listens to what all instances change, this one included, on a connection of its own. None where there is no way to
    /// the database but through a pooler.
    pub fn changes(&self) -> Option<Changes> {
        Some(Changes::listen(self.listen_address.clone()?, self.clock()))
    }
}

/// What is set for who copies.
fn of_copy(options: &Options) -> Options {
    Options { connections: 2, patience: SURVEY, listen_address: None, ..options.clone() }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.clock_keeper.abort();
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

/// What a task of its own came to.
pub(crate) fn joined<T>(
    done: Result<Result<T, StoreError>, tokio::task::JoinError>,
) -> Result<T, StoreError> {
    done.unwrap_or_else(|_| Err(StoreError::Unavailable("the transaction was cut short".to_owned())))
}

#[async_trait]
impl Store for PostgresStore {
    async fn check(&self) -> Result<(), StoreError> {
        const LIGHT: &str =
            "UPDATE claviger.beacon SET lit_at = floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        let light = async |link: Link| link.execute(LIGHT, &bounds![]).await;
        match self.database.write("check", light).await? {
            1 => Ok(()),
            _ => Err(claviger_store::corrupt("the table beacon")),
        }
    }

    async fn insert(&self, session: Session, placement: Placement) -> Result<Vec<Session>, StoreError> {
        let database = self.database.clone();
        let transaction = async move {
            let work = |link| sessions::insert(link, &session, placement);
            database.transact("insert", &sessions::opening(&session.subject), work).await
        };
        joined(tokio::spawn(transaction).await)
    }

    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.database.read("load", |link| sessions::load(link, id)).await
    }

    async fn replace(&self, next: &Session, owed: Option<&OwedRevocation>) -> Result<Replaced, StoreError> {
        let new_pair = replace::has_new_pair(next);
        let replaced = match owed {
            None if new_pair => self.gatherer.write(next).await?,
            owed => self.database.write("replace", |link| replace::replace(link, next, owed)).await?,
        };
        if new_pair && replaced == Replaced::Done {
            self.pair_teller.of(session_column(next.id));
        }
        Ok(replaced)
    }

    async fn replace_claim(&self, next: &Session) -> Result<Replaced, StoreError> {
        self.gatherer.write(next).await
    }

    async fn devices(&self, subject: &Subject, limit: usize) -> Result<Vec<Session>, StoreError> {
        self.database.read("devices", |link| sessions::devices(link, subject, limit)).await
    }

    async fn end_all(
        &self,
        selection: &Selection,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<Vec<Session>, StoreError> {
        let (database, selection) = (self.database.clone(), selection.clone());
        let transaction = async move {
            let work = |link| sessions::end_all(link, &selection, reason, at);
            database.transact("end all", &sessions::opening(&selection.subject), work).await
        };
        joined(tokio::spawn(transaction).await)
    }

    async fn touch(&self, seen: &[(SessionId, Timestamp)]) -> Result<(), StoreError> {
        if seen.is_empty() {
            return Ok(());
        }
        let mut seen = seen.to_vec();
        seen.sort_unstable();
        self.database.write("touch", |link| sessions::touch(link, &seen)).await
    }

    async fn overdue(
        &self,
        idle_since: Timestamp,
        created_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError> {
        let work = |link| sessions::overdue(link, idle_since, created_until, limit);
        self.database.read("overdue", work).await
    }

    async fn distrusted(&self, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        self.database.read("distrusted", |link| sessions::distrusted(link, limit)).await
    }

    async fn purge(&self, created_until: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.database.write("purge", |link| sessions::purge(link, created_until, limit)).await
    }

    async fn spend_login(&self, state_hash: [u8; 32], expires_at: Timestamp) -> Result<bool, StoreError> {
        let work = |link| logins::spend(link, &state_hash, expires_at);
        self.database.write("spend login", work).await
    }

    async fn forget_logins(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.database.write("forget logins", |link| logins::forget(link, now, limit)).await
    }

    async fn owe(&self, owed: &OwedRevocation) -> Result<(), StoreError> {
        self.database.write("owe", |link| owed::owe(link, owed)).await
    }

    async fn take_owed(
        &self,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Owed>, StoreError> {
        let work = |link| owed::take(link, attempt, now, lease_until, limit);
        self.database.write("take owed", work).await
    }

    async fn settle_owed(&self, id: OwedId, attempt: AttemptId) -> Result<bool, StoreError> {
        self.database.write("settle owed", |link| owed::settle(link, id, attempt)).await
    }

    async fn postpone_owed(
        &self,
        id: OwedId,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let work = |link| owed::postpone(link, id, attempt, due_at);
        self.database.write("postpone owed", work).await
    }

    async fn owed_backlog(&self) -> Result<Backlog, StoreError> {
        self.database.read("backlog", owed::backlog).await
    }

    async fn take_slots(
        &self,
        wheel: Wheel,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Visit>, StoreError> {
        let work = |link| slots::take(link, wheel, attempt, now, lease_until, limit);
        self.database.write("take slots", work).await
    }

    async fn in_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Session>, StoreError> {
        let work = |link| sessions::in_slot(link, wheel, slot, after, limit);
        self.database.read("in slot", work).await
    }

    async fn hold_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        attempt: AttemptId,
        lease_until: Timestamp,
    ) -> Result<bool, StoreError> {
        let work = |link| slots::hold(link, wheel, slot, attempt, lease_until);
        self.database.write("hold slot", work).await
    }

    async fn leave_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let work = |link| slots::leave(link, wheel, slot, attempt, due_at);
        self.database.write("leave slot", work).await
    }

    async fn longest_due(&self, wheel: Wheel) -> Result<Option<Timestamp>, StoreError> {
        self.database.read("longest due", |link| slots::longest_due(link, wheel)).await
    }

    async fn replace_all(&self, next: &[Session]) -> Result<Vec<bool>, StoreError> {
        if next.is_empty() {
            return Ok(Vec::new());
        }
        self.database.write("replace all", |link| replace::replace_all(link, next)).await
    }

    /// It goes through the narrow table, 100 MB for a million sessions.
    async fn census(&self, now: Timestamp) -> Result<Census, StoreError> {
        self.survey.read("census", |link| sessions::census(link, now)).await
    }

    async fn heads(&self) -> Result<Vec<HeadCount>, StoreError> {
        self.survey.read("heads", sessions::heads).await
    }

    async fn suspect(
        &self,
        key: SuspicionKey,
        suspicion: &Suspicion,
        noted_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let work = |link| suspicions::note(link, key, suspicion, noted_at);
        self.database.write("suspect", work).await
    }

    async fn take_suspicions(
        &self,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Suspected>, StoreError> {
        let work = |link| suspicions::take(link, attempt, now, lease_until, limit);
        self.database.write("take suspicions", work).await
    }

    async fn settle_suspicion(&self, key: SuspicionKey, attempt: AttemptId) -> Result<bool, StoreError> {
        let work = |link| suspicions::settle(link, key, attempt);
        self.database.write("settle suspicion", work).await
    }

    async fn postpone_suspicion(
        &self,
        key: SuspicionKey,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let work = |link| suspicions::postpone(link, key, attempt, due_at);
        self.database.write("postpone suspicion", work).await
    }

    async fn forget_suspicions(&self, noted_until: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let work = |link| suspicions::forget(link, noted_until, limit);
        self.database.write("forget suspicions", work).await
    }

    async fn memo(&self, name: &str) -> Result<Option<Memo>, StoreError> {
        self.database.read("memo", |link| memos::read(link, name)).await
    }

    async fn put_memo(&self, name: &str, memo: &Memo) -> Result<bool, StoreError> {
        self.database.write("put memo", |link| memos::put(link, name, memo)).await
    }

    fn others(&self) -> Others {
        self.changes().map_or(Others::Unheard, |changes| Others::Heard(Box::new(changes)))
    }
}
