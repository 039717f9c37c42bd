//! Several instances on one store, which hear of each other's changes, or do not.

use claviger_core::{request::Assurance, session::EndReason, time::Timestamp};
use claviger_engine::{Denied, Ending, Engine};
use claviger_mock::{Endpoint, FaultKind};
use claviger_store::{Change, Method};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    crowd::Running,
    shelf::{Shelf, Trick},
    world::{ADA, Browser, Instance, MINUTE, SECOND, World},
};

/// An instance that shares the store with others, at work, and has heard nothing yet.
async fn sharing(world: &World) -> (Instance, Running, UnboundedSender<Change>) {
    let (shelf, tell) = Shelf::shared(world.memory.clone());
    let shelf = std::sync::Arc::new(shelf);
    let engine = Engine::start(world.parts(shelf.clone(), &[1])).await.unwrap();
    let app = Instance { engine, shelf };
    let running = app.run();
    (app, running, tell)
}

/// From now on it hears everything.
fn hears(tell: &UnboundedSender<Change>) {
    tell.send(Change::Resync).unwrap();
    tell.send(Change::Heard { until: Timestamp::from_millis(i64::MAX) }).unwrap();
}

/// An instance that hears everything, and somebody who signed in at another one.
async fn hearing(
    world: &World,
    elsewhere: &Instance,
) -> (Instance, Running, UnboundedSender<Change>, Browser) {
    let (app, running, tell) = sharing(world).await;
    let browser = world.sign_in(elsewhere, ADA).await;
    hears(&tell);
    world.run_for(SECOND).await;
    (app, running, tell, browser)
}

async fn served(browser: &Browser, app: &Instance, assurance: Assurance) -> bool {
    match browser.asks_with(app, assurance).await {
        Ok(_) => true,
        Err(Denied::Ended(_) | Denied::NoSession) => false,
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_sign_out_elsewhere_is_heard_of_at_once() {
    let (world, elsewhere) = World::start().await;
    let (app, running, tell) = sharing(&world).await;
    let (browser, other) = (world.sign_in(&elsewhere, ADA).await, world.sign_in(&elsewhere, ADA).await);
    hears(&tell);
    world.run_for(SECOND).await;
    for assurance in [Assurance::Session, Assurance::Cookie] {
        assert!(served(&browser, &app, assurance).await);
    }
    let mut endings = app.endings();
    elsewhere.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    tell.send(Change::Session(browser.session)).unwrap();
    world.run_for(SECOND / 10).await;
    assert_eq!(endings.try_recv(), Ok(Ending::Of(browser.session)), "its streams are closed");
    for assurance in [Assurance::Session, Assurance::Cookie] {
        assert!(!served(&browser, &app, assurance).await, "ENDED");
        assert!(served(&other, &app, assurance).await, "OTHERS");
    }
    running.stop().await;
}

/// A session that is only refreshed elsewhere is read anew, once, and its cookie stays good.
#[tokio::test(start_paused = true)]
async fn a_change_that_is_no_end_costs_one_read() {
    let (world, elsewhere) = World::start().await;
    let (app, running, tell, browser) = hearing(&world, &elsewhere).await;
    assert!(served(&browser, &app, Assurance::Session).await);
    tell.send(Change::Session(browser.session)).unwrap();
    world.run_for(SECOND / 10).await;
    let before = world.memory.calls(Method::Load);
    for _ in 0..3 {
        assert!(served(&browser, &app, Assurance::Session).await);
        assert!(served(&browser, &app, Assurance::Cookie).await);
    }
    assert_eq!(world.memory.calls(Method::Load), before + 1, "from then on memory is good again");
    assert!(!app.doubts(browser.session));
    running.stop().await;
}

/// Before anything is heard, and when it is not heard any more, memory vouches for nobody.
#[tokio::test(start_paused = true)]
async fn while_nothing_is_heard_every_request_reads_the_store() {
    let (world, elsewhere) = World::start().await;
    let (app, running, tell) = sharing(&world).await;
    for lost in [false, true] {
        if lost {
            hears(&tell);
            world.run_for(SECOND).await;
        }
        let browser = world.sign_in(&elsewhere, ADA).await;
        assert!(served(&browser, &app, Assurance::Session).await);
        if lost {
            tell.send(Change::Lost).unwrap();
            world.run_for(SECOND).await;
        }
        assert!(served(&browser, &app, Assurance::Session).await);
        elsewhere.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
        assert!(!served(&browser, &app, Assurance::Session).await, "ENDED");
    }
    running.stop().await;
}

/// What ended while nothing was heard is learnt when the link is back, before memory counts again.
#[tokio::test(start_paused = true)]
async fn what_ended_meanwhile_is_learnt_when_the_link_is_back() {
    let (world, elsewhere) = World::start().await;
    let (app, running, tell) = sharing(&world).await;
    hears(&tell);
    world.run_for(SECOND).await;
    let (browser, other) = (world.sign_in(&elsewhere, ADA).await, world.sign_in(&elsewhere, ADA).await);
    for browser in [&browser, &other] {
        assert!(served(browser, &app, Assurance::Session).await);
    }
    tell.send(Change::Lost).unwrap();
    world.run_for(SECOND).await;
    elsewhere.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    let mut endings = app.endings();
    // The store is away at first.
    app.shelf.next(Method::Distrusted, Trick::Fail);
    hears(&tell);
    world.run_for(SECOND).await;
    assert_eq!(endings.try_recv(), Ok(Ending::Unheard));
    assert!(app.doubts(browser.session) && !app.doubts(other.session));
    for assurance in [Assurance::Cookie, Assurance::Session] {
        assert!(!served(&browser, &app, assurance).await, "ENDED");
        assert!(served(&other, &app, assurance).await, "OTHERS");
    }
    let reads = world.memory.reads();
    assert!(served(&other, &app, Assurance::Session).await);
    assert_eq!(world.memory.reads(), reads, "memory counts again");
    running.stop().await;
}

/// A change is heard of, and its row cannot be read: the session is believed no more without it.
#[tokio::test(start_paused = true)]
async fn a_change_whose_row_cannot_be_read_is_doubted() {
    let (world, elsewhere) = World::start().await;
    let (app, running, tell, browser) = hearing(&world, &elsewhere).await;
    assert!(served(&browser, &app, Assurance::Cookie).await);
    elsewhere.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    app.shelf.next(Method::Load, Trick::Fail);
    tell.send(Change::Session(browser.session)).unwrap();
    world.run_for(SECOND / 10).await;
    assert!(app.doubts(browser.session));
    assert!(!served(&browser, &app, Assurance::Cookie).await, "ENDED");
    running.stop().await;
}

/// When the background work stops nothing is heard any more, though requests may still come.
#[tokio::test(start_paused = true)]
async fn who_stops_listening_trusts_memory_no_more() {
    let (world, elsewhere) = World::start().await;
    let (app, running, _tell, browser) = hearing(&world, &elsewhere).await;
    assert!(served(&browser, &app, Assurance::Session).await);
    running.stop().await;
    elsewhere.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    assert!(!served(&browser, &app, Assurance::Session).await, "ENDED");
}

/// Nobody says that the link is lost: the process stood still, or its timers are late.
#[tokio::test(start_paused = true)]
async fn memory_is_trusted_no_longer_than_was_said() {
    let (world, elsewhere) = World::start().await;
    let (app, running, tell) = sharing(&world).await;
    let browser = world.sign_in(&elsewhere, ADA).await;
    tell.send(Change::Resync).unwrap();
    tell.send(Change::Heard { until: world.now().after(5 * SECOND) }).unwrap();
    world.run_for(SECOND).await;
    assert!(served(&browser, &app, Assurance::Session).await);
    let reads = world.memory.reads();
    assert!(served(&browser, &app, Assurance::Session).await);
    assert_eq!(world.memory.reads(), reads, "memory counts");
    elsewhere.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    world.run_for(4 * SECOND).await;
    assert!(!served(&browser, &app, Assurance::Session).await, "ENDED");
    running.stop().await;
}

/// A request that began before the end, and waited for the provider while the end could not be heard of.
#[tokio::test(start_paused = true)]
async fn who_waited_while_nothing_was_heard_is_looked_up_again() {
    let (world, elsewhere) = World::start().await;
    let (app, running, tell, browser) = hearing(&world, &elsewhere).await;
    assert!(served(&browser, &app, Assurance::Session).await);
    // No answer comes, so the session is served unproven while its token lives.
    world.twitch.always(Endpoint::Validate, FaultKind::delay(MINUTE));
    world.pass(61 * MINUTE);
    assert!(served(&browser, &app, Assurance::Session).await, "TRANSIENT");
    let end = async {
        world.run_for(SECOND).await;
        tell.send(Change::Lost).unwrap();
        world.run_for(SECOND).await;
        elsewhere.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    };
    let begun = world.now();
    let (served, ()) = tokio::join!(served(&browser, &app, Assurance::Session), end);
    assert!(world.now().since(begun) > 2 * SECOND, "it was waiting for the provider when the session ended");
    assert!(!served, "ENDED");
    running.stop().await;
}
