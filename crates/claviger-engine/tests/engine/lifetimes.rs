//! The idle and absolute limits, and what counts as a use.

use std::time::Duration;

use claviger_core::{Ask, Assurance, EndReason, Presence, State, limits};
use claviger_engine::Denied;
use claviger_store::{Leftover, Method};

use crate::{
    faulty_store::Trick,
    world::{ADA, Browser, DAY, HOUR, Instance, MINUTE, NOW, SECOND, World},
};

const MILLISECOND: Duration = Duration::from_millis(1);

/// Custody `none` involves no provider.
async fn world_of_days() -> (World, Instance) {
    World::with(crate::world::custody(claviger_core::policy::Custody::None)).await
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_ends_after_the_idle_limit() {
    let (world, app) = world_of_days().await;
    let (early, late) = (world.sign_in(&app, ADA).await, world.sign_in(&app, ADA).await);
    let born = world.now();
    let idle = world.settings.lifetimes.idle;
    world.clock.jump_to(born.after(idle - MILLISECOND));
    early.asks(&app).await.expect("a millisecond before");
    world.clock.jump_to(born.after(idle));
    assert_eq!(late.asks(&app).await.unwrap_err(), Denied::Ended(EndReason::Idle));
    assert_eq!(world.end_reason(late.session).await, Some(EndReason::Idle));
    early.asks(&app).await.expect("it was used");
}

#[tokio::test(start_paused = true)]
async fn a_session_in_use_ends_at_the_absolute_limit() {
    let (world, app) = world_of_days().await;
    let browser = world.sign_in(&app, ADA).await;
    let born = world.now();
    let absolute = world.settings.lifetimes.absolute;
    for days in 1..30 {
        world.clock.jump_to(born.after(days * DAY));
        browser.asks(&app).await.unwrap();
    }
    world.clock.jump_to(born.after(absolute - MILLISECOND));
    browser.asks(&app).await.expect("a millisecond before");
    world.clock.jump_to(born.after(absolute));
    assert_eq!(browser.asks(&app).await.unwrap_err(), Denied::Ended(EndReason::TooOld));
}

/// IDLE: validations and refreshes are not uses.
#[tokio::test(start_paused = true)]
async fn validations_and_refreshes_are_not_uses() {
    let (world, app) = World::start().await;
    let (active, quiet) = (world.sign_in(&app, ADA).await, world.sign_in(&app, ADA).await);
    let born = world.now();
    let idle = world.settings.lifetimes.idle;
    // A dead refresh token makes the engine validate the user's other device: background work on
    // `quiet`.
    world.pass(HOUR);
    active.asks(&app).await.unwrap();
    world.twitch.mock().kill_tokens(ADA);
    active.asks_with(&app, NOW).await.unwrap_err();
    world.look_into_suspicions(&app).await;
    assert!(world.row(quiet.session).await.version.0 > 1, "it was asked about");
    app.end_overdue().await.unwrap();
    assert_eq!(world.row(quiet.session).await.last_seen_at, born, "IDLE");
    world.clock.jump_to(born.after(idle));
    assert_eq!(quiet.asks(&app).await.unwrap_err(), Denied::Ended(EndReason::Idle), "IDLE");
}

#[tokio::test(start_paused = true)]
async fn a_background_refresh_moves_no_idle_clock() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let born = world.now();
    world.expire_tokens();
    let gate = world.twitch.hold(claviger_mock::Endpoint::Token);
    let dropped = async {
        let request = browser.asks(&app);
        tokio::select! {
            biased;
            () = gate.arrived() => {}
            _ = request => panic!("the answer is held"),
        }
    };
    dropped.await;
    gate.open();
    world.rest().await;
    app.end_overdue().await.unwrap();
    let row = world.row(browser.session).await;
    assert!(row.pair().unwrap().generation.0 > 1, "STRAND");
    assert_eq!(row.last_seen_at, born, "IDLE: its caller was never served");
}

#[tokio::test(start_paused = true)]
async fn uses_are_written_at_most_once_a_minute() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let born = world.now();
    let mut written = Vec::new();
    for second in 0..180 {
        world.clock.jump_to(born.after(second * SECOND));
        match second % 4 {
            0 => drop(browser.asks(&app).await.unwrap()),
            1 => drop(browser.asks_with(&app, Assurance::Cookie).await.unwrap()),
            2 => drop(browser.asks_with(&app, NOW).await.unwrap()),
            _ => drop(browser.grant(&app).await.unwrap()),
        }
        app.end_overdue().await.unwrap();
        let seen = world.row(browser.session).await.last_seen_at.since(born).as_secs();
        if written.last() != Some(&seen) {
            written.push(seen);
        }
    }
    assert_eq!(written, [0, 60, 120]);
    assert_eq!(world.memory.calls(Method::RecordLastSeen), 3);
    assert_eq!(limits::LAST_SEEN_EVERY, MINUTE);
}

/// IDLE: a page that polls keeps no session in force. The time that it gets counts the uses that
/// other instances served.
#[tokio::test(start_paused = true)]
async fn passive_requests_are_no_uses() {
    let (world, app) = world_of_days().await;
    let other = world.instance().await;
    let browser = world.sign_in(&app, ADA).await;
    let born = world.now();
    let idle = world.settings.lifetimes.idle;
    let passive = |assurance| Ask { assurance, presence: Presence::Passive };
    for day in 1..=6 {
        world.clock.jump_to(born.after(day * DAY));
        for assurance in [Assurance::Cookie, Assurance::Row, Assurance::Session] {
            app.authenticate(browser.cookie.clone(), passive(assurance)).await.unwrap();
        }
        app.grant(&browser.cookie, None, Presence::Passive).await.unwrap_err();
        app.end_overdue().await.unwrap();
        let row = world.row(browser.session).await;
        assert_eq!((row.last_seen_at, app.idle_ends_at(&row).await), (born, born.after(idle)), "IDLE");
    }
    let stale = world.row(browser.session).await;
    browser.asks(&other).await.unwrap();
    other.end_overdue().await.unwrap();
    let used = born.after(6 * DAY);
    assert_eq!(app.idle_ends_at(&stale).await, used.after(idle), "another instance served it");
    world.clock.jump_to(used.after(DAY));
    browser.asks(&app).await.unwrap();
    assert_eq!(app.idle_ends_at(&stale).await, used.after(DAY + idle), "before it is written down");
    world.clock.jump_to(used.after(DAY + idle));
    let late = app.authenticate(browser.cookie.clone(), passive(Assurance::Session)).await;
    assert_eq!(late.unwrap_err(), Denied::Ended(EndReason::Idle));
}

#[tokio::test(start_paused = true)]
async fn a_use_survives_a_store_failure() {
    let (world, app) = world_of_days().await;
    let browser = world.sign_in(&app, ADA).await;
    let born = world.now();
    browser.asks(&app).await.unwrap();
    world.pass(13 * DAY);
    browser.asks(&app).await.unwrap();
    app.faulty_store.next(Method::RecordLastSeen, Trick::Fail);
    app.end_overdue().await.unwrap_err();
    assert_eq!(world.row(browser.session).await.last_seen_at, born);
    app.end_overdue().await.unwrap();
    assert_eq!(world.row(browser.session).await.last_seen_at, born.after(13 * DAY));
}

/// Uses in this process's memory count, even against its own cached row.
#[tokio::test(start_paused = true)]
async fn unwritten_uses_keep_a_session_in_force() {
    let (world, app) = world_of_days().await;
    let browser = world.sign_in(&app, ADA).await;
    let born = world.now();
    browser.asks(&app).await.unwrap();
    world.clock.jump_to(born.after(13 * DAY));
    browser.asks(&app).await.unwrap();
    world.clock.jump_to(born.after(15 * DAY));
    browser.asks(&app).await.expect("used two days ago");
    assert!(matches!(world.row(browser.session).await.state, State::Live(_)));
}

/// Uses that another instance saw count as well.
#[tokio::test(start_paused = true)]
async fn a_use_on_another_instance_counts() {
    let (world, app) = world_of_days().await;
    let elsewhere = world.instance().await;
    let browser = world.sign_in(&app, ADA).await;
    browser.asks(&app).await.unwrap();
    world.pass(13 * DAY);
    browser.asks(&elsewhere).await.unwrap();
    elsewhere.drain().await;
    world.pass(2 * DAY);
    browser.asks(&app).await.expect("the store knows of the later use");
}

#[tokio::test(start_paused = true)]
async fn uses_are_written_at_the_stop() {
    let (world, app) = world_of_days().await;
    let browser = world.sign_in(&app, ADA).await;
    world.pass(DAY);
    browser.asks_with(&app, Assurance::Cookie).await.unwrap();
    app.drain().await;
    assert_eq!(world.row(browser.session).await.last_seen_at, world.now());
}

#[tokio::test(start_paused = true)]
async fn the_sweep_ends_only_overdue_sessions() {
    let (world, app) = World::start().await;
    let browsers: Vec<Browser> = world.sign_in_on(&app, 3).await;
    let idle = world.settings.lifetimes.idle;
    let born = browsers[0].cookie.session.created_at();
    world.clock.jump_to(born.after(idle - MILLISECOND));
    app.end_overdue().await.unwrap();
    assert_eq!(app.devices(&crate::world::subject(ADA)).await.unwrap().len(), 3, "not yet");
    world.clock.jump_to(born.after(idle));
    app.end_overdue().await.unwrap();
    let reasons = [
        world.end_reason(browsers[0].session).await,
        world.end_reason(browsers[1].session).await,
        world.end_reason(browsers[2].session).await,
    ];
    assert_eq!(reasons, [Some(EndReason::Idle), None, None], "BLAST");
    let outcome = browsers[0].asks_with(&app, Assurance::Cookie).await;
    assert_eq!(outcome.unwrap_err(), Denied::Ended(EndReason::Idle));
}

#[tokio::test(start_paused = true)]
async fn the_sweep_takes_more_than_one_batch() {
    let (world, app) = World::with(|setup| {
        setup.settings.custody = claviger_core::policy::Custody::None;
        setup.settings.devices_per_user = 1000;
    })
    .await;
    let devices = limits::BATCH_ROWS + 10;
    for _ in 0..devices {
        world.sign_in(&app, ADA).await;
    }
    world.pass(world.settings.lifetimes.idle);
    app.end_overdue().await.unwrap();
    assert_eq!(app.devices(&crate::world::subject(ADA)).await.unwrap(), []);
    world.pass(world.settings.lifetimes.absolute);
    app.purge().await.unwrap();
    assert_eq!(world.memory.calls(Method::Purge(Leftover::Tombstones)), 2, "batch after batch");
}
