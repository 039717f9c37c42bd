//! A disconnect at the provider ends the user's sessions.

use std::time::{Duration, Instant};

use claviger_mock::{
    DEMO_CLIENT_ID, Endpoint, MockTwitch, ReleaseOrder, RevocationReason, Subscription, SubscriptionStatus,
};
use http::{StatusCode, header};
use serde_json::Value;

use crate::{
    streaming::feed,
    world::{ADA, World, echo, patiently},
};

const WEBHOOK: &str = "webhook.secret = \"canary-of-the-webhook\"\n\
                       webhook.callback_url = \"http://127.0.0.1:{port}/auth/webhook\"";

/// Returns the verified subscriptions.
fn enabled(mock: &MockTwitch) -> Vec<Subscription> {
    let enabled = |one: &&Subscription| one.status == SubscriptionStatus::Enabled;
    mock.subscriptions().filter(enabled).cloned().collect()
}

async fn subscribed(world: &World) {
    world.until(|mock| enabled(mock).len() == 1).await;
}

/// Disconnects the app at the provider.
async fn disconnect(world: &World, user: &str) {
    let form = format!("action=disconnect&user={user}&client_id={DEMO_CLIENT_ID}");
    let page = format!("{}/settings/connections", world.mock.url());
    let request = world.client.post(page).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    assert_eq!(request.body(form).send().await.unwrap().status(), StatusCode::SEE_OTHER);
}

/// Returns why the session of this cookie is refused, if it is.
async fn refused(world: &World, cookie: &str) -> Option<String> {
    let answer = world.get("/auth/session").header(header::COOKIE, cookie).send().await.unwrap();
    let refused = answer.status() == StatusCode::UNAUTHORIZED;
    assert!(refused || answer.status() == StatusCode::OK, "{}", answer.status());
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    refused.then(|| body["reason"].as_str().unwrap_or_default().to_owned())
}

#[expect(clippy::disallowed_methods, reason = "what is measured is how long a user waits")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn a_disconnect_closes_every_tab_and_stream_within_a_second() {
    let (app, sender) = feed();
    let world = World::new(app, WEBHOOK).await;
    subscribed(&world).await;
    let (tab, other) = (world.sign_in(ADA).await, world.sign_in(ADA).await);
    sender.send(Ok("data: hello\n\n".into())).await.unwrap();
    let mut stream = world.get("/feed").header(header::COOKIE, &tab).send().await.unwrap();
    assert_eq!(patiently(stream.chunk()).await.unwrap().unwrap(), "data: hello\n\n");

    let begun = now();
    disconnect(&world, ADA).await;
    assert!(patiently(stream.chunk()).await.is_err(), "a cut answer must not look like a whole one");
    for cookie in [&tab, &other] {
        assert_eq!(refused(&world, cookie).await.as_deref(), Some("disconnected_at_provider"));
    }
    let took = begun.elapsed();
    println!("from the button at the provider to signed out: {} ms", took.as_millis());
    assert!(took < Duration::from_secs(1), "{took:?}");
    let again = world.sign_in(ADA).await;
    assert_eq!(refused(&world, &again).await, None, "a new sign-in is as good as any");
}

#[tokio::test]
async fn a_sign_in_before_the_late_event_survives() {
    let world = World::new(echo(), WEBHOOK).await;
    subscribed(&world).await;
    let before = world.sign_in(ADA).await;
    world.mock.with(|mock| mock.settings_mut().eventsub.hold = true);
    disconnect(&world, ADA).await;
    let after = world.sign_in(ADA).await;
    assert_eq!(world.mock.with(|mock| mock.release_deliveries(ReleaseOrder::NewestFirst)), 1);
    patiently(async { while refused(&world, &before).await.is_none() {} }).await;
    assert_eq!(refused(&world, &after).await, None, "OTHERS: it is younger than the disconnect");
}

#[tokio::test]
async fn the_subscription_is_created_at_the_start_and_replaced() {
    let world = World::new(echo(), WEBHOOK).await;
    subscribed(&world).await;
    let first = world.mock.with(|mock| enabled(mock)).remove(0);
    assert!(first.callback.ends_with("/auth/webhook"), "{first:?}");
    let reason = RevocationReason::NotificationFailuresExceeded;
    assert!(world.mock.with(|mock| mock.revoke_subscription(&first.id, reason)));
    subscribed(&world).await;
    let second = world.mock.with(|mock| enabled(mock)).remove(0);
    assert_ne!(first.id, second.id);
    let cookie = world.sign_in(ADA).await;
    disconnect(&world, ADA).await;
    patiently(async { while refused(&world, &cookie).await.is_none() {} }).await;
}

#[tokio::test]
async fn an_unsigned_message_changes_nothing() {
    let world = World::new(echo(), WEBHOOK).await;
    subscribed(&world).await;
    let cookie = world.sign_in(ADA).await;
    let asked = world.mock.with(|mock| mock.calls(Endpoint::HelixAuthorizationUsers));
    let post = |body: String| {
        let signature = format!("sha256={}", "0".repeat(64));
        let headers = [
            ("twitch-eventsub-message-id", "id-1"),
            ("twitch-eventsub-message-timestamp", "2027-01-15T08:00:00Z"),
            ("twitch-eventsub-message-type", "notification"),
            ("twitch-eventsub-message-signature", signature.as_str()),
        ];
        let request = world.client.post(world.url("/auth/webhook")).body(body);
        headers.into_iter().fold(request, |request, (name, value)| request.header(name, value)).send()
    };
    let forged = post("{}".to_owned()).await.unwrap();
    assert_eq!(forged.status(), StatusCode::FORBIDDEN);
    assert!(forged.text().await.unwrap().contains("message_refused"));
    let large = post("x".repeat(claviger_provider::MESSAGE_BYTES + 1)).await.unwrap();
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let bare = world.client.post(world.url("/auth/webhook")).send().await.unwrap();
    assert_eq!(bare.status(), StatusCode::BAD_REQUEST);
    let looked = world.get("/auth/webhook").send().await.unwrap();
    assert_eq!(looked.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(refused(&world, &cookie).await, None);
    assert_eq!(
        world.mock.with(|mock| mock.calls(Endpoint::HelixAuthorizationUsers)),
        asked,
        "nobody was asked"
    );
}

#[tokio::test]
async fn without_a_secret_there_is_no_subscription() {
    let world = World::echoing().await;
    let answer = world.client.post(world.url("/auth/webhook")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(world.mock.with(|mock| mock.calls(Endpoint::HelixEventsubSubscriptions)), 0);
}
