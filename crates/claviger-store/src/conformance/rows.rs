//! Checks of single rows: what goes in comes back, and a change is a compare-and-set.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use claviger_core::{
    ActiveState, AttemptId, Change, ChangeKind, Claim, Custody, DeviceLabel, EndReason, Expiry, SealedBlob,
    SealedPair, Session, SessionId, State, Timestamp, Version,
};

use super::fixtures::*;
use crate::{Applied, Store, StoreError};

/// Rows that together hold every variant of every field.
fn samples() -> Vec<Session> {
    let active = |pair, claim| ActiveState { pair, proven_at: t(2), claim };
    let lost = Claim { answer_lost: true, ..claim(OURS) };
    let replay = Claim { replay: true, ..claim(THEIRS) };
    let unknown = SealedPair { expiry: Expiry::Unknown, ..pair(Version(5)) };
    let never = SealedPair { expiry: Expiry::Never, refresh: None, ..pair(Version(1)) };
    let empty =
        SealedPair { access: SealedBlob(vec![]), refresh: Some(SealedBlob(vec![])), ..pair(Version(1)) };
    let large = SealedPair { access: SealedBlob(vec![7; 9000]), ..pair(Version(1)) };
    let states = [
        State::Live(active(Some(pair(Version(1))), None)),
        State::Live(active(Some(unknown), Some(claim(OURS)))),
        State::Live(active(Some(empty), None)),
        State::Parked(active(Some(never), Some(lost))),
        State::Suspect(active(Some(large), Some(replay))),
        State::Live(active(None, None)),
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
        let plain = session(tag, 1);
        put(&store, [plain.clone()]).await;
        let kind = if sample.ended() { ChangeKind::End { revocation: None } } else { ChangeKind::Pair };
        let next = Session { state: sample.state, version: Version(2), ..plain };
        let next = change(&store, Change::forged(kind, next)).await;
        assert_eq!(get(&store, next.id).await, next, "a changed row comes back as it was");
    }
}

pub(super) async fn every_end_reason_comes_back(store: Arc<dyn Store>) {
    for ((reason, _), tag) in EndReason::NAMES.into_iter().zip(1u8..) {
        let end = session(tag, 0).end(reason, t(5)).unwrap();
        assert!(end.revocation().is_some(), "the pair of the fixture is alive");
        let row = end.into_next();
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

/// A change of each kind that makes this row from a stored one, with a revocation that an end owes.
fn forged(next: &Session) -> [Change; 6] {
    let tombstone = State::Ended { reason: EndReason::Idle, at: t(8) };
    let end = Change::forged(
        ChangeKind::End { revocation: Some(revocation(0)) },
        Session { state: tombstone, ..next.clone() },
    );
    let of = |kind| Change::forged(kind, next.clone());
    [
        of(ChangeKind::Claim),
        of(ChangeKind::Proof),
        of(ChangeKind::State),
        of(ChangeKind::Pair),
        of(ChangeKind::Name),
        end,
    ]
}

pub(super) async fn a_change_is_written_if_its_version_follows(store: Arc<dyn Store>) {
    let row = session(1, 0);
    put(&store, [row.clone()]).await;
    for version in [0, 1, 3, 1000, i64::MAX.unsigned_abs(), u64::MAX] {
        for change in forged(&Session { version: Version(version), ..row.clone() }) {
            let told = Applied::Conflict(Some(Box::new(row.clone())));
            let applied = store.apply(&change).await;
            assert_eq!(applied, Ok(told), "MONO: version {version} does not follow 1: {change:?}");
            assert_eq!(store.apply_all(&[change]).await, Ok(vec![false]), "MONO");
        }
    }
    assert_eq!(get(&store, row.id).await, row, "MONO: a conflict changes nothing");
    assert_eq!(backlog(&store).await.count, 0, "a conflict owes nothing");

    let claim_of = |row: Session, attempt| row.claim(claim(attempt)).unwrap();
    let first = claim_of(row, OURS);
    let claimed = change(&store, first.clone()).await;
    let told = |row: &Session| Ok(Applied::Conflict(Some(Box::new(row.clone()))));
    assert_eq!(store.apply(&first).await, told(&claimed), "MONO: a change is not written twice");
    let taken_over = change(&store, claim_of(claimed, THEIRS)).await;
    assert_eq!(
        store.apply(&first).await,
        told(&taken_over),
        "LOSER: the losing writer receives the row that won"
    );

    let released = change(&store, taken_over.release(THEIRS).unwrap()).await;
    assert_eq!(get(&store, released.id).await, released, "and nothing of the claim is left");
    let late = claim_of(released.clone(), OURS);
    let over = change(&store, end(released)).await;
    assert_eq!(store.apply(&late).await, told(&over), "ENDED: nobody claims a tombstone");
}

pub(super) async fn a_change_of_a_missing_row_is_a_conflict(store: Arc<dyn Store>) {
    for change in forged(&Session { version: Version(2), ..session(1, 0) }) {
        assert_eq!(store.apply(&change).await, Ok(Applied::Conflict(None)), "{change:?}");
        assert_eq!(store.apply_all(std::slice::from_ref(&change)).await, Ok(vec![false]), "{change:?}");
        assert_eq!(store.load(change.next().id).await, Ok(None), "a change makes no row");
    }
    assert_eq!(backlog(&store).await.count, 0, "a conflict owes nothing");
}

/// Breaks on purpose the rule that a change differs from the stored row only in the columns of its
/// kind.
pub(super) async fn each_kind_of_change_writes_its_columns_and_no_others(store: Arc<dyn Store>) {
    for (many, first) in [(false, 1), (true, 101)] {
        let mut next_tag = first..;
        for kind in 0..6 {
            let tag = next_tag.next().unwrap();
            let row = session(tag, 0).claim(claim(OURS)).unwrap().into_next();
            put(&store, [row.clone()]).await;
            store.record_last_seen(&[(row.id, t(60))]).await.unwrap();
            let stored = get(&store, row.id).await;
            let state = State::Parked(ActiveState {
                pair: Some(SealedPair { access: SealedBlob(vec![7]), refresh: None, ..pair(Version(3)) }),
                proven_at: t(70),
                claim: Some(Claim { answer_lost: true, ..claim(THEIRS) }),
            });
            let foreign = Session {
                id: row.id,
                version: row.version.next(),
                custody: Custody::Server,
                device: DeviceLabel::new("A kitchen tablet"),
                state,
                ..of("eve", session(tag + 50, 5))
            };
            let change = forged(&foreign)[kind].clone();
            let written = match many {
                false => store.apply(&change).await.unwrap() == Applied::Done,
                true => store.apply_all(std::slice::from_ref(&change)).await.unwrap() == [true],
            };
            assert!(written, "{change:?}");
            let expected = change.applied_to(&stored);
            assert_eq!(get(&store, row.id).await, expected, "ISO, IDLE, SPENT, ENDED: {:?}", change.kind());
        }
    }
    assert_eq!(store.devices(&subject("eve"), 9).await, Ok(vec![]), "ISO: a row keeps its owner");
    assert_eq!(backlog(&store).await.count, 2, "each end owes once");
}

pub(super) async fn one_of_two_refreshes_of_a_row_wins(store: Arc<dyn Store>) {
    let mut rows: Vec<_> = (1..=RACERS).map(|tag| session(tag, i64::from(tag))).collect();
    put(&store, rows.clone()).await;
    for round in 1..=ROUNDS {
        let racers = rows.iter().flat_map(|row| [OURS, THEIRS].map(|attempt| (row.clone(), attempt)));
        let refreshed = racers.map(|(row, attempt)| refreshed(Arc::clone(&store), row, attempt, round));
        let won: Vec<Session> = race(refreshed).await.into_iter().flatten().collect();
        assert_eq!(won.len(), rows.len(), "SPENT: of two claims on one row one is written");
        for row in &won {
            assert_eq!(get(&store, row.id).await, *row, "LOSER: the winner's own pair is stored");
        }
        rows = won;
    }
}

/// Refreshes a row as it was read, with a unique pair. Returns `None` if another task has claimed
/// it.
async fn refreshed(store: Arc<dyn Store>, row: Session, attempt: AttemptId, round: u8) -> Option<Session> {
    let claimed = row.claim(claim(attempt)).unwrap();
    match store.apply(&claimed).await {
        Ok(Applied::Done) => {}
        Ok(Applied::Conflict(Some(other))) if other.version >= claimed.next().version => return None,
        other => panic!("MONO: {other:?}"),
    }
    let claimed = claimed.into_next();
    let (sent, mark) = (claimed.generation(), [claimed.id.as_bytes()[15], attempt.0[0], round]);
    let pair = |generation| SealedPair {
        access: SealedBlob(mark.to_vec()),
        refresh: round.is_multiple_of(2).then(|| SealedBlob(mark.repeat(9))),
        expiry: if round.is_multiple_of(3) { Expiry::Never } else { Expiry::At(t(i64::from(round))) },
        ..pair(generation)
    };
    let rotated = claimed.rotate(attempt, sent, t(50), pair).unwrap();
    assert_eq!(store.apply(&rotated).await, Ok(Applied::Done), "STRAND: nobody else may change it");
    Some(rotated.into_next())
}

pub(super) async fn one_of_many_writers_wins(store: Arc<dyn Store>) {
    let mut row = session(1, 0);
    put(&store, [row.clone()]).await;
    for round in 0..ROUNDS {
        let writers = (0..RACERS).map(|racer| {
            let (store, row) = (Arc::clone(&store), row.clone());
            let next = row.claim(claim(AttemptId([racer; 16]))).unwrap();
            async move { (store.apply(&next).await.expect("apply"), next.into_next()) }
        });
        let (won, lost): (Vec<_>, Vec<_>) =
            race(writers).await.into_iter().partition(|(applied, _)| *applied == Applied::Done);
        assert_eq!(won.len(), 1, "MONO: one of {RACERS} writers wins, in round {round}");
        let winner = &won[0].1;
        for (applied, _) in lost {
            let told = Applied::Conflict(Some(Box::new(winner.clone())));
            assert_eq!(applied, told, "LOSER: the losing writer receives the row that won");
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
        let next = change(&store, current.claim(claim(OURS)).unwrap()).await;
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
    put(&store, [row.clone()]).await;
    let tombstone = change(&store, end(row.clone())).await;
    for version in [tombstone.version.next(), tombstone.version, row.version.next()] {
        for change in forged(&Session { version, ..row.clone() }) {
            let told = Applied::Conflict(Some(Box::new(tombstone.clone())));
            let applied = store.apply(&change).await;
            assert_eq!(applied, Ok(told), "ENDED: a change of an ended row is a conflict: {change:?}");
            assert_eq!(store.apply_all(&[change]).await, Ok(vec![false]), "ENDED");
            assert_eq!(get(&store, row.id).await, tombstone, "ENDED: an ended row stays as it is");
        }
    }
    assert_eq!(all_owed(&store, t(1000)).await.len(), 1, "a conflict owes nothing");
}
