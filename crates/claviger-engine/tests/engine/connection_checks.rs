//! Users without a living token are checked ten at a time, with the app's own token.

use claviger_core::{Assurance, EndReason, limits};
use claviger_mock::{DEMO_CLIENT_ID, Endpoint, FaultKind};
use claviger_store::{Method, Store};

use crate::{
    crowd::{crowded, parked, slot, user},
    world::{ADA, DAY, GRACE, HOUR, MINUTE, SECOND, World},
};

const NILS: &str = "100000003";
const DISCONNECTED: Option<EndReason> = Some(EndReason::DisconnectedAtProvider);

impl World {
    fn connection_checks(&self) -> u64 {
        self.twitch.calls(Endpoint::HelixAuthorizationUsers)
    }

    /// The provider says of every user that the app was disconnected, or that the user does not
    /// exist.
    fn misreport(&self, disconnected: bool) {
        self.twitch.rewrite(Endpoint::HelixAuthorizationUsers, move |body| {
            if !disconnected {
                body["data"] = serde_json::json!([]);
                return;
            }
            for entry in body["data"].as_array_mut().unwrap() {
                entry["has_authorized"] = false.into();
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn absent_users_are_checked_ten_at_a_time() {
    let (world, app) = World::with(crowded).await;
    world.populate(25);
    for number in 0..25 {
        // Two devices of each user, all in one slot.
        world.plant_in(9, &user(number), parked).await;
        world.plant_in(9, &user(number), parked).await;
    }
    // The connection check leaves users with a living token alone.
    world.plant_in(9, ADA, |_| {}).await;
    app.check_due_connections().await.unwrap();
    assert_eq!(world.connection_checks(), 3, "25 users");
    app.check_due_connections().await.unwrap();
    assert_eq!(world.connection_checks(), 3, "not again before the next visit");
    world.pass(DAY);
    app.check_due_connections().await.unwrap();
    assert_eq!(world.connection_checks(), 6);
    assert_eq!(world.twitch.calls(Endpoint::Validate), 0);
    for row in world.open_rows().await {
        assert_eq!(row.version.0, 1, "IDLE, BLAST");
    }
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_is_found_within_a_day() {
    let (world, app) = World::with(crowded).await;
    let away = world.plant_in(9, ADA, parked).await;
    let gone = world.plant_in(200, NILS, parked).await;
    let stays = world.plant_in(9, GRACE, parked).await;
    let running = app.run();
    world.run_for(HOUR).await;
    world.disconnect(ADA);
    world.twitch.mock().set_now(world.now().as_millis());
    assert!(world.twitch.mock().delete_user(NILS));
    world.run_for(DAY + HOUR).await;
    assert_eq!(world.end_reason(away).await, DISCONNECTED);
    assert_eq!(world.end_reason(gone).await, Some(EndReason::AccountGone), "asked about beside a witness");
    assert_eq!(world.end_reason(stays).await, None, "BLAST");
    running.stop().await;
}

/// Found by seed 3499 of the simulator. The instance that asked knew no connected user to ask about
/// beside a deleted one, though another instance was validating such a user's token.
#[tokio::test(start_paused = true)]
async fn all_instances_know_a_connected_user() {
    let (world, app) = World::with(crowded).await;
    let elsewhere = world.instance().await;
    let gone = world.plant_in(200, NILS, parked).await;
    let ada = world.sign_in(&elsewhere, ADA).await;
    ada.asks_with(&elsewhere, Assurance::Provider { max_age: std::time::Duration::ZERO }).await.unwrap();
    world.rest().await;
    world.twitch.mock().set_now(world.now().as_millis());
    assert!(world.twitch.mock().delete_user(NILS));
    world.pass(DAY);
    app.check_due_connections().await.unwrap();
    world.look_into_suspicions(&app).await;
    assert_eq!(world.end_reason(gone).await, Some(EndReason::AccountGone), "LIVE");
    assert_eq!(world.end_reason(ada.session).await, None, "BLAST");
}

/// An answer that names nobody may be the provider's own failure.
#[tokio::test(start_paused = true)]
async fn an_answer_that_names_nobody_signs_nobody_out() {
    let (world, app) = World::with(crowded).await;
    let mut sessions = Vec::new();
    for (place, user) in [ADA, GRACE, NILS].into_iter().enumerate() {
        sessions.push(world.plant_in(slot(place as u64 * 40), user, parked).await);
    }
    world.misreport(false);
    let running = app.run();
    world.run_for(2 * DAY).await;
    for id in sessions {
        assert_eq!(world.end_reason(id).await, None, "TRANSIENT");
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_most_are_gone_is_not_believed() {
    // All in one slot, or each in its own.
    for apart in [0, 25] {
        let (world, app) = World::with(crowded).await;
        world.populate(40);
        for number in 0..40 {
            world.plant_in(slot(number * apart), &user(number), parked).await;
        }
        if apart > 0 {
            // The provider's answer about the first few may be true.
            world.twitch.mock().set_now(world.now().as_millis());
        }
        world.misreport(true);
        let running = app.run();
        world.run_for(2 * DAY).await;
        let left = world.open_rows().await.len();
        let believed = if apart == 0 { 0 } else { limits::CONNECTION_CHECK_BELIEVED_OF };
        assert!(left >= 40 - believed, "TRANSIENT: {left} of 40 are left");
        assert!(
            world.connection_checks() < 40 * 60,
            "it is asked ever and again, but not all the time: {}",
            world.connection_checks()
        );
        // The provider recovers, and a true answer counts again.
        world.twitch.mend();
        world.run_for(3 * DAY).await;
        let last = world.open_rows().await.pop().unwrap();
        world.disconnect(&last.subject.id);
        world.run_for(DAY + HOUR).await;
        assert_eq!(world.end_reason(last.id).await, DISCONNECTED);
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_provider_gets_few_connection_checks() {
    let (world, app) = World::with(crowded).await;
    world.populate(300);
    for number in 0..300 {
        world.plant_in(slot(number * 3), &user(number), parked).await;
    }
    let running = app.run();
    world.run_for(2 * MINUTE).await;
    let calls = world.connection_checks();
    // The first look finds all of them due; meanwhile some become due by themselves.
    assert!((300..=303).contains(&calls), "{calls}");
    let mut per_minute = Vec::new();
    {
        let mock = world.twitch.mock();
        let asked = mock.log().filter(|entry| entry.endpoint == Endpoint::HelixAuthorizationUsers);
        per_minute.extend(asked.map(|entry| entry.at_ms / 60_000));
    }
    let busiest = per_minute.iter().map(|at| per_minute.iter().filter(|other| *other == at).count()).max();
    assert!(busiest.unwrap() <= 250, "the app's own calls share 800 a minute: {busiest:?}");
    world.run_for(HOUR).await;
    world.twitch.always(Endpoint::HelixAuthorizationUsers, FaultKind::status(503));
    world.run_for(DAY).await;
    let before = world.connection_checks();
    world.run_for(HOUR).await;
    let tried = world.connection_checks() - before;
    assert!(tried <= 4 * 120 + 10, "{tried} in an hour");
    world.twitch.mend();
    let before = world.connection_checks();
    world.run_for(3 * HOUR).await;
    assert!(
        world.connection_checks() - before >= 280,
        "all are asked about when it is back: {}",
        world.connection_checks() - before
    );
    assert_eq!(world.open_rows().await.len(), 300, "TRANSIENT");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn all_instances_share_one_app_token() {
    let (world, app) = World::with(crowded).await;
    let other = world.instance().await;
    world.populate(40);
    for number in 0..40 {
        world.plant_in(slot(number * 25), &user(number), parked).await;
    }
    world.twitch.slow(SECOND / 10);
    app.check_due_connections().await.unwrap();
    assert_eq!(world.twitch.mock().token_calls("client_credentials"), 1, "four slots at a time");
    world.pass(DAY);
    other.check_due_connections().await.unwrap();
    let restarted = world.instance().await;
    world.pass(DAY);
    restarted.check_due_connections().await.unwrap();
    assert_eq!(world.twitch.mock().token_calls("client_credentials"), 1);
    assert_eq!(world.connection_checks(), 120);
}

/// Both instances ask at the same time. One token is kept for all, and the other is revoked.
#[tokio::test(start_paused = true)]
async fn of_two_concurrent_app_tokens_one_is_kept() {
    let (world, app) = World::with(crowded).await;
    let other = world.instance().await;
    for number in 0..8 {
        world.plant_in(number, ADA, parked).await;
    }
    let gate = world.twitch.hold(Endpoint::Token);
    let slow = async {
        gate.arrived().await;
        other.check_due_connections().await.unwrap();
        gate.open();
    };
    let (outcome, ()) = tokio::join!(app.check_due_connections(), slow);
    outcome.unwrap();
    assert_eq!(world.twitch.mock().token_calls("client_credentials"), 2);
    assert_eq!(world.twitch.calls(Endpoint::Revoke), 1, "nobody needs the second");
    assert_eq!(world.connection_checks(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_dead_app_token_is_replaced() {
    let (world, app) = World::with(crowded).await;
    let id = world.plant_in(1, ADA, parked).await;
    app.check_due_connections().await.unwrap();
    let token = world.app_token().await;
    assert!(world.twitch.mock().kill_token(&token));
    world.pass(DAY);
    app.check_due_connections().await.unwrap();
    assert_eq!(world.twitch.mock().token_calls("client_credentials"), 2);
    assert_ne!(world.app_token().await, token);
    assert_eq!(world.connection_checks(), 3, "the question that found out is asked again");
    assert_eq!(world.end_reason(id).await, None);
    // A token that is about to expire is replaced in advance.
    world.pass(60 * DAY);
    world.plant_in(1, GRACE, parked).await;
    app.check_due_connections().await.unwrap();
    assert_eq!(world.twitch.mock().token_calls("client_credentials"), 3);
    assert_eq!(world.connection_checks(), 4);
}

/// SECRET: the store keeps the token sealed, and it opens in no other place.
#[tokio::test(start_paused = true)]
async fn the_app_token_is_stored_sealed() {
    let (world, app) = World::with(crowded).await;
    world.plant_in(1, ADA, parked).await;
    app.check_due_connections().await.unwrap();
    let token = world.app_token().await;
    let entry = world.memory.shared_entry("app-token").await.unwrap().unwrap();
    let shown = format!("{entry:?} {}", String::from_utf8_lossy(&entry.value));
    assert!(!token.is_empty() && !shown.contains(&token), "SECRET");
    let plain = entry.value.windows(token.len()).any(|part| part == token.as_bytes());
    assert!(!plain, "SECRET");
    // With another key, as after a rotation without the old one, the token is replaced.
    let other_keys = world.instance_with(&[2]).await;
    world.pass(DAY);
    other_keys.check_due_connections().await.unwrap();
    assert_eq!(world.twitch.mock().token_calls("client_credentials"), 2);
    assert_eq!(world.connection_checks(), 2);
    assert!(world.memory.calls(Method::PutSharedEntry) >= 2);
    assert!(
        !world.twitch.mock().is_connected(ADA, "nobody")
            && world.twitch.mock().is_connected(ADA, DEMO_CLIENT_ID)
    );
}
