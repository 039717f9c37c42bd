use proptest::prelude::*;

use super::*;
use crate::plan::busiest_minute_over_mean;

const MINUTE: Duration = Duration::from_secs(60);
const PERIOD: Duration = Duration::from_secs(55 * 60);

/// Random-looking numbers, the same in every run (SplitMix64).
fn noise(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn ids(count: usize) -> impl Iterator<Item = SessionId> {
    let mut state = 42;
    std::iter::repeat_with(move || {
        let mut random = [0; 10];
        for (place, byte) in random
            .iter_mut()
            .zip(noise(&mut state).to_be_bytes().into_iter().chain(noise(&mut state).to_be_bytes()))
        {
            *place = byte;
        }
        // All of them signed in within the same second.
        SessionId::new(Timestamp::from_millis(1_790_000_000_000), random)
    })
    .take(count)
}

fn at_minutes(minutes: i64) -> Timestamp {
    Timestamp::from_millis(minutes * 60_000)
}

#[test]
fn a_slot_is_the_upper_bits_of_the_fraction() {
    let table = [(0, 0), (0x003f_ffff, 0), (0x0040_0000, 1), (0x8000_0000, 512), (0xffff_ffff, 1023)];
    for (bits, slot) in table {
        let [a, b, c, d] = u32::to_be_bytes(bits);
        let id = SessionId::new(Timestamp::EPOCH, [9, 9, 9, 9, 9, 9, a, b, c, d]);
        assert_eq!(Slot::of(id), Slot(slot), "{bits:x}");
        assert_eq!((id.fraction() * 1024.0).min(1023.0) as u16, slot);
    }
}

#[test]
fn slots_are_numbered_from_0_to_1023() {
    assert_eq!(Slot::new(0), Some(Slot(0)));
    assert_eq!(Slot::new(1023).map(Slot::number), Some(1023));
    assert_eq!(Slot::new(1024), None);
    assert!(Slot::all().map(Slot::number).eq(0..1024));
}

#[test]
fn visits_are_at_the_slots_offset_in_each_period() {
    let hour = 60 * MINUTE;
    let table = [
        (Slot(0), at_minutes(0), 60 * 60_000),
        (Slot(0), at_minutes(59), 60 * 60_000),
        (Slot(512), at_minutes(0), 30 * 60_000),
        (Slot(512), at_minutes(30), 90 * 60_000),
        (Slot(512), Timestamp::from_millis(30 * 60_000 - 1), 30 * 60_000),
        (Slot(1023), at_minutes(0), 3_596_484),
        (Slot(512), at_minutes(-60), -30 * 60_000),
        (Slot(0), Timestamp::from_millis(-1), 0),
    ];
    for (slot, now, visit) in table {
        assert_eq!(slot.next_visit(hour, now), Timestamp::from_millis(visit), "{slot:?} {now:?}");
    }
}

#[test]
fn extreme_periods_and_times_do_not_overflow() {
    for period in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        for now in [i64::MIN, -1, 0, i64::MAX] {
            for slot in Slot::all() {
                let now = Timestamp::from_millis(now);
                assert!(slot.next_visit(period, now) >= now);
            }
        }
    }
}

#[test]
fn simultaneous_sign_ins_are_spread_over_the_period() {
    let mut per_minute = [0_u32; 55];
    for id in ids(100_000) {
        let minute = Slot::of(id).offset(PERIOD).as_secs() / 60;
        per_minute[usize::try_from(minute).unwrap()] += 1;
    }
    let busiest = f64::from(*per_minute.iter().max().unwrap());
    let idlest = f64::from(*per_minute.iter().min().unwrap());
    let mean = 100_000.0 / 55.0;
    assert!(busiest <= 1.2 * mean && idlest >= 0.8 * mean, "{idlest} to {busiest}, mean {mean}");
    assert!(busiest_minute_over_mean(20_000, PERIOD) <= 1.2, "SPREAD: from this size on");
    let expected = busiest_minute_over_mean(100_000, PERIOD);
    assert!(busiest <= expected * mean && expected < 1.1, "{busiest}, mean {mean}, expected {expected}");
}

#[test]
fn a_visit_skips_recent_proofs() {
    let schedule = Schedule { period: PERIOD, proof: 60 * MINUTE, slack: 2 * MINUTE };
    let table = [
        // Proven at the previous visit: at the next one it would be 110 minutes old.
        (0, 110, false),
        // Proven at this visit: 55 minutes.
        (55, 110, true),
        (53, 110, true),
        (52, 110, false),
        // From the future.
        (56, 110, false),
        (110, 110, false),
        (111, 110, false),
    ];
    for (proven_at, next_visit, stays) in table {
        assert_eq!(
            schedule.stays_proven(at_minutes(proven_at), at_minutes(55), at_minutes(next_visit)),
            stays,
            "{proven_at} {next_visit}"
        );
    }
}

#[test]
fn a_shorter_period_renews_proofs_sooner() {
    // One token, proven by a visit. Each visit is a period after the last.
    let renewed_after = |period_minutes: u32, proof_minutes: u32| {
        let (period, proof) = (period_minutes * MINUTE, proof_minutes * MINUTE);
        let schedule = Schedule { period, proof, slack: 2 * MINUTE };
        (1..100).find(|visits| {
            let now = Timestamp::EPOCH.after(*visits * period);
            !schedule.stays_proven(Timestamp::EPOCH, now, now.after(period))
        })
    };
    for (period, proof) in [(55, 60), (30, 60), (10, 60), (1, 60 * 24), (8, 10)] {
        let expected = if period > 3 { 1 } else { 3 };
        assert_eq!(renewed_after(period, proof), Some(expected), "period {period}, proof {proof}");
    }
}

#[test]
fn a_schedule_holds_if_a_proof_outlasts_the_period() {
    assert!(Schedule::default().holds());
    assert!(!Schedule { period: 58 * MINUTE, ..Schedule::default() }.holds());
    assert!(!Schedule { slack: 90 * MINUTE, ..Schedule::default() }.holds());
}

#[test]
fn needs_and_budgets_match_hand_calculations() {
    assert!((needed_per_second(3_300, PERIOD) - 1.0).abs() < 1e-9);
    assert!((sufficient_budget(3_300, PERIOD) - 1.2).abs() < 1e-9);
    assert!((needed_per_second(100_000, PERIOD) - 30.303).abs() < 1e-3);
    assert!(needed_per_second(1, Duration::ZERO).is_finite());
}

#[test]
fn catch_up_takes_the_shorter_of_two_bounds() {
    // 33,000 fall due at 10 a second.
    let table = [
        (0, 33_000, 0.0, Some(0)),
        (600, 33_000, 12.0, Some(300)),
        (5_500, 33_000, 12.0, Some(2_750)),
        (33_000, 33_000, 12.0, Some(2_750)),
        (33_000, 33_000, 330.0, Some(100)),
        (600, 33_000, 10.0, None),
        (600, 33_000, 5.0, None),
        (600, 33_000, f64::NAN, None),
        (u64::MAX, u64::MAX, 1e-300, None),
    ];
    for (overdue, live, budget, expected_secs) in table {
        let expected = expected_secs.map(Duration::from_secs);
        assert_eq!(catch_up(overdue, live, PERIOD, budget), expected, "{overdue} {live} {budget}");
    }
}

proptest! {
    #[test]
    fn visits_are_exactly_one_period_apart(
        number in 0..SLOTS,
        period_millis in 1..100_000_000_u64,
        now in -10_000_000_000_000..10_000_000_000_000_i64,
    ) {
        let (slot, period) = (Slot(number), Duration::from_millis(period_millis));
        let now = Timestamp::from_millis(now);
        let first = slot.next_visit(period, now);
        prop_assert!(first > now && first <= now.after(period));
        let second = slot.next_visit(period, first);
        prop_assert_eq!(second, first.after(period));
        // The result is the same at any time in between.
        prop_assert_eq!(slot.next_visit(period, second.before(Duration::from_millis(1))), second);
    }

    #[test]
    fn a_session_is_validated_before_its_proof_is_too_old(
        number in 0..SLOTS,
        signed_in_secs in 0..100_000_u64,
        late_secs in proptest::collection::vec(0..120_u64, 12),
    ) {
        let (slot, schedule) = (Slot(number), Schedule::default());
        let mut proven_at = Timestamp::EPOCH.after(Duration::from_secs(signed_in_secs));
        let mut visit = slot.next_visit(schedule.period, proven_at);
        for late in late_secs {
            let now = visit.after(Duration::from_secs(late));
            let next_visit = slot.next_visit(schedule.period, visit);
            prop_assert!(now.since(proven_at) < schedule.proof);
            if !schedule.stays_proven(proven_at, now, next_visit) {
                proven_at = now;
            }
            visit = next_visit;
        }
    }
}
