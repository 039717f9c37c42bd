//! The sweep while the provider or one token fails: no session ends, and the sweep catches up in
//! time.

use std::time::Duration;

use claviger_core::{State, Timestamp, limits, sweep};
use claviger_mock::{Endpoint, Fault, FaultKind, RetryAfter};
use claviger_store::{Method, Queue, Store, SweepKind};

use crate::{
    crowd::{crowded, slot, user},
    faulty_store::Trick,
    twitch::OneToken,
    world::{ADA, GRACE, HOUR, MINUTE, NOW, SECOND, Setup, World},
};

fn budget(per_second: u32) -> impl FnOnce(&mut Setup) {
    move |setup| {
        crowded(setup);
        setup.settings.sweep.validations_per_second = per_second;
    }
}

async fn planted(per_second: u32, rows: u64) -> (World, crate::world::Instance) {
    let (world, app) = World::with(budget(per_second)).await;
    world.populate(40);
    for number in 0..rows {
        world.plant(&user(number % 40), |_| {}).await;
    }
    (world, app)
}

async fn assert_all_live(world: &World, rows: usize) {
    let open = world.open_rows().await;
    assert_eq!(open.len(), rows, "TRANSIENT");
    for row in open {
        assert!(matches!(row.state, State::Live(_)), "TRANSIENT: {:?}", row.state);
    }
}

#[tokio::test(start_paused = true)]
async fn the_sweep_catches_up_in_the_forecast_time() {
    let kinds = [
        Some(FaultKind::status(503)),
        Some(FaultKind::CloseBefore),
        Some(FaultKind::delay(MINUTE)),
        // The provider cannot be reached at all.
        None,
    ];
    for kind in kinds {
        let (world, app) = planted(1, 1_000).await;
        let running = app.run();
        world.run_hourly(HOUR).await;
        match &kind {
            Some(kind) => world.twitch.always(Endpoint::Validate, kind.clone()),
            None => world.twitch.unplug(),
        }
        world.run_for(3 * HOUR).await;
        assert_all_live(&world, 1_000).await;
        world.twitch.mend();
        let back = world.now();
        let foretold = sweep::catch_up(1_000, 1_000, world.settings.sweep.period, 1.0).unwrap();
        let pause = limits::PROVIDER_PAUSE_MAX + limits::PROVIDER_CONNECT + limits::PROVIDER_ANSWER;
        let at_most = foretold.mul_f64(1.1) + pause;
        while oldest_proof(&world).await < back {
            world.run_for(10 * SECOND).await;
            assert!(world.now().since(back) <= at_most, "{kind:?}: foretold were {foretold:?}");
        }
        world.run_hourly(2 * HOUR).await;
        world.assert_within_budget("after an outage");
        assert_all_live(&world, 1_000).await;
        running.stop().await;
    }
}

async fn oldest_proof(world: &World) -> Timestamp {
    world.memory.session_counts(Timestamp::EPOCH).await.unwrap().oldest_proof.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_429_halves_the_rate_limit_and_time_restores_it() {
    let (world, app) = planted(20, 2_000).await;
    world.pass(2 * HOUR);
    let once = Fault::once(Endpoint::Validate, FaultKind::too_many_requests(None));
    world.twitch.mock().add_fault(once.after(100));
    let sweep = async { app.sweep_due().await.unwrap() };
    let watch = async {
        let mut slowest = f64::MAX;
        for _ in 0..200 {
            world.run_for(SECOND).await;
            app.measure_load().await.unwrap();
            slowest = slowest.min(app.load().unwrap().allowed_per_second);
        }
        slowest
    };
    let ((), slowest) = tokio::join!(sweep, watch);
    assert!((9.9..=10.5).contains(&slowest), "half of 20: {slowest}");
    assert_eq!(app.load().unwrap().configured_per_second, 20.0);
    world.run_for(limits::RATE_LIMIT_RECOVERY).await;
    app.measure_load().await.unwrap();
    assert_eq!(app.load().unwrap().allowed_per_second, 20.0, "it recovers");
    world.assert_within_budget("with 429s");
    world.assert_proven_within(20 * MINUTE).await;
    assert_all_live(&world, 2_000).await;
}

#[tokio::test(start_paused = true)]
async fn all_instances_honour_retry_after() {
    let (world, app) = planted(10, 600).await;
    let other = world.instance().await;
    world.pass(2 * HOUR);
    let wish = FaultKind::too_many_requests(Some(RetryAfter::Seconds(40)));
    world.twitch.mock().add_fault(Fault::once(Endpoint::Validate, wish).after(50));
    let (one, two) = tokio::join!(app.sweep_due(), other.sweep_due());
    one.unwrap();
    two.unwrap();
    let times = world.twitch.validation_times();
    let refused_at = times[50];
    // What was reserved by then is at most a second away.
    let quiet = refused_at + 1_001..refused_at + 40_000;
    let heard: Vec<_> = times.iter().filter(|at| quiet.contains(at)).collect();
    assert!(heard.is_empty(), "{heard:?} during the silence from {refused_at}");
    world.assert_within_budget("with a wish for silence");
    world.assert_proven_within(10 * MINUTE).await;
    assert_all_live(&world, 600).await;
}

/// 429s come in volleys, and every task that gets one lowers the rate limit at the same time.
#[tokio::test(start_paused = true)]
async fn a_volley_of_429s_is_survived() {
    let (world, app) = World::with(budget(200)).await;
    world.populate(40);
    for number in 0..800 {
        world.plant_in(slot(number % 8), &user(number % 40), |_| {}).await;
    }
    let other = world.instance().await;
    [&app, &other].iter().for_each(|app| app.faulty_store.slow());
    world.pass(2 * HOUR);
    world.twitch.slow(SECOND / 2);
    for kind in
        [FaultKind::too_many_requests(None), FaultKind::too_many_requests(Some(RetryAfter::Seconds(2)))]
    {
        world.twitch.mock().add_fault(Fault::times(150, Endpoint::Validate, kind));
    }
    let (one, two) = tokio::join!(app.sweep_due(), other.sweep_due());
    one.expect("TRANSIENT");
    two.expect("TRANSIENT");
    world.assert_proven_within(20 * MINUTE).await;
    assert_all_live(&world, 800).await;
}

/// A token that cannot be validated holds up neither its slot nor other rows.
#[tokio::test(start_paused = true)]
async fn failing_rows_delay_no_other() {
    let troubles = [OneToken::Status(404), OneToken::Unreadable, OneToken::Status(500), OneToken::Silence];
    for failure in troubles {
        let (world, app) = planted(5, 200).await;
        let mut troubled = Vec::new();
        // As many as there are visits at a time, and more.
        for number in 0..6 {
            let id = world.plant_in(slot(number * 150), GRACE, |_| {}).await;
            world.twitch.trouble_with(&world.access_token(id).await, failure);
            troubled.push(id);
        }
        let running = app.run();
        let until = world.now().after(4 * HOUR);
        while world.now() < until {
            world.run_for(MINUTE).await;
            for row in world.open_rows().await {
                let age = world.now().since(row.active().unwrap().proven_at);
                let spared = troubled.contains(&row.id);
                assert!(spared || age <= HOUR, "HOURLY: {failure:?} of another token: {age:?}");
            }
        }
        assert_all_live(&world, 206).await;
        let asked = world.twitch.calls(Endpoint::Validate);
        let periods = 5;
        assert!(asked <= 206 * periods + 6 * 48 * 4, "{failure:?}: {asked} questions in four hours");
        // They are proven after it.
        world.twitch.mend();
        world.run_for(HOUR).await;
        world.assert_proven_within(HOUR).await;
        running.stop().await;
    }
}

/// The only row must not wait for another period because of an outage of a minute.
#[tokio::test(start_paused = true)]
async fn a_short_outage_delays_no_row_by_a_period() {
    for kind in [FaultKind::status(503), FaultKind::CloseBefore, FaultKind::delay(MINUTE)] {
        let (world, app) = World::with(crowded).await;
        let id = world.plant(ADA, |_| {}).await;
        let running = app.run();
        world.run_for(30 * MINUTE).await;
        let mut worst = Duration::ZERO;
        for minute in 0..240 {
            match minute % 7 {
                0 => world.twitch.always(Endpoint::Validate, kind.clone()),
                _ => world.twitch.mend(),
            }
            world.run_for(MINUTE).await;
            worst = worst.max(world.now().since(world.row(id).await.active().unwrap().proven_at));
        }
        assert!(worst <= 61 * MINUTE, "HOURLY: {worst:?}");
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_with_a_missing_key_delays_no_other() {
    let (world, _) = planted(5, 100).await;
    let old_key = world.instance_with(&[2]).await;
    let strange = world.sign_in(&old_key, ADA).await.session;
    let before = world.row(strange).await;
    let app = world.instance().await;
    world.pass(2 * HOUR);
    app.sweep_due().await.unwrap();
    assert_eq!(world.row(strange).await, before, "it is left as it is");
    for row in world.open_rows().await.iter().filter(|row| row.id != strange) {
        assert_eq!(row.version.0, 2);
    }
    // With the key it is like the others.
    world.pass(HOUR);
    let app = world.instance_with(&[1, 2]).await;
    app.sweep_due().await.unwrap();
    assert_eq!(world.row(strange).await.version.0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_store_outage_only_delays_the_sweep() {
    let methods = [
        Method::Take(Queue::Slots(SweepKind::Validation)),
        Method::InSlot,
        Method::Extend(Queue::Slots(SweepKind::Validation)),
        Method::Reschedule(Queue::Slots(SweepKind::Validation)),
        Method::ApplyAll,
        Method::SharedEntry,
        Method::PutSharedEntry,
    ];
    for method in methods {
        for trick in [Trick::Fail, Trick::FailAfter] {
            let (world, app) = planted(5, 200).await;
            world.pass(2 * HOUR);
            let running = app.run();
            for _ in 0..5 {
                app.faulty_store.next(method, trick.clone());
                world.run_for(7 * SECOND).await;
            }
            world.run_for(3 * MINUTE).await;
            world.assert_within_budget("with a store that fails");
            world.assert_proven_within(5 * MINUTE).await;
            assert_all_live(&world, 200).await;
            running.stop().await;
        }
    }
}

/// Other writers change rows between the question and the write of its answer, in every way.
#[tokio::test(start_paused = true)]
async fn a_late_answer_undoes_nothing() {
    let (world, app) = World::with(crowded).await;
    let ended = world.sign_in(&app, ADA).await;
    let proven = world.sign_in(&app, ADA).await;
    let elsewhere = world.instance().await;
    world.pass(2 * HOUR);
    let gate = app.faulty_store.hold_before(Method::ApplyAll);
    let others = async {
        gate.arrived().await;
        elsewhere.end_own(&ended.cookie, claviger_core::session::EndReason::SignedOut).await.unwrap();
        proven.asks_with(&elsewhere, NOW).await.unwrap();
        gate.open();
    };
    let (outcome, ()) = tokio::join!(app.sweep_due(), others);
    outcome.unwrap();
    assert!(world.row(ended.session).await.ended(), "ENDED");
    ended.asks_with(&app, NOW).await.unwrap_err();
    let row = world.row(proven.session).await;
    assert!(matches!(row.state, State::Live(_)) && row.version.0 >= 2, "{:?}", row.state);
    proven.asks(&app).await.unwrap();
}

/// The token died just after its good answer was given, and a request noticed first.
#[tokio::test(start_paused = true)]
async fn an_older_answer_clears_no_suspicion() {
    let (world, app) = World::with(crowded).await;
    let browser = world.sign_in(&app, ADA).await;
    let token = world.access_token(browser.session).await;
    let elsewhere = world.instance().await;
    world.pass(2 * HOUR);
    let gate = app.faulty_store.hold_before(Method::ApplyAll);
    let others = async {
        gate.arrived().await;
        world.twitch.mock().kill_token(&token);
        world.twitch.always(Endpoint::Token, FaultKind::status(503));
        browser.asks_with(&elsewhere, NOW).await.unwrap_err();
        gate.open();
    };
    let (outcome, ()) = tokio::join!(app.sweep_due(), others);
    outcome.unwrap();
    let row = world.row(browser.session).await;
    assert!(matches!(row.state, State::Suspect(_)), "{:?}", row.state);
}
