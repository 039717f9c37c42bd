//! The app's own token, as the app's server gets it.

use claviger_core::limits;
use claviger_engine::Denied;
use claviger_mock::{Endpoint, Fault, FaultKind};
use futures_util::future::join_all;

use crate::world::World;

fn minted(world: &World) -> u64 {
    world.twitch.mock().token_calls("client_credentials")
}

#[tokio::test(start_paused = true)]
async fn callers_at_the_same_time_share_one_token() {
    let (world, app) = World::start().await;
    let grants = join_all((0..10).map(|_| app.app_grant(None))).await;
    let first = grants[0].as_ref().unwrap().token.expose();
    assert!(grants.iter().all(|grant| grant.as_ref().unwrap().token.expose() == first));
    assert_eq!((world.app_token().await.as_str(), minted(&world)), (first, 1));
    let other = world.instance().await;
    assert_eq!(other.app_grant(None).await.unwrap().token.expose(), first);
    assert_eq!(minted(&world), 1);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_is_not_asked_again_by_those_who_waited() {
    let (world, app) = World::start().await;
    world.twitch.mock().add_fault(Fault::always(Endpoint::Token, FaultKind::status(503)));
    let grants = join_all((0..10).map(|_| app.app_grant(None))).await;
    let unavailable = |grant: &Result<_, Denied>| matches!(grant, Err(Denied::ProviderUnavailable { .. }));
    assert!(grants.iter().all(unavailable), "{grants:?}");
    assert_eq!(minted(&world), 1);
    world.twitch.mock().clear_faults();
    assert!(unavailable(&app.app_grant(None).await), "the pause is not over");
    world.pass(limits::RETRY_AFTER);
    app.app_grant(None).await.unwrap();
    assert_eq!(minted(&world), 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_dropped_loses_no_token() {
    let (world, app) = World::start().await;
    let gate = world.twitch.hold(Endpoint::Token);
    tokio::select! {
        _granted = app.app_grant(None) => panic!("the provider has not answered"),
        () = gate.arrived() => {}
    }
    gate.open();
    app.app_grant(None).await.unwrap();
    assert_eq!(minted(&world), 1, "the first is kept");
}
