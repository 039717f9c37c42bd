use super::*;
use crate::session::tests::live;

fn proof(client_id: &str, subject_id: Option<&str>) -> ValidateAnswer {
    ValidateAnswer::Valid(Proof {
        client_id: client_id.into(),
        subject_id: subject_id.map(Into::into),
        display_name: None,
        lifespan: Lifespan::Unknown,
        scopes: vec![],
    })
}

#[test]
fn every_answer_to_a_validation_has_its_consequence() {
    let failure = |status| ProviderFailure::new(FailureKind::Status(status));
    let another = AfterValidate::End(EndReason::TokenOfAnotherSubject);
    let generation = Version(1);
    let table = [
        (proof("ours", Some("141981764")), Verdict::Valid, AfterValidate::Prove(generation)),
        (proof("other", Some("141981764")), Verdict::Misconfigured, AfterValidate::Alarm),
        (proof("other", Some("1")), Verdict::Rejected, another),
        (proof("ours", Some("1")), Verdict::Rejected, another),
        (proof("ours", None), Verdict::Rejected, another),
        (ValidateAnswer::Rejected, Verdict::Rejected, AfterValidate::Suspect(generation)),
        (ValidateAnswer::Unknown(failure(429)), Verdict::Unknown, AfterValidate::Nothing(failure(429))),
        (ValidateAnswer::Unknown(failure(503)), Verdict::Unknown, AfterValidate::Nothing(failure(503))),
    ];
    for (answer, verdict, expected) in table {
        assert_eq!(answer.verdict("ours", Some("141981764")), verdict, "{answer:?}");
        assert_eq!(after_validate(&live(), generation, "ours", &answer), expected, "{answer:?}");
    }
}

fn issued() -> TokenAnswer {
    TokenAnswer::Issued(IssuedPair {
        access: AccessToken::new("a"),
        refresh: None,
        lifespan: Lifespan::Unknown,
        scopes: None,
    })
}

fn unknown(kind: FailureKind) -> TokenAnswer {
    TokenAnswer::Unknown(ProviderFailure::new(kind))
}

fn consequence(after: AfterRefresh) -> &'static str {
    match after {
        AfterRefresh::Commit(_) => "commit",
        AfterRefresh::End(EndReason::RefreshTokenRejected) => "end",
        AfterRefresh::End(_) => "end for another reason",
        AfterRefresh::Release(_) => "release",
        AfterRefresh::ReleaseAndAlarm => "release and alarm",
        AfterRefresh::MarkLost { alarm: true, .. } => "lost and alarm",
        AfterRefresh::MarkLost { replay_left: true, .. } => "lost",
        AfterRefresh::MarkLost { replay_left: false, .. } => "lost for good",
    }
}

#[test]
fn a_replayed_pair_without_a_stated_life_is_refreshed_before_it_is_used() {
    let stated = Lifespan::Lasts(Duration::from_secs(9));
    let at_its_end = Lifespan::Lasts(Duration::ZERO);
    let one_time = ProviderHabits { rotation: Rotation::OneTime, ..ProviderHabits::FORGIVING };
    let table = [
        (Lifespan::Unknown, true, at_its_end),
        (Lifespan::Unknown, false, Lifespan::Unknown),
        (stated, true, stated),
        (stated, false, stated),
        (Lifespan::Endless, true, Lifespan::Endless),
    ];
    for (said, replay, expected) in table {
        let TokenAnswer::Issued(pair) = issued() else { panic!("it issues a pair") };
        let answer = TokenAnswer::Issued(IssuedPair { lifespan: said, ..pair });
        let after = after_refresh(answer, replay, &one_time);
        let AfterRefresh::Commit(pair) = after else { panic!("{after:?}") };
        assert_eq!(pair.lifespan, expected, "{said:?}, replay {replay}");
    }
}

#[test]
fn every_answer_to_a_refresh_has_its_consequence() {
    let one_time = ProviderHabits { rotation: Rotation::OneTime, ..ProviderHabits::FORGIVING };
    let reusable = ProviderHabits { rotation: Rotation::None, ..ProviderHabits::FORGIVING };
    type Answer = fn() -> TokenAnswer;
    // The answer; what follows with a forgiving provider, a one-time provider, one that never
    // rotates; then the same of a replay.
    let table: [(Answer, [&str; 6]); 11] = [
        (issued, ["commit", "commit", "commit", "commit", "commit", "commit"]),
        (|| TokenAnswer::Rejected, ["end", "end", "end", "lost for good", "lost for good", "end"]),
        (
            || TokenAnswer::Misconfigured,
            [
                "release and alarm",
                "release and alarm",
                "release and alarm",
                "lost and alarm",
                "lost and alarm",
                "release and alarm",
            ],
        ),
        (
            || unknown(FailureKind::Status(503)),
            ["release", "lost", "release", "lost", "lost for good", "release"],
        ),
        (
            || {
                let retry_after = Some(Duration::from_secs(9));
                TokenAnswer::Unknown(ProviderFailure { kind: FailureKind::Status(503), retry_after })
            },
            ["release", "release", "release", "lost", "lost", "release"],
        ),
        (
            || unknown(FailureKind::Status(524)),
            ["lost", "lost", "release", "lost for good", "lost for good", "release"],
        ),
        (|| unknown(FailureKind::Status(501)), ["release", "release", "release", "lost", "lost", "release"]),
        (|| unknown(FailureKind::Status(429)), ["release", "release", "release", "lost", "lost", "release"]),
        (
            || unknown(FailureKind::Status(502)),
            ["lost", "lost", "release", "lost for good", "lost for good", "release"],
        ),
        (|| unknown(FailureKind::NotSent), ["release", "release", "release", "lost", "lost", "release"]),
        (
            || TokenAnswer::Lost(ProviderFailure::new(FailureKind::NoAnswer)),
            ["lost", "lost", "lost", "lost for good", "lost for good", "lost"],
        ),
    ];
    for (answer, expected) in table {
        let after = |replay, habits| consequence(after_refresh(answer(), replay, habits));
        let forgiving = &ProviderHabits::FORGIVING;
        let got = [
            after(false, forgiving),
            after(false, &one_time),
            after(false, &reusable),
            after(true, forgiving),
            after(true, &one_time),
            after(true, &reusable),
        ];
        assert_eq!(got, expected, "{:?}", answer());
    }
}

#[test]
fn a_token_that_is_known_to_be_spent_is_not_sent_again_where_that_harms() {
    let now = Timestamp::from_millis(1_000_000);
    let (later, past) = (Expiry::At(now.after(Duration::from_secs(60))), Expiry::At(now));
    let failure = ProviderFailure::new(FailureKind::NoAnswer);
    let habits = |rotation, old_access_token_survives| ProviderHabits {
        rotation,
        old_access_token_survives,
        ..ProviderHabits::FORGIVING
    };
    let strict = habits(Rotation::OneTime, false);
    let rejected = ValidateAnswer::Rejected;
    let table = [
        ("no answer", ValidateAnswer::Unknown(failure), later, strict, BeforeReplay::Later(failure)),
        ("died before its time", rejected.clone(), later, strict, BeforeReplay::Spent),
        ("died of age", rejected.clone(), past, strict, BeforeReplay::Replay),
        ("reuse is harmless", rejected.clone(), later, habits(Rotation::None, false), BeforeReplay::Replay),
        ("it would have survived", rejected, later, habits(Rotation::OneTime, true), BeforeReplay::Replay),
        ("it lives", proof("ours", None), later, strict, BeforeReplay::Replay),
    ];
    for (name, answer, expiry, habits, expected) in table {
        assert_eq!(before_replay(&answer, expiry, now, &habits), expected, "{name}");
    }
}

#[test]
fn a_gateways_error_may_hide_a_spent_token() {
    for (status, hides) in
        [(404, false), (408, false), (429, false), (500, true), (502, true), (503, false), (504, true)]
    {
        assert_eq!(
            ProviderFailure::new(FailureKind::Status(status)).may_follow_success(&ProviderHabits::FORGIVING),
            hides,
            "{status}"
        );
    }
}

#[test]
fn a_pause_is_as_asked_within_reason() {
    let asked = |secs| ProviderFailure {
        kind: FailureKind::Status(429),
        retry_after: Some(Duration::from_secs(secs)),
    };
    assert_eq!(asked(7).pause(), Duration::from_secs(7));
    assert_eq!(asked(1_000_000).pause(), Duration::from_secs(3600));
}
