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
    let trouble = |status| Trouble::new(TroubleKind::Status(status));
    let another = AfterValidate::End(EndReason::TokenOfAnotherSubject);
    let generation = Version(1);
    let table = [
        (proof("ours", Some("141981764")), Verdict::Valid, AfterValidate::Prove(generation)),
        (proof("other", Some("141981764")), Verdict::Rejected, another),
        (proof("ours", Some("1")), Verdict::Rejected, another),
        (proof("ours", None), Verdict::Rejected, another),
        (ValidateAnswer::Rejected, Verdict::Rejected, AfterValidate::Suspect(generation)),
        (ValidateAnswer::Unknown(trouble(429)), Verdict::Unknown, AfterValidate::Nothing(trouble(429))),
        (ValidateAnswer::Unknown(trouble(503)), Verdict::Unknown, AfterValidate::Nothing(trouble(503))),
    ];
    for (answer, verdict, expected) in table {
        assert_eq!(answer.verdict("ours", Some("141981764")), verdict, "{answer:?}");
        assert_eq!(after_validate(&live(), generation, "ours", &answer), expected, "{answer:?}");
    }
}

#[test]
fn every_answer_to_a_refresh_has_its_consequence() {
    let twitch = &ProviderHabits::TWITCH;
    let trouble = Trouble::new(TroubleKind::Status(503));
    let issued = || {
        TokenAnswer::Issued(IssuedPair {
            access: AccessToken::new("a"),
            refresh: None,
            lifespan: Lifespan::Unknown,
            scopes: None,
        })
    };
    let kind = |after: &AfterRefresh| match after {
        AfterRefresh::Commit(_) => "commit",
        AfterRefresh::End(EndReason::RefreshTokenRejected) => "end",
        AfterRefresh::End(_) => "end for another reason",
        AfterRefresh::Release(_) => "release",
        AfterRefresh::ReleaseAndAlarm => "release and alarm",
        AfterRefresh::MarkLost(_) => "mark lost",
    };
    type Answer = fn() -> TokenAnswer;
    let table: [(Answer, &str, &str); 4] = [
        (|| TokenAnswer::Rejected, "end", "mark lost"),
        (|| TokenAnswer::Misconfigured, "release and alarm", "mark lost"),
        (|| TokenAnswer::Unknown(Trouble::new(TroubleKind::Status(503))), "release", "mark lost"),
        (|| TokenAnswer::Lost(Trouble::new(TroubleKind::NoAnswer)), "mark lost", "mark lost"),
    ];
    for (answer, first, replay) in table {
        assert_eq!(kind(&after_refresh(answer(), false, twitch)), first, "{:?}", answer());
        assert_eq!(kind(&after_refresh(answer(), true, twitch)), replay, "{:?}", answer());
    }
    assert_eq!(kind(&after_refresh(issued(), false, twitch)), "commit");
    assert_eq!(kind(&after_refresh(issued(), true, twitch)), "commit");
    assert_eq!(trouble.pause(), limits::RETRY_AFTER);
}

#[test]
fn a_gateways_error_may_hide_a_spent_token() {
    let strict = ProviderHabits { reuse_kills_connection: true, ..ProviderHabits::TWITCH };
    let lost = |status, habits| {
        let answer = TokenAnswer::Unknown(Trouble::new(TroubleKind::Status(status)));
        matches!(after_refresh(answer, false, habits), AfterRefresh::MarkLost(_))
    };
    for status in [500, 502, 504] {
        assert!(lost(status, &strict), "{status}");
        assert!(!lost(status, &ProviderHabits::TWITCH), "{status}");
    }
    for status in [404, 408, 429, 503] {
        assert!(!lost(status, &strict), "{status}");
    }
}

#[test]
fn a_pause_is_as_asked_within_reason() {
    let asked =
        |secs| Trouble { kind: TroubleKind::Status(429), retry_after: Some(Duration::from_secs(secs)) };
    assert_eq!(asked(7).pause(), Duration::from_secs(7));
    assert_eq!(asked(1_000_000).pause(), Duration::from_secs(3600));
}
