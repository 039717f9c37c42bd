use super::*;
use crate::{
    session::{Holding, tests::live},
    time::Expiry,
};

const SESSION: Assurance = Assurance::Session;
const ASK_NOW: Assurance = Assurance::Provider { max_age: Duration::ZERO };

fn check(session: &Session, later_secs: u64, assurance: Assurance) -> Need {
    let lifetimes = Lifetimes::default();
    need(session, session.created_at.after(Duration::from_secs(later_secs)), assurance, &lifetimes)
}

fn edit(mut session: Session, edit: impl FnOnce(&mut Holding)) -> Session {
    let (State::Live(holding) | State::Parked(holding) | State::Suspect(holding)) = &mut session.state else {
        panic!("ended");
    };
    edit(holding);
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
fn a_pair_in_use_is_refreshed_early_each_session_at_its_own_moment() {
    // The token lives for 14,000 s; the margin is 30 s, the spread 600 s.
    let at = |fraction: u8, proven_secs: u64, secs: u64| {
        let id = crate::ids::SessionId::new(live().created_at, [fraction; 10]);
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
    let generation = crate::ids::Version::FIRST;
    let without_refresh = edit(live(), |h| h.pair.as_mut().unwrap().refresh = None);
    let without_pair = edit(live(), |h| h.pair = None);
    let table = [
        ("parked", live().park(generation).unwrap(), SESSION, Need::Refresh),
        ("suspect", live().suspect(generation).unwrap(), SESSION, Need::Refresh),
        (
            "suspect without refresh token",
            without_refresh.suspect(generation).unwrap(),
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
            live().end(EndReason::SignedOut, Timestamp::EPOCH).unwrap().0,
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
fn a_cookie_is_over_when_its_session_must_be() {
    let lifetimes = Lifetimes::default();
    let session = live();
    let end = session.created_at.after(lifetimes.absolute);
    assert!(cookie_is_over(session.id, end, &lifetimes));
    assert!(!cookie_is_over(session.id, end.before(Duration::from_millis(1)), &lifetimes));
}
