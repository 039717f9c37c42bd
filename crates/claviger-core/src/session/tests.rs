use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{ids::ProviderName, secret::SessionSecret};

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
        state: State::Live(Holding { pair: Some(pair(Version::FIRST)), proven_at: T0, claim: None }),
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
    live().end(EndReason::SignedOut, T0).unwrap().0
}

type Change = fn(Session) -> Result<Session, Refused>;

/// Every change, with the arguments of the owner of the claim and of the current pair.
fn changes() -> Vec<(&'static str, Change)> {
    vec![
        ("claim", |s| s.claim(claim(OURS))),
        ("release", |s| s.release(OURS)),
        ("fence", Session::fence),
        ("lose_answer", |s| s.lose_answer(OURS, true)),
        ("rotate", |s| s.rotate(OURS, None, T0, pair)),
        ("repair", |s| s.repair(&live().subject, T0, &ProviderHabits::TWITCH, pair)),
        ("prove", |s| {
            let generation = s.pair().map_or(Version::FIRST, |p| p.generation);
            s.prove(generation, T0)
        }),
        ("suspect", |s| {
            let generation = s.pair().map_or(Version::FIRST, |p| p.generation);
            s.suspect(generation)
        }),
        ("park", |s| {
            let generation = s.pair().map_or(Version::FIRST, |p| p.generation);
            s.park(generation)
        }),
        ("end", |s| s.end(EndReason::SignedOut, T0).map(|(s, _)| s)),
    ]
}

#[test]
fn nothing_leads_out_of_ended() {
    for (name, change) in changes() {
        assert_eq!(change(ended()), Err(Refused::Ended), "{name}");
    }
}

#[test]
fn a_change_with_a_claim_of_somebody_else_is_refused() {
    let session = live().claim(claim(THEIRS)).unwrap();
    assert_eq!(session.clone().release(OURS), Err(Refused::Claimed));
    assert_eq!(session.clone().lose_answer(OURS, true), Err(Refused::Claimed));
    assert_eq!(session.rotate(OURS, None, T0, pair), Err(Refused::Superseded));
    assert_eq!(live().rotate(OURS, None, T0, pair), Err(Refused::Superseded));
}

#[test]
fn an_answer_about_an_older_pair_changes_nothing() {
    let newer = live().claim(claim(OURS)).unwrap().rotate(OURS, None, T0, pair).unwrap();
    assert_eq!(newer.clone().prove(Version::FIRST, T0), Err(Refused::Superseded));
    assert_eq!(newer.clone().suspect(Version::FIRST), Err(Refused::Superseded));
    assert_eq!(newer.park(Version::FIRST), Err(Refused::Superseded));
}

#[test]
fn a_pair_in_hand_is_committed_unless_the_row_ended_or_has_another_new_one() {
    let sent = Some(Version::FIRST);
    let ours = live().claim(claim(OURS)).unwrap();
    let theirs = live().claim(claim(THEIRS)).unwrap();
    for row in [ours.clone(), theirs.clone(), live(), live().park(Version::FIRST).unwrap()] {
        let committed = row.clone().rotate(OURS, sent, T0, pair).unwrap();
        assert_eq!(
            (committed.version, committed.generation()),
            (row.version.next(), Some(row.version.next()))
        );
        assert_eq!(committed.holding().unwrap().claim, None);
        assert!(matches!(committed.state, State::Live(_)));
    }
    let newer = theirs.rotate(THEIRS, None, T0, pair).unwrap();
    assert_eq!(newer.clone().rotate(OURS, sent, T0, pair), Err(Refused::Superseded));
    let claimed_again = newer.claim(claim(THEIRS)).unwrap();
    assert_eq!(claimed_again.rotate(OURS, sent, T0, pair), Err(Refused::Superseded));
    assert_eq!(ended().rotate(OURS, sent, T0, pair), Err(Refused::Ended));
}

#[test]
fn a_rejection_is_believed_only_of_the_claim_that_it_answers() {
    let reject = |row: Session| row.end_rejected(OURS, EndReason::RefreshTokenRejected, T0);
    let (over, owed) = reject(live().claim(claim(OURS)).unwrap()).unwrap();
    assert!(over.ended() && owed.is_some());
    assert_eq!(reject(live().claim(claim(THEIRS)).unwrap()), Err(Refused::Claimed));
    assert_eq!(reject(live()), Err(Refused::Claimed));
    assert_eq!(reject(ended()), Err(Refused::Ended));
}

/// However many learn it at the same time, one of them writes it down.
#[test]
fn what_a_row_says_already_is_not_written_again() {
    let (parked, suspect) = (live().park(Version::FIRST).unwrap(), live().suspect(Version::FIRST).unwrap());
    assert_eq!(parked.clone().park(Version::FIRST), Err(Refused::Superseded));
    assert_eq!(suspect.clone().suspect(Version::FIRST), Err(Refused::Superseded));
    assert_eq!(
        suspect.park(Version::FIRST),
        Err(Refused::Superseded),
        "a suspicion is the graver of the two"
    );
    assert!(matches!(parked.suspect(Version::FIRST).unwrap().state, State::Suspect(_)));
}

#[test]
fn a_rotation_binds_the_new_pair_to_the_version_that_commits_it() {
    let session = live().claim(claim(OURS)).unwrap().rotate(OURS, None, T0, pair).unwrap();
    assert_eq!(session.version, Version(3));
    assert_eq!(session.pair().unwrap().generation, Version(3));
    assert_eq!(session.holding().unwrap().claim, None);
    assert!(matches!(session.state, State::Live(_)));
}

#[test]
fn a_repair_is_for_the_same_user_and_for_a_row_that_no_refresh_can_save() {
    let strict = ProviderHabits { replay_window: Duration::ZERO, ..ProviderHabits::TWITCH };
    let ambiguous = || live().claim(Claim { answer_lost: true, ..claim(THEIRS) }).unwrap();
    let repair = |session: Session, subject: &Subject| session.repair(subject, T0, &strict, pair);
    let owner = live().subject;
    let other = Subject { id: "somebody else".into(), ..owner.clone() };
    let no_refresh_token = || {
        live()
            .claim(claim(OURS))
            .unwrap()
            .rotate(OURS, None, T0, |g| SealedPair { refresh: None, ..pair(g) })
            .unwrap()
    };
    for (name, session) in [("ambiguous", ambiguous()), ("no refresh token", no_refresh_token())] {
        let repaired = repair(session.clone(), &owner).unwrap();
        assert_eq!(repaired.generation(), Some(session.version.next()), "{name}");
        assert_eq!(
            repaired.holding().unwrap().claim,
            None,
            "{name}: a late answer has no claim to commit by"
        );
        assert_eq!(repaired.created_at, session.created_at, "{name}: a repair is no new sign-in");
        assert_eq!(repair(session, &other), Err(Refused::Superseded), "{name}");
    }
    let in_flight = live().claim(claim(THEIRS)).unwrap();
    for (name, session) in [("healthy", live()), ("in flight", in_flight)] {
        assert_eq!(repair(session, &owner), Err(Refused::Superseded), "{name}");
    }
    assert_eq!(repair(ended(), &owner), Err(Refused::Ended));
    assert!(
        !Session { state: State::Live(Holding { pair: None, proven_at: T0, claim: None }), ..live() }
            .beyond_refresh(T0, &strict),
        "a session without tokens has nothing to repair"
    );
}

#[test]
fn a_row_is_ambiguous_when_nobody_can_say_what_became_of_its_claim() {
    let lease_until = claim(THEIRS).lease_until;
    let just_before = lease_until.before(Duration::from_millis(1));
    let held = || live().claim(claim(THEIRS)).unwrap();
    let lost = live().claim(Claim { answer_lost: true, ..claim(THEIRS) }).unwrap();
    let table = [
        ("no claim", live(), lease_until, false),
        ("the lease holds", held(), just_before, false),
        ("the lease is over", held(), lease_until, true),
        ("the answer is lost", lost, T0, true),
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
    let (session, owed) = live().end(EndReason::DeviceLimit, T0).unwrap();
    assert_eq!(session.state, State::Ended { reason: EndReason::DeviceLimit, at: T0 });
    assert_eq!(owed.unwrap().access, SealedBlob(vec![1]));
    let late = T0.after(Duration::from_secs(14_000));
    assert_eq!(live().end(EndReason::Idle, late).unwrap().1, None, "an expired token needs no revocation");
}

#[test]
fn a_proof_never_goes_back_in_time() {
    let session = live().prove(Version::FIRST, T0.before(Duration::from_secs(5))).unwrap();
    assert_eq!(session.holding().unwrap().proven_at, T0);
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
    let in_flight = |claim: Claim| live().claim(claim).unwrap();
    let lost = Claim { answer_lost: true, ..claim(OURS) };
    let replayed = Claim { replay: true, ..lost };
    let soon = T0.after(Duration::from_secs(1));
    let leased = T0.after(Duration::from_secs(30));
    let late = T0.after(Duration::from_secs(60));
    let wait = RefreshStep::Wait { lease_until: leased };
    let table = [
        ("no claim", live(), soon, one_time, Ok(RefreshStep::Send)),
        ("in flight", in_flight(claim(THEIRS)), soon, one_time, Ok(wait)),
        ("lease is over", in_flight(claim(THEIRS)), leased, one_time, Ok(RefreshStep::Replay)),
        ("answer lost", in_flight(lost), soon, one_time, Ok(RefreshStep::Replay)),
        ("window closed", in_flight(lost), late, one_time, Ok(RefreshStep::SignInAgain)),
        ("replay lost too", in_flight(replayed), soon, one_time, Ok(RefreshStep::SignInAgain)),
        ("replay of a reusable token lost", in_flight(replayed), late, harmless, Ok(RefreshStep::Replay)),
        ("ended", ended(), soon, one_time, Err(Refused::Ended)),
    ];
    for (name, session, now, habits, expected) in table {
        assert_eq!(session.refresh_step(now, &habits), expected, "{name}");
    }
}

#[test]
fn a_replay_that_did_nothing_is_not_used_up() {
    let replaying = || live().claim(Claim { replay: true, ..claim(OURS) }).unwrap();
    let replay = |session: Session| session.holding().unwrap().claim.unwrap().replay;
    assert!(!replay(replaying().lose_answer(OURS, true).unwrap()));
    assert!(replay(replaying().lose_answer(OURS, false).unwrap()));
    let sent_once = || live().claim(claim(OURS)).unwrap();
    assert!(!replay(sent_once().lose_answer(OURS, true).unwrap()));
    let given_up = sent_once().lose_answer(OURS, false).unwrap();
    assert!(replay(given_up.clone()), "given up: it is known to be spent");
    assert!(
        replay(given_up.lose_answer(OURS, true).unwrap()),
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
    let newcomer = device(4, 0).id;
    assert_eq!(over_limit(&open, newcomer, 2), vec![device(2, 10).id, device(3, 20).id]);
    assert_eq!(over_limit(&open, newcomer, 4), vec![]);
    assert_eq!(over_limit(&open, newcomer, 0).len(), 3, "the newcomer always stays");
}

#[test]
fn reasons_have_distinct_names_and_only_four_are_user_wide() {
    for (reason, name) in EndReason::NAMES {
        assert_eq!(reason.name(), name);
        assert_eq!(EndReason::from_name(name), Some(reason));
    }
    assert_eq!(EndReason::NAMES.iter().filter(|(reason, _)| reason.user_wide()).count(), 4);
}

proptest! {
    /// MONO and ENDED over arbitrary histories of one row.
    #[test]
    fn each_change_raises_the_version_by_one_and_ended_is_for_ever(steps in proptest::collection::vec(0usize..9, 0..40)) {
        let changes = changes();
        let mut session = live();
        for step in steps {
            let (name, change) = changes[step];
            match change(session.clone()) {
                Ok(next) => {
                    prop_assert!(!session.ended(), "{name} revived an ended row");
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

#[test]
fn a_user_sees_how_it_stands_with_the_tokens() {
    let strict = ProviderHabits { replay_window: Duration::ZERO, ..ProviderHabits::TWITCH };
    let lost = || live().claim(Claim { answer_lost: true, ..claim(OURS) }).unwrap();
    let without = |edit: fn(&mut Holding)| {
        let mut session = live();
        let (State::Live(holding) | State::Parked(holding) | State::Suspect(holding)) = &mut session.state
        else {
            panic!("it is live")
        };
        edit(holding);
        session
    };
    let no_refresh_token = || without(|holding| holding.pair.as_mut().unwrap().refresh = None);
    let died = pair(Version::FIRST).expiry;
    let Expiry::At(died) = died else { panic!("it says when") };
    let table = [
        (live(), T0, ProviderHabits::TWITCH, Standing::InOrder),
        (live(), died, ProviderHabits::TWITCH, Standing::InOrder),
        (live().claim(claim(OURS)).unwrap(), T0, strict, Standing::Refreshing),
        (
            live().claim(claim(OURS)).unwrap(),
            T0.after(Duration::from_secs(30)),
            strict,
            Standing::RenewalNeeded,
        ),
        (lost(), T0, ProviderHabits::TWITCH, Standing::AnswerLost),
        (lost(), T0, strict, Standing::RenewalNeeded),
        (no_refresh_token(), T0, strict, Standing::InOrder),
        (no_refresh_token(), died, strict, Standing::RenewalNeeded),
        (without(|holding| holding.pair = None), T0, strict, Standing::NoTokens),
        (ended(), T0, strict, Standing::NoTokens),
    ];
    for (session, now, habits, expected) in table {
        assert_eq!(session.standing(now, &habits), expected, "{session:?}");
    }
    let names = [
        (Standing::NoTokens, "none"),
        (Standing::InOrder, "in_order"),
        (Standing::Refreshing, "refreshing"),
        (Standing::AnswerLost, "answer_lost"),
        (Standing::RenewalNeeded, "renewal_needed"),
    ];
    for (standing, name) in names {
        assert_eq!(standing.name(), name, "scripts rely on it");
    }
}
