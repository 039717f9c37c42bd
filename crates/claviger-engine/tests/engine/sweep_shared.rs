//! Several instances share the sweep through the store: together they stay within the budget, and a
//! crash loses nothing.

use claviger_core::{Slot, State, limits};
use claviger_mock::Endpoint;
use claviger_store::{Method, Queue, Store as _, SweepKind};

use crate::{
    crowd::{crowded, slot, user},
    world::{ADA, HOUR, Instance, MINUTE, SECOND, World},
};

async fn instances(world: &World, first: Instance, count: usize) -> Vec<Instance> {
    let mut all = vec![first];
    while all.len() < count {
        all.push(world.instance().await);
    }
    // Every call of the store yields to the others, so races are real.
    all.iter().for_each(|app| app.faulty_store.slow());
    all
}

#[tokio::test(start_paused = true)]
async fn instances_that_start_together_stay_within_one_budget() {
    for count in [2, 3] {
        let (world, app) = World::with(crowded).await;
        world.populate(40);
        for number in 0..600 {
            world.plant(&user(number % 40), |_| {}).await;
        }
        world.pass(3 * HOUR);
        let apps = instances(&world, app, count).await;
        let begun = world.now();
        let sweeps = apps.iter().map(|app| app.sweep_due());
        for outcome in futures_util::future::join_all(sweeps).await {
            outcome.unwrap();
        }
        let took = world.now().since(begun);
        world.assert_within_budget("of instances that start together");
        assert_eq!(world.twitch.calls(Endpoint::Validate), 600, "each is asked about by one of them");
        assert!(took <= 40 * SECOND, "600 at 20 a second: {took:?}");
        for row in world.open_rows().await {
            assert_eq!(row.version.0, 2, "MONO");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn several_instances_validate_once_a_period_together() {
    let (world, app) = World::with(crowded).await;
    world.populate(40);
    for number in 0..300 {
        world.plant(&user(number % 40), |_| {}).await;
    }
    let apps = instances(&world, app, 3).await;
    let running: Vec<_> = apps.iter().map(Instance::run).collect();
    world.run_hourly(4 * MINUTE).await;
    world.twitch.clear_log();
    world.run_hourly(110 * MINUTE).await;
    world.assert_within_budget("in steady state");
    let asked = world.twitch.validation_times().len();
    assert!((590..=610).contains(&asked), "HOURLY: {asked} in two periods");
    for running in running {
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_a_slot_loses_no_validation() {
    let (world, app) = World::with(crowded).await;
    world.populate(40);
    for number in 0..400 {
        world.plant_in(slot(number % 2), &user(number % 40), |_| {}).await;
    }
    world.pass(2 * HOUR);
    world.twitch.slow(SECOND / 5);
    let begun = world.now();
    let running = app.run();
    world.run_for(6 * SECOND).await;
    let asked_before = world.twitch.calls(Endpoint::Validate);
    assert!((50..200).contains(&asked_before), "{asked_before}: in the middle of it");
    app.die(&running);
    let other = world.instance().await;
    let other_running = other.run();
    world.run_for(limits::SLOT_LEASE).await;
    world.run_for(MINUTE).await;
    world.assert_within_budget("after a death");
    world.assert_proven_within(world.now().since(begun)).await;
    let asked = world.twitch.calls(Endpoint::Validate);
    let in_flight = u64::try_from(limits::VALIDATIONS_AT_ONCE).unwrap();
    assert!((400..=400 + in_flight).contains(&asked), "{asked} for 400");
    for row in world.open_rows().await {
        assert!(world.twitch.validations_of(&world.token_of(&row)) <= 2);
        assert!(matches!(row.state, State::Live(_)));
        assert_eq!(row.version.0, 2, "MONO: each was proven once");
    }
    other_running.stop().await;
}

/// A slot with more rows than a page, with a rate limit at which the visit outlives its lease
/// several times.
#[tokio::test(start_paused = true)]
async fn a_long_visit_keeps_its_lease() {
    let rows = u64::try_from(limits::BATCH_ROWS).unwrap() + 100;
    let (world, app) = World::with(|setup| {
        crowded(setup);
        setup.settings.sweep.validations_per_second = 2;
    })
    .await;
    world.populate(40);
    for number in 0..rows {
        world.plant_in(5, &user(number % 40), |_| {}).await;
    }
    world.pass(2 * HOUR);
    let apps = instances(&world, app, 2).await;
    let begun = world.now();
    apps[1].faulty_store.next(Method::InSlot, crate::faulty_store::Trick::Fail);
    let other = async {
        for _ in 0..90 {
            world.run_for(2 * SECOND).await;
            if world.memory.calls(Method::Reschedule(Queue::Slots(SweepKind::Validation))) == 0 {
                apps[1].sweep_due().await.expect("the slot is the other's");
            }
        }
    };
    let (outcome, ()) = tokio::join!(apps[0].sweep_due(), other);
    outcome.unwrap();
    assert!(world.now().since(begun) > 2 * limits::SLOT_LEASE);
    assert_eq!(world.twitch.calls(Endpoint::Validate), rows, "each once");
    assert_eq!(world.memory.calls(Method::Reschedule(Queue::Slots(SweepKind::Validation))), 1);
    world.assert_proven_within(5 * MINUTE).await;
}

/// An instance that loses the lease, as after a stall of the machine, leaves the slot to its new
/// holder.
#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_noticed() {
    let (world, app) = World::with(crowded).await;
    world.populate(10);
    for number in 0..100 {
        world.plant_in(5, &user(number % 10), |_| {}).await;
    }
    world.pass(2 * HOUR);
    let gate = world.twitch.hold(Endpoint::Validate);
    let other = world.instance().await;
    let taken_over = async {
        gate.arrived().await;
        world.pass(limits::SLOT_LEASE);
        other.sweep_due().await.unwrap();
    };
    let (outcome, ()) = tokio::join!(app.sweep_due(), taken_over);
    outcome.unwrap();
    let visit = Slot::new(5).unwrap().next_visit(world.settings.sweep.period, world.now());
    let due = world.memory.backlog(Queue::Slots(SweepKind::Validation)).await;
    assert_eq!(due.unwrap().oldest, Some(visit), "the visit is the other's to close");
    world.assert_proven_within(5 * MINUTE).await;
}

/// One visit fails, and the unrelated others complete.
#[tokio::test(start_paused = true)]
async fn a_failed_visit_does_not_disturb_the_others() {
    let (world, app) = World::with(crowded).await;
    for number in 0..4 {
        for _ in 0..20 {
            world.plant_in(number, ADA, |_| {}).await;
        }
    }
    world.pass(2 * HOUR);
    app.faulty_store.next(Method::InSlot, crate::faulty_store::Trick::Fail);
    assert!(app.sweep_due().await.is_err(), "the operator sees an error");
    let asked = world.twitch.calls(Endpoint::Validate);
    assert!(asked >= 20 && asked % 20 == 0, "whole slots: {asked}");
    app.sweep_due().await.unwrap();
    assert_eq!(world.twitch.calls(Endpoint::Validate), 60, "the one that failed waits for its lease");
    world.run_for(limits::SLOT_LEASE).await;
    app.sweep_due().await.unwrap();
    assert_eq!(world.twitch.calls(Endpoint::Validate), 80);
}
