//! The control API's part about EventSub.

use serde_json::{Value, json};

use super::{
    Bench, CALLBACK, DEMO_CLIENT_ID, GRANT, PATH, REVOKE, answer, bench, body, control, due, enable, header,
    helix, is_signed, message_id, one, status, subscribe,
};
use crate::tests::ADA;

#[test]
fn the_settings_are_patched_field_by_field() {
    let mut bench = Bench::new();
    let patch = |fields: Value| json!({ "eventsub": fields });
    assert_eq!(control(&mut bench, "PATCH", "/mock/settings", &patch(json!({"copies": 2}))).status, 200);
    let second = patch(json!({"delay_ms": 5, "retry_after_ms": [1]}));
    assert_eq!(control(&mut bench, "PATCH", "/mock/settings", &second).status, 200);
    let settings = &bench.mock.settings().eventsub;
    assert_eq!((settings.copies, settings.delay_ms, settings.page_size), (2, 5, 100));
    for nonsense in [
        json!({"copies": 0}),
        json!({"copies": 101}),
        json!({"page_size": 0}),
        json!({"retry_after_ms": vec![1; 21]}),
        json!({"delay_ms": u64::MAX}),
        json!({"timestamp_offset_ms": i64::MIN}),
        json!({"no_such": 1}),
        json!(5),
    ] {
        let got = control(&mut bench, "PATCH", "/mock/settings", &patch(nonsense.clone()));
        assert_eq!(got.status, 400, "{nonsense}");
    }
    assert_eq!(bench.mock.settings().eventsub.copies, 2);
}

#[test]
fn a_subscription_is_revoked_with_each_reason_and_its_callback_is_notified() {
    for reason in
        ["user_removed", "authorization_revoked", "notification_failures_exceeded", "version_removed"]
    {
        let mut bench = bench(|_| {});
        let id = enable(&mut bench, REVOKE, CALLBACK);
        bench.mock.sign_in(ADA, DEMO_CLIENT_ID, &[], bench.now_ms);
        bench.mock.disconnect(ADA, DEMO_CLIENT_ID);
        let path = format!("/mock/eventsub/subscriptions/{id}/revoke");
        let order = json!({ "status": reason });
        assert_eq!(control(&mut bench, "POST", &path, &order).status, 204);
        let told = one(due(&mut bench));
        assert!(is_signed(&told.request));
        assert_eq!(header(&told.request, "twitch-eventsub-message-type"), "revocation");
        assert_eq!(body(&told.request)["subscription"]["status"], reason);
        answer(&mut bench, &told, 200, "");
        let token = bench.app_token();
        let listed = helix(&mut bench, "GET", &format!("{PATH}?status={reason}"), &token, "").json();
        assert_eq!((&listed["data"][0]["id"], &listed["total_cost"]), (&json!(id), &json!(0)));
        assert_eq!(control(&mut bench, "POST", &path, &order).status, 404, "it is revoked already");
    }
    let mut bench = bench(|_| {});
    let id = subscribe(&mut bench, REVOKE, CALLBACK);
    let path = format!("/mock/eventsub/subscriptions/{id}/revoke");
    assert_eq!(control(&mut bench, "POST", &path, &json!({"status": "enabled"})).status, 400);
    assert_eq!(control(&mut bench, "POST", &path, &json!({"status": "user_removed"})).status, 404);
    assert_eq!(status(&bench, &id), "webhook_callback_verification_pending");
}

#[test]
fn a_notification_can_be_sent_without_an_event() {
    let mut bench = bench(|_| {});
    enable(&mut bench, REVOKE, CALLBACK);
    enable(&mut bench, GRANT, CALLBACK);
    let path = "/mock/eventsub/notify";
    let got = control(&mut bench, "POST", path, &json!({"user_id": ADA}));
    assert_eq!(got.status, 202);
    let sent = one(due(&mut bench));
    assert_eq!(got.json(), json!({"message_ids": [message_id(&sent)]}));
    assert_eq!(body(&sent.request)["event"]["user_login"], "ada_builds");
    answer(&mut bench, &sent, 200, "");

    let order = json!({
        "user_id": "404", "type": "user.authorization.grant", "client_id": DEMO_CLIENT_ID,
        "message_id": message_id(&sent), "timestamp_offset_ms": -3_600_000,
    });
    assert_eq!(control(&mut bench, "POST", path, &order).status, 202);
    let sent_again = one(due(&mut bench));
    assert_eq!(message_id(&sent_again), message_id(&sent));
    assert!(is_signed(&sent_again.request));
    assert!(
        header(&sent_again.request, "twitch-eventsub-message-timestamp").starts_with("2027-01-15T07:00:00")
    );
    let event = json!({"client_id": DEMO_CLIENT_ID, "user_id": "404", "user_login": null, "user_name": null});
    assert_eq!(body(&sent_again.request)["event"], event);

    let odd = json!({"user_id": ADA, "event": {"odd": [1, null]}});
    assert_eq!(control(&mut bench, "POST", path, &odd).status, 202);
    assert_eq!(body(&one(due(&mut bench)).request)["event"], json!({"odd": [1, null]}));

    for (bad, code) in [
        (json!({}), 400),
        (json!({"user_id": ""}), 400),
        (json!({"user_id": ADA, "message_id": "a\nb"}), 400),
        (json!({"user_id": ADA, "type": "channel.follow"}), 400),
        (json!({"user_id": ADA, "timestamp_offset_ms": i64::MAX}), 400),
        (json!({"user_id": ADA, "client_id": "404"}), 404),
    ] {
        assert_eq!(control(&mut bench, "POST", path, &bad).status, code, "{bad}");
    }
}

#[test]
fn deliveries_are_listed_with_their_outcome() {
    let mut bench = bench(|settings| settings.hold = true);
    let id = enable(&mut bench, REVOKE, CALLBACK);
    bench.mock.notify(&crate::Notice::new(REVOKE, ADA));
    let listed = bench.get("/mock/eventsub/deliveries").json();
    let rows = listed["deliveries"].as_array().unwrap();
    assert_eq!(rows[0]["state"], json!({"answered": 200}));
    assert_eq!(rows[0]["message_type"], "webhook_callback_verification");
    let expected = json!({
        "id": 2, "state": "held", "message_id": rows[1]["message_id"], "message_type": "notification",
        "message_timestamp": rows[1]["message_timestamp"], "retry": 0, "subscription_id": id,
        "subscription_type": "user.authorization.revoke", "client_id": DEMO_CLIENT_ID, "user_id": ADA,
        "due_at_ms": bench.now_ms, "ended_at_ms": null,
    });
    assert_eq!(rows[1], expected);
    assert_eq!(bench.get("/mock/eventsub/deliveries?after=1").json()["deliveries"], json!([expected]));
    assert_eq!(bench.get("/mock/eventsub/subscriptions").json()["subscriptions"][0]["id"], id);

    control(&mut bench, "POST", "/mock/eventsub/release", &json!({"order": "newest_first"}))
        .is(200, r#"{"released":1}"#);
    control(&mut bench, "POST", "/mock/eventsub/release", &Value::Null).is(200, r#"{"released":0}"#);
    assert_eq!(control(&mut bench, "POST", "/mock/eventsub/release", &json!({"order": "odd"})).status, 400);
    let delivery = one(due(&mut bench));
    assert_eq!(bench.get("/mock/eventsub/deliveries?after=1").json()["deliveries"][0]["state"], "under_way");
    bench.mock.delivered(delivery.id, &crate::WebhookAnswer::NoAnswer, bench.now_ms);
    assert_eq!(bench.get("/mock/eventsub/deliveries?after=1").json()["deliveries"][0]["state"], "no_answer");
}
