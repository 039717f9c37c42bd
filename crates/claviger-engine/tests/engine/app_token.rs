//! The app's own token, as the app's server gets it.

use std::time::Duration;

use claviger_core::{AccessToken, limits};
use claviger_engine::Denied;
use claviger_mock::{Endpoint, Fault, FaultKind};
use futures_util::future::join_all;

use crate::world::{Instance, SECOND, World};

fn minted(world: &World) -> u64 {
    world.twitch.mock().token_calls("client_credentials")
}

/// The token that is given to a caller who says that this one is dead.
async fn instead_of(app: &Instance, dead: &AccessToken) -> Result<AccessToken, Denied> {
    app.app_grant(Some(dead.clone())).await.map(|grant| grant.token)
}

/// How long a caller has to wait.
fn pause(granted: Result<AccessToken, Denied>) -> Duration {
    match granted {
        Err(Denied::ProviderUnavailable { retry_after }) => retry_after,
        other => panic!("{other:?}"),
    }
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

#[tokio::test(start_paused = true)]
async fn a_reported_token_is_never_given_back() {
    let (world, app) = World::start().await;
    let other = world.instance().await;
    let first = app.app_grant(None).await.unwrap().token;
    let second = instead_of(&app, &first).await.unwrap();
    assert_ne!(second.expose(), first.expose());
    world.pass(SECOND);
    assert_eq!(pause(instead_of(&app, &second).await), limits::APP_TOKEN_REPORTS_EVERY - SECOND);
    assert_eq!(app.app_grant(None).await.unwrap().token.expose(), second.expose());
    assert_eq!(minted(&world), 2);

    // Another instance believes a report of its own. The first one finds the token in the store.
    let third = instead_of(&other, &second).await.unwrap();
    assert_eq!(instead_of(&app, &second).await.unwrap().expose(), third.expose());
    assert_eq!(minted(&world), 3);
    world.pass(limits::APP_TOKEN_REPORTS_EVERY - SECOND);
    assert_ne!(instead_of(&app, &third).await.unwrap().expose(), third.expose());
}

#[tokio::test(start_paused = true)]
async fn a_report_counts_once_it_brought_a_token() {
    let (world, app) = World::start().await;
    let first = app.app_grant(None).await.unwrap().token;
    world.twitch.mock().add_fault(Fault::once(Endpoint::Token, FaultKind::status(503)));
    assert_eq!(pause(instead_of(&app, &first).await), limits::RETRY_AFTER, "the provider's failure");
    world.pass(limits::RETRY_AFTER);
    let second = instead_of(&app, &first).await.unwrap();
    assert_ne!(second.expose(), first.expose());

    // A report that finds another's token in the store costs none, so it does not count.
    let other = world.instance().await;
    other.app_grant(None).await.unwrap();
    world.pass(limits::APP_TOKEN_REPORTS_EVERY);
    let third = instead_of(&app, &second).await.unwrap();
    assert_eq!(instead_of(&other, &second).await.unwrap().expose(), third.expose());
    assert_ne!(instead_of(&other, &third).await.unwrap().expose(), third.expose());
}
