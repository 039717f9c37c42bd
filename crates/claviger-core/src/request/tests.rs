use super::*;
use crate::{ActiveState, Expiry, session::tests::live};

const SESSION: Assurance = Assurance::Session;
const ASK_NOW: Assurance = Assurance::Provider { max_age: Duration::ZERO };

fn check(session: &Session, later_secs: u64, assurance: Assurance) -> Need {
    let lifetimes = Lifetimes::default();
    need(session, session.created_at.after(Duration::from_secs(later_secs)), assurance, &lifetimes)
}

fn edit(mut session: Session, edit: impl FnOnce(&mut ActiveState)) -> Session {
    let (State::Live(active) | State::Parked(active) | State::Suspect(active)) = &mut session.state else {
        panic!("ended");
    };
    edit(active);
    session
}

#[test]
fn a_live_session_needs_what_its_age_says() {
    let day = 24 * 60 * 60;
    let fresh = edit(live(), |h| h.pair.as_mut().unwrap().expiry = Expiry::Never);
    let used = |session: Session, secs| Session {
        last_seen_at: session.created_at.after(Duration::from_secs(secs)),
        ..session
    };
    let table = [
        ("new", live(), 0, SESSION, Need::Nothing),
        ("proof is young", live(), 3599, SESSION, Need::Nothing),
        ("proof is old", live(), 3600, SESSION, Need::Proof),
        ("provider asked now", live(), 0, ASK_NOW, Need::Proof),
        (
            "provider within max_age",
            live(),
            9,
            Assurance::Provider { max_age: Duration::from_secs(10) },
            Need::Nothing,
        ),
        (
            "provider is never laxer",
            live(),
            3600,
            Assurance::Provider { max_age: Duration::MAX },
            Need::Proof,
        ),
        ("before the margin", live(), 13_969, SESSION, Need::Proof),
        ("within the margin", live(), 13_970, SESSION, Need::Refresh),
        ("expired", live(), 14_000, SESSION, Need::Refresh),
        ("just not idle", fresh.clone(), 14 * day - 1, SESSION, Need::Proof),
        ("idle", fresh.clone(), 14 * day, SESSION, Need::End(EndReason::Idle)),
        ("just not too old", used(fresh.clone(), 29 * day), 30 * day - 1, SESSION, Need::Proof),
        ("too old, though used", used(fresh, 30 * day), 30 * day, SESSION, Need::End(EndReason::TooOld)),
    ];
    for (name, session, later, assurance, expected) in table {
        assert_eq!(check(&session, later, assurance), expected, "{name}");
    }
}

#[test]
fn a_max_age_has_a_floor() {
    let table = [(0, 1_000), (1, 1_000), (1_000, 1_000), (1_001, 1_001), (300_000, 300_000)];
    for (asked, counted) in table {
        let (asked, counted) = (Duration::from_millis(asked), Duration::from_millis(counted));
        assert_eq!(Assurance::asked_by_client(asked), Assurance::Provider { max_age: counted });
    }
}

#[test]
fn the_row_vouches_until_it_ends_whatever_its_tokens_are() {
    let day = 24 * 60 * 60;
    let suspect = |session: Session| match session.state {
        State::Live(active) => Session { state: State::Suspect(active), ..session },
        _ => panic!("not live"),
    };
    let table = [
        ("new", live(), 0, Need::Nothing),
        ("proof is old", live(), 3600, Need::Nothing),
        ("expired", live(), 14_000, Need::Nothing),
        ("suspect", suspect(live()), 0, Need::Nothing),
        ("without a pair", edit(live(), |active| active.pair = None), 3600, Need::Nothing),
        ("idle", live(), 14 * day, Need::End(EndReason::Idle)),
    ];
    for (name, session, later, expected) in table {
        assert_eq!(check(&session, later, Assurance::Row), expected, "{name}");
    }
}

#[test]
fn a_pair_in_use_is_refreshed_early_each_session_at_its_own_moment() {
    // The token lives for 14,000 s; the margin is 30 s, the spread 600 s.
    let at = |fraction: u8, proven_secs: u64, secs: u64| {
        let id = crate::SessionId::new(live().created_at, [fraction; 10]);
        let proven_at = live().created_at.after(Duration::from_secs(proven_secs));
        let session = edit(Session { id, ..live() }, |h| h.proven_at = proven_at);
        check(&session, secs, SESSION)
    };
    let table = [
        ("the first of all, not yet", at(0xff, 11_000, 13_369), Need::Nothing),
        ("the first of all", at(0xff, 11_000, 13_370), Need::RefreshEarly),
        ("half way", at(0x80, 11_000, 13_600), Need::Nothing),
        ("half way", at(0x80, 11_000, 13_670), Need::RefreshEarly),
        ("the last has only the margin", at(0, 11_000, 13_969), Need::Nothing),
        ("the margin", at(0xff, 11_000, 13_970), Need::Refresh),
        ("an old proof comes first", at(0xff, 0, 13_900), Need::Proof),
        ("little was left when it was proven", at(0xff, 13_200, 13_769), Need::Nothing),
        ("a quarter of it", at(0xff, 13_200, 13_770), Need::RefreshEarly),
    ];
    for (name, got, expected) in table {
        assert_eq!(got, expected, "{name}");
    }
    let without_refresh_token = edit(live(), |h| {
        h.pair.as_mut().unwrap().refresh = None;
        h.proven_at = live().created_at.after(Duration::from_secs(13_000));
    });
    assert_eq!(check(&without_refresh_token, 13_969, SESSION), Need::Nothing);
}

#[test]
fn each_state_has_its_need() {
    let generation = crate::Version::FIRST;
    let without_refresh = edit(live(), |h| h.pair.as_mut().unwrap().refresh = None);
    let without_pair = edit(live(), |h| h.pair = None);
    let table = [
        ("parked", live().park(generation).unwrap().into_next(), SESSION, Need::Refresh),
        ("suspect", live().suspect(generation).unwrap().into_next(), SESSION, Need::Refresh),
        (
            "suspect without refresh token",
            without_refresh.suspect(generation).unwrap().into_next(),
            SESSION,
            Need::SignIn,
        ),
        ("no custody", without_pair.clone(), SESSION, Need::Nothing),
        (
            "no custody, provider asked",
            edit(without_pair, |h| h.proven_at = Timestamp::EPOCH),
            ASK_NOW,
            Need::SignIn,
        ),
        (
            "no custody, proven just as long ago as may be",
            edit(live(), |h| h.pair = None),
            Assurance::Provider { max_age: Duration::from_secs(1) },
            Need::Nothing,
        ),
        (
            "ended",
            live().end(EndReason::SignedOut, Timestamp::EPOCH).unwrap().into_next(),
            SESSION,
            Need::Refuse(EndReason::SignedOut),
        ),
    ];
    for (name, session, assurance, expected) in table {
        assert_eq!(check(&session, 1, assurance), expected, "{name}");
    }
}

#[test]
fn an_unproven_pair_serves_while_it_lives_and_not_for_ever() {
    let lifetimes = Lifetimes::default();
    let endless = edit(live(), |h| h.pair.as_mut().unwrap().expiry = Expiry::Never);
    let at = |session: &Session, secs| session.created_at.after(Duration::from_secs(secs));
    assert!(may_serve_unproven(&live(), at(&live(), 7200), SESSION, &lifetimes));
    assert!(!may_serve_unproven(&live(), at(&live(), 14_000), SESSION, &lifetimes), "expired");
    assert!(!may_serve_unproven(&live(), at(&live(), 7200), ASK_NOW, &lifetimes));
    assert!(may_serve_unproven(&endless, at(&endless, 86_399), SESSION, &lifetimes));
    assert!(!may_serve_unproven(&endless, at(&endless, 86_400), SESSION, &lifetimes));
}

#[test]
fn a_time_in_the_future_vouches_for_nothing_and_ends_nothing() {
    let lifetimes = Lifetimes::default();
    let session = edit(live(), |h| h.pair.as_mut().unwrap().expiry = Expiry::Never);
    let table = [
        ("within the allowance", crate::limits::CLOCK_SKEW, Need::Nothing, true, false),
        ("beyond it", Duration::from_secs(11), Need::Proof, false, true),
        ("a year", Duration::from_secs(365 * 24 * 60 * 60), Need::Proof, false, true),
    ];
    for (name, ahead, needs, serves_unproven, cookie_over) in table {
        let now = session.created_at.before(ahead);
        assert_eq!(need(&session, now, SESSION, &lifetimes), needs, "CLOCK: {name}");
        assert_eq!(may_serve_unproven(&session, now, SESSION, &lifetimes), serves_unproven, "{name}");
        assert_eq!(cookie_is_over(session.id, now, &lifetimes), cookie_over, "{name}");
        assert_eq!(is_proof_due(&session, now, &lifetimes), needs == Need::Proof, "{name}");
        assert_eq!(may_serve_over_share(&session, now), serves_unproven, "{name}");
        assert_eq!(time_is_over(&session, now, &lifetimes), None, "TRANSIENT: {name}");
    }
}

#[test]
fn a_cookie_is_over_when_its_session_must_be() {
    let lifetimes = Lifetimes::default();
    let session = live();
    let end = session.created_at.after(lifetimes.absolute);
    assert!(cookie_is_over(session.id, end, &lifetimes));
    assert!(!cookie_is_over(session.id, end.before(Duration::from_millis(1)), &lifetimes));
}

#[test]
fn without_validation_a_refresh_is_the_proof() {
    let lifetimes = Lifetimes::default();
    let bare = || edit(live(), |h| h.pair.as_mut().unwrap().refresh = None);
    let endless = || edit(bare(), |h| h.pair.as_mut().unwrap().expiry = Expiry::Never);
    let table = [
        ("refreshable", live(), 3600, SESSION, Need::Refresh),
        ("refreshable, asked now", live(), 0, ASK_NOW, Need::Refresh),
        ("the last proof counts on", bare(), 3600, SESSION, Need::Nothing),
        ("until it is too old", endless(), 24 * 60 * 60, SESSION, Need::SignIn),
        ("or the token expires", bare(), 14_000, SESSION, Need::SignIn),
        ("asked now", bare(), 0, ASK_NOW, Need::SignIn),
    ];
    for (name, session, later, assurance, expected) in table {
        let now = session.created_at.after(Duration::from_secs(later));
        assert_eq!(need_without_validation(&session, now, assurance, &lifetimes), expected, "{name}");
    }
}
