use super::*;

const HOUR: Duration = Duration::from_secs(60 * 60);
const MINUTE: Duration = Duration::from_secs(60);

const DEMAND: Demand = Demand {
    users: 100_000,
    devices_per_user: 2.3,
    active_hours_per_day: 3.0,
    token_lifetime: Duration::from_secs(4 * 60 * 60),
    period: Duration::from_secs(55 * 60),
    budget_per_second: 20.0,
    outage: Duration::from_secs(2 * 60 * 60),
};

fn near(left: f64, right: f64) -> bool {
    (left - right).abs() <= 0.001 * right.abs().max(1.0)
}

#[test]
fn the_day_curve_sums_to_a_thousand() {
    assert!(near(DAY_CURVE.iter().map(|weight| f64::from(*weight)).sum(), DAY_CURVE_SUM));
}

#[test]
fn a_hand_calculated_case() {
    let plan = DEMAND.plan().unwrap();
    // 100,000 * 2.3.
    assert_eq!(plan.devices, 230_000);
    // Three hours of use and half of four.
    assert!(near(plan.live_hours_per_day, 5.0));
    // 230,000 * 5 / 24, and each once in 3,300 s.
    assert_eq!(plan.mean_live, 47_917);
    assert!(near(plan.mean_validations_per_second, 14.520));
    // Those that begin from 17 to 22 o'clock: 68 + 80 + 92 + 94 + 80 of a thousand.
    assert_eq!(plan.peak_live, 95_220);
    assert!(near(plan.peak_validations_per_second, 28.855));
    // A fifth more is 34.63.
    assert_eq!(plan.sufficient_budget_per_second, 35);
    // 5 / 4 refreshes for each device.
    assert!(near(plan.mean_refreshes_per_second, 3.328));
    // From 20 to 21 o'clock 94 of a thousand begin, and a quarter of the 58 that began four hours
    // before go on.
    assert!(near(plan.peak_refreshes_per_second, 230_000.0 * (0.094 + 0.058 / 4.0) / 3600.0));
    // 19 slots instead of 18.6; 2.83 deviations of the square root of 1,731.
    assert!(near(plan.busiest_minute_over_mean, 1.0205 * 1.06803));
    // The outage is longer than a period, so all are overdue, and asking about each once takes
    // 95,220 / 35.
    assert_eq!(plan.fit, Fit::Short);
    assert_eq!(plan.overdue_after_outage, 95_220);
    assert_eq!(plan.catch_up, None);
    assert!(near(plan.catch_up_with_sufficient_budget.unwrap().as_secs_f64(), 2_720.6));
    // From 21 to 22 o'clock: those that began between 16 to 17 and now.
    assert!(near(
        plan.hours[21].live,
        230_000.0 * (0.058 / 2.0 + 0.068 + 0.080 + 0.092 + 0.094 + 0.080 / 2.0)
    ));
}

#[test]
fn a_device_is_live_between_a_lifetime_and_a_day() {
    let table = [
        (0.1, 4 * HOUR, 4.0, 1.0),
        (2.0, 4 * HOUR, 4.0, 1.0),
        (8.0, 4 * HOUR, 10.0, 2.5),
        (24.0, 4 * HOUR, 24.0, 6.0),
        (3.0, MINUTE, 3.0 + 0.5 / 60.0, 180.5),
        (3.0, 48 * HOUR, 24.0, 0.5),
    ];
    for (active_hours_per_day, token_lifetime, live_hours, refreshes) in table {
        let plan = Demand { active_hours_per_day, token_lifetime, ..DEMAND }.plan().unwrap();
        assert!(near(plan.live_hours_per_day, live_hours), "{active_hours_per_day} {token_lifetime:?}");
        let a_day = plan.mean_refreshes_per_second * 86_400.0 / 230_000.0;
        assert!(near(a_day, refreshes), "{active_hours_per_day} {token_lifetime:?}: {a_day}");
    }
}

#[test]
fn the_hours_of_the_day_add_up_to_the_mean() {
    for (active_hours_per_day, token_lifetime) in
        [(0.3, HOUR), (3.0, 4 * HOUR), (7.7, 90 * MINUTE), (24.0, 4 * HOUR), (3.0, 30 * HOUR)]
    {
        let plan = Demand { active_hours_per_day, token_lifetime, ..DEMAND }.plan().unwrap();
        let mean = |of: fn(&HourLoad) -> f64| plan.hours.iter().map(of).sum::<f64>() / 24.0;
        assert!(near(mean(|hour| hour.live), plan.mean_live as f64));
        assert!(near(mean(|hour| hour.validations_per_second), plan.mean_validations_per_second));
        assert!(near(mean(|hour| hour.refreshes_per_second), plan.mean_refreshes_per_second));
        let busiest = plan.hours.iter().map(|hour| hour.live).fold(0.0, f64::max);
        assert!(busiest <= plan.peak_live as f64 + 0.5 && busiest > 0.95 * plan.peak_live as f64);
    }
}

/// Every device by itself, minute by minute.
#[test]
fn a_count_of_single_devices_gives_the_same() {
    let demand = Demand { users: 1_000, devices_per_user: 6.0, ..DEMAND };
    let plan = demand.plan().unwrap();
    let mut live = [0_u32; 24 * 60];
    for (hour, weight) in DAY_CURVE.iter().enumerate() {
        // 6,000 devices: six for each thousandth, evenly over the hour.
        for device in 0..weight * 6 {
            let begins = hour * 60 + usize::try_from(device * 60 / (weight * 6)).unwrap();
            for minute in begins..begins + 5 * 60 {
                live[minute % live.len()] += 1;
            }
        }
    }
    for (hour, load) in plan.hours.iter().enumerate() {
        let counted = f64::from(live[hour * 60..(hour + 1) * 60].iter().sum::<u32>()) / 60.0;
        assert!((counted - load.live).abs() <= 0.01 * counted + 5.0, "{hour}: {counted}, not {}", load.live);
    }
    let busiest = f64::from(*live.iter().max().unwrap());
    assert!((busiest - plan.peak_live as f64).abs() < 10.0);
}

#[test]
fn a_budget_is_ample_tight_or_short() {
    let table = [
        (35.0, Fit::Ample, Some(2_720)),
        (34.0, Fit::Tight, Some(2_800)),
        (29.0, Fit::Tight, Some(3_283)),
        (28.8, Fit::Short, None),
    ];
    for (budget_per_second, fit, catch_up_secs) in table {
        let plan = Demand { budget_per_second, ..DEMAND }.plan().unwrap();
        let secs = plan.catch_up.map(|span| span.as_secs());
        assert_eq!((plan.fit, secs), (fit, catch_up_secs), "{budget_per_second}");
    }
}

#[test]
fn an_outage_makes_each_session_overdue_once() {
    let table = [(Duration::ZERO, 0), (11 * MINUTE, 19_044), (55 * MINUTE, 95_220), (720 * HOUR, 95_220)];
    for (outage, overdue) in table {
        assert_eq!(Demand { outage, ..DEMAND }.plan().unwrap().overdue_after_outage, overdue, "{outage:?}");
    }
}

#[test]
fn out_of_bounds_quantities_are_named() {
    type Change = fn(&mut Demand);
    let table: [(Quantity, &[Change]); 7] = [
        (Quantity::Users, &[|demand| demand.users = 0, |demand| demand.users = u64::MAX]),
        (
            Quantity::DevicesPerUser,
            &[
                |demand| demand.devices_per_user = 0.0,
                |demand| demand.devices_per_user = -1.0,
                |demand| demand.devices_per_user = f64::NAN,
                |demand| demand.devices_per_user = f64::INFINITY,
            ],
        ),
        (
            Quantity::ActiveHoursPerDay,
            &[|demand| demand.active_hours_per_day = 24.1, |demand| demand.active_hours_per_day = f64::NAN],
        ),
        (
            Quantity::TokenLifetime,
            &[
                |demand| demand.token_lifetime = Duration::ZERO,
                |demand| demand.token_lifetime = Duration::MAX,
            ],
        ),
        (Quantity::Period, &[|demand| demand.period = Duration::ZERO, |demand| demand.period = 25 * HOUR]),
        (
            Quantity::BudgetPerSecond,
            &[
                |demand| demand.budget_per_second = 0.0,
                |demand| demand.budget_per_second = f64::NEG_INFINITY,
                |demand| demand.budget_per_second = f64::NAN,
                |demand| demand.budget_per_second = 1e7,
            ],
        ),
        (Quantity::Outage, &[|demand| demand.outage = 800 * HOUR]),
    ];
    for (quantity, changes) in table {
        for change in changes {
            let mut demand = DEMAND;
            change(&mut demand);
            assert_eq!(demand.plan(), Err(OutOfBounds(quantity)), "{demand:?}");
        }
    }
}

#[test]
fn the_extremes_have_a_plan() {
    let span = |secs: f64| Duration::from_secs_f64(secs);
    for least in [true, false] {
        let of = |quantity: Quantity| {
            if least { *quantity.bounds().start() } else { *quantity.bounds().end() }
        };
        let demand = Demand {
            users: of(Quantity::Users) as u64,
            devices_per_user: of(Quantity::DevicesPerUser),
            active_hours_per_day: of(Quantity::ActiveHoursPerDay),
            token_lifetime: span(of(Quantity::TokenLifetime)),
            period: span(of(Quantity::Period)),
            budget_per_second: of(Quantity::BudgetPerSecond),
            outage: span(of(Quantity::Outage)),
        };
        let plan = demand.plan().unwrap();
        for load in plan.hours {
            assert!(load.live.is_finite() && load.live >= 0.0 && load.refreshes_per_second >= 0.0);
        }
        assert!(plan.busiest_minute_over_mean >= 1.0 && plan.sufficient_budget_per_second >= 1);
    }
}
