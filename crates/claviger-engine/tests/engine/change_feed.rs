//! Several instances on one store, with and without a working change feed.

use claviger_core::{Assurance, EndReason, Timestamp};
use claviger_engine::{Denied, Ending, Engine};
use claviger_mock::{Endpoint, FaultKind};
use claviger_store::{FeedEvent, Method};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    crowd::Running,
    faulty_store::{FaultyStore, Trick},
    world::{ADA, Browser, Instance, MINUTE, SECOND, World, passing},
};

/// An instance with background work that shares the store with others, and whose feed has not
/// begun.
async fn sharing(world: &World) -> (Instance, Running, UnboundedSender<FeedEvent>) {
    let (faulty_store, tell) = FaultyStore::shared(world.memory.clone());
    let faulty_store = std::sync::Arc::new(faulty_store);
    let engine = Engine::start(world.parts(faulty_store.clone(), &[1])).await.unwrap();
    let app = Instance { engine, faulty_store };
    let running = app.run();
    (app, running, tell)
}

const FOREVER: Timestamp = Timestamp::from_millis(i64::MAX);

/// Connects its change feed. Memory may be trusted until that time.
fn connect(tell: &UnboundedSender<FeedEvent>, until: Timestamp) {
    tell.send(FeedEvent::Resync).unwrap();
    tell.send(FeedEvent::UpToDate { until }).unwrap();
}

/// An instance whose feed works until that time, and a user who signed in at another one.
async fn following(
    world: &World,
    elsewhere: &Instance,
    until: Timestamp,
) -> (Instance, Running, UnboundedSender<FeedEvent>, Browser) {
    let (app, running, tell) = sharing(world).await;
    let browser = world.sign_in(elsewhere, ADA).await;
    connect(&tell, until);
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
async fn a_sign_out_elsewhere_counts_at_once() {
    let (world, elsewhere) = World::start().await;
    let (app, running, tell) = sharing(&world).await;
    let (browser, other) = (world.sign_in(&elsewhere, ADA).await, world.sign_in(&elsewhere, ADA).await);
    connect(&tell, FOREVER);
    world.run_for(SECOND).await;
    for assurance in [Assurance::Session, Assurance::Cookie] {
        assert!(served(&browser, &app, assurance).await);
    }
    let mut endings = app.endings();
    elsewhere.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    tell.send(FeedEvent::Session(browser.session)).unwrap();
    world.run_for(SECOND / 10).await;
    assert_eq!(endings.try_recv(), Ok(Ending::Of(browser.session)), "its streams are closed");
    for assurance in [Assurance::Session, Assurance::Cookie] {
        assert!(!served(&browser, &app, assurance).await, "ENDED");
        assert!(served(&other, &app, assurance).await, "OTHERS");
    }
    running.stop().await;
}

/// A session that is refreshed elsewhere is read again once, and its cookie stays valid.
#[tokio::test(start_paused = true)]
async fn a_change_that_is_no_end_costs_one_read() {
    let (world, elsewhere) = World::start().await;
    let (app, running, tell, browser) = following(&world, &elsewhere, FOREVER).await;
    assert!(served(&browser, &app, Assurance::Session).await);
    tell.send(FeedEvent::Session(browser.session)).unwrap();
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

/// Before the feed begins and after it breaks, memory vouches for no session.
#[tokio::test(start_paused = true)]
async fn without_the_feed_every_request_reads_the_store() {
    let (world, elsewhere) = World::start().await;
    let (app, running, tell) = sharing(&world).await;
    for lost in [false, true] {
        if lost {
            connect(&tell, FOREVER);
            world.run_for(SECOND).await;
        }
        let browser = world.sign_in(&elsewhere, ADA).await;
        assert!(served(&browser, &app, Assurance::Session).await);
        if lost {
            tell.send(FeedEvent::Lost).unwrap();
            world.run_for(SECOND).await;
        }
        assert!(served(&browser, &app, Assurance::Session).await);
        elsewhere.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
        assert!(!served(&browser, &app, Assurance::Session).await, "ENDED");
    }
    running.stop().await;
}

/// Ends during a break of the feed are read before memory counts again.
#[tokio::test(start_paused = true)]
async fn ends_during_a_break_are_read_when_the_feed_is_back() {
    let (world, elsewhere) = World::start().await;
    let (app, running, tell) = sharing(&world).await;
    connect(&tell, FOREVER);
    world.run_for(SECOND).await;
    let (browser, other) = (world.sign_in(&elsewhere, ADA).await, world.sign_in(&elsewhere, ADA).await);
    for browser in [&browser, &other] {
        assert!(served(browser, &app, Assurance::Session).await);
    }
    tell.send(FeedEvent::Lost).unwrap();
    world.run_for(SECOND).await;
    elsewhere.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    let mut endings = app.endings();
    // The store is away at first.
    app.faulty_store.next(Method::Denylist, Trick::Fail);
    connect(&tell, FOREVER);
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

/// A change is reported, but its row cannot be read: the cached session no longer counts.
#[tokio::test(start_paused = true)]
async fn a_change_whose_row_cannot_be_read_is_distrusted() {
    let (world, elsewhere) = World::start().await;
    let (app, running, tell, browser) = following(&world, &elsewhere, FOREVER).await;
    assert!(served(&browser, &app, Assurance::Cookie).await);
    elsewhere.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    app.faulty_store.next(Method::Load, Trick::Fail);
    tell.send(FeedEvent::Session(browser.session)).unwrap();
    world.run_for(SECOND / 10).await;
    assert!(app.doubts(browser.session));
    assert!(!served(&browser, &app, Assurance::Cookie).await, "ENDED");
    running.stop().await;
}

/// When the background work stops, the feed stops, though requests may still come.
#[tokio::test(start_paused = true)]
async fn after_the_feed_stops_memory_is_not_trusted() {
    let (world, elsewhere) = World::start().await;
    let (app, running, _tell, browser) = following(&world, &elsewhere, FOREVER).await;
    assert!(served(&browser, &app, Assurance::Session).await);
    running.stop().await;
    elsewhere.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    assert!(!served(&browser, &app, Assurance::Session).await, "ENDED");
}

/// Nothing reports the broken feed: the process stalled, or its timers are late.
#[tokio::test(start_paused = true)]
async fn memory_is_trusted_only_until_the_time_in_the_feed() {
    let (world, elsewhere) = World::start().await;
    let until = world.now().after(5 * SECOND);
    let (app, running, _tell, browser) = following(&world, &elsewhere, until).await;
    assert!(served(&browser, &app, Assurance::Session).await);
    let reads = world.memory.reads();
    assert!(served(&browser, &app, Assurance::Session).await);
    assert_eq!(world.memory.reads(), reads, "memory counts");
    elsewhere.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    world.run_for(4 * SECOND).await;
    assert!(!served(&browser, &app, Assurance::Session).await, "ENDED");
    running.stop().await;
}

/// A request began before the end, and waited for the provider while the feed was broken.
#[tokio::test(start_paused = true)]
async fn a_request_that_waited_during_a_break_reads_the_row_again() {
    let (world, elsewhere) = World::start().await;
    let (app, running, tell, browser) = following(&world, &elsewhere, FOREVER).await;
    assert!(served(&browser, &app, Assurance::Session).await);
    // No answer comes, so the session is served unproven while its token lives.
    world.twitch.always(Endpoint::Validate, FaultKind::delay(MINUTE));
    world.pass(61 * MINUTE);
    assert!(served(&browser, &app, Assurance::Session).await, "TRANSIENT");
    let end = async {
        world.run_for(SECOND).await;
        tell.send(FeedEvent::Lost).unwrap();
        world.run_for(SECOND).await;
        elsewhere.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    };
    let begun = world.now();
    let (served, ()) = tokio::join!(served(&browser, &app, Assurance::Session), end);
    assert!(world.now().since(begun) > 2 * SECOND, "it was waiting for the provider when the session ended");
    assert!(!served, "ENDED");
    running.stop().await;
}

/// S13: an instance that is cut off believes cookies for a while only, and closes open streams.
#[tokio::test(start_paused = true)]
async fn a_cut_off_instance_does_not_believe_cookies_for_long() {
    let (world, elsewhere) = World::start().await;
    let until = world.now().after(5 * SECOND);
    let (app, running, tell, browser) = following(&world, &elsewhere, until).await;
    let mut endings = app.endings();
    tell.send(FeedEvent::Lost).unwrap();
    app.faulty_store.down(true);
    elsewhere.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();

    world.run_for(60 * SECOND).await;
    assert!(served(&browser, &app, Assurance::Cookie).await, "it cannot know yet");
    assert!(!app.doubts(browser.session));
    assert!(endings.try_recv().is_err());

    world.run_for(6 * SECOND).await;
    assert!(passing(&browser.asks_with(&app, Assurance::Cookie).await), "now it needs the store");
    assert!(app.doubts(browser.session));
    assert_eq!(endings.try_recv(), Ok(Ending::Unheard), "open streams are closed");
    assert!(endings.try_recv().is_err(), "once");
    world.run_for(61 * SECOND).await;
    assert_eq!(endings.try_recv(), Ok(Ending::Unheard), "and those opened since");

    app.faulty_store.down(false);
    assert!(!served(&browser, &app, Assurance::Cookie).await, "ENDED");
    let other = world.sign_in(&elsewhere, ADA).await;
    connect(&tell, world.now().after(5 * SECOND));
    world.run_for(SECOND).await;
    assert!(served(&other, &app, Assurance::Cookie).await);
    assert!(!app.doubts(other.session));
    running.stop().await;
}
