//! Checks of a user's devices, and of ends of several rows.

use std::sync::Arc;

use claviger_core::{ActiveState, EndReason, Expiry, SealedPair, Session, SessionId, State, Version};

use super::fixtures::*;
use crate::{Applied, Placement, Selection, Store};

fn ids(sessions: &[Session]) -> Vec<SessionId> {
    sessions.iter().map(|session| session.id).collect()
}

fn everything_of(owner: &str) -> Selection {
    Selection { subject: subject(owner), except: None, created_before: t(100_000) }
}

fn without_pair(session: Session) -> Session {
    let state = State::Live(ActiveState { pair: None, proven_at: t(0), claim: None });
    Session { state, ..session }
}

fn with_expiry(session: Session, expiry: Expiry) -> Session {
    let pair = Some(SealedPair { expiry, ..pair(Version::FIRST) });
    Session { state: State::Live(ActiveState { pair, proven_at: t(0), claim: None }), ..session }
}

pub(super) async fn devices_are_listed_last_used_first(store: Arc<dyn Store>) {
    let [a, b, c, d] = [session(1, 0), session(2, 1), session(3, 2), session(4, 3)];
    let elsewhere = of("bob", session(5, 4));
    put(&store, [a.clone(), b.clone(), c.clone(), d.clone(), elsewhere, ended(session(6, 5))]).await;
    store.record_last_seen(&[(b.id, t(50)), (a.id, t(40)), (d.id, t(40))]).await.unwrap();
    change(&store, suspected(a.clone())).await;

    let listed = store.devices(&subject("ada"), 10).await.unwrap();
    assert_eq!(
        ids(&listed),
        [b.id, d.id, a.id, c.id],
        "last used first, of equals the youngest, none that ended"
    );
    assert_eq!(listed[2], get(&store, a.id).await, "a listed row is the whole row");
    assert_eq!(ids(&store.devices(&subject("ada"), 2).await.unwrap()), [b.id, d.id], "at most the limit");
    assert_eq!(store.devices(&subject("ada"), 0).await, Ok(vec![]));
    assert_eq!(store.devices(&subject("ad"), 10).await, Ok(vec![]), "ISO: a name is compared whole");
    assert_eq!(store.devices(&subject("ADA"), 10).await, Ok(vec![]), "ISO: a name is compared as it is");
    let mut other_provider = subject("ada");
    other_provider.provider.0 = "other".to_owned();
    assert_eq!(store.devices(&other_provider, 10).await, Ok(vec![]), "ISO: a user is one provider's");
}

pub(super) async fn a_sign_in_replaces_the_one_before_it(store: Arc<dyn Store>) {
    let [before, sibling, foreign] = [session(1, 0), session(2, 0), of("bob", session(3, 0))];
    put(&store, [before.clone(), sibling.clone(), foreign.clone()]).await;

    let newcomer = session(4, 10);
    let replaces = |id| Placement { limit: 1000, replaces: Some(id) };
    let gone = store.insert(newcomer.clone(), replaces(before.id)).await.unwrap();
    let tombstone = before.end(EndReason::ReplacedBySignIn, newcomer.created_at).unwrap().into_next();
    assert_eq!(gone, std::slice::from_ref(&tombstone), "the replaced row is given as it is now");
    assert_eq!(get(&store, tombstone.id).await, tombstone);
    assert_eq!(get(&store, sibling.id).await, sibling, "BLAST: another device is left alone");
    assert_eq!(get(&store, newcomer.id).await, newcomer);

    let again = store.insert(session(5, 11), replaces(tombstone.id)).await;
    assert_eq!(again, Ok(vec![]), "ENDED: an ended row is not replaced again");
    assert_eq!(get(&store, tombstone.id).await, tombstone, "ENDED: the first reason stays");
    let unknown = store.insert(session(6, 12), replaces(session(99, 0).id)).await;
    assert_eq!(unknown, Ok(vec![]), "an unknown row is replaced by nothing");
    let itself = session(7, 13);
    assert_eq!(
        store.insert(itself.clone(), replaces(itself.id)).await,
        Ok(vec![]),
        "a row does not replace itself"
    );
    let switched = store.insert(session(8, 14), replaces(foreign.id)).await.unwrap();
    assert_eq!(ids(&switched), [foreign.id], "the same browser may sign in as somebody else");
}

pub(super) async fn a_sign_in_ends_what_is_over_the_limit(store: Arc<dyn Store>) {
    let [a, b, c] = [session(1, 0), session(2, 1), session(3, 2)];
    let foreign = of("bob", session(4, 0));
    put(&store, [a.clone(), b.clone(), c.clone(), foreign.clone(), ended(session(5, 0))]).await;
    store.record_last_seen(&[(a.id, t(50))]).await.unwrap();

    let roomy = store.insert(session(6, 10), Placement { limit: 4, replaces: None }).await;
    assert_eq!(roomy, Ok(vec![]), "BLAST: four fit, tombstones and other users not counted");
    let newcomer = session(7, 20);
    let gone = store.insert(newcomer.clone(), Placement { limit: 3, replaces: Some(b.id) }).await.unwrap();
    assert_eq!(
        ids(&gone),
        [b.id, c.id],
        "the replaced row makes room first, then the one used least recently"
    );
    let reasons: Vec<_> = gone.iter().map(|session| session.state.clone()).collect();
    let at = newcomer.created_at;
    let expected = [EndReason::ReplacedBySignIn, EndReason::DeviceLimit];
    assert_eq!(reasons, expected.map(|reason| State::Ended { reason, at }));
    assert_eq!(store.devices(&subject("ada"), 10).await.unwrap().len(), 3, "as many as allowed are left");
    assert_eq!(get(&store, foreign.id).await, foreign, "BLAST: another user's row is left alone");

    // The newcomer stays even where it was used least recently, and where the limit is below one.
    let oldest = Session { last_seen_at: t(-50), ..session(8, 30) };
    let gone = store.insert(oldest.clone(), Placement { limit: 0, replaces: None }).await.unwrap();
    assert_eq!(gone.len(), 3);
    assert_eq!(ids(&store.devices(&subject("ada"), 10).await.unwrap()), [oldest.id], "the newcomer stays");
}

pub(super) async fn a_sign_in_owes_what_it_ends(store: Arc<dyn Store>) {
    let live = session(1, 0);
    let empty = without_pair(session(2, 1));
    let expired = with_expiry(session(3, 2), Expiry::At(t(20)));
    let eternal = with_expiry(session(4, 3), Expiry::Never);
    put(&store, [live.clone(), empty, expired, eternal.clone()]).await;

    let placement = Placement { limit: 1, replaces: Some(eternal.id) };
    let gone = store.insert(session(5, 20), placement).await.unwrap();
    assert_eq!(gone.len(), 4);
    let mut owed = all_owed(&store, t(20)).await;
    owed.sort_by_key(|owed| owed.session);
    let expected = [live, eternal]
        .map(|row| row.end(EndReason::DeviceLimit, t(20)).unwrap().revocation().cloned().unwrap());
    assert_eq!(owed, expected, "CASCADE: a live pair is owed once; none and an expired one are not");
}

pub(super) async fn the_end_of_all_takes_exactly_the_selection(store: Arc<dyn Store>) {
    let [a, b, caller, border, younger] =
        [session(1, 0), suspect(session(2, 1)), session(3, 2), session(4, 10), session(5, 11)];
    let tombstone = ended(session(6, 0));
    let foreign = of("bob", session(7, 0));
    let all = [&a, &b, &caller, &border, &younger, &tombstone, &foreign];
    put(&store, all.into_iter().cloned()).await;

    let selection = Selection { subject: subject("ada"), except: Some(caller.id), created_before: t(10) };
    let gone = store.end_sessions(&selection, EndReason::SignedOutFromAnotherDevice, t(60)).await.unwrap();
    let expected = [&a, &b]
        .map(|row| row.clone().end(EndReason::SignedOutFromAnotherDevice, t(60)).unwrap().into_next());
    assert_eq!(gone, expected, "OTHERS: those created before, but the caller's, in the order of their ids");
    for row in &expected {
        assert_eq!(get(&store, row.id).await, *row, "OTHERS: the given rows are the stored ones");
    }
    for spared in [&caller, &border, &younger, &tombstone, &foreign] {
        assert_eq!(get(&store, spared.id).await, *spared, "OTHERS, BLAST: nothing else is touched");
    }
    let again = store.end_sessions(&selection, EndReason::Administrator, t(61)).await;
    assert_eq!(again, Ok(vec![]), "ENDED: a second time there is nothing to end");
}

pub(super) async fn the_end_of_all_owes_each_live_pair_once(store: Arc<dyn Store>) {
    let live = session(1, 0);
    let rotated = session(2, 1)
        .claim(claim(OURS))
        .unwrap()
        .into_next()
        .rotate(OURS, None, t(5), pair)
        .unwrap()
        .into_next();
    let unknown = with_expiry(session(3, 2), Expiry::Unknown);
    let expired = with_expiry(session(4, 3), Expiry::At(t(60)));
    let rows = [live, rotated, unknown];
    put(&store, rows.clone().into_iter().chain([expired, without_pair(session(5, 4))])).await;

    let gone =
        store.end_sessions(&everything_of("ada"), EndReason::SignedOutEverywhere, t(60)).await.unwrap();
    assert_eq!(gone.len(), 5);
    assert_eq!(backlog(&store).await.count, 3, "CASCADE: one for each live pair");
    let mut owed = all_owed(&store, t(60)).await;
    owed.sort_by_key(|owed| owed.session);
    let expected = rows
        .map(|row| row.end(EndReason::SignedOutEverywhere, t(60)).unwrap().revocation().cloned().unwrap());
    assert_eq!(owed, expected, "CASCADE: the last known pair of each row");
}

pub(super) async fn the_end_of_all_and_a_sign_in_leave_no_half(store: Arc<dyn Store>) {
    for round in 0..ROUNDS {
        let owner = format!("user {round}");
        let old = of(&owner, session(round, 0));
        let new = of(&owner, session(round + 100, 5));
        put(&store, [old.clone()]).await;
        let before = backlog(&store).await.count;
        let ending = {
            let (store, selection) = (Arc::clone(&store), everything_of(&owner));
            async move { store.end_sessions(&selection, EndReason::SignedOutEverywhere, t(60)).await.unwrap() }
        };
        let sign_in = {
            let (store, new) = (Arc::clone(&store), new.clone());
            async move { store.insert(new, Placement { limit: 1, replaces: None }).await.unwrap() }
        };
        let (gone, displaced) = tokio::join!(tokio::spawn(ending), tokio::spawn(sign_in));
        let (gone, displaced) = (gone.unwrap(), displaced.unwrap());
        let ended_by_both = [ids(&gone), ids(&displaced)].concat();
        let newcomer = get(&store, new.id).await;
        assert_eq!(
            newcomer.ended(),
            ended_by_both.contains(&new.id),
            "OTHERS: a sign-in is ended and returned, or kept"
        );
        assert!(get(&store, old.id).await.ended(), "OTHERS: the old row is ended by one of the two");
        let ends_of_old = ended_by_both.iter().filter(|id| **id == old.id).count();
        assert_eq!(ends_of_old, 1, "ENDED: a row ends once");
        let owed = backlog(&store).await.count - before;
        assert_eq!(owed as usize, ended_by_both.len(), "CASCADE: each end is owed once");
    }
}

pub(super) async fn the_end_of_all_and_a_change_leave_no_half(store: Arc<dyn Store>) {
    for round in 0..ROUNDS {
        let owner = format!("user {round}");
        let row = of(&owner, session(round, 0)).claim(claim(OURS)).unwrap().into_next();
        put(&store, [row.clone()]).await;
        let before = backlog(&store).await.count;
        let rotated = row.clone().rotate(OURS, None, t(5), pair).unwrap();
        let ending = {
            let (store, selection) = (Arc::clone(&store), everything_of(&owner));
            async move { store.end_sessions(&selection, EndReason::SignedOutEverywhere, t(60)).await.unwrap() }
        };
        let changing = {
            let (store, rotated) = (Arc::clone(&store), rotated.clone());
            async move { store.apply(&rotated).await.unwrap() }
        };
        let (gone, applied) = tokio::join!(tokio::spawn(ending), tokio::spawn(changing));
        let (gone, applied) = (gone.unwrap(), applied.unwrap());
        let last = if applied == Applied::Done { rotated.into_next() } else { row };
        let end = last.end(EndReason::SignedOutEverywhere, t(60)).unwrap();
        let (owed, tombstone) = (end.revocation().cloned(), end.into_next());
        assert_eq!(
            gone,
            std::slice::from_ref(&tombstone),
            "ENDED: the row ends from what it was at that moment"
        );
        assert_eq!(get(&store, tombstone.id).await, tombstone, "ENDED: the tombstone stays");
        if applied != Applied::Done {
            let told = Applied::Conflict(Some(Box::new(tombstone)));
            assert_eq!(applied, told, "LOSER: the late change returns the tombstone");
        }
        assert_eq!(backlog(&store).await.count, before + 1, "CASCADE: one pair is owed");
        let owed = owed.expect("the pair is alive");
        assert!(
            all_owed(&store, t(60 + 2 * i64::from(round))).await.contains(&owed),
            "CASCADE: the last one"
        );
    }
}

pub(super) async fn two_ends_of_all_end_each_row_once(store: Arc<dyn Store>) {
    for round in 0..ROUNDS {
        let owner = format!("user {round}");
        let rows: Vec<_> = (0..4).map(|n| of(&owner, session(round * 4 + n, 0))).collect();
        put(&store, rows.clone()).await;
        let before = backlog(&store).await.count;
        let endings = [EndReason::SignedOutEverywhere, EndReason::DisconnectedAtProvider].map(|reason| {
            let (store, selection) = (Arc::clone(&store), everything_of(&owner));
            async move { store.end_sessions(&selection, reason, t(60)).await.unwrap() }
        });
        let mut gone = race(endings).await.concat();
        gone.sort_by_key(|session| session.id);
        assert_eq!(ids(&gone), ids(&rows), "ENDED: each row is ended by one of the two");
        for row in &gone {
            assert_eq!(get(&store, row.id).await, *row, "ENDED: and keeps that reason");
        }
        assert_eq!(backlog(&store).await.count, before + 4, "CASCADE: each pair is owed once");
    }
}
