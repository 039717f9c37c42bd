use proptest::prelude::*;

use super::*;

const T0: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const BOUNDS: RateLimitBounds = RateLimitBounds { ceiling_per_second: 10, floor_per_second: 1, burst: 3 };

fn at(millis: u64) -> Timestamp {
    T0.after(Duration::from_millis(millis))
}

fn millis_of(reservation: Reservation) -> Vec<i64> {
    reservation.places(T0).map(|place| place.as_millis() - T0.as_millis()).collect()
}

fn rate(rate_limit: &RateLimit, now: Timestamp) -> f64 {
    rate_limit.per_second(now, &BOUNDS)
}

#[test]
fn permits_are_evenly_spaced_and_not_far_ahead() {
    let (rate_limit, first) = RateLimit::NEW.reserve(T0, &BOUNDS, 4);
    assert_eq!(millis_of(first), [0, 100, 200, 300]);
    // A burst is for all instances together.
    let (rate_limit, second) = rate_limit.reserve(T0, &BOUNDS, 100);
    assert_eq!(millis_of(second), [200, 300, 400, 500, 600, 700, 800, 900, 1000]);
    let (unchanged, none) = rate_limit.reserve(T0, &BOUNDS, 100);
    assert_eq!((unchanged, none.count, none.from), (rate_limit, 0, at(1_100)));
    let (_, later) = rate_limit.reserve(at(1_000), &BOUNDS, 2);
    assert_eq!(millis_of(later), [1_100, 1_200]);
}

#[test]
fn zero_permits_can_be_wanted() {
    let (rate_limit, none) = RateLimit::NEW.reserve(T0, &BOUNDS, 0);
    assert_eq!((rate_limit, none.count), (RateLimit::NEW, 0));
}

#[test]
fn old_permits_are_lost() {
    let (_, reservation) = RateLimit::NEW.reserve(T0, &BOUNDS, 4);
    let left: Vec<_> = reservation.places(at(351)).collect();
    assert_eq!(left, [at(200), at(300)], "a quarter of a second late is not too late");
}

#[test]
fn a_single_busy_instance_uses_the_whole_budget() {
    for ceiling in [1, 3, 20, 333, 5_000] {
        let bounds = RateLimitBounds::per_second(ceiling);
        let (mut rate_limit, mut sent) = (RateLimit::NEW, 0);
        for step in 0..240 {
            let (next, reservation) = rate_limit.reserve(at(step * 250), &bounds, u32::MAX);
            (rate_limit, sent) = (next, sent + reservation.count);
        }
        let least = 60 * ceiling - ceiling.div_ceil(10);
        assert!(sent >= least && sent <= 61 * ceiling + bounds.burst, "{sent} at {ceiling} a second");
    }
}

#[test]
fn a_lower_rate_saves_up_no_more_than_before() {
    let (rate_limit, _) = RateLimit::NEW.reserve(T0, &BOUNDS, 6);
    let (_, reservation) = rate_limit.troubled(T0, &BOUNDS, None).reserve(T0, &BOUNDS, 3);
    // Six at the ceiling last until 600. Then there is one in 200 ms, and the saved burst is
    // computed at the ceiling.
    assert_eq!(millis_of(reservation), [500, 700, 900]);
}

#[test]
fn a_volley_halves_the_rate_once_down_to_the_floor() {
    let mut rate_limit = RateLimit::NEW.troubled(T0, &BOUNDS, None);
    assert!((rate(&rate_limit, T0) - 5.0).abs() < 1e-9);
    for millis in 0..5_000 {
        rate_limit = rate_limit.troubled(at(millis), &BOUNDS, None);
    }
    let before = rate(&rate_limit, at(4_999));
    assert!(before > 5.0 && before < 5.1, "{before}");
    let mut now = 5_000;
    for expected in [2.541, 1.312, 1.0, 1.0] {
        rate_limit = rate_limit.troubled(at(now), &BOUNDS, None);
        assert!((rate(&rate_limit, at(now)) - expected).abs() < 0.001, "{}", rate(&rate_limit, at(now)));
        now += 5_000;
    }
}

#[test]
fn the_rate_grows_evenly_to_its_ceiling() {
    let rate_limit = RateLimit::NEW.troubled(T0, &BOUNDS, None);
    for (secs, expected) in [(0, 5.0), (60, 6.0), (150, 7.5), (300, 10.0), (86_400, 10.0)] {
        assert!((rate(&rate_limit, at(secs * 1000)) - expected).abs() < 1e-3, "after {secs} s");
    }
    let (later, reservation) = rate_limit.reserve(at(60_000), &BOUNDS, 1);
    assert_eq!(reservation.interval, Duration::from_micros(166_667));
    assert!((rate(&later, at(60_000)) - 6.0).abs() < 1e-3, "reserving does not touch the rate");
}

#[test]
fn retry_after_is_kept_within_limits() {
    for (asked_secs, kept_millis) in [(7, 7_000), (60, 60_000), (3_600, 60_000)] {
        let rate_limit = RateLimit::NEW.troubled(T0, &BOUNDS, Some(Duration::from_secs(asked_secs)));
        assert_eq!(rate_limit.silent_for(T0), Some(Duration::from_millis(kept_millis)));
        let (_, none) = rate_limit.reserve(T0, &BOUNDS, 5);
        assert_eq!((none.count, none.from), (0, at(kept_millis)));
        let (_, some) = rate_limit.reserve(at(kept_millis - 500), &BOUNDS, 2);
        assert_eq!((some.count, some.from), (2, at(kept_millis)), "the first comes when it is over");
        assert_eq!(rate_limit.silent_for(at(kept_millis)), None);
    }
}

#[test]
fn a_shorter_pause_keeps_a_longer_one() {
    let rate_limit = RateLimit::NEW.troubled(T0, &BOUNDS, Some(Duration::from_secs(30)));
    let rate_limit = rate_limit.troubled(at(1_000), &BOUNDS, Some(Duration::from_secs(2)));
    assert_eq!(rate_limit.silent_for(at(1_000)), Some(Duration::from_secs(29)));
}

#[test]
fn a_lower_ceiling_counts_at_once() {
    let low = RateLimitBounds { ceiling_per_second: 2, floor_per_second: 7, burst: 1 };
    let (rate_limit, _) = RateLimit::NEW.reserve(T0, &BOUNDS, 3);
    assert!((rate_limit.per_second(T0, &low) - 2.0).abs() < 1e-9);
    assert!((rate_limit.troubled(T0, &low, None).per_second(T0, &low) - 2.0).abs() < 1e-9);
    let nothing = RateLimitBounds { ceiling_per_second: 0, floor_per_second: 0, burst: 0 };
    assert_eq!(
        RateLimit::NEW.reserve(T0, &nothing, 5).1.count,
        2,
        "a budget of nothing is one a second: one now, and one in a second"
    );
}

#[test]
fn a_clock_that_is_set_back_delays_no_request() {
    let later = at(86_400_000);
    let (rate_limit, _) = RateLimit::NEW.troubled(later, &BOUNDS, Some(Duration::from_secs(60))).reserve(
        later.after(Duration::from_secs(61)),
        &BOUNDS,
        9,
    );
    let (rate_limit, reservation) = rate_limit.reserve(T0, &BOUNDS, 1);
    assert_eq!(millis_of(reservation), [0]);
    assert!((rate(&rate_limit, at(300_000)) - 10.0).abs() < 1e-3, "the rate grows by the clock as it is now");
    let slowed = rate_limit.troubled(at(6_000), &BOUNDS, None);
    assert!(rate(&slowed, at(6_000)) < 3.0, "and a 429 slows it again");
}

#[test]
fn the_encoding_is_stable() {
    let rate_limit = RateLimit {
        cells: Gcra { whole_at_micros: 0x0102 },
        rate_milli_per_second: 0x0304,
        slowed_at: Timestamp::from_millis(-1),
        silent_until: Timestamp::from_millis(0x0506),
    };
    let mut expected = [0; RATE_LIMIT_BYTES];
    expected[0] = 1;
    expected[7..9].copy_from_slice(&[1, 2]);
    expected[11..13].copy_from_slice(&[3, 4]);
    expected[13..21].fill(0xff);
    expected[27..29].copy_from_slice(&[5, 6]);
    assert_eq!(rate_limit.to_bytes(), expected);
}

#[test]
fn another_format_is_refused() {
    let bytes = RateLimit::NEW.to_bytes();
    assert_eq!(RateLimit::from_bytes(&bytes), Some(RateLimit::NEW));
    for length in 0..RATE_LIMIT_BYTES {
        assert_eq!(RateLimit::from_bytes(&bytes[..length]), None);
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert_eq!(RateLimit::from_bytes(&longer), None);
    let mut other = bytes;
    other[0] = 2;
    assert_eq!(RateLimit::from_bytes(&other), None);
}

#[derive(Clone, Debug)]
enum Act {
    /// Reads the budget and reserves this many permits, without writing.
    Read(u32),
    /// Gets a 429, without writing.
    Hear(Option<u64>),
    /// Writes what was read and changed, unless another instance wrote meanwhile.
    Write,
    /// Dies, and restarts without its memory.
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

/// What an instance read and changed: the version it read, the new value, and its permits after the
/// write.
type InHand = (u64, RateLimit, Option<Reservation>, Timestamp);

/// Several instances share a budget in a store. Returns when they send.
fn sends(acts: Vec<(usize, u64, Act)>, bounds: &RateLimitBounds) -> Vec<Timestamp> {
    let mut stored = (0, RateLimit::NEW.to_bytes());
    let mut in_hand: [Option<InHand>; 3] = [None; 3];
    let (mut now, mut silent_until) = (T0, T0);
    let mut sends = Vec::new();
    for (instance, pause_millis, act) in acts {
        now = now.after(Duration::from_millis(pause_millis));
        let (version, rate_limit) = (stored.0, RateLimit::from_bytes(&stored.1).unwrap());
        match act {
            Act::Read(want) => {
                let (next, reservation) = rate_limit.reserve(now, bounds, want);
                assert!(reservation.count <= want);
                in_hand[instance] = Some((version, next, Some(reservation), T0));
            }
            Act::Hear(secs) => {
                let next = rate_limit.troubled(now, bounds, secs.map(Duration::from_secs));
                let until = now.after(Duration::from_secs(secs.unwrap_or(0).min(60)));
                in_hand[instance] = Some((version, next, None, until));
            }
            Act::Write => {
                let Some((from, next, reservation, until)) = in_hand[instance].take() else { continue };
                if from == version {
                    stored = (version + 1, next.to_bytes());
                    for place in reservation.into_iter().flat_map(|reservation| reservation.places(now)) {
                        assert!(place >= silent_until && place <= now.after(limits::RATE_LIMIT_AHEAD));
                        // A late one is sent as soon as possible.
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
        let bounds = RateLimitBounds { ceiling_per_second, floor_per_second, burst };
        let sends = sends(acts, &bounds);
        for (first, from) in sends.iter().enumerate() {
            for (last, to) in sends.iter().enumerate().skip(first) {
                // Permits have a resolution of a millisecond.
                let span_millis = u64::try_from(to.since(*from).as_millis()).unwrap() + 1;
                let late_millis = u64::try_from(limits::RATE_LIMIT_LATE.as_millis()).unwrap();
                let most = u64::from(burst) + (span_millis + late_millis) * u64::from(ceiling_per_second) / 1000;
                let count = u64::try_from(last - first + 1).unwrap();
                prop_assert!(count <= most, "{} in {} ms", count, span_millis);
            }
        }
    }

    #[test]
    fn a_lowered_rate_holds_for_all_instances(
        halvings in 1..4_u32, instances in proptest::collection::vec((0..400_u64, 1..60_u32), 1..60),
    ) {
        let bounds = RateLimitBounds { ceiling_per_second: 40, floor_per_second: 1, burst: 10 };
        let (mut rate_limit, mut now, mut sends) = (RateLimit::NEW, T0, Vec::new());
        for _ in 0..halvings {
            rate_limit = rate_limit.troubled(now, &bounds, None);
            now = now.after(limits::RATE_LIMIT_SLOWS_EVERY);
        }
        for (pause_millis, want) in instances {
            now = now.after(Duration::from_millis(pause_millis));
            let (next, reservation) = rate_limit.reserve(now, &bounds, want);
            rate_limit = next;
            sends.extend(reservation.places(now));
        }
        sends.sort();
        let (Some(first), Some(last)) = (sends.first(), sends.last()) else { return Ok(()) };
        let most = 10.0 + rate_limit.per_second(*last, &bounds) * (last.since(*first).as_secs_f64() + 0.001);
        prop_assert!(sends.len() as f64 <= most, "{} of {}", sends.len(), most);
    }

    #[test]
    fn the_rate_recovers_from_any_history(
        troubles in proptest::collection::vec((0..100_000_u64, proptest::option::of(0..5_000_u64)), 0..40),
        ceiling_per_second in 1..1000_u32,
    ) {
        let bounds = RateLimitBounds::per_second(ceiling_per_second);
        let (mut rate_limit, mut now) = (RateLimit::NEW, T0);
        for (pause_millis, asked_secs) in troubles {
            now = now.after(Duration::from_millis(pause_millis));
            let before = rate_limit.per_second(now, &bounds);
            rate_limit = rate_limit.troubled(now, &bounds, asked_secs.map(Duration::from_secs));
            let after = rate_limit.per_second(now, &bounds);
            prop_assert!(after >= 1.0 && after <= before && after >= before / 2.0 - 0.001);
        }
        let mut slowest = 0.0;
        for passed in 0..=20 {
            let rate = rate_limit.per_second(now.after(limits::RATE_LIMIT_RECOVERY / 20 * passed), &bounds);
            prop_assert!(rate >= slowest);
            slowest = rate;
        }
        prop_assert!((slowest - f64::from(ceiling_per_second)).abs() < 1e-9);
        let (_, reservation) = rate_limit.reserve(now.after(limits::RATE_LIMIT_RECOVERY), &bounds, 1);
        prop_assert_eq!(reservation.count, 1);
    }

    #[test]
    fn the_encoding_round_trips(
        whole_at_micros: i64, rate_milli_per_second: u32, slowed_at: i64, silent_until: i64,
    ) {
        let rate_limit = RateLimit {
            cells: Gcra { whole_at_micros },
            rate_milli_per_second,
            slowed_at: Timestamp::from_millis(slowed_at),
            silent_until: Timestamp::from_millis(silent_until),
        };
        prop_assert_eq!(RateLimit::from_bytes(&rate_limit.to_bytes()), Some(rate_limit));
        // Whatever was stored, it delays requests at most for a pause and the difference of the
        // clocks.
        let (_, reservation) = rate_limit.reserve(T0, &BOUNDS, 1);
        prop_assert!(reservation.from <= T0.after(Duration::from_secs(60 + 2 * 10 + 5)));
        let _no_panic = rate_limit.troubled(T0, &BOUNDS, Some(Duration::MAX));
    }
}
