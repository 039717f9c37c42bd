//! EventSub.

mod control;
mod deliveries;
mod events;
mod socket;
mod subscriptions;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use super::{Bench, Got, NOW};
use crate::{DEMO_CLIENT_ID, Delivery, EventsubSettings, SubscriptionType, WebhookAnswer};

const SECRET: &str = "a webhook's secret";
const CALLBACK: &str = "http://127.0.0.1:9000/hook?of=ada";
const PATH: &str = "/helix/eventsub/subscriptions";
const REVOKE: SubscriptionType = SubscriptionType::UserAuthorizationRevoke;
const GRANT: SubscriptionType = SubscriptionType::UserAuthorizationGrant;

/// What an app sends to subscribe.
fn order(kind: SubscriptionType, callback: &str) -> Value {
    json!({
        "type": kind.name(),
        "version": "1",
        "condition": {"client_id": DEMO_CLIENT_ID},
        "transport": {"method": "webhook", "callback": callback, "secret": SECRET},
    })
}

fn helix(bench: &mut Bench, method: &str, path: &str, token: &str, body: &str) -> Got {
    let authorization = format!("Bearer {token}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("client-id", DEMO_CLIENT_ID),
        ("content-type", "application/json"),
    ];
    bench.send(method, path, &headers, body)
}

fn control(bench: &mut Bench, method: &str, path: &str, body: &Value) -> Got {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    bench.send(method, path, &[("content-type", "application/json")], &body)
}

/// A mock with these settings for EventSub.
fn bench(change: impl FnOnce(&mut EventsubSettings)) -> Bench {
    Bench::with(|settings| change(&mut settings.eventsub))
}

/// Subscribes and returns the subscription's id, its callback not yet challenged.
fn subscribe(bench: &mut Bench, kind: SubscriptionType, callback: &str) -> String {
    let token = bench.app_token();
    let got = helix(bench, "POST", PATH, &token, &order(kind, callback).to_string());
    assert_eq!(got.status, 202, "{}", got.body);
    got.json()["data"][0]["id"].as_str().unwrap().to_owned()
}

/// Subscribes and answers the challenge.
fn enable(bench: &mut Bench, kind: SubscriptionType, callback: &str) -> String {
    let id = subscribe(bench, kind, callback);
    let delivery = one(due(bench));
    let challenge = body(&delivery.request)["challenge"].as_str().unwrap().to_owned();
    answer(bench, &delivery, 200, &challenge);
    assert_eq!(status(bench, &id), "enabled");
    id
}

fn due(bench: &mut Bench) -> Vec<Delivery> {
    bench.mock.due_deliveries(bench.now_ms)
}

#[track_caller]
fn one(mut deliveries: Vec<Delivery>) -> Delivery {
    assert_eq!(deliveries.len(), 1, "{deliveries:?}");
    deliveries.pop().unwrap()
}

fn answer(bench: &mut Bench, delivery: &Delivery, status: u16, body: &str) {
    let answer = WebhookAnswer::Answered { status, body: Bytes::copy_from_slice(body.as_bytes()) };
    bench.mock.delivered(delivery.id, &answer, bench.now_ms);
}

fn status(bench: &Bench, id: &str) -> &'static str {
    bench.mock.subscriptions().find(|subscription| subscription.id == id).unwrap().status.name()
}

fn body(request: &Request<Bytes>) -> Value {
    serde_json::from_slice(request.body()).unwrap()
}

fn header<'a>(request: &'a Request<Bytes>, name: &str) -> &'a str {
    request.headers()[name].to_str().unwrap()
}

fn message_id(delivery: &Delivery) -> String {
    header(&delivery.request, "twitch-eventsub-message-id").to_owned()
}

/// Checks a signature as a receiver does.
fn is_signed(request: &Request<Bytes>) -> bool {
    let id = header(request, "twitch-eventsub-message-id").as_bytes();
    let timestamp = header(request, "twitch-eventsub-message-timestamp").as_bytes();
    let signature = header(request, "twitch-eventsub-message-signature").strip_prefix("sha256=").unwrap();
    assert_eq!(signature, signature.to_lowercase());
    let tag: Vec<u8> = (0..signature.len())
        .step_by(2)
        .map(|start| u8::from_str_radix(&signature[start..start + 2], 16).unwrap())
        .collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::verify(&key, &[id, timestamp, request.body()].concat(), &tag).is_ok()
}

#[test]
fn nothing_that_can_be_printed_or_asked_for_shows_the_secret() {
    let mut bench = bench(|_| {});
    let id = enable(&mut bench, REVOKE, CALLBACK);
    let token = bench.app_token();
    let mut printed = helix(&mut bench, "GET", PATH, &token, "").body;
    for wrong in [json!({"transport": {"secret": SECRET}}), json!({"transport": SECRET}), json!(SECRET)] {
        printed += &helix(&mut bench, "POST", PATH, &token, &wrong.to_string()).body;
    }
    bench.sign_in("");
    bench.mock.disconnect(super::ADA, DEMO_CLIENT_ID);
    let delivery = one(due(&mut bench));
    printed += &format!("{delivery:?} {:?} {:?}", delivery.request.headers(), delivery.request.body());
    for path in
        ["/", "/mock/log", "/mock/settings", "/mock/eventsub/subscriptions", "/mock/eventsub/deliveries"]
    {
        printed += &bench.get(path).body;
    }
    let subscriptions: Vec<_> = bench.mock.subscriptions().collect();
    let deliveries: Vec<_> = bench.mock.deliveries().collect();
    let log: Vec<_> = bench.mock.log().collect();
    printed += &format!("{:?} {subscriptions:?} {deliveries:?} {log:?}", bench.mock);
    assert!(printed.contains(&id) && printed.contains("helix_eventsub_subscriptions"));
    assert!(!printed.contains(SECRET));
}

#[test]
fn tokens_do_not_depend_on_what_is_delivered() {
    let tokens = |with_webhook: bool| {
        let mut bench = bench(|_| {});
        if with_webhook {
            enable(&mut bench, REVOKE, CALLBACK);
        } else {
            bench.app_token();
        }
        bench.sign_in("");
        bench.mock.disconnect(super::ADA, DEMO_CLIENT_ID);
        bench.sign_in("")
    };
    assert_eq!(tokens(true), tokens(false));
}

#[test]
fn the_same_seed_gives_the_same_messages() {
    let messages = || {
        let mut bench = bench(|_| {});
        enable(&mut bench, GRANT, CALLBACK);
        bench.sign_in("");
        let delivery = one(due(&mut bench));
        (message_id(&delivery), delivery.request.into_body())
    };
    assert_eq!(messages(), messages());
    assert!(is_signed(&{
        let mut bench = bench(|_| {});
        subscribe(&mut bench, GRANT, CALLBACK);
        assert_eq!(bench.mock.next_delivery_at_ms(), Some(NOW));
        one(due(&mut bench)).request
    }));
}
