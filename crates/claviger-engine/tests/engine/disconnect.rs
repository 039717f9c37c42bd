//! A user who disconnects the app is signed out everywhere, and no other user is.

use std::collections::BTreeSet;

use claviger_core::{Cascade, Cause, Custody, EndReason, State, Suspicion, limits};
use claviger_engine::{Denied, Ending};
use claviger_mock::{DEMO_CLIENT_ID, Endpoint, FaultKind};
use claviger_store::{Item, Method, Queue, Store, SuspicionKey};

use crate::{
    crowd::parked,
    faulty_store::Trick,
    world::{ADA, GRACE, HOUR, Instance, MINUTE, NOW, SECOND, TOKEN_LIFE, World, subject},
};

const DISCONNECTED: Option<EndReason> = Some(EndReason::DisconnectedAtProvider);

impl World {
    /// A suspicion as a webhook event brings it, about everything before now.
    pub(crate) async fn suspect(&self, user: &str, cause: Cause) {
        let suspicion = Suspicion { subject: subject(user), at: self.now(), cause };
        let mut key = [0; 32];
        claviger_engine::Entropy::fill(&*self.entropy, &mut key);
        let item = Item::Suspicion { key: SuspicionKey(key), suspicion, noted_at: self.now() };
        assert!(self.memory.enqueue(&item).await.unwrap());
    }

    /// Disconnects the app at the provider.
    pub(crate) fn disconnect(&self, user: &str) {
        let mut mock = self.twitch.mock();
        mock.set_now(self.now().as_millis());
        assert!(mock.disconnect(user, DEMO_CLIENT_ID));
    }
}

#[tokio::test(start_paused = true)]
async fn the_sweep_finds_a_disconnect_within_a_period() {
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

/// The provider says that the user is gone while some tokens still live, as if slow to take effect.
#[tokio::test(start_paused = true)]
async fn tokens_that_still_live_are_revoked() {
    let (world, app) = World::start().await;
    let devices = world.sign_in_on(&app, 3).await;
    let token = world.access_token(devices[2].session).await;
    world.suspect(ADA, Cause::WebhookEvent).await;
    world
        .twitch
        .rewrite(Endpoint::HelixAuthorizationUsers, |body| body["data"][0]["has_authorized"] = false.into());
    // Nothing contradicts it, since the answer does not mention the token.
    world.twitch.always(Endpoint::Validate, FaultKind::status(404));
    assert_eq!(app.investigate_suspicions().await, Ok(1));
    for device in &devices {
        assert_eq!(world.end_reason(device.session).await, DISCONNECTED);
    }
    assert_eq!(world.owed().await, 3, "CASCADE");
    world.assert_revoked(&app, &token).await;
}

/// A rejected access token alone makes its row suspect and ends nothing.
#[tokio::test(start_paused = true)]
async fn a_single_dead_token_signs_nobody_out() {
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
async fn contradicting_answers_sign_nobody_out() {
    let (world, app) = World::start().await;
    let devices = world.sign_in_on(&app, 3).await;
    world.suspect(ADA, Cause::WebhookEvent).await;
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
    // The provider was only slow: in the end both answers agree.
    world.disconnect(ADA);
    world.run_for(limits::SUSPICION_PAUSE_MAX + MINUTE).await;
    for device in &devices {
        assert_eq!(world.end_reason(device.session).await, DISCONNECTED);
    }
    running.stop().await;
}

/// A suspicion that is neither confirmed nor cleared is dropped in the end.
#[tokio::test(start_paused = true)]
async fn an_unconfirmed_suspicion_is_dropped() {
    let (world, app) = World::start().await;
    world.sign_in(&app, ADA).await;
    world.pass(SECOND);
    world.suspect(ADA, Cause::WebhookEvent).await;
    world.twitch.always(Endpoint::HelixAuthorizationUsers, FaultKind::status(503));
    let running = app.run();
    world.run_for(limits::SUSPICION_GIVEN_UP_AFTER + HOUR).await;
    let tries = world.memory.calls(Method::Reschedule(Queue::Suspicions));
    assert!((90..=110).contains(&tries), "{tries} in a day");
    assert_eq!(world.memory.calls(Method::Acknowledge(Queue::Suspicions)), 1, "dropped");
    world.run_for(2 * HOUR).await;
    assert_eq!(world.memory.calls(Method::Reschedule(Queue::Suspicions)), tries);
    running.stop().await;
}

/// An expired token is rejected as well. That proves nothing, whatever the event says.
#[tokio::test(start_paused = true)]
async fn an_event_and_an_expired_token_sign_nobody_out() {
    for probe_works in [true, false] {
        let (world, app) = World::start().await;
        let device = world.sign_in(&app, ADA).await;
        world.pass(TOKEN_LIFE);
        world.suspect(ADA, Cause::WebhookEvent).await;
        if !probe_works {
            world.twitch.always(Endpoint::HelixAuthorizationUsers, FaultKind::status(503));
        }
        app.investigate_suspicions().await.unwrap();
        assert_eq!(world.end_reason(device.session).await, None, "TRANSIENT");
        // Also if a request was there first.
        world.twitch.always(Endpoint::Token, FaultKind::status(503));
        let refused = claviger_core::verdict::ApiRefusal::DeadToken;
        let grant = device.grant(&app).await;
        assert!(grant.is_err(), "it cannot be refreshed now");
        let row = world.row(device.session).await;
        let old = claviger_engine::Grant {
            token: claviger_core::AccessToken::new(world.token_of(&row)),
            generation: row.generation().unwrap(),
            expiry: row.pair().unwrap().expiry,
        };
        app.grant_after_refusal(&device.cookie, &old, refused).await.unwrap_err();
        assert!(matches!(world.row(device.session).await.state, State::Suspect(_)));
        world.pass(HOUR);
        app.investigate_suspicions().await.unwrap();
        assert_eq!(world.end_reason(device.session).await, None, "TRANSIENT");
        world.mend();
        device.asks(&app).await.expect("LIVE");
    }
}

/// The connection check fails, so each token decides for its own row, and the suspicion stays.
#[tokio::test(start_paused = true)]
async fn without_a_connection_check_each_row_is_validated() {
    let (world, app) = World::start().await;
    let devices = world.sign_in_on(&app, 3).await;
    let bystander = world.sign_in(&app, GRACE).await;
    world.pass(MINUTE);
    let token = world.access_token(devices[0].session).await;
    world.twitch.mock().kill_token(&token);
    world.suspect(ADA, Cause::WebhookEvent).await;
    world.twitch.always(Endpoint::HelixAuthorizationUsers, FaultKind::status(500));
    assert_eq!(app.investigate_suspicions().await, Ok(0), "it stays");
    assert_eq!(world.end_reason(devices[0].session).await, DISCONNECTED, "word and token agree");
    for device in &devices[1..] {
        device.asks_with(&app, NOW).await.expect("BLAST");
    }
    world.disconnect(ADA);
    world.mend();
    assert_eq!(app.investigate_suspicions().await, Ok(1));
    for device in &devices {
        assert_eq!(world.end_reason(device.session).await, DISCONNECTED);
    }
    bystander.asks(&app).await.expect("BLAST");
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_the_confirmation_loses_no_suspicion() {
    let (world, app) = World::start().await;
    let device = world.sign_in(&app, ADA).await;
    world.pass(SECOND);
    world.suspect(ADA, Cause::WebhookEvent).await;
    world.disconnect(ADA);
    // It dies between its question and the end of the sessions.
    let gate = app.faulty_store.hold_before(Method::EndSessions);
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
async fn one_instance_investigates_a_suspicion() {
    let (world, app) = World::start().await;
    let other = world.instance().await;
    world.sign_in_on(&app, 2).await;
    [&app, &other].iter().for_each(|app| app.faulty_store.slow());
    world.suspect(ADA, Cause::WebhookEvent).await;
    world.disconnect(ADA);
    let (one, two) = tokio::join!(app.investigate_suspicions(), other.investigate_suspicions());
    assert_eq!(one.unwrap() + two.unwrap(), 1);
    assert_eq!(world.twitch.calls(Endpoint::HelixAuthorizationUsers), 1);
    assert_eq!(world.memory.calls(Method::EndSessions), 1);
}

/// The store fails for one of several users. The others do not wait for its lease.
#[tokio::test(start_paused = true)]
async fn a_failing_suspicion_delays_no_other() {
    let (world, app) = World::start().await;
    let users = [ADA, GRACE, "100000003"];
    let mut sessions = Vec::new();
    for user in users {
        sessions.push(world.sign_in(&app, user).await.session);
        world.pass(SECOND);
    }
    for user in users {
        world.suspect(user, Cause::WebhookEvent).await;
        world.disconnect(user);
    }
    app.faulty_store.slow();
    app.faulty_store.next(Method::Devices, Trick::Fail);
    assert!(app.investigate_suspicions().await.is_err());
    let mut ended = 0;
    for id in &sessions {
        ended += usize::from(world.end_reason(*id).await.is_some());
    }
    assert_eq!(ended, 2);
    world.pass(limits::SUSPICION_LEASE);
    assert_eq!(app.investigate_suspicions().await, Ok(1));
}

/// If the operator changes the client id, every user looks disconnected from the new one.
#[tokio::test(start_paused = true)]
async fn a_wrong_client_id_signs_nobody_out() {
    let (mut world, app) = World::with(|setup| setup.settings.custody = Custody::Device).await;
    let devices = world.sign_in_on(&app, 2).await;
    world.suspect(ADA, Cause::WebhookEvent).await;
    let strange =
        claviger_mock::Client::new("another0client", "another0secret").redirect_uri("http://localhost/");
    world.twitch.mock().add_client(strange);
    world.provider.client.id = "another0client".to_owned();
    world.provider.client.secret = claviger_core::ClientSecret::new("another0secret");
    let changed: Instance = world.instance().await;
    assert_eq!(changed.investigate_suspicions().await, Ok(0));
    assert_eq!(world.twitch.calls(Endpoint::HelixAuthorizationUsers), 1, "it was asked");
    for device in &devices {
        assert_eq!(world.end_reason(device.session).await, None, "TRANSIENT");
    }
}
