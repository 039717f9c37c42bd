use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{ProviderName, SessionSecret};

const T0: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const OURS: AttemptId = AttemptId([1; 16]);
const THEIRS: AttemptId = AttemptId([2; 16]);

fn pair(generation: Version) -> SealedPair {
    SealedPair {
        generation,
        access: SealedBlob(vec![1]),
        refresh: Some(SealedBlob(vec![2])),
        expiry: Expiry::At(T0.after(Duration::from_secs(14_000))),
    }
}

pub(crate) fn live() -> Session {
    Session {
        id: SessionId::new(T0, [1; 10]),
        version: Version::FIRST,
        subject: Subject { provider: ProviderName("twitch".into()), id: "141981764".into() },
        display_name: "ada".into(),
        secret_hash: SessionSecret::new([9; 32]).hash(),
        custody: Custody::Device,
        device: DeviceLabel::new("Firefox on Linux"),
        created_at: T0,
        last_seen_at: T0,
        state: State::Live(ActiveState { pair: Some(pair(Version::FIRST)), proven_at: T0, claim: None }),
    }
}

fn claim(attempt: AttemptId) -> Claim {
    Claim {
        attempt,
        taken_at: T0,
        lease_until: T0.after(Duration::from_secs(30)),
        fingerprint: Fingerprint([3; 16]),
        replay: false,
        answer_lost: false,
    }
}

fn ended() -> Session {
    live().end(EndReason::SignedOut, T0).unwrap().into_next()
}

type Transition = fn(Session) -> Result<Change, Refused>;

/// Every transition, with the arguments of the owner of the claim and of the current pair.
fn transitions() -> Vec<(&'static str, Transition)> {
    fn generation(session: &Session) -> Version {
        session.generation().unwrap_or(Version::FIRST)
    }
    vec![
        ("claim", |s| s.claim(claim(OURS))),
        ("claim of another", |s| s.claim(claim(THEIRS))),
        ("release", |s| s.release(OURS)),
        ("bump_version", Session::bump_version),
        ("lose_answer", |s| s.lose_answer(OURS, true)),
        ("rotate", |s| s.rotate(OURS, None, T0, pair)),
        ("repair", |s| s.repair(&live().subject, T0, &ProviderHabits::FORGIVING, pair)),
        ("reseal", |s| {
            let generation = generation(&s);
            s.reseal(generation, SealedBlob(vec![3]), None)
        }),
        ("prove", |s| {
            let generation = generation(&s);
            s.prove(generation, T0.after(Duration::from_secs(1)))
        }),
        ("suspect", |s| {
            let generation = generation(&s);
            s.suspect(generation)
        }),
        ("park", |s| {
            let generation = generation(&s);
            s.park(generation)
        }),
        ("rename", |s| s.rename("lovelace")),
        ("end", |s| s.end(EndReason::SignedOut, T0)),
        ("end_with", |s| s.end_with(EndReason::SignedOut, T0, Some(SealedBlob(vec![4])))),
        ("end_rejected", |s| s.end_rejected(OURS, EndReason::RefreshTokenRejected, T0)),
    ]
}

#[test]
fn only_a_claim_takes_a_claim_and_only_an_issued_pair_is_new() {
    let claimed = live().claim(claim(OURS)).unwrap().into_next();
    for (name, transition) in transitions() {
        let Ok(change) = transition(claimed.clone()) else { continue };
        let takes_claim = matches!(name, "claim" | "claim of another" | "bump_version");
        assert_eq!(change.takes_claim(), takes_claim, "{name}");
        assert_eq!(change.has_new_pair(), matches!(name, "rotate" | "repair"), "{name}");
    }
}

#[test]
fn nothing_leads_out_of_ended() {
    for (name, transition) in transitions() {
        assert_eq!(transition(ended()), Err(Refused::Ended), "{name}");
    }
}

#[test]
fn a_change_with_a_claim_of_somebody_else_is_refused() {
    let session = live().claim(claim(THEIRS)).unwrap().into_next();
    assert_eq!(session.clone().release(OURS), Err(Refused::Claimed));
    assert_eq!(session.clone().lose_answer(OURS, true), Err(Refused::Claimed));
    assert_eq!(session.rotate(OURS, None, T0, pair), Err(Refused::Superseded));
    assert_eq!(live().rotate(OURS, None, T0, pair), Err(Refused::Superseded));
}

#[test]
fn an_answer_about_an_older_pair_changes_nothing() {
    let newer =
        live().claim(claim(OURS)).unwrap().into_next().rotate(OURS, None, T0, pair).unwrap().into_next();
    assert_eq!(newer.clone().prove(Version::FIRST, T0), Err(Refused::Superseded));
    assert_eq!(newer.clone().suspect(Version::FIRST), Err(Refused::Superseded));
    assert_eq!(newer.park(Version::FIRST), Err(Refused::Superseded));
}

#[test]
fn a_pair_in_hand_is_committed_unless_the_row_ended_or_has_another_new_one() {
    let sent = Some(Version::FIRST);
    let ours = live().claim(claim(OURS)).unwrap().into_next();
    let theirs = live().claim(claim(THEIRS)).unwrap().into_next();
    for row in [ours.clone(), theirs.clone(), live(), live().park(Version::FIRST).unwrap().into_next()] {
        let committed = row.clone().rotate(OURS, sent, T0, pair).unwrap().into_next();
        assert_eq!(
            (committed.version, committed.generation()),
            (row.version.next(), Some(row.version.next()))
        );
        assert_eq!(committed.active().unwrap().claim, None);
        assert!(matches!(committed.state, State::Live(_)));
    }
    let newer = theirs.rotate(THEIRS, None, T0, pair).unwrap().into_next();
    assert_eq!(newer.clone().rotate(OURS, sent, T0, pair), Err(Refused::Superseded));
    let claimed_again = newer.claim(claim(THEIRS)).unwrap().into_next();
    assert_eq!(claimed_again.rotate(OURS, sent, T0, pair), Err(Refused::Superseded));
    assert_eq!(ended().rotate(OURS, sent, T0, pair), Err(Refused::Ended));
}

#[test]
fn a_rejection_is_believed_only_of_the_claim_that_it_answers() {
    let reject = |row: Session| row.end_rejected(OURS, EndReason::RefreshTokenRejected, T0);
    let over = reject(live().claim(claim(OURS)).unwrap().into_next()).unwrap();
    assert!(over.next().ended() && over.revocation().is_some());
    assert_eq!(reject(live().claim(claim(THEIRS)).unwrap().into_next()), Err(Refused::Claimed));
    assert_eq!(reject(live()), Err(Refused::Claimed));
    assert_eq!(reject(ended()), Err(Refused::Ended));
}

/// Only one of those that learn it at the same time writes it.
#[test]
fn what_a_row_says_already_is_not_written_again() {
    let parked = live().park(Version::FIRST).unwrap().into_next();
    let suspect = live().suspect(Version::FIRST).unwrap().into_next();
    assert_eq!(parked.clone().park(Version::FIRST), Err(Refused::Superseded));
    assert_eq!(suspect.clone().suspect(Version::FIRST), Err(Refused::Superseded));
    assert_eq!(
        suspect.park(Version::FIRST),
        Err(Refused::Superseded),
        "a suspicion is the graver of the two"
    );
    let name = live().display_name;
    assert_eq!(live().rename(&name), Err(Refused::Superseded));
    assert!(matches!(parked.suspect(Version::FIRST).unwrap().into_next().state, State::Suspect(_)));
}

#[test]
fn a_rotation_binds_the_new_pair_to_the_version_that_commits_it() {
    let session =
        live().claim(claim(OURS)).unwrap().into_next().rotate(OURS, None, T0, pair).unwrap().into_next();
    assert_eq!(session.version, Version(3));
    assert_eq!(session.pair().unwrap().generation, Version(3));
    assert_eq!(session.active().unwrap().claim, None);
    assert!(matches!(session.state, State::Live(_)));
}

#[test]
fn a_repair_is_for_the_same_user_and_for_a_row_that_no_refresh_can_save() {
    let strict = ProviderHabits { replay_window: Duration::ZERO, ..ProviderHabits::FORGIVING };
    let ambiguous = || live().claim(Claim { answer_lost: true, ..claim(THEIRS) }).unwrap().into_next();
    let repair = |session: Session, subject: &Subject| session.repair(subject, T0, &strict, pair);
    let owner = live().subject;
    let other = Subject { id: "somebody else".into(), ..owner.clone() };
    let no_refresh_token = || {
        live()
            .claim(claim(OURS))
            .unwrap()
            .into_next()
            .rotate(OURS, None, T0, |g| SealedPair { refresh: None, ..pair(g) })
            .unwrap()
            .into_next()
    };
    for (name, session) in [("ambiguous", ambiguous()), ("no refresh token", no_refresh_token())] {
        let repaired = repair(session.clone(), &owner).unwrap().into_next();
        assert_eq!(repaired.generation(), Some(session.version.next()), "{name}");
        assert_eq!(repaired.active().unwrap().claim, None, "{name}: a late answer has no claim to commit by");
        assert_eq!(repaired.created_at, session.created_at, "{name}: a repair is no new sign-in");
        assert_eq!(repair(session, &other), Err(Refused::Superseded), "{name}");
    }
    let in_flight = live().claim(claim(THEIRS)).unwrap().into_next();
    for (name, session) in [("healthy", live()), ("in flight", in_flight)] {
        assert_eq!(repair(session, &owner), Err(Refused::Superseded), "{name}");
    }
    assert_eq!(repair(ended(), &owner), Err(Refused::Ended));
    assert!(
        !Session { state: State::Live(ActiveState { pair: None, proven_at: T0, claim: None }), ..live() }
            .beyond_refresh(T0, &strict),
        "a session without tokens has nothing to repair"
    );
}

#[test]
fn a_row_is_ambiguous_when_nobody_can_say_what_became_of_its_claim() {
    let lease_until = claim(THEIRS).lease_until;
    let just_before = lease_until.before(Duration::from_millis(1));
    let held = || live().claim(claim(THEIRS)).unwrap().into_next();
    let lost = live().claim(Claim { answer_lost: true, ..claim(THEIRS) }).unwrap().into_next();
    let table = [
        ("no claim", live(), lease_until, false),
        ("the lease holds", held(), just_before, false),
        ("the lease is over", held(), lease_until, true),
        ("the answer is lost", lost, T0, true),
        ("claimed a little ahead", held(), T0.before(limits::CLOCK_SKEW), false),
        ("claimed by a clock that was ahead", held(), T0.before(Duration::from_secs(3600)), true),
        ("ended", ended(), lease_until, false),
    ];
    for (name, session, now, expected) in table {
        assert_eq!(session.ambiguous(now), expected, "{name}");
    }
}

#[test]
fn a_sealed_blob_shows_its_length_only() {
    assert_eq!(format!("{:?}", SealedBlob(vec![1, 2, 3])), "SealedBlob(3 bytes)");
}

#[test]
fn the_end_erases_the_tokens_and_owes_the_revocation() {
    let change = live().end(EndReason::DeviceLimit, T0).unwrap();
    assert_eq!(change.next().state, State::Ended { reason: EndReason::DeviceLimit, at: T0 });
    assert_eq!(change.revocation().unwrap().access, SealedBlob(vec![1]));
    let late = T0.after(Duration::from_secs(14_000));
    assert_eq!(
        live().end(EndReason::Idle, late).unwrap().revocation(),
        None,
        "an expired token needs no revocation"
    );
}

#[test]
fn a_proof_never_goes_back_in_time() {
    let session = live().prove(Version::FIRST, T0.before(Duration::from_secs(5))).unwrap().into_next();
    assert_eq!(session.active().unwrap().proven_at, T0);
    let set_back = T0.before(Duration::from_secs(3600));
    let session = live().prove(Version::FIRST, set_back).unwrap().into_next();
    assert_eq!(session.active().unwrap().proven_at, set_back, "CLOCK: a proof from the future gives way");
}

#[test]
fn the_recovery_rule_sends_a_token_a_second_time_at_most_once() {
    let one_time = ProviderHabits {
        rotation: Rotation::OneTime,
        replay_window: Duration::from_secs(60),
        reuse_kills_connection: true,
        old_access_token_survives: true,
    };
    let harmless = ProviderHabits { rotation: Rotation::None, ..one_time };
    let in_flight = |claim: Claim| live().claim(claim).unwrap().into_next();
    let lost = Claim { answer_lost: true, ..claim(OURS) };
    let replayed = Claim { replay: true, ..lost };
    let soon = T0.after(Duration::from_secs(1));
    let leased = T0.after(Duration::from_secs(30));
    let late = T0.after(Duration::from_secs(60));
    let wait = RefreshStep::Wait { lease_until: leased };
    let set_back = T0.before(Duration::from_secs(3600));
    let table = [
        ("no claim", live(), soon, one_time, Ok(RefreshStep::Send)),
        ("in flight", in_flight(claim(THEIRS)), soon, one_time, Ok(wait)),
        ("lease is over", in_flight(claim(THEIRS)), leased, one_time, Ok(RefreshStep::Replay)),
        ("answer lost", in_flight(lost), soon, one_time, Ok(RefreshStep::Replay)),
        ("window closed", in_flight(lost), late, one_time, Ok(RefreshStep::SignInAgain)),
        ("replay lost too", in_flight(replayed), soon, one_time, Ok(RefreshStep::SignInAgain)),
        ("replay of a reusable token lost", in_flight(replayed), late, harmless, Ok(RefreshStep::Replay)),
        ("sent in the future", in_flight(lost), set_back, one_time, Ok(RefreshStep::SignInAgain)),
        ("claimed in the future", in_flight(claim(OURS)), set_back, one_time, Ok(RefreshStep::SignInAgain)),
        ("a reusable one sent in the future", in_flight(lost), set_back, harmless, Ok(RefreshStep::Replay)),
        ("ended", ended(), soon, one_time, Err(Refused::Ended)),
    ];
    for (name, session, now, habits, expected) in table {
        assert_eq!(session.refresh_step(now, &habits), expected, "{name}");
    }
}

#[test]
fn a_replay_that_did_nothing_is_not_used_up() {
    let replaying = || live().claim(Claim { replay: true, ..claim(OURS) }).unwrap().into_next();
    let replay = |session: Session| session.active().unwrap().claim.unwrap().replay;
    assert!(!replay(replaying().lose_answer(OURS, true).unwrap().into_next()));
    assert!(replay(replaying().lose_answer(OURS, false).unwrap().into_next()));
    let sent_once = || live().claim(claim(OURS)).unwrap().into_next();
    assert!(!replay(sent_once().lose_answer(OURS, true).unwrap().into_next()));
    let given_up = sent_once().lose_answer(OURS, false).unwrap().into_next();
    assert!(replay(given_up.clone()), "given up: it is known to be spent");
    assert!(
        replay(given_up.lose_answer(OURS, true).unwrap().into_next()),
        "SPENT: a sender that comes late does not know better"
    );
}

#[test]
fn the_device_limit_ends_those_used_least_recently() {
    let device = |n: u8, seen: u64| Session {
        id: SessionId::new(T0, [n; 10]),
        last_seen_at: T0.after(Duration::from_secs(seen)),
        ..live()
    };
    let open = [device(1, 50), device(2, 10), device(3, 20), device(4, 0)];
    let newcomer = device(4, 0);
    let over = |n: u8, seen| (device(n, seen).id, EndReason::DeviceLimit);
    let placement = |limit, replaces| Placement { limit, replaces };
    assert_eq!(placement(2, None).ends(&newcomer, &open), [over(2, 10), over(3, 20)]);
    assert_eq!(placement(4, None).ends(&newcomer, &open), []);
    assert_eq!(placement(0, None).ends(&newcomer, &open).len(), 3, "the newcomer always stays");

    let replaced = |row: &Session| (row.id, EndReason::ReplacedBySignIn);
    let of_browser = placement(3, Some(open[0].id));
    assert_eq!(of_browser.ends(&newcomer, &open), [replaced(&open[0])], "it makes room first");
    let itself = placement(4, Some(newcomer.id));
    assert_eq!(itself.ends(&newcomer, &open), [], "a session does not replace itself");
    let subject = Subject { id: "another".into(), ..newcomer.subject.clone() };
    let foreign = Session { subject, ..device(9, 0) };
    let tombstone = device(8, 0).end(EndReason::SignedOut, T0).unwrap().into_next();
    let candidates = [&open[..], &[foreign.clone(), tombstone.clone()]].concat();
    let another_user = placement(4, Some(foreign.id));
    assert_eq!(another_user.ends(&newcomer, &candidates), [replaced(&foreign)], "BLAST");
    assert_eq!(placement(4, Some(tombstone.id)).ends(&newcomer, &candidates), [], "ENDED");

    assert!(placement(4, None).has_room(newcomer.id, 4) && itself.has_room(newcomer.id, 4));
    assert!(!placement(4, None).has_room(newcomer.id, 5) && !of_browser.has_room(newcomer.id, 1));
}

#[test]
fn reasons_have_distinct_names_and_only_five_are_user_wide() {
    for (reason, name) in EndReason::NAMES {
        assert_eq!(reason.name(), name);
        assert_eq!(EndReason::from_name(name), Some(reason));
    }
    assert_eq!(EndReason::NAMES.iter().filter(|(reason, _)| reason.user_wide()).count(), 5);
}

proptest! {
    /// MONO and ENDED over arbitrary histories of one row, and each change is written whole by the
    /// columns of its kind.
    #[test]
    fn a_transition_raises_the_version_and_changes_only_the_columns_of_its_kind(
        steps in proptest::collection::vec(0..transitions().len(), 0..40)
    ) {
        let transitions = transitions();
        let mut session = live();
        for step in steps {
            let (name, transition) = transitions[step];
            match transition(session.clone()) {
                Ok(change) => {
                    prop_assert!(!session.ended(), "{name} revived an ended row");
                    prop_assert_eq!(&change.applied_to(&session), change.next(), "{}", name);
                    let next = change.into_next();
                    prop_assert_eq!(next.version, session.version.next());
                    if let Some(pair) = next.pair() {
                        prop_assert!(pair.generation <= next.version);
                    }
                    session = next;
                }
                Err(Refused::Ended) => prop_assert!(session.ended()),
                Err(_) => {}
            }
        }
    }
}

/// A row that differs from [`live`] in every column but its id.
fn different() -> Session {
    Session {
        version: Version(2),
        subject: Subject { provider: ProviderName("other".into()), id: "1".into() },
        display_name: "eve".into(),
        secret_hash: SessionSecret::new([8; 32]).hash(),
        custody: Custody::Server,
        device: DeviceLabel::new("A tablet"),
        created_at: T0.after(Duration::from_secs(1)),
        last_seen_at: T0.after(Duration::from_secs(2)),
        state: State::Suspect(ActiveState {
            pair: Some(pair(Version(2))),
            proven_at: T0.after(Duration::from_secs(3)),
            claim: Some(claim(THEIRS)),
        }),
        ..live()
    }
}

#[test]
fn a_kind_takes_its_columns_from_the_change_and_the_others_from_the_stored_row() {
    let (stored, next) = (live(), different());
    let (old, new) = (stored.active().unwrap().clone(), next.active().unwrap().clone());
    let table = [
        (ChangeKind::Claim, State::Live(ActiveState { claim: new.claim, ..old.clone() })),
        (ChangeKind::Proof, State::Live(ActiveState { proven_at: new.proven_at, ..old.clone() })),
        (ChangeKind::State, State::Suspect(ActiveState { proven_at: new.proven_at, ..old })),
        (ChangeKind::Pair, State::Suspect(new)),
    ];
    let renamed = Change::forged(ChangeKind::Name, next.clone()).applied_to(&stored);
    assert_eq!(renamed, Session { version: Version(2), display_name: "eve".into(), ..stored.clone() });
    for (kind, state) in table {
        let written = Change::forged(kind.clone(), next.clone()).applied_to(&stored);
        assert_eq!(written, Session { version: Version(2), state, ..stored.clone() }, "{kind:?}");
    }
    let tombstone = Session { state: ended().state, ..next };
    let written = Change::forged(ChangeKind::End { revocation: None }, tombstone).applied_to(&stored);
    assert_eq!(written, Session { version: Version(2), state: ended().state, ..stored });
}

#[test]
fn a_user_sees_how_it_stands_with_the_tokens() {
    let strict = ProviderHabits { replay_window: Duration::ZERO, ..ProviderHabits::FORGIVING };
    let lost = || live().claim(Claim { answer_lost: true, ..claim(OURS) }).unwrap().into_next();
    let without = |edit: fn(&mut ActiveState)| {
        let mut session = live();
        let (State::Live(active) | State::Parked(active) | State::Suspect(active)) = &mut session.state
        else {
            panic!("it is live")
        };
        edit(active);
        session
    };
    let no_refresh_token = || without(|active| active.pair.as_mut().unwrap().refresh = None);
    let died = pair(Version::FIRST).expiry;
    let Expiry::At(died) = died else { panic!("it says when") };
    let table = [
        (live(), T0, ProviderHabits::FORGIVING, TokenStatus::InOrder),
        (live(), died, ProviderHabits::FORGIVING, TokenStatus::InOrder),
        (live().claim(claim(OURS)).unwrap().into_next(), T0, strict, TokenStatus::Refreshing),
        (
            live().claim(claim(OURS)).unwrap().into_next(),
            T0.after(Duration::from_secs(30)),
            strict,
            TokenStatus::RenewalNeeded,
        ),
        (lost(), T0, ProviderHabits::FORGIVING, TokenStatus::AnswerLost),
        (lost(), T0, strict, TokenStatus::RenewalNeeded),
        (no_refresh_token(), T0, strict, TokenStatus::InOrder),
        (no_refresh_token(), died, strict, TokenStatus::RenewalNeeded),
        (without(|active| active.pair = None), T0, strict, TokenStatus::NoTokens),
        (ended(), T0, strict, TokenStatus::NoTokens),
    ];
    for (session, now, habits, expected) in table {
        assert_eq!(session.token_status(now, &habits), expected, "{session:?}");
    }
    let names = [
        (TokenStatus::NoTokens, "none"),
        (TokenStatus::InOrder, "in_order"),
        (TokenStatus::Refreshing, "refreshing"),
        (TokenStatus::AnswerLost, "answer_lost"),
        (TokenStatus::RenewalNeeded, "renewal_needed"),
    ];
    for (token_status, name) in names {
        assert_eq!(token_status.name(), name, "scripts rely on it");
    }
}
