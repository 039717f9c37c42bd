use super::*;

const T0: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const SECOND: Duration = Duration::from_secs(1);
const THREE: Places = Places { count: 3, back_after: SECOND };

fn after(millis: u64) -> Timestamp {
    T0.after(Duration::from_millis(millis))
}

/// What happens at a time, in milliseconds.
enum Event {
    Take,
    Free,
    Spend,
    /// How long a party waits then, in milliseconds.
    Waits(u64),
}

#[test]
fn a_place_is_held_then_free_or_used_up() {
    use Event::{Free, Spend, Take, Waits};
    let table: &[(&str, &[(u64, Event)])] = &[
        ("nothing used", &[(0, Waits(0))]),
        ("two held", &[(0, Take), (0, Take), (0, Waits(0))]),
        ("all held, for as long as it takes", &[(0, Take), (0, Take), (0, Take), (9_000, Waits(1_000))]),
        ("one given back", &[(0, Take), (0, Take), (0, Take), (5, Free), (5, Waits(0))]),
        (
            "all used up",
            &[
                (0, Take),
                (0, Take),
                (0, Take),
                (0, Spend),
                (0, Spend),
                (0, Spend),
                (0, Waits(1_000)),
                (400, Waits(600)),
                (1_000, Waits(0)),
            ],
        ),
        (
            "used-up places come back one after another",
            &[
                (0, Take),
                (0, Take),
                (0, Take),
                (0, Spend),
                (0, Spend),
                (0, Spend),
                (1_000, Take),
                (1_000, Spend),
                (1_000, Waits(1_000)),
                (2_000, Waits(0)),
            ],
        ),
        (
            "held and used-up places add up",
            &[(0, Take), (0, Take), (0, Take), (0, Spend), (0, Waits(1_000)), (1_000, Waits(0))],
        ),
    ];
    for (name, events) in table {
        let mut shares = Shares::new(THREE);
        for (millis, event) in *events {
            let now = after(*millis);
            match event {
                Take => shares.take(&7, now),
                Free => shares.give_back(&7, now, Spent::No),
                Spend => shares.give_back(&7, now, Spent::Yes),
                Waits(expected) => {
                    assert_eq!(shares.wait(&7, now).as_millis(), u128::from(*expected), "{name}");
                    assert_eq!(shares.wait(&8, now), Duration::ZERO, "{name}: another party");
                }
            }
        }
    }
}

#[test]
fn parties_that_use_nothing_are_forgotten_and_their_number_is_bounded() {
    let mut shares = Shares::new(THREE);
    shares.take(&0, T0);
    shares.give_back(&0, T0, Spent::No);
    assert!(shares.parties.is_empty());
    for party in 0..2 * limits::PARTIES {
        shares.take(&party, T0);
        shares.give_back(&party, T0, Spent::Yes);
    }
    assert_eq!(shares.parties.len(), limits::PARTIES);
    shares.take(&usize::MAX, after(1_000));
    assert_eq!(shares.parties.len(), 1, "what came back is forgotten");
}

#[test]
fn a_clock_that_is_set_back_delays_nobody() {
    let mut shares = Shares::new(THREE);
    for _ in 0..3 {
        shares.take(&7, after(86_400_000));
        shares.give_back(&7, after(86_400_000), Spent::Yes);
    }
    assert_eq!(shares.wait(&7, T0), Duration::ZERO);
}

fn from(address: &str) -> Arrival {
    Arrival { address: Some(address.parse().unwrap()), browser: None }
}

fn known(number: u8) -> Arrival {
    Arrival { address: None, browser: Some(SessionId::new(T0, [number; 10])) }
}

const UNKNOWN: Arrival = Arrival { address: None, browser: None };

/// Counts the exchanges that this party may fail in at a time.
fn failures(budget: &mut ClientBudget, arrival: &Arrival, now: Timestamp) -> u32 {
    let mut failed = 0;
    while budget.take(arrival, now).is_ok() {
        budget.give_back(arrival, now, Spent::Yes);
        failed += 1;
    }
    failed
}

#[test]
fn one_address_uses_up_its_own_share_only() {
    let mut budget = ClientBudget::new(limits::EXCHANGES);
    let most = limits::EXCHANGES.address.count;
    assert_eq!(failures(&mut budget, &from("6.6.6.6"), T0), most);
    assert_eq!(failures(&mut budget, &from("::ffff:6.6.6.6"), T0), 0, "the same address");
    assert_eq!(budget.take(&from("7.7.7.7"), T0), Ok(()), "somebody else");
    assert_eq!(budget.take(&UNKNOWN, T0), Ok(()), "somebody whose address is not known");
    let minute = T0.after(60 * SECOND);
    let again = u32::try_from(60 / limits::EXCHANGES.address.back_after.as_secs()).unwrap();
    assert_eq!(failures(&mut budget, &from("6.6.6.6"), minute), most.min(again), "after a minute");
}

#[test]
fn addresses_of_one_ipv6_network_share() {
    let mut budget = ClientBudget::new(limits::EXCHANGES);
    assert_ne!(failures(&mut budget, &from("2001:db8:1:2::1"), T0), 0);
    assert_eq!(failures(&mut budget, &from("2001:db8:1:2:ffff::9"), T0), 0);
    assert_ne!(failures(&mut budget, &from("2001:db8:1:3::1"), T0), 0);
}

#[test]
fn successes_cost_nothing() {
    let mut budget = ClientBudget::new(limits::EXCHANGES);
    for _ in 0..10_000 {
        assert_eq!(budget.take(&from("6.6.6.6"), T0), Ok(()), "a whole office behind one address");
        budget.give_back(&from("6.6.6.6"), T0, Spent::No);
    }
}

#[test]
fn strangers_leave_places_to_browsers_that_signed_in_before() {
    let mut budget = ClientBudget::new(limits::EXCHANGES);
    assert_eq!(failures(&mut budget, &UNKNOWN, T0), limits::EXCHANGES.strangers);
    assert_eq!(failures(&mut budget, &known(1), T0), limits::EXCHANGES.browser.count, "its own share");
    assert_eq!(budget.take(&known(2), T0), Ok(()), "another browser");
}

#[test]
fn slow_exchanges_of_one_address_leave_places_to_others() {
    let mut budget = ClientBudget::new(limits::EXCHANGES);
    for _ in 0..limits::EXCHANGES.address.count {
        assert_eq!(budget.take(&from("6.6.6.6"), T0), Ok(()));
    }
    let later = T0.after(60 * SECOND);
    assert!(budget.take(&from("6.6.6.6"), later).is_err(), "all of its places are held");
    assert_eq!(budget.take(&from("7.7.7.7"), later), Ok(()));
}
