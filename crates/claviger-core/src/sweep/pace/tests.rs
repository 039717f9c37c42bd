use proptest::prelude::*;

use super::*;

const T0: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const BOUNDS: PaceLimits = PaceLimits { ceiling_per_second: 10, floor_per_second: 1, burst: 3 };

fn at(millis: u64) -> Timestamp {
    T0.after(Duration::from_millis(millis))
}

fn millis_of(reservation: Reservation) -> Vec<i64> {
    reservation.places(T0).map(|place| place.as_millis() - T0.as_millis()).collect()
}

fn rate(pace: &Pace, now: Timestamp) -> f64 {
    pace.per_second(now, &BOUNDS)
}

#[test]
fn places_are_evenly_spaced_and_not_far_ahead() {
    let (pace, first) = Pace::NEW.reserve(T0, &BOUNDS, 4);
    assert_eq!(millis_of(first), [0, 100, 200, 300]);
    // What a pause saved up is there for others at the same time.
    let (pace, second) = pace.reserve(T0, &BOUNDS, 100);
    assert_eq!(millis_of(second), [200, 300, 400, 500, 600, 700, 800, 900, 1000]);
    let (unchanged, none) = pace.reserve(T0, &BOUNDS, 100);
    assert_eq!((unchanged, none.count, none.from), (pace, 0, at(1_100)));
    let (_, later) = pace.reserve(at(1_000), &BOUNDS, 2);
    assert_eq!(millis_of(later), [1_100, 1_200]);
}

#[test]
fn who_wants_nothing_takes_nothing() {
    let (pace, none) = Pace::NEW.reserve(T0, &BOUNDS, 0);
    assert_eq!((pace, none.count), (Pace::NEW, 0));
}

#[test]
fn places_that_are_past_are_lost() {
    let (_, reservation) = Pace::NEW.reserve(T0, &BOUNDS, 4);
    let left: Vec<_> = reservation.places(at(351)).collect();
    assert_eq!(left, [at(200), at(300)], "a quarter of a second late is not too late");
}

#[test]
fn one_instance_that_always_has_work_uses_the_whole_budget() {
    for ceiling in [1, 3, 20, 333, 5_000] {
        let bounds = PaceLimits::per_second(ceiling);
        let (mut pace, mut sent) = (Pace::NEW, 0);
        for step in 0..240 {
            let (next, reservation) = pace.reserve(at(step * 250), &bounds, u32::MAX);
            (pace, sent) = (next, sent + reservation.count);
        }
        let least = 60 * ceiling - ceiling.div_ceil(10);
        assert!(sent >= least && sent <= 61 * ceiling + bounds.burst, "{sent} at {ceiling} a second");
    }
}

#[test]
fn a_slower_pace_saves_up_no_more_than_before() {
    let (pace, _) = Pace::NEW.reserve(T0, &BOUNDS, 6);
    let (_, reservation) = pace.troubled(T0, &BOUNDS, None).reserve(T0, &BOUNDS, 3);
    // Six at the ceiling last until 600; then one in 200 ms, of which what three bring at the ceiling comes early.
    assert_eq!(millis_of(reservation), [500, 700, 900]);
}

#[test]
fn a_volley_slows_the_pace_once_and_a_rate_never_falls_below_the_floor() {
    let mut pace = Pace::NEW.troubled(T0, &BOUNDS, None);
    assert!((rate(&pace, T0) - 5.0).abs() < 1e-9);
    for millis in 0..5_000 {
        pace = pace.troubled(at(millis), &BOUNDS, None);
    }
    let before = rate(&pace, at(4_999));
    assert!(before > 5.0 && before < 5.1, "{before}");
    let mut now = 5_000;
    for expected in [2.541, 1.312, 1.0, 1.0] {
        pace = pace.troubled(at(now), &BOUNDS, None);
        assert!((rate(&pace, at(now)) - expected).abs() < 0.001, "{}", rate(&pace, at(now)));
        now += 5_000;
    }
}

#[test]
fn the_pace_grows_evenly_back_to_its_ceiling() {
    let pace = Pace::NEW.troubled(T0, &BOUNDS, None);
    for (secs, expected) in [(0, 5.0), (60, 6.0), (150, 7.5), (300, 10.0), (86_400, 10.0)] {
        assert!((rate(&pace, at(secs * 1000)) - expected).abs() < 1e-3, "after {secs} s");
    }
    let (later, reservation) = pace.reserve(at(60_000), &BOUNDS, 1);
    assert_eq!(reservation.interval, Duration::from_micros(166_667));
    assert!((rate(&later, at(60_000)) - 6.0).abs() < 1e-3, "reserving does not touch the rate");
}

#[test]
fn a_pause_that_the_provider_asks_for_is_kept_within_reason() {
    for (asked_secs, kept_millis) in [(7, 7_000), (60, 60_000), (3_600, 60_000)] {
        let pace = Pace::NEW.troubled(T0, &BOUNDS, Some(Duration::from_secs(asked_secs)));
        assert_eq!(pace.silent_for(T0), Some(Duration::from_millis(kept_millis)));
        let (_, none) = pace.reserve(T0, &BOUNDS, 5);
        assert_eq!((none.count, none.from), (0, at(kept_millis)));
        let (_, some) = pace.reserve(at(kept_millis - 500), &BOUNDS, 2);
        assert_eq!((some.count, some.from), (2, at(kept_millis)), "the first comes when it is over");
        assert_eq!(pace.silent_for(at(kept_millis)), None);
    }
}

#[test]
fn a_shorter_pause_does_not_cut_a_longer_one_short() {
    let pace = Pace::NEW.troubled(T0, &BOUNDS, Some(Duration::from_secs(30)));
    let pace = pace.troubled(at(1_000), &BOUNDS, Some(Duration::from_secs(2)));
    assert_eq!(pace.silent_for(at(1_000)), Some(Duration::from_secs(29)));
}

#[test]
fn a_lower_ceiling_counts_at_once_and_a_floor_is_never_above_it() {
    let low = PaceLimits { ceiling_per_second: 2, floor_per_second: 7, burst: 1 };
    let (pace, _) = Pace::NEW.reserve(T0, &BOUNDS, 3);
    assert!((pace.per_second(T0, &low) - 2.0).abs() < 1e-9);
    assert!((pace.troubled(T0, &low, None).per_second(T0, &low) - 2.0).abs() < 1e-9);
    let nothing = PaceLimits { ceiling_per_second: 0, floor_per_second: 0, burst: 0 };
    assert_eq!(
        Pace::NEW.reserve(T0, &nothing, 5).1.count,
        2,
        "a budget of nothing is one a second: one now, and one in a second"
    );
}

#[test]
fn a_clock_that_is_set_back_holds_nobody_up() {
    let later = at(86_400_000);
    let (pace, _) = Pace::NEW.troubled(later, &BOUNDS, Some(Duration::from_secs(60))).reserve(
        later.after(Duration::from_secs(61)),
        &BOUNDS,
        9,
    );
    let (pace, reservation) = pace.reserve(T0, &BOUNDS, 1);
    assert_eq!(millis_of(reservation), [0]);
    assert!((rate(&pace, at(300_000)) - 10.0).abs() < 1e-3, "the rate grows by the clock as it is now");
    let slowed = pace.troubled(at(6_000), &BOUNDS, None);
    assert!(rate(&slowed, at(6_000)) < 3.0, "and a 429 slows it again");
}

#[test]
fn the_bytes_are_what_they_were() {
    let pace = Pace {
        cells: Gcra { whole_at_micros: 0x0102 },
        rate_milli_per_second: 0x0304,
        slowed_at: Timestamp::from_millis(-1),
        silent_until: Timestamp::from_millis(0x0506),
    };
    let mut expected = [0; PACE_BYTES];
    expected[0] = 1;
    expected[7..9].copy_from_slice(&[1, 2]);
    expected[11..13].copy_from_slice(&[3, 4]);
    expected[13..21].fill(0xff);
    expected[27..29].copy_from_slice(&[5, 6]);
    assert_eq!(pace.to_bytes(), expected);
}

#[test]
fn bytes_of_another_format_are_refused() {
    let bytes = Pace::NEW.to_bytes();
    assert_eq!(Pace::from_bytes(&bytes), Some(Pace::NEW));
    for length in 0..PACE_BYTES {
        assert_eq!(Pace::from_bytes(&bytes[..length]), None);
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert_eq!(Pace::from_bytes(&longer), None);
    let mut other = bytes;
    other[0] = 2;
    assert_eq!(Pace::from_bytes(&other), None);
}

#[derive(Clone, Debug)]
enum Act {
    /// Reads the budget and takes so many places, not yet written.
    Read(u32),
    /// Hears a 429, not yet written.
    Hear(Option<u64>),
    /// Writes what was read and changed, if nobody else did in the meantime.
    Write,
    /// Dies, and starts again without what it knew.
    Die,
}

fn acts() -> impl Strategy<Value = Vec<(usize, u64, Act)>> {
    let act = prop_oneof![
        4 => (1..60_u32).prop_map(Act::Read),
        1 => proptest::option::of(0..100_u64).prop_map(Act::Hear),
        5 => Just(Act::Write),
        1 => Just(Act::Die),
    ];
    proptest::collection::vec((0..3_usize, prop_oneof![Just(0), 0..60_u64, 0..3_000_u64], act), 1..120)
}

/// What an instance read and changed: the version it read, the new value, and what it may do once that is written.
type InHand = (u64, Pace, Option<Reservation>, Timestamp);

/// Several instances share a budget in a store. Gives when they send.
fn sends(acts: Vec<(usize, u64, Act)>, bounds: &PaceLimits) -> Vec<Timestamp> {
    let mut stored = (0, Pace::NEW.to_bytes());
    let mut in_hand: [Option<InHand>; 3] = [None; 3];
    let (mut now, mut silent_until) = (T0, T0);
    let mut sends = Vec::new();
    for (instance, pause_millis, act) in acts {
        now = now.after(Duration::from_millis(pause_millis));
        let (version, pace) = (stored.0, Pace::from_bytes(&stored.1).unwrap());
        match act {
            Act::Read(want) => {
                let (next, reservation) = pace.reserve(now, bounds, want);
                assert!(reservation.count <= want);
                in_hand[instance] = Some((version, next, Some(reservation), T0));
            }
            Act::Hear(secs) => {
                let next = pace.troubled(now, bounds, secs.map(Duration::from_secs));
                let until = now.after(Duration::from_secs(secs.unwrap_or(0).min(60)));
                in_hand[instance] = Some((version, next, None, until));
            }
            Act::Write => {
                let Some((from, next, reservation, until)) = in_hand[instance].take() else { continue };
                if from == version {
                    stored = (version + 1, next.to_bytes());
                    for place in reservation.into_iter().flat_map(|reservation| reservation.places(now)) {
                        assert!(place >= silent_until && place <= now.after(limits::PACE_AHEAD));
                        // One that is late goes when it can.
                        sends.push(place.max(now));
                    }
                    silent_until = silent_until.max(until);
                }
            }
            Act::Die => in_hand[instance] = None,
        }
    }
    sends.sort();
    sends
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_window_stays_within_the_budget(
        acts in acts(), ceiling_per_second in 1..50_u32, floor_per_second in 1..5_u32, burst in 1..20_u32,
    ) {
        let bounds = PaceLimits { ceiling_per_second, floor_per_second, burst };
        let sends = sends(acts, &bounds);
        for (first, from) in sends.iter().enumerate() {
            for (last, to) in sends.iter().enumerate().skip(first) {
                // Places are told to the millisecond.
                let span_millis = u64::try_from(to.since(*from).as_millis()).unwrap() + 1;
                let late_millis = u64::try_from(limits::PACE_LATE.as_millis()).unwrap();
                let most = u64::from(burst) + (span_millis + late_millis) * u64::from(ceiling_per_second) / 1000;
                let count = u64::try_from(last - first + 1).unwrap();
                prop_assert!(count <= most, "{} in {} ms", count, span_millis);
            }
        }
    }

    #[test]
    fn a_learnt_rate_holds_for_all(
        halvings in 1..4_u32, instances in proptest::collection::vec((0..400_u64, 1..60_u32), 1..60),
    ) {
        let bounds = PaceLimits { ceiling_per_second: 40, floor_per_second: 1, burst: 10 };
        let (mut pace, mut now, mut sends) = (Pace::NEW, T0, Vec::new());
        for _ in 0..halvings {
            pace = pace.troubled(now, &bounds, None);
            now = now.after(limits::PACE_SLOWS_EVERY);
        }
        for (pause_millis, want) in instances {
            now = now.after(Duration::from_millis(pause_millis));
            let (next, reservation) = pace.reserve(now, &bounds, want);
            pace = next;
            sends.extend(reservation.places(now));
        }
        sends.sort();
        let (Some(first), Some(last)) = (sends.first(), sends.last()) else { return Ok(()) };
        let most = 10.0 + pace.per_second(*last, &bounds) * (last.since(*first).as_secs_f64() + 0.001);
        prop_assert!(sends.len() as f64 <= most, "{} of {}", sends.len(), most);
    }

    #[test]
    fn a_pace_recovers_from_whatever_happened(
        troubles in proptest::collection::vec((0..100_000_u64, proptest::option::of(0..5_000_u64)), 0..40),
        ceiling_per_second in 1..1000_u32,
    ) {
        let bounds = PaceLimits::per_second(ceiling_per_second);
        let (mut pace, mut now) = (Pace::NEW, T0);
        for (pause_millis, asked_secs) in troubles {
            now = now.after(Duration::from_millis(pause_millis));
            let before = pace.per_second(now, &bounds);
            pace = pace.troubled(now, &bounds, asked_secs.map(Duration::from_secs));
            let after = pace.per_second(now, &bounds);
            prop_assert!(after >= 1.0 && after <= before && after >= before / 2.0 - 0.001);
        }
        let mut slowest = 0.0;
        for passed in 0..=20 {
            let rate = pace.per_second(now.after(limits::PACE_RECOVERY / 20 * passed), &bounds);
            prop_assert!(rate >= slowest);
            slowest = rate;
        }
        prop_assert!((slowest - f64::from(ceiling_per_second)).abs() < 1e-9);
        let (_, reservation) = pace.reserve(now.after(limits::PACE_RECOVERY), &bounds, 1);
        prop_assert_eq!(reservation.count, 1);
    }

    #[test]
    fn bytes_lead_back_to_the_same_pace(
        whole_at_micros: i64, rate_milli_per_second: u32, slowed_at: i64, silent_until: i64,
    ) {
        let pace = Pace {
            cells: Gcra { whole_at_micros },
            rate_milli_per_second,
            slowed_at: Timestamp::from_millis(slowed_at),
            silent_until: Timestamp::from_millis(silent_until),
        };
        prop_assert_eq!(Pace::from_bytes(&pace.to_bytes()), Some(pace));
        // Whatever was kept, it holds up nobody for longer than a pause and what the clocks may differ.
        let (_, reservation) = pace.reserve(T0, &BOUNDS, 1);
        prop_assert!(reservation.from <= T0.after(Duration::from_secs(60 + 2 * 10 + 5)));
        let _no_panic = pace.troubled(T0, &BOUNDS, Some(Duration::MAX));
    }
}
