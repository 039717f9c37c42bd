//! Rows to check with.

use std::{sync::Arc, time::Duration};

use claviger_core::{
    ActiveState, AttemptId, Change, Claim, Custody, DeviceLabel, EndReason, Expiry, Fingerprint,
    PendingRevocation, ProviderName, SealedBlob, SealedPair, Session, SessionId, SessionSecret, State,
    Subject, Timestamp, Version,
};
use tokio::task::JoinSet;

use crate::{Applied, Backlog, Item, ItemId, Lease, LeaseTerms, LeaseUpdate, Placement, Queue, Store};

/// Number of tasks in a race.
pub(super) const RACERS: u8 = 16;
/// Number of times that a race of two runs, since a single run may miss the moment.
pub(super) const ROUNDS: u8 = 24;

pub(super) const ROOMY: Placement = Placement { limit: 1000, replaces: None };
pub(super) const OURS: AttemptId = AttemptId([1; 16]);
pub(super) const THEIRS: AttemptId = AttemptId([2; 16]);

/// The time this many seconds after a fixed start.
pub(super) fn t(secs: i64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + secs * 1000)
}

pub(super) fn subject(id: &str) -> Subject {
    Subject { provider: ProviderName("twitch".to_owned()), id: id.to_owned() }
}

pub(super) fn pair(generation: Version) -> SealedPair {
    SealedPair {
        generation,
        access: SealedBlob(vec![0xa5; 80]),
        refresh: Some(SealedBlob(vec![0x5a; 81])),
        expiry: Expiry::At(t(14_000)),
    }
}

pub(super) fn claim(attempt: AttemptId) -> Claim {
    Claim {
        attempt,
        taken_at: t(3),
        lease_until: t(33),
        fingerprint: Fingerprint([7; 16]),
        replay: false,
        answer_lost: false,
    }
}

/// A session of Ada's that began this many seconds after the start. `tag` distinguishes sessions of
/// the same second.
pub(super) fn session(tag: u8, secs: i64) -> Session {
    Session {
        id: SessionId::new(t(secs), [tag; 10]),
        version: Version::FIRST,
        subject: subject("ada"),
        display_name: "Ada".to_owned(),
        secret_hash: SessionSecret::new([tag; 32]).hash(),
        custody: Custody::Device,
        device: DeviceLabel::new("Firefox on Linux"),
        created_at: t(secs),
        last_seen_at: t(secs),
        state: State::Live(ActiveState { pair: Some(pair(Version::FIRST)), proven_at: t(secs), claim: None }),
    }
}

pub(super) fn of(owner: &str, session: Session) -> Session {
    Session { subject: subject(owner), ..session }
}

/// The session, suspected by the provider.
pub(super) fn suspect(session: Session) -> Session {
    suspected(session).into_next()
}

pub(super) fn suspected(session: Session) -> Change {
    let generation = session.pair().expect("a pair").generation;
    session.suspect(generation).unwrap()
}

pub(super) fn ended(session: Session) -> Session {
    end(session).into_next()
}

pub(super) fn end(session: Session) -> Change {
    session.end(EndReason::SignedOut, t(900)).unwrap()
}

pub(super) fn revocation(secs: i64) -> PendingRevocation {
    PendingRevocation {
        session: SessionId::new(t(secs), [9; 10]),
        generation: Version(4),
        provider: ProviderName("twitch".to_owned()),
        access: SealedBlob(vec![0, 1, 2, 255]),
        refresh: (secs % 2 == 0).then(|| SealedBlob(vec![3, 4])),
        expiry: Expiry::At(t(14_000)),
        pending_since: t(secs),
    }
}

pub(super) async fn put(store: &Arc<dyn Store>, sessions: impl IntoIterator<Item = Session>) {
    for session in sessions {
        let ended = store.insert(session, ROOMY).await.expect("insert");
        assert_eq!(ended, [], "BLAST: an insert below the limit ends nothing");
    }
}

pub(super) async fn get(store: &Arc<dyn Store>, id: SessionId) -> Session {
    store.load(id).await.expect("load").expect("the row is stored")
}

/// No item of a test is due later, but for those that a clock that was ahead put off.
pub(super) const LATEST_DUE: Timestamp = Timestamp::from_millis(1_790_000_000_000 + 1_000_000_000);

/// Takes what is due at `now`, until `until`, both in seconds after the start.
pub(super) async fn take(
    store: &Arc<dyn Store>,
    queue: Queue,
    holder: AttemptId,
    (now, until): (i64, i64),
    limit: usize,
) -> Vec<Lease<Item>> {
    let terms = LeaseTerms { holder, now: t(now), until: t(until), latest_due: LATEST_DUE };
    store.take(queue, terms, limit).await.expect("take")
}

pub(super) async fn acknowledge(store: &Arc<dyn Store>, id: ItemId, holder: AttemptId) -> bool {
    store.update_lease(id, holder, LeaseUpdate::Acknowledge).await.expect("acknowledge")
}

pub(super) async fn reschedule(
    store: &Arc<dyn Store>,
    id: ItemId,
    holder: AttemptId,
    due_at: Timestamp,
) -> bool {
    store.update_lease(id, holder, LeaseUpdate::Reschedule(due_at)).await.expect("reschedule")
}

pub(super) async fn extend(store: &Arc<dyn Store>, id: ItemId, holder: AttemptId, until: Timestamp) -> bool {
    store.update_lease(id, holder, LeaseUpdate::Extend(until)).await.expect("extend")
}

/// Adds a pending revocation.
pub(super) async fn add_revocation(store: &Arc<dyn Store>, revocation: PendingRevocation) {
    assert!(
        store.enqueue(&Item::Revocation(revocation)).await.expect("enqueue"),
        "each has an id of its own"
    );
}

/// Takes everything that is due by then, for a second.
pub(super) async fn all_owed(store: &Arc<dyn Store>, at: Timestamp) -> Vec<PendingRevocation> {
    let until = at.after(Duration::from_secs(1));
    let terms = LeaseTerms { holder: OURS, now: at, until, latest_due: LATEST_DUE };
    let taken = store.take_as(Queue::Revocations, terms, 1000, Item::revocation).await.expect("take");
    taken.into_iter().map(|lease| lease.item).collect()
}

pub(super) async fn backlog(store: &Arc<dyn Store>) -> Backlog {
    store.backlog(Queue::Revocations).await.expect("backlog")
}

/// Writes a change of the stored row, and returns the new row.
pub(super) async fn change(store: &Arc<dyn Store>, change: Change) -> Session {
    let applied = store.apply(&change).await.expect("apply");
    assert_eq!(applied, Applied::Done, "MONO: a change of the stored row is written");
    change.into_next()
}

/// Starts all at the same moment and returns their results in any order.
pub(super) async fn race<T: Send + 'static>(
    racers: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let racers: Vec<_> = racers.into_iter().collect();
    let gate = Arc::new(tokio::sync::Barrier::new(racers.len()));
    let mut running = JoinSet::new();
    for racer in racers {
        let gate = Arc::clone(&gate);
        running.spawn(async move {
            gate.wait().await;
            racer.await
        });
    }
    running.join_all().await
}
