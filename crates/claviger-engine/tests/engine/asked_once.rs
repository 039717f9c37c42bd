//! Limits on questions to the provider. The simulator's day of a million sessions found each of
//! these bugs.

use claviger_core::State;
use claviger_mock::{Endpoint, FaultKind};
use claviger_store::{Queue, Store as _, SweepKind};

use crate::world::{ADA, DAY, HOUR, MINUTE, TOKEN_LIFE, World};

/// One instance's memory does not know the proofs of another, such as the sweep's, so it asked
/// again once an hour.
#[tokio::test(start_paused = true)]
async fn a_proof_of_another_instance_is_reused() {
    let (world, app) = World::start().await;
    let elsewhere = world.instance().await;
    let browser = world.sign_in(&app, ADA).await;
    browser.asks(&elsewhere).await.unwrap();
    let at_sign_in = world.twitch.calls(Endpoint::Validate);
    world.pass(HOUR);
    browser.asks(&app).await.unwrap();
    world.pass(MINUTE);
    browser.asks(&elsewhere).await.unwrap();
    assert_eq!(world.twitch.calls(Endpoint::Validate), at_sign_in + 1);
}

/// A visit that stopped at the first 429 started over with the next one, and a long visit never
/// ended.
#[tokio::test(start_paused = true)]
async fn a_connection_check_with_a_429_is_repeated_in_the_same_visit() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    world.pass(TOKEN_LIFE);
    app.sweep_due().await.unwrap();
    assert!(matches!(world.row(browser.session).await.state, State::Parked(_)));
    for _ in 0..3 {
        world.twitch.once(Endpoint::HelixAuthorizationUsers, FaultKind::too_many_requests(None));
    }
    app.check_due_connections().await.unwrap();
    assert_eq!(world.twitch.calls(Endpoint::HelixAuthorizationUsers), 4);
    let due = world.memory.backlog(Queue::Slots(SweepKind::Connections)).await.unwrap().oldest.unwrap();
    assert!(due > world.now() && due <= world.now().after(DAY), "the visit is closed");
}
