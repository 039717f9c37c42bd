//! `/helix/eventsub/subscriptions`.

use serde_json::{Value, json};

use super::{
    Bench, CALLBACK, DEMO_CLIENT_ID, GRANT, Got, PATH, REVOKE, answer, bench, due, enable, helix, is_signed,
    one, order, status, subscribe,
};
use crate::tests::OTHER_CLIENT;
use crate::{Endpoint, Fault, FaultKind, SubscriptionType, WebhookAnswer};

fn post(bench: &mut Bench, body: &Value) -> Got {
    let token = bench.app_token();
    helix(bench, "POST", PATH, &token, &body.to_string())
}

#[test]
fn a_subscription_is_accepted_and_its_callback_is_challenged() {
    for kind in SubscriptionType::ALL {
        let mut bench = bench(|_| {});
        let got = post(&mut bench, &order(kind, CALLBACK));
        assert_eq!(got.status, 202);
        assert_eq!(got.header("ratelimit-remaining"), Some("799"));
        let answer = got.json();
        let subscription = &answer["data"][0];
        let expected = json!({
            "id": subscription["id"], "status": "webhook_callback_verification_pending", "type": kind.name(),
            "version": "1", "cost": 1, "condition": {"client_id": DEMO_CLIENT_ID},
            "transport": {"method": "webhook", "callback": CALLBACK}, "created_at": subscription["created_at"],
        });
        let totals = json!({"data": [expected], "total": 1, "total_cost": 1, "max_total_cost": 10_000});
        assert_eq!(answer, totals);
        assert!(subscription["created_at"].as_str().unwrap().starts_with("2027-01-15T08:00:00.000"));

        let delivery = one(due(&mut bench));
        let request = &delivery.request;
        assert_eq!((request.method().as_str(), request.uri().to_string().as_str()), ("POST", CALLBACK));
        let headers = [
            ("content-type", "application/json"),
            ("twitch-eventsub-message-retry", "0"),
            ("twitch-eventsub-message-type", "webhook_callback_verification"),
            ("twitch-eventsub-subscription-type", kind.name()),
            ("twitch-eventsub-subscription-version", "1"),
        ];
        for (name, value) in headers {
            assert_eq!(super::header(request, name), value);
        }
        assert!(is_signed(request));
        let body = super::body(request);
        assert_eq!(body, json!({"challenge": body["challenge"], "subscription": expected}));
    }
}

#[test]
fn only_the_challenge_itself_with_2xx_enables_a_subscription() {
    let failed = "webhook_callback_verification_failed";
    let table = [
        (200, "CHALLENGE", "enabled"),
        (202, "CHALLENGE", "enabled"),
        (302, "CHALLENGE", failed),
        (500, "CHALLENGE", failed),
        (200, "CHALLENGE\n", failed),
        (200, "\"CHALLENGE\"", failed),
        (200, "", failed),
    ];
    for (code, repeated, expected) in table {
        let mut bench = bench(|_| {});
        let id = subscribe(&mut bench, REVOKE, CALLBACK);
        let delivery = one(due(&mut bench));
        let challenge = super::body(&delivery.request)["challenge"].as_str().unwrap().to_owned();
        answer(&mut bench, &delivery, code, &repeated.replace("CHALLENGE", &challenge));
        assert_eq!(status(&bench, &id), expected, "{code} {repeated}");
        assert_eq!(bench.mock.next_delivery_at_ms(), None, "a challenge is not repeated");
    }
    let mut bench = bench(|_| {});
    let id = subscribe(&mut bench, REVOKE, CALLBACK);
    let delivery = one(due(&mut bench));
    bench.mock.delivered(delivery.id, &WebhookAnswer::NoAnswer, bench.now_ms);
    assert_eq!(status(&bench, &id), failed);
}

#[test]
fn an_invalid_subscription_request_names_its_fault() {
    let changed = |pointer: &str, value: Value| {
        let mut body = order(REVOKE, CALLBACK);
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    let types = "invalid subscription type and version";
    let secret = "secret must be between 10 and 100 characters";
    let https = "call back must be https protocol";
    let address = "callback must be an absolute address";
    let json = "the request body is not the expected JSON";
    let table = [
        (json!([1]), 400, json),
        (json!({}), 400, types),
        (changed("/type", json!("channel.follow")), 400, types),
        (changed("/version", json!("2")), 400, types),
        (changed("/version", json!(1)), 400, json),
        (changed("/condition", json!({})), 400, "condition: client_id failed on the 'required' tag"),
        (
            changed("/condition/client_id", json!(OTHER_CLIENT)),
            403,
            "subscription missing proper authorization",
        ),
        (changed("/transport/method", json!("websocket")), 400, "invalid transport and auth combination"),
        (
            changed("/transport/method", json!("conduit")),
            400,
            "the mock supports only the transport method webhook",
        ),
        (changed("/transport/secret", json!("123456789")), 400, secret),
        (changed("/transport/secret", json!("x".repeat(101))), 400, secret),
        (changed("/transport/secret", json!("a sécret of letters")), 400, secret),
        (changed("/transport/secret", Value::Null), 400, secret),
        (changed("/transport/callback", json!("")), 400, address),
        (changed("/transport/callback", json!("/hook")), 400, address),
        (changed("/transport/callback", json!("https://a.example/hook#there")), 400, address),
        (changed("/transport/callback", json!("https://ada:pass@a.example/hook")), 400, address),
        (changed("/transport/callback", json!("http://a.example/hook")), 400, https),
        (changed("/transport/callback", json!("ftp://127.0.0.1/hook")), 400, https),
        (
            changed("/transport/callback", json!("https://a.example:8443/hook")),
            400,
            "callback must use port 443",
        ),
    ];
    let mut bench = bench(|_| {});
    for (body, code, message) in table {
        let got = post(&mut bench, &body);
        assert_eq!((got.status, &got.json()["message"]), (code, &json!(message)), "{body}");
    }
    assert_eq!(bench.mock.subscriptions().count(), 0);
    assert_eq!(bench.mock.deliveries().count(), 0);
    for good in
        ["https://a.example/hook", "https://a.example:443/hook", "http://localhost:1/h", "http://[::1]/h"]
    {
        bench.mock.reset();
        assert_eq!(post(&mut bench, &changed("/transport/callback", json!(good))).status, 202, "{good}");
    }
    bench.mock.settings_mut().eventsub.loopback_callbacks = false;
    let got = post(&mut bench, &order(REVOKE, CALLBACK));
    assert_eq!((got.status, &got.json()["message"]), (400, &json!(https)));
}

#[test]
fn only_an_app_token_of_the_client_is_accepted() {
    let mut bench = bench(|_| {});
    let (user_token, _) = bench.sign_in("");
    let body = order(REVOKE, CALLBACK).to_string();
    let got = helix(&mut bench, "POST", PATH, &user_token, &body);
    got.is(
        400,
        r#"{"error":"Bad Request","status":400,"message":"auth must use app access token to create webhook subscription"}"#,
    );
    for (method, token) in [("POST", "dead"), ("GET", "dead"), ("GET", &user_token), ("DELETE", &user_token)]
    {
        assert_eq!(helix(&mut bench, method, PATH, token, &body).status, 401, "{method}");
    }
    assert_eq!(bench.send("POST", PATH, &[("client-id", DEMO_CLIENT_ID)], &body).status, 401);
    let token = bench.app_token();
    assert_eq!(helix(&mut bench, "PUT", PATH, &token, &body).status, 404);
}

#[test]
fn a_duplicate_conflicts_and_a_fourth_exceeds_the_limit() {
    let mut bench = bench(|_| {});
    let callback = |number: u32| format!("http://127.0.0.1:{number}/hook");
    let first = enable(&mut bench, REVOKE, &callback(1));
    post(&mut bench, &order(REVOKE, &callback(1)))
        .is(409, r#"{"error":"Conflict","status":409,"message":"subscription already exists"}"#);
    assert_eq!(post(&mut bench, &order(GRANT, &callback(1))).status, 202, "another type");
    for number in [2, 3] {
        assert_eq!(post(&mut bench, &order(REVOKE, &callback(number))).status, 202);
    }
    assert_eq!(post(&mut bench, &order(REVOKE, &callback(4))).status, 429);
    assert!(bench.mock.revoke_subscription(&first, crate::RevocationReason::VersionRemoved));
    assert_eq!(post(&mut bench, &order(REVOKE, &callback(1))).status, 202, "a dead one does not conflict");
}

#[test]
fn listings_show_the_clients_own_page_by_page_with_at_most_one_filter() {
    let mut bench = bench(|settings| settings.page_size = 2);
    let callback = |number: u32| format!("http://127.0.0.1:{number}/hook");
    let ids: Vec<String> = (1..=3).map(|number| enable(&mut bench, REVOKE, &callback(number))).collect();
    let pending = subscribe(&mut bench, GRANT, CALLBACK);
    let token = bench.app_token();
    let mut get = |query: &str| helix(&mut bench, "GET", &format!("{PATH}?{query}"), &token, "");
    let listed = |got: &Got| -> Vec<String> {
        let body = got.json();
        let rows = body["data"].as_array().unwrap_or_else(|| panic!("{body}")).iter();
        rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let only = std::slice::from_ref;
    let first = get("");
    assert_eq!(listed(&first), ids[..2]);
    let body = first.json();
    assert_eq!([&body["total"], &body["total_cost"], &body["max_total_cost"]], [4, 4, 10_000]);
    let cursor = body["pagination"]["cursor"].as_str().unwrap().to_owned();
    let second = get(&format!("after={cursor}"));
    assert_eq!(listed(&second), [ids[2].clone(), pending.clone()]);
    assert_eq!(second.json()["pagination"], json!({}));
    assert_eq!(listed(&get("status=webhook_callback_verification_pending")), only(&pending));
    assert_eq!(listed(&get("type=user.authorization.grant")), only(&pending));
    assert_eq!(listed(&get(&format!("subscription_id={pending}"))), only(&pending));
    assert_eq!(listed(&get("type=user.authorization.revoke")), ids[..2]);
    assert_eq!(listed(&get(&format!("type=user.authorization.revoke&after={cursor}"))), only(&ids[2]));
    assert_eq!(listed(&get("user_id=100000001")), Vec::<String>::new());
    assert_eq!(get("status=enabled&type=user.authorization.revoke").status, 400);
    for cursor in ["%20", "x", "LTE"] {
        assert_eq!(get(&format!("after={cursor}")).status, 400, "{cursor}");
    }
    let form = [
        ("client_id", OTHER_CLIENT),
        ("client_secret", "other-secret"),
        ("grant_type", "client_credentials"),
    ];
    let token = bench.post("/oauth2/token", &form).json()["access_token"].as_str().unwrap().to_owned();
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("client-id", OTHER_CLIENT)];
    assert_eq!(bench.send("GET", PATH, &headers, "").json()["data"], json!([]));
    let foreign = format!("{PATH}?id={pending}");
    assert_eq!(bench.send("DELETE", &foreign, &headers, "").status, 404, "another client's");
}

#[test]
fn a_deleted_subscription_gets_nothing_more() {
    let mut bench = bench(|_| {});
    let id = enable(&mut bench, REVOKE, CALLBACK);
    let token = bench.app_token();
    bench.sign_in("");
    bench.mock.disconnect(crate::tests::ADA, DEMO_CLIENT_ID);
    let path = format!("{PATH}?id={id}");
    helix(&mut bench, "DELETE", &path, &token, "").is(204, "");
    assert!(due(&mut bench).is_empty());
    assert_eq!(bench.mock.deliveries().next_back().unwrap().state, crate::DeliveryState::Dropped);
    assert_eq!(helix(&mut bench, "DELETE", &path, &token, "").status, 404);
    helix(&mut bench, "DELETE", PATH, &token, "")
        .is(400, r#"{"error":"Bad Request","status":400,"message":"Missing required parameter \"id\""}"#);
    assert_eq!(helix(&mut bench, "GET", PATH, &token, "").json()["total"], 0);
}

#[test]
fn a_subscription_deleted_before_it_answered_stays_deleted() {
    let mut bench = bench(|_| {});
    let id = subscribe(&mut bench, REVOKE, CALLBACK);
    let delivery = one(due(&mut bench));
    let token = bench.app_token();
    helix(&mut bench, "DELETE", &format!("{PATH}?id={id}"), &token, "").is(204, "");
    let challenge = super::body(&delivery.request)["challenge"].as_str().unwrap().to_owned();
    answer(&mut bench, &delivery, 200, &challenge);
    assert_eq!(bench.mock.subscriptions().count(), 0);
}

#[test]
fn faults_and_counters_know_the_endpoint() {
    let mut bench = bench(|_| {});
    let endpoint = Endpoint::HelixEventsubSubscriptions;
    let body = order(REVOKE, CALLBACK);
    bench.mock.add_fault(Fault::once(endpoint, FaultKind::status(503)));
    bench.mock.add_fault(Fault::once(endpoint, FaultKind::CloseAfter));
    assert_eq!(post(&mut bench, &body).status, 503);
    assert_eq!(bench.mock.subscriptions().count(), 0);
    assert!(post(&mut bench, &body).is_closed());
    assert_eq!(bench.mock.subscriptions().count(), 1, "it took effect");
    assert_eq!(post(&mut bench, &body).status, 409);
    assert_eq!(bench.mock.calls(endpoint), 3);
    assert_eq!(
        "helix-eventsub-subscriptions:503".parse(),
        Ok(Fault::always(endpoint, FaultKind::status(503)))
    );
}
