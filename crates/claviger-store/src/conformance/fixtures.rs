//! Rows to check with.

use std::{sync::Arc, time::Duration};

use claviger_core::{
    device::DeviceLabel,
    ids::{AttemptId, ProviderName, SessionId, Subject, Version},
    policy::Custody,
    secret::{Fingerprint, SessionSecret},
    session::{Claim, EndReason, Holding, OwedRevocation, SealedBlob, SealedPair, Session, State},
    time::{Expiry, Timestamp},
};
use tokio::task::JoinSet;

use crate::{Backlog, Placement, Replaced, Store};

/// So many tasks race where a check is of a race.
pub(super) const RACERS: u8 = 16;
/// So often is a race of two run, since one alone may miss the moment.
pub(super) const ROUNDS: u8 = 24;

pub(super) const ROOMY: Placement = Placement { limit: 1000, replaces: None };
pub(super) const OURS: AttemptId = AttemptId([1; 16]);
pub(super) const THEIRS: AttemptId = AttemptId([2; 16]);

/// So many seconds after a point that serves as the beginning.
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

/// A session of Ada's that began so many seconds after the beginning. `tag` tells apart those of one moment.
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
        state: State::Live(Holding { pair: Some(pair(Version::FIRST)), proven_at: t(secs), claim: None }),
    }
}

pub(super) fn of(owner: &str, session: Session) -> Session {
    Session { subject: subject(owner), ..session }
}

/// The session, suspected by the provider.
pub(super) fn suspect(session: Session) -> Session {
    let generation = session.pair().expect("a pair").generation;
    session.suspect(generation).unwrap()
}

pub(super) fn ended(session: Session) -> Session {
    session.end(EndReason::SignedOut, t(900)).unwrap().0
}

pub(super) fn revocation(secs: i64) -> OwedRevocation {
    OwedRevocation {
        session: SessionId::new(t(secs), [9; 10]),
        generation: Version(4),
        provider: ProviderName("twitch".to_owned()),
        access: SealedBlob(vec![0, 1, 2, 255]),
        refresh: (secs % 2 == 0).then(|| SealedBlob(vec![3, 4])),
        expiry: Expiry::At(t(14_000)),
        owed_at: t(secs),
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

/// Takes whatever is due by then, for a second.
pub(super) async fn all_owed(store: &Arc<dyn Store>, at: Timestamp) -> Vec<OwedRevocation> {
    let until = at.after(Duration::from_secs(1));
    let taken = store.take_owed(OURS, at, until, 1000).await.expect("take_owed");
    taken.into_iter().map(|owed| owed.revocation).collect()
}

pub(super) async fn backlog(store: &Arc<dyn Store>) -> Backlog {
    store.owed_backlog().await.expect("owed_backlog")
}

pub(super) async fn change(store: &Arc<dyn Store>, next: Session) {
    let replaced = store.replace(&next, None).await.expect("replace");
    assert_eq!(replaced, Replaced::Done, "MONO: a change of the stored row is written");
}

/// Starts all at the same moment and gives what each came to, in no order.
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
