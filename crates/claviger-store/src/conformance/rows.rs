//! Checks of single rows: what goes in comes back, and a change is a compare-and-set.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use claviger_core::{
    device::DeviceLabel,
    ids::{AttemptId, SessionId, Version},
    policy::Custody,
    secret::SessionSecret,
    session::{Claim, EndReason, Holding, SealedBlob, SealedPair, Session, State},
    time::{Expiry, Timestamp},
};

use super::fixtures::*;
use crate::{Replaced, Store, StoreError};

/// Rows that together hold every variant of every field.
fn samples() -> Vec<Session> {
    let holding = |pair, claim| Holding { pair, proven_at: t(2), claim };
    let lost = Claim { answer_lost: true, ..claim(OURS) };
    let replay = Claim { replay: true, ..claim(THEIRS) };
    let unknown = SealedPair { expiry: Expiry::Unknown, ..pair(Version(5)) };
    let never = SealedPair { expiry: Expiry::Never, refresh: None, ..pair(Version(1)) };
    let empty =
        SealedPair { access: SealedBlob(vec![]), refresh: Some(SealedBlob(vec![])), ..pair(Version(1)) };
    let large = SealedPair { access: SealedBlob(vec![7; 9000]), ..pair(Version(1)) };
    let states = [
        State::Live(holding(Some(pair(Version(1))), None)),
        State::Live(holding(Some(unknown), Some(claim(OURS)))),
        State::Live(holding(Some(empty), None)),
        State::Parked(holding(Some(never), Some(lost))),
        State::Suspect(holding(Some(large), Some(replay))),
        State::Live(holding(None, None)),
        State::Ended { reason: EndReason::Idle, at: t(77) },
    ];
    let names = ["Ada", "阿达", "a'; DROP TABLE session; --", "", "👩‍🚀 ñ \u{202e}x", "ada\0b", "Ж"];
    let custodies = [Custody::Device, Custody::Server, Custody::None];
    let rows = states.into_iter().zip(names).zip(custodies.into_iter().cycle()).zip(1u8..);
    rows.map(|(((state, name), custody), tag)| Session {
        version: Version(u64::from(tag) * 1_000_000_000_000),
        display_name: name.to_owned(),
        device: DeviceLabel::new(name),
        subject: subject(name),
        custody,
        last_seen_at: t(50),
        state,
        ..session(tag, i64::from(tag))
    })
    .collect()
}

pub(super) async fn every_field_comes_back_as_it_went_in(store: Arc<dyn Store>) {
    let mut samples = samples();
    samples.push(Session {
        created_at: Timestamp::from_millis(i64::MIN),
        last_seen_at: Timestamp::from_millis(i64::MAX),
        ..session(99, 0)
    });
    put(&store, samples.clone()).await;
    for sample in &samples {
        assert_eq!(get(&store, sample.id).await, *sample, "an inserted row comes back as it was");
    }
    // The same variants once more, as changes of plain rows.
    for (tag, sample) in (100u8..).zip(samples) {
        let plain = Session { subject: sample.subject.clone(), ..session(tag, 1) };
        put(&store, [plain.clone()]).await;
        let next =
            Session { id: plain.id, version: Version(2), created_at: t(1), last_seen_at: t(1), ..sample };
        change(&store, next.clone()).await;
        assert_eq!(get(&store, plain.id).await, next, "a changed row comes back as it was");
    }
}

pub(super) async fn every_end_reason_comes_back(store: Arc<dyn Store>) {
    for ((reason, _), tag) in EndReason::NAMES.into_iter().zip(1u8..) {
        let (row, owed) = session(tag, 0).end(reason, t(5)).unwrap();
        assert!(owed.is_some(), "the pair of the fixture is alive");
        put(&store, [row.clone()]).await;
        assert_eq!(get(&store, row.id).await, row);
    }
}

pub(super) async fn an_unknown_row_is_none(store: Arc<dyn Store>) {
    assert_eq!(store.load(session(1, 0).id).await, Ok(None));
}

pub(super) async fn an_id_is_taken_once(store: Arc<dyn Store>) {
    let tombstone = ended(session(1, 0));
    put(&store, [tombstone.clone()]).await;
    let again = store.insert(session(1, 0), ROOMY).await;
    assert!(matches!(again, Err(StoreError::Unavailable(_))), "ENDED: a sign-in revives no row: {again:?}");
    assert_eq!(get(&store, tombstone.id).await, tombstone, "ENDED: nor does it change it");

    let row = session(2, 0);
    let sign_ins = (0..RACERS).map(|_| {
        let (store, row) = (Arc::clone(&store), row.clone());
        async move { store.insert(row, ROOMY).await.is_ok() }
    });
    let inserted = race(sign_ins).await.into_iter().filter(|won| *won).count();
    assert_eq!(inserted, 1, "ISO: of many sign-ins with one id one is stored");
}

pub(super) async fn a_change_is_written_if_its_version_follows(store: Arc<dyn Store>) {
    let row = session(1, 0);
    put(&store, [row.clone()]).await;
    for version in [0, 1, 3, 1000, i64::MAX.unsigned_abs(), u64::MAX] {
        let forged = Session { version: Version(version), display_name: "forged".to_owned(), ..row.clone() };
        assert_eq!(
            store.replace(&forged, Some(&revocation(0))).await,
            Ok(Replaced::Conflict(Some(Box::new(row.clone())))),
            "MONO: version {version} does not follow 1, and the row is told as it is"
        );
    }
    assert_eq!(get(&store, row.id).await, row, "MONO: a conflict changes nothing");
    assert_eq!(backlog(&store).await.count, 0, "a conflict owes nothing");

    let claimed = row.clone().claim(claim(OURS)).unwrap();
    change(&store, claimed.clone()).await;
    assert_eq!(
        store.replace(&claimed, None).await,
        Ok(Replaced::Conflict(Some(Box::new(claimed.clone())))),
        "MONO: a change is not written twice"
    );
    let renamed = Session {
        version: Version(3),
        display_name: "Lovelace".to_owned(),
        device: DeviceLabel::new("A kitchen tablet"),
        secret_hash: SessionSecret::new([77; 32]).hash(),
        custody: Custody::Server,
        ..claimed
    };
    change(&store, renamed.clone()).await;
    assert_eq!(get(&store, row.id).await, renamed, "a change may rename, and keeps the rest");
}

pub(super) async fn a_claim_is_written_if_its_version_follows(store: Arc<dyn Store>) {
    let row = session(1, 0);
    let claimed = row.clone().claim(claim(OURS)).unwrap();
    assert_eq!(store.replace_claim(&claimed).await, Ok(Replaced::Conflict(None)), "a claim makes no row");
    put(&store, [row.clone()]).await;
    for version in [0, 1, 3, u64::MAX] {
        let forged = Session { version: Version(version), ..claimed.clone() };
        let told = Replaced::Conflict(Some(Box::new(row.clone())));
        assert_eq!(store.replace_claim(&forged).await, Ok(told), "MONO: version {version} does not follow 1");
    }
    assert_eq!(store.replace_claim(&claimed).await, Ok(Replaced::Done));
    assert_eq!(get(&store, row.id).await, claimed);

    let theirs = AttemptId([99; 16]);
    let taken_over = claimed.clone().claim(Claim { replay: true, ..claim(theirs) }).unwrap();
    assert_eq!(store.replace_claim(&taken_over).await, Ok(Replaced::Done));
    let told = Replaced::Conflict(Some(Box::new(taken_over.clone())));
    assert_eq!(store.replace_claim(&claimed).await, Ok(told), "LOSER: who lost is told the row that won");

    let released = taken_over.release(theirs).unwrap();
    change(&store, released.clone()).await;
    assert_eq!(get(&store, row.id).await, released, "and nothing of the claim is left");
    let claimed = released.clone().claim(claim(OURS)).unwrap();
    let (ended, _) = released.end(EndReason::SignedOut, t(9)).unwrap();
    change(&store, ended.clone()).await;
    let told = Replaced::Conflict(Some(Box::new(ended)));
    assert_eq!(store.replace_claim(&claimed).await, Ok(told), "ENDED: nobody claims a tombstone");
}

pub(super) async fn a_change_of_a_missing_row_is_a_conflict(store: Arc<dyn Store>) {
    let next = session(1, 0).claim(claim(OURS)).unwrap();
    assert_eq!(store.replace(&next, Some(&revocation(0))).await, Ok(Replaced::Conflict(None)));
    assert_eq!(store.load(next.id).await, Ok(None), "a change makes no row");
    assert_eq!(backlog(&store).await.count, 0, "a conflict owes nothing");
}

pub(super) async fn of_two_refreshes_of_each_of_many_rows_one_is_written_and_knows_it(store: Arc<dyn Store>) {
    let mut rows: Vec<_> = (1..=RACERS).map(|tag| session(tag, i64::from(tag))).collect();
    put(&store, rows.clone()).await;
    for round in 1..=ROUNDS {
        let racers = rows.iter().flat_map(|row| [OURS, THEIRS].map(|attempt| (row.clone(), attempt)));
        let refreshed = racers.map(|(row, attempt)| refreshed(Arc::clone(&store), row, attempt, round));
        let won: Vec<Session> = race(refreshed).await.into_iter().flatten().collect();
        assert_eq!(won.len(), rows.len(), "SPENT: of two claims on one row one is written");
        for row in &won {
            assert_eq!(get(&store, row.id).await, *row, "LOSER: who won has its own pair stored");
        }
        rows = won;
    }
}

/// A refresh of a row as it was read, with a pair like no other. None: somebody else has claimed it.
async fn refreshed(store: Arc<dyn Store>, row: Session, attempt: AttemptId, round: u8) -> Option<Session> {
    let claimed = row.claim(claim(attempt)).unwrap();
    match store.replace_claim(&claimed).await {
        Ok(Replaced::Done) => {}
        Ok(Replaced::Conflict(Some(other))) if other.version >= claimed.version => return None,
        other => panic!("MONO: {other:?}"),
    }
    let (sent, mark) = (claimed.generation(), [claimed.id.as_bytes()[15], attempt.0[0], round]);
    let pair = |generation| SealedPair {
        access: SealedBlob(mark.to_vec()),
        refresh: round.is_multiple_of(2).then(|| SealedBlob(mark.repeat(9))),
        expiry: if round.is_multiple_of(3) { Expiry::Never } else { Expiry::At(t(i64::from(round))) },
        ..pair(generation)
    };
    let rotated = claimed.rotate(attempt, sent, t(50), pair).unwrap();
    assert_eq!(store.replace(&rotated, None).await, Ok(Replaced::Done), "STRAND: nobody else may change it");
    Some(rotated)
}

pub(super) async fn a_change_leaves_the_last_use_and_the_owner_as_stored(store: Arc<dyn Store>) {
    let row = session(1, 0);
    put(&store, [row.clone()]).await;
    store.touch(&[(row.id, t(60))]).await.unwrap();
    let next = Session {
        last_seen_at: t(5),
        created_at: t(5),
        subject: subject("eve"),
        ..row.claim(claim(OURS)).unwrap()
    };
    change(&store, next.clone()).await;
    let stored = get(&store, next.id).await;
    assert_eq!(stored.last_seen_at, t(60), "IDLE: background work changes no idle clock");
    assert_eq!((stored.created_at, &stored.subject), (t(0), &subject("ada")), "ISO: a row keeps its owner");
    assert_eq!(stored.version, Version(2));
    assert_eq!(store.devices(&subject("eve"), 9).await, Ok(vec![]), "ISO: a row keeps its owner");
}

pub(super) async fn one_of_many_writers_wins(store: Arc<dyn Store>) {
    let mut row = session(1, 0);
    put(&store, [row.clone()]).await;
    for round in 0..ROUNDS {
        let writers = (0..RACERS).map(|racer| {
            let (store, row) = (Arc::clone(&store), row.clone());
            let next = row.claim(claim(AttemptId([racer; 16]))).unwrap();
            async move { (store.replace(&next, None).await.expect("replace"), next) }
        });
        let (won, lost): (Vec<_>, Vec<_>) =
            race(writers).await.into_iter().partition(|(replaced, _)| *replaced == Replaced::Done);
        assert_eq!(won.len(), 1, "MONO: one of {RACERS} writers wins, in round {round}");
        let winner = &won[0].1;
        for (replaced, _) in lost {
            let told = Replaced::Conflict(Some(Box::new(winner.clone())));
            assert_eq!(replaced, told, "LOSER: who lost is told the row that won");
        }
        row = get(&store, row.id).await;
        assert_eq!(row, *winner, "MONO: the row is the winner's");
    }
    assert_eq!(row.version, Version(1 + u64::from(ROUNDS)), "MONO: the version grew by one a commit");
}

pub(super) async fn versions_never_go_back_for_a_reader(store: Arc<dyn Store>) {
    const CHANGES: u64 = 200;
    let row = session(1, 0);
    put(&store, [row.clone()]).await;
    let done = Arc::new(AtomicBool::new(false));
    let reader = |store: Arc<dyn Store>, done: Arc<AtomicBool>, id: SessionId| async move {
        let mut last = Version::FIRST;
        while !done.load(Ordering::Acquire) {
            let seen = get(&store, id).await.version;
            assert!(seen >= last, "MONO: a reader saw {last:?} and then {seen:?}");
            last = seen;
            tokio::task::yield_now().await;
        }
    };
    let readers: Vec<_> =
        (0..3).map(|_| tokio::spawn(reader(Arc::clone(&store), Arc::clone(&done), row.id))).collect();
    let mut current = row;
    for _ in 0..CHANGES {
        let next = current.claim(claim(OURS)).unwrap();
        change(&store, next.clone()).await;
        let seen = get(&store, next.id).await.version;
        assert_eq!(seen, next.version, "MONO: a writer reads what it wrote");
        current = next;
    }
    done.store(true, Ordering::Release);
    for reader in readers {
        reader.await.expect("MONO: a reader saw no version go back");
    }
}

pub(super) async fn an_ended_row_never_changes(store: Arc<dyn Store>) {
    let row = session(1, 0);
    let tombstone = ended(row.clone());
    put(&store, [row.clone()]).await;
    change(&store, tombstone.clone()).await;
    let forged_version = tombstone.version.next();
    let forgeries = [
        Session { version: forged_version, ..row.clone() },
        Session { version: tombstone.version, ..row.clone() },
        row.clone().claim(claim(OURS)).unwrap(),
        Session {
            version: forged_version,
            state: State::Ended { reason: EndReason::TooOld, at: t(1) },
            ..row.clone()
        },
        Session { version: forged_version, display_name: "forged".to_owned(), ..tombstone.clone() },
    ];
    for forged in forgeries {
        let replaced = store.replace(&forged, Some(&revocation(0))).await;
        let told = Replaced::Conflict(Some(Box::new(tombstone.clone())));
        assert_eq!(replaced, Ok(told), "ENDED: a change of an ended row is a conflict, whatever its version");
        assert_eq!(get(&store, row.id).await, tombstone, "ENDED: an ended row stays as it is");
    }
    assert_eq!(backlog(&store).await.count, 0, "a conflict owes nothing");
}
