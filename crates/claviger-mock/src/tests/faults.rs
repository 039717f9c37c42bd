//! Faults on demand.

use std::time::Duration;

use super::{ADA, Bench};
use crate::{Endpoint, Fault, FaultKind, MalformedBody, Outcome, RetryAfter};

#[test]
fn a_status_fault_lasts_its_calls_and_has_no_effect() {
    let mut bench = Bench::new();
    let (access, refresh) = bench.sign_in("");
    bench.mock.add_fault(Fault::times(2, Endpoint::Token, FaultKind::status(503)));
    bench.refresh(&refresh).is(503, "");
    bench.refresh(&refresh).is(503, "");
    assert_eq!(bench.refresh(&refresh).status, 200);
    assert!(bench.is_live(&access));
    assert_eq!(bench.mock.faults().count(), 0);
}

#[test]
fn too_many_requests_come_with_seconds_with_a_date_or_bare() {
    let cases = [
        (None, None),
        (Some(RetryAfter::Seconds(7)), Some("7")),
        (Some(RetryAfter::DateInSeconds(60)), Some("Fri, 15 Jan 2027 08:01:00 GMT")),
    ];
    for (retry_after, header) in cases {
        let mut bench = Bench::new();
        bench.mock.add_fault(Fault::always(Endpoint::Validate, FaultKind::too_many_requests(retry_after)));
        let got = bench.validate("any");
        got.is(429, "");
        assert_eq!(got.header("retry-after"), header);
        assert_eq!(bench.validate("any").status, 429);
        bench.mock.clear_faults();
        assert_eq!(bench.validate("any").status, 401);
    }
}

#[test]
fn a_fault_can_be_for_one_grant_type_and_begin_later() {
    let mut bench = Bench::new();
    bench
        .mock
        .add_fault(Fault::once(Endpoint::Token, FaultKind::status(500)).grant_type("refresh_token").after(1));
    let (_, first) = bench.sign_in("");
    let (_, second) = bench.refresh(&first).tokens();
    assert_eq!(bench.refresh(&second).status, 500);
    assert_eq!(bench.refresh(&second).status, 200);
}

#[test]
fn closing_before_the_effect_leaves_the_token_and_closing_after_spends_it() {
    let mut bench = Bench::new();
    let (_, refresh) = bench.sign_in("");
    bench.mock.add_fault(Fault::once(Endpoint::Token, FaultKind::CloseBefore));
    assert!(bench.refresh(&refresh).is_closed());
    assert_eq!(bench.mock.live_access_tokens(ADA), 1);
    bench.mock.add_fault(Fault::once(Endpoint::Token, FaultKind::CloseAfter));
    assert!(bench.refresh(&refresh).is_closed());
    assert_eq!(bench.mock.live_access_tokens(ADA), 2);
    bench.refresh(&refresh).is(400, r#"{"status":400,"message":"Invalid refresh token"}"#);
    let outcomes: Vec<Outcome> = bench.mock.log().skip(2).map(|entry| entry.outcome).collect();
    assert_eq!(outcomes, [Outcome::ClosedBefore, Outcome::ClosedAfter(200), Outcome::Answered(400)]);
}

#[test]
fn delays_add_up_and_go_with_other_faults() {
    let mut bench = Bench::new();
    bench.mock.add_fault(Fault::once(Endpoint::Validate, FaultKind::delay(Duration::from_millis(300))));
    bench.mock.add_fault(Fault::once(Endpoint::Validate, FaultKind::CloseBefore));
    bench.mock.add_fault(Fault::always(Endpoint::Validate, FaultKind::delay(Duration::from_secs(1))));
    let got = bench.validate("any");
    assert!(got.is_closed());
    assert_eq!(got.reply.delay, Duration::from_millis(1_300));
    let got = bench.validate("any");
    assert_eq!((got.status, got.reply.delay), (401, Duration::from_secs(1)));
}

#[test]
fn malformed_answers_have_status_200_and_no_readable_token() {
    for body in
        [MalformedBody::Garbage, MalformedBody::Truncated, MalformedBody::Html, MalformedBody::OtherShape]
    {
        let mut bench = Bench::new();
        let (_, refresh) = bench.sign_in("");
        bench.mock.add_fault(Fault::once(Endpoint::Token, FaultKind::Malformed { body }));
        let got = bench.refresh(&refresh);
        assert_eq!(got.status, 200);
        let parsed = serde_json::from_slice::<serde_json::Value>(got.reply.response.body());
        assert_eq!(parsed.is_ok(), body == MalformedBody::OtherShape, "{body:?}");
        assert_eq!(bench.refresh(&refresh).status, 400, "the effect happened");
    }
}
