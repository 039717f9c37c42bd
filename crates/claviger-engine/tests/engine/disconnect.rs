//! A user who disconnected the app is signed out everywhere, and nobody else is.

use std::collections::BTreeSet;

use claviger_core::{
    policy::{Cascade, Custody, limits},
    session::{EndReason, State},
    suspicion::{Cause, Suspicion},
};
use claviger_engine::{Denied, Ending};
use claviger_mock::{DEMO_CLIENT_ID, Endpoint, FaultKind};
use claviger_store::{Method, Store, SuspicionKey};

use crate::{
    crowd::parked,
    shelf::Trick,
    world::{ADA, GRACE, HOUR, Instance, MINUTE, NOW, SECOND, TOKEN_LIFE, World, subject},
};

const DISCONNECTED: Option<EndReason> = Some(EndReason::DisconnectedAtProvider);

impl World {
    /// A suspicion as a notice brings it, about everything before now.
    pub(crate) async fn suspect(&self, user: &str, cause: Cause) {
        let suspicion = Suspicion { subject: subject(user), at: self.now(), cause };
        let mut key = [0; 32];
        claviger_engine::Entropy::fill(&*self.entropy, &mut key);
        assert!(self.memory.suspect(SuspicionKey(key), &suspicion, self.now()).await.unwrap());
    }

    /// The user takes the app's access away at the provider.
    pub(crate) fn disconnect(&self, user: &str) {
        let mut mock = self.twitch.mock();
        mock.set_now(self.now().as_millis());
        assert!(mock.disconnect(user, DEMO_CLIENT_ID));
    }
}

#[tokio::test(start_paused = true)]
async fn the_sweep_notices_a_disconnect_within_a_period_on_every_device() {
    let (world, app) = World::start().await;
    let devices = world.sign_in_on(&app, 4).await;
    let set_aside = world.plant(ADA, parked).await;
    let bystander = world.sign_in(&app, GRACE).await;
    let running = app.run();
    world.run_for(7 * MINUTE).await;
    let mut endings = app.endings();
    world.disconnect(ADA);
    world.run_for(world.settings.sweep.period + MINUTE).await;
    let mut told = BTreeSet::new();
    while let Ok(Ending::Of(ended)) = endings.try_recv() {
        told.insert(ended);
    }
    let expected: Vec<_> = devices.iter().map(|device| device.session).chain([set_aside]).collect();
    for id in &expected {
        assert_eq!(world.end_reason(*id).await, DISCONNECTED);
        assert!(told.contains(id), "its streams are closed");
    }
    assert_eq!(told.len(), expected.len(), "BLAST");
    for device in &devices {
        assert!(matches!(device.asks(&app).await, Err(Denied::Ended(EndReason::DisconnectedAtProvider))));
    }
    bystander.asks_with(&app, NOW).await.expect("BLAST");
    assert_eq!(world.owed().await, 0, "CASCADE: their tokens are dead, and the provider said so");
    running.stop().await;
}

/// The provider says that the user is gone while some of the tokens still live, as with one that is slow to take effect.
#[tokio::test(start_paused = true)]
async fn what_lives_yet_is_owed_a_revocation() {
    let (world, app) = World::start().await;
    let devices = world.sign_in_on(&app, 3).await;
    let token = world.access_token(devices[2].session).await;
    world.suspect(ADA, Cause::Notice).await;
    world
        .twitch
        .rewrite(Endpoint::HelixAuthorizationUsers, |body| body["data"][0]["has_authorized"] = false.into());
    // Nothing contradicts it, since nothing is said about the token.
    world.twitch.always(Endpoint::Validate, FaultKind::status(404));
    assert_eq!(app.confirm_suspicions().await, Ok(1));
    for device in &devices {
        assert_eq!(world.end_reason(device.session).await, DISCONNECTED);
    }
    assert_eq!(world.owed().await, 3, "CASCADE");
    world.assert_revoked(&app, &token).await;
}

/// A rejected access token alone makes its row suspect, and ends nothing.
#[tokio::test(start_paused = true)]
async fn a_token_that_died_alone_signs_nobody_out() {
    for cascade in [Cascade::Confirm, Cascade::Always, Cascade::Never] {
        let (world, app) = World::with(|setup| setup.settings.cascade = cascade).await;
        let devices = world.sign_in_on(&app, 3).await;
        let token = world.access_token(devices[1].session).await;
        world.pass(HOUR);
        world.twitch.mock().kill_token(&token);
        app.sweep_due().await.unwrap();
        assert!(matches!(world.row(devices[1].session).await.state, State::Suspect(_)));
        let settled = world.look_into_suspicions(&app).await;
        assert_eq!(settled, usize::from(cascade != Cascade::Never), "{cascade:?}");
        assert!(matches!(world.row(devices[1].session).await.state, State::Suspect(_)), "{cascade:?}");
        for device in &devices {
            device.asks(&app).await.expect("BLAST: the device itself refreshes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_answers_that_contradict_each_other_end_nobody() {
    let (world, app) = World::start().await;
    let devices = world.sign_in_on(&app, 3).await;
    world.suspect(ADA, Cause::Notice).await;
    world
        .twitch
        .rewrite(Endpoint::HelixAuthorizationUsers, |body| body["data"][0]["has_authorized"] = false.into());
    let running = app.run();
    world.run_for(HOUR).await;
    let asked = world.twitch.calls(Endpoint::HelixAuthorizationUsers);
    assert!((5..=15).contains(&asked), "asked again, ever more seldom: {asked}");
    for device in &devices {
        device.asks(&app).await.expect("BLAST");
    }
    // It was the provider that was slow: in the end both agree.
    world.disconnect(ADA);
    world.run_for(limits::SUSPICION_PAUSE_MAX + MINUTE).await;
    for device in &devices {
        assert_eq!(world.end_reason(device.session).await, DISCONNECTED);
    }
    running.stop().await;
}

/// A suspicion that nothing confirms or clears is dropped at last.
#[tokio::test(start_paused = true)]
async fn a_suspicion_does_not_live_for_ever() {
    let (world, app) = World::start().await;
    world.sign_in(&app, ADA).await;
    world.pass(SECOND);
    world.suspect(ADA, Cause::Notice).await;
    world.twitch.always(Endpoint::HelixAuthorizationUsers, FaultKind::status(503));
    let running = app.run();
    world.run_for(limits::SUSPICION_GIVEN_UP_AFTER + HOUR).await;
    let tries = world.memory.calls(Method::PostponeSuspicion);
    assert!((90..=110).contains(&tries), "{tries} in a day");
    assert_eq!(world.memory.calls(Method::SettleSuspicion), 1, "dropped");
    world.run_for(2 * HOUR).await;
    assert_eq!(world.memory.calls(Method::PostponeSuspicion), tries);
    running.stop().await;
}

/// Found by the test above: a token that expired is rejected as well, and that says nothing, whatever the notice says.
#[tokio::test(start_paused = true)]
async fn a_notice_and_an_expired_token_sign_nobody_out() {
    for probe_works in [true, false] {
        let (world, app) = World::start().await;
        let device = world.sign_in(&app, ADA).await;
        world.pass(TOKEN_LIFE);
        world.suspect(ADA, Cause::Notice).await;
        if !probe_works {
            world.twitch.always(Endpoint::HelixAuthorizationUsers, FaultKind::status(503));
        }
        app.confirm_suspicions().await.unwrap();
        assert_eq!(world.end_reason(device.session).await, None, "TRANSIENT");
        // Also where a request was there first.
        world.twitch.always(Endpoint::Token, FaultKind::status(503));
        let refused = claviger_core::verdict::ApiRefusal::DeadToken;
        let grant = device.grant(&app).await;
        assert!(grant.is_err(), "it cannot be refreshed now");
        let row = world.row(device.session).await;
        let old = claviger_engine::Grant {
            token: claviger_core::secret::AccessToken::new(world.token_of(&row)),
            generation: row.generation().unwrap(),
            expiry: row.pair().unwrap().expiry,
        };
        app.grant_after_refusal(&device.cookie, &old, refused).await.unwrap_err();
        assert!(matches!(world.row(device.session).await.state, State::Suspect(_)));
        world.pass(HOUR);
        app.confirm_suspicions().await.unwrap();
        assert_eq!(world.end_reason(device.session).await, None, "TRANSIENT");
        world.mend();
        device.asks(&app).await.expect("LIVE");
    }
}

/// The provider cannot say whether the user is connected, so each token speaks for itself, and the question stays.
#[tokio::test(start_paused = true)]
async fn without_the_probe_each_row_is_asked_about_by_itself() {
    let (world, app) = World::start().await;
    let devices = world.sign_in_on(&app, 3).await;
    let bystander = world.sign_in(&app, GRACE).await;
    world.pass(MINUTE);
    let token = world.access_token(devices[0].session).await;
    world.twitch.mock().kill_token(&token);
    world.suspect(ADA, Cause::Notice).await;
    world.twitch.always(Endpoint::HelixAuthorizationUsers, FaultKind::status(500));
    assert_eq!(app.confirm_suspicions().await, Ok(0), "it stays");
    assert_eq!(world.end_reason(devices[0].session).await, DISCONNECTED, "word and token agree");
    for device in &devices[1..] {
        device.asks_with(&app, NOW).await.expect("BLAST");
    }
    world.disconnect(ADA);
    world.mend();
    assert_eq!(app.confirm_suspicions().await, Ok(1));
    for device in &devices {
        assert_eq!(world.end_reason(device.session).await, DISCONNECTED);
    }
    bystander.asks(&app).await.expect("BLAST");
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_note_and_confirmation_loses_nothing() {
    let (world, app) = World::start().await;
    let device = world.sign_in(&app, ADA).await;
    world.pass(SECOND);
    world.suspect(ADA, Cause::Notice).await;
    world.disconnect(ADA);
    // It dies between its question and the end of the sessions.
    let gate = app.shelf.hold_before(Method::EndAll);
    let running = app.run();
    gate.arrived().await;
    app.die(&running);
    let restarted = world.instance().await;
    let running = restarted.run();
    world.run_for(MINUTE).await;
    assert_eq!(world.end_reason(device.session).await, None, "it is the dead one's until the lease ends");
    world.run_for(limits::SUSPICION_LEASE).await;
    assert_eq!(world.end_reason(device.session).await, DISCONNECTED);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_instances_one_looks_into_a_suspicion() {
    let (world, app) = World::start().await;
    let other = world.instance().await;
    world.sign_in_on(&app, 2).await;
    [&app, &other].iter().for_each(|app| app.shelf.slow());
    world.suspect(ADA, Cause::Notice).await;
    world.disconnect(ADA);
    let (one, two) = tokio::join!(app.confirm_suspicions(), other.confirm_suspicions());
    assert_eq!(one.unwrap() + two.unwrap(), 1);
    assert_eq!(world.twitch.calls(Endpoint::HelixAuthorizationUsers), 1);
    assert_eq!(world.memory.calls(Method::EndAll), 1);
}

/// The store fails for one of several users. The others do not wait for the lease because of it.
#[tokio::test(start_paused = true)]
async fn trouble_with_one_suspicion_keeps_no_other() {
    let (world, app) = World::start().await;
    let users = [ADA, GRACE, "100000003"];
    let mut sessions = Vec::new();
    for user in users {
        sessions.push(world.sign_in(&app, user).await.session);
        world.pass(SECOND);
    }
    for user in users {
        world.suspect(user, Cause::Notice).await;
        world.disconnect(user);
    }
    app.shelf.slow();
    app.shelf.next(Method::Devices, Trick::Fail);
    assert!(app.confirm_suspicions().await.is_err());
    let mut ended = 0;
    for id in &sessions {
        ended += usize::from(world.end_reason(*id).await.is_some());
    }
    assert_eq!(ended, 2);
    world.pass(limits::SUSPICION_LEASE);
    assert_eq!(app.confirm_suspicions().await, Ok(1));
}

/// An instance whose client id was changed by the operator sees everybody as disconnected from the new one.
#[tokio::test(start_paused = true)]
async fn our_own_misconfiguration_signs_nobody_out() {
    let (mut world, app) = World::with(|setup| setup.settings.custody = Custody::Device).await;
    let devices = world.sign_in_on(&app, 2).await;
    world.suspect(ADA, Cause::Notice).await;
    let strange =
        claviger_mock::Client::new("another0client", "another0secret").redirect_uri("http://localhost/");
    world.twitch.mock().add_client(strange);
    world.provider.client_id = "another0client".to_owned();
    world.provider.client_secret = claviger_core::secret::ClientSecret::new("another0secret");
    let changed: Instance = world.instance().await;
    assert_eq!(changed.confirm_suspicions().await, Ok(0));
    assert_eq!(world.twitch.calls(Endpoint::HelixAuthorizationUsers), 1, "it was asked");
    for device in &devices {
        assert_eq!(world.end_reason(device.session).await, None, "TRANSIENT");
    }
}
