//! Every live token is validated once a period, evenly, and nothing else changes.

use std::time::Duration;

use claviger_core::{Assurance, Custody, Expiry, Slot, State, limits};
use claviger_engine::Load;
use claviger_mock::Endpoint;
use claviger_store::{Method, Queue, Store, SweepKind};

use crate::{
    crowd::{crowded, slot, user},
    world::{ADA, HOUR, MINUTE, NOW, SECOND, Setup, TOKEN_LIFE, World, custody},
};

fn budget(per_second: u32) -> impl FnOnce(&mut Setup) {
    move |setup| {
        crowded(setup);
        setup.settings.sweep.validations_per_second = per_second;
    }
}

#[tokio::test(start_paused = true)]
async fn every_live_row_is_proven_once_a_period() {
    let (world, app) = World::with(crowded).await;
    world.populate(40);
    let running = app.run();
    let mut browsers = Vec::new();
    for step in 0..90 {
        for _ in 0..3 {
            world.plant(&user(step % 40), |_| {}).await;
        }
        if step % 10 == 0 {
            browsers.push(world.sign_in(&app, ADA).await);
        }
        world.run_hourly(41 * SECOND).await;
    }
    world.twitch.clear_log();
    let periods = 4;
    let (begun, period) = (world.now(), world.settings.sweep.period);
    let mut on_demand = 0;
    while world.now() < begun.after(period * periods) {
        world.run_hourly(MINUTE).await;
        if world.now().since(begun).as_secs() / 60 % 23 == 0 {
            for browser in &browsers {
                browser.asks_with(&app, NOW).await.unwrap();
                on_demand += 1;
            }
        }
    }
    for row in world.open_rows().await {
        let asked = world.twitch.validations_of(&world.token_of(&row));
        let own = if row.subject.id == ADA { on_demand / browsers.len() } else { 0 };
        let least = if own > 0 { own } else { 3 };
        assert!((least..=5 + own).contains(&asked), "HOURLY: {asked} times in {periods} periods, {own} own");
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_steady_load_is_spread_evenly() {
    const ROWS: u64 = 10_000;
    let (world, app) = World::with(budget(10)).await;
    world.populate(100);
    for number in 0..ROWS {
        // Sessions that signed in together were proven together.
        world.plant(&user(number % 100), |_| {}).await;
    }
    let begun = world.now();
    // The first visits skip proofs that are a few minutes old.
    let (from, until) = (begun.after(5 * MINUTE), begun.after(60 * MINUTE));
    while world.now() < until {
        app.sweep_due().await.unwrap();
        world.run_for(limits::SWEEP_LOOK_EVERY).await;
    }
    let mut per_minute = [0_u32; 55];
    for at in world.twitch.validation_times() {
        let minute = (at - from.as_millis()).div_euclid(60_000);
        if let Some(count) = usize::try_from(minute).ok().and_then(|minute| per_minute.get_mut(minute)) {
            *count += 1;
        }
    }
    let mean = f64::from(per_minute.iter().sum::<u32>()) / 55.0;
    let busiest = f64::from(*per_minute.iter().max().unwrap());
    assert!(busiest <= 1.2 * mean, "SPREAD: {busiest} in the busiest minute, {mean} on average");
    assert!((mean - 10_000.0 / 55.0).abs() < 0.03 * mean, "once a period: {mean} a minute");
}

/// One commit, which waits for the disk, serves many proofs, and no slot waits for another.
#[tokio::test(start_paused = true)]
async fn proofs_are_written_in_batches() {
    let (world, app) = World::with(budget(1_000)).await;
    world.populate(40);
    for number in 0..2_000 {
        world.plant_in(slot(number % 4), &user(number % 40), |_| {}).await;
    }
    world.pass(2 * HOUR);
    app.faulty_store.takes(SECOND / 100);
    let begun = world.now();
    app.sweep_due().await.unwrap();
    let took = world.now().since(begun);
    assert!(took <= 3 * SECOND, "2,000 at 1,000 a second: {took:?}");
    world.assert_proven_within(3 * SECOND).await;
    let writes = world.memory.calls(Method::ApplyAll);
    assert!(writes <= 60, "{writes} writes for 2,000 proofs");
}

#[tokio::test(start_paused = true)]
async fn a_restart_validates_the_most_overdue_first_without_a_burst() {
    let (world, app) = World::with(budget(5)).await;
    world.populate(30);
    let mut order = Vec::new();
    for number in 0..300 {
        let slot = slot(number * 3);
        let id = world.plant_in(slot, &user(number % 30), |_| {}).await;
        order.push((Slot::new(slot).unwrap(), world.access_token(id).await));
    }
    app.sweep_due().await.unwrap();
    let due_at = |slot: Slot| slot.next_visit(world.settings.sweep.period, world.now());
    order.sort_by_key(|(slot, _)| due_at(*slot));
    world.pass(3 * HOUR);
    world.twitch.clear_log();
    let restarted = world.instance().await;
    let begun = world.now();
    restarted.sweep_due().await.unwrap();
    let took = world.now().since(begun);
    assert!(took >= 59 * SECOND && took <= 64 * SECOND, "300 at 5 a second: {took:?}");
    world.assert_within_budget("after a restart");
    world.assert_proven_within(2 * MINUTE).await;
    let names: Vec<_> = world.twitch.mock().log().filter_map(|entry| entry.token.clone()).collect();
    assert_eq!(names.len(), 300, "each once");
    for (place, (_, token)) in order.iter().enumerate() {
        let name = world.twitch.mock().fingerprint(token);
        let asked = names.iter().position(|asked| *asked == name).expect("it was asked about");
        assert!(asked.abs_diff(place) < 8, "{asked} instead of {place}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_parked_without_a_validation() {
    let (world, app) = World::start().await;
    let id = world.plant(ADA, |_| {}).await;
    let before = world.row(id).await;
    world.pass(TOKEN_LIFE);
    app.sweep_due().await.unwrap();
    let row = world.row(id).await;
    assert!(matches!(row.state, State::Parked(_)), "{:?}", row.state);
    assert_eq!((row.version.0, row.last_seen_at), (2, before.last_seen_at), "MONO, IDLE");
    for _ in 0..3 {
        world.pass(HOUR);
        app.sweep_due().await.unwrap();
    }
    assert_eq!(world.row(id).await, row, "it is left alone from then on");
    assert_eq!(world.twitch.calls(Endpoint::Validate), 0);
    assert_eq!(world.look_into_suspicions(&app).await, 0);
    assert_eq!(
        world.memory.calls(Method::Enqueue(Queue::Suspicions)),
        0,
        "an expiry says nothing of the user"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_while_it_waits_is_parked() {
    let (world, app) = World::with(budget(1)).await;
    let expires_at = world.now().after(2 * HOUR + 10 * SECOND);
    for _ in 0..30 {
        world
            .plant_in(7, ADA, |row| {
                if let State::Live(active) = &mut row.state {
                    active.pair.as_mut().unwrap().expiry = Expiry::At(expires_at);
                }
            })
            .await;
    }
    world.pass(2 * HOUR);
    app.sweep_due().await.unwrap();
    let asked = world.twitch.calls(Endpoint::Validate);
    assert!((8..=11).contains(&asked), "{asked} until they expired");
    let rows = world.open_rows().await;
    let parked = rows.iter().filter(|row| matches!(row.state, State::Parked(_))).count();
    assert_eq!(parked + usize::try_from(asked).unwrap(), 30);
    world.rest().await;
    assert_eq!(world.memory.calls(Method::Enqueue(Queue::Suspicions)), 0);
}

#[tokio::test(start_paused = true)]
async fn sessions_without_tokens_are_skipped() {
    let (world, app) = World::with(custody(Custody::None)).await;
    let browser = world.sign_in(&app, ADA).await;
    let (asked, before) = (world.twitch.calls(Endpoint::Validate), world.row(browser.session).await);
    let running = app.run();
    for _ in 0..3 {
        world.run_for(HOUR).await;
    }
    running.stop().await;
    assert_eq!(world.row(browser.session).await, before);
    assert_eq!(world.twitch.calls(Endpoint::Validate), asked);
}

#[tokio::test(start_paused = true)]
async fn a_proof_is_no_use_and_updates_memory() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    browser.asks(&app).await.unwrap();
    let before = world.row(browser.session).await;
    for hour in 1..=3 {
        world.pass(57 * MINUTE);
        app.sweep_due().await.unwrap();
        let row = world.row(browser.session).await;
        assert_eq!((row.version.0, row.last_seen_at), (1 + hour, before.last_seen_at), "MONO, IDLE");
    }
    // Older than an hour, without the sweep.
    world.pass(10 * MINUTE);
    let (reads, asked) = (world.memory.reads(), world.twitch.calls(Endpoint::Validate));
    browser.asks(&app).await.unwrap();
    assert_eq!(world.memory.reads(), reads, "nothing is read");
    assert_eq!(world.twitch.calls(Endpoint::Validate), asked, "nothing is asked");
}

#[tokio::test(start_paused = true)]
async fn requests_do_not_wait_for_the_sweep() {
    let (world, app) = World::with(crowded).await;
    world.populate(30);
    let browser = world.sign_in(&app, ADA).await;
    for number in 0..900 {
        // Full slots: as many rows as are validated at a time wait for permits.
        world.plant_in(slot(number % 12), &user(number % 30), |_| {}).await;
    }
    world.pass(2 * HOUR);
    world.twitch.clear_log();
    let sweep = async { app.sweep_due().await.unwrap() };
    let requests = async {
        for _ in 0..10 {
            world.run_for(2 * SECOND).await;
            let came_at = world.now();
            browser.asks_with(&app, NOW).await.expect("there is a place for it");
            assert!(world.now().since(came_at) <= limits::RATE_LIMIT_PATIENCE);
        }
    };
    tokio::join!(sweep, requests);
    world.assert_within_budget("of sweep and requests together");
}

/// S6: users who ask for more than is due leave the sweep three of four permits.
#[tokio::test(start_paused = true)]
async fn early_questions_leave_the_sweep_its_permits() {
    let (world, app) = World::with(crowded).await;
    world.populate(40);
    let rows = 300;
    for number in 0..rows {
        world.plant_in(slot(number % 12), &user(number % 30), |_| {}).await;
    }
    world.pass(2 * HOUR);
    let mut browsers = Vec::new();
    for number in 30..40 {
        browsers.push(world.sign_in(&app, &user(number)).await);
    }
    let began = world.now();
    let sweep = async { app.sweep_due().await.unwrap() };
    let questions = browsers.iter().map(|browser| async {
        loop {
            let _too_many = browser.asks_with(&app, NOW).await;
            world.run_for(SECOND / 100).await;
        }
    });
    tokio::select! {
        () = sweep => {}
        _ = futures_util::future::join_all(questions) => unreachable!("they go on for ever"),
    }
    let alone = Duration::from_secs(rows / u64::from(world.settings.sweep.validations_per_second));
    let took = world.now().since(began);
    assert!(took <= alone * 3 / 2, "{took:?} instead of {alone:?}");
}

/// Proofs are written while other rows wait for permits. A slow store must not release those all at
/// once afterwards.
#[tokio::test(start_paused = true)]
async fn a_slow_store_causes_no_burst() {
    for stalled in [300, 900, 2_500, 20_000] {
        let (world, app) = World::with(crowded).await;
        world.populate(30);
        for number in 0..600 {
            world.plant_in(slot(number % 12), &user(number % 30), |_| {}).await;
        }
        world.pass(2 * HOUR);
        let gates: Vec<_> = (0..20).map(|_| app.faulty_store.hold_before(Method::ApplyAll)).collect();
        let opened = async {
            for gate in &gates {
                if tokio::time::timeout(MINUTE, gate.arrived()).await.is_err() {
                    break;
                }
                world.run_for(Duration::from_millis(stalled)).await;
                gate.open();
            }
        };
        let sweep = async { app.sweep_due().await.unwrap() };
        tokio::join!(sweep, opened);
        world.assert_within_budget(&format!("with a store that takes {stalled} ms"));
        world.assert_proven_within(10 * MINUTE).await;
    }
}

/// With a store far away, a reservation is past when it has been written. The next ones are made
/// further ahead.
#[tokio::test(start_paused = true)]
async fn a_store_far_away_slows_the_sweep_and_does_not_stop_it() {
    for latency in [20, 120, 240, 400, 900] {
        let (world, app) = World::with(budget(10)).await;
        world.populate(10);
        for number in 0..200 {
            world.plant_in(slot(number % 4), &user(number % 10), |_| {}).await;
        }
        world.pass(2 * HOUR);
        app.faulty_store.takes(Duration::from_millis(latency));
        let sweep = tokio::time::timeout(10 * MINUTE, app.sweep_due()).await;
        sweep.expect("it goes on").unwrap();
        world.assert_within_budget(&format!("with a store {latency} ms away"));
        world.assert_proven_within(10 * MINUTE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_small_budget_is_reported_with_a_sufficient_one() {
    let (world, app) = World::with(budget(1)).await;
    assert_eq!(app.load(), None, "nothing was measured yet");
    world.populate(50);
    for number in 0..3_000 {
        world.plant(&user(number % 50), |_| {}).await;
    }
    app.measure_load().await.unwrap();
    assert!(app.load().unwrap().budget_suffices(), "0.91 a second of 1");
    for number in 0..600 {
        world.plant(&user(number % 50), |_| {}).await;
    }
    app.measure_load().await.unwrap();
    let load = app.load().unwrap();
    assert!(!load.budget_suffices());
    let Load { census, configured_per_second, needed_per_second, sufficient_per_second, lag, .. } = load;
    assert_eq!((census.live, census.parked, census.suspect), (3_600, 0, 0));
    assert!((configured_per_second - 1.0).abs() < 1e-9);
    assert!((needed_per_second - 3_600.0 / 3_300.0).abs() < 1e-9);
    assert!((sufficient_per_second - 1.2 * needed_per_second).abs() < 1e-9);
    assert_eq!(lag, Duration::ZERO);
    world.pass(2 * HOUR);
    app.measure_load().await.unwrap();
    let lag = app.load().unwrap().lag;
    assert_eq!(lag, 65 * MINUTE, "two hours after the proofs, of which 55 minutes were no delay");
}

/// A request proves its own row, and the sweep skips a recent proof.
#[tokio::test(start_paused = true)]
async fn a_row_proven_on_demand_is_skipped() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    app.sweep_due().await.unwrap();
    world.pass(54 * MINUTE);
    browser.asks_with(&app, NOW).await.unwrap();
    let asked = world.twitch.calls(Endpoint::Validate);
    // Its slot comes within the next period, and finds a proof of about a minute; or the proof is
    // recent enough for another period.
    let visit = Slot::of(browser.session).next_visit(world.settings.sweep.period, world.now());
    let passes_by = visit.since(world.now()) < 2 * MINUTE;
    world.clock.jump_to(visit);
    app.sweep_due().await.unwrap();
    assert_eq!(world.twitch.calls(Endpoint::Validate), asked + u64::from(!passes_by));
    browser.asks_with(&app, Assurance::Session).await.unwrap();
    assert_eq!(world.memory.backlog(Queue::Slots(SweepKind::Validation)).await.unwrap().oldest, {
        Some(Slot::of(browser.session).next_visit(world.settings.sweep.period, world.now()))
    });
}
