//! The provider is not asked more than it takes: each was found by the simulator's day of a million sessions.

use claviger_core::session::State;
use claviger_mock::{Endpoint, FaultKind};
use claviger_store::{Store as _, Wheel};

use crate::world::{ADA, DAY, HOUR, MINUTE, TOKEN_LIFE, World};

/// Memory of one instance does not hear of the proofs of another, such as those of the sweep. It asked again once an hour.
#[tokio::test(start_paused = true)]
async fn a_proof_that_another_instance_got_is_not_asked_for_again() {
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

/// A visit that gave up at the first question that was turned away began anew with the next, and a long one never ended.
#[tokio::test(start_paused = true)]
async fn a_question_about_users_that_is_turned_away_is_asked_again_in_the_same_visit() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    world.pass(TOKEN_LIFE);
    app.sweep_due().await.unwrap();
    assert!(matches!(world.row(browser.session).await.state, State::Parked(_)));
    for _ in 0..3 {
        world.twitch.once(Endpoint::HelixAuthorizationUsers, FaultKind::too_many_requests(None));
    }
    app.probe_due().await.unwrap();
    assert_eq!(world.twitch.calls(Endpoint::HelixAuthorizationUsers), 4);
    let due = world.memory.longest_due(Wheel::Probe).await.unwrap().unwrap();
    assert!(due > world.now() && due <= world.now().after(DAY), "the visit is closed");
}
