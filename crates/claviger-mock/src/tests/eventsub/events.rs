//! Which events cause a notification, and its content.

use serde_json::json;

use super::{
    Bench, CALLBACK, DEMO_CLIENT_ID, GRANT, NOW, REVOKE, answer, bench, body, due, enable, header, is_signed,
    one, status, subscribe,
};
use crate::tests::{ADA, GRACE};

fn disconnect_page(bench: &mut Bench) {
    let form = [("action", "disconnect"), ("user", ADA), ("client_id", DEMO_CLIENT_ID)];
    assert_eq!(bench.post("/settings/connections", &form).status, 303);
}

fn disconnect_order(bench: &mut Bench) {
    assert_eq!(bench.send("POST", &format!("/mock/users/{ADA}/disconnect"), &[], "").status, 200);
}

fn delete_order(bench: &mut Bench) {
    assert_eq!(bench.send("DELETE", &format!("/mock/users/{ADA}"), &[], "").status, 204);
}

#[test]
fn every_way_to_disconnect_sends_a_revocation_of_the_authorization_once() {
    let ada = (json!("ada_builds"), json!("Ada_Builds"));
    let nobody = (json!(null), json!(null));
    let table: [(fn(&mut Bench), _); 3] =
        [(disconnect_page, ada.clone()), (disconnect_order, ada), (delete_order, nobody)];
    for (disconnect, (login, name)) in table {
        let mut bench = bench(|_| {});
        let id = enable(&mut bench, REVOKE, CALLBACK);
        bench.sign_in("");
        assert!(due(&mut bench).is_empty(), "a grant is another type");
        bench.now_ms += 5_007;
        disconnect(&mut bench);
        assert_eq!(bench.mock.next_delivery_at_ms(), Some(NOW + 5_007));
        let delivery = one(due(&mut bench));
        let request = &delivery.request;
        assert!(is_signed(request));
        assert_eq!(header(request, "twitch-eventsub-message-type"), "notification");
        assert_eq!(header(request, "twitch-eventsub-message-retry"), "0");
        assert!(header(request, "twitch-eventsub-message-timestamp").starts_with("2027-01-15T08:00:05.007"));
        let created_at = bench.mock.subscriptions().next().unwrap().created_at.clone();
        let expected = json!({
            "subscription": {
                "id": id, "type": "user.authorization.revoke", "version": "1", "status": "enabled", "cost": 1,
                "condition": {"client_id": DEMO_CLIENT_ID},
                "transport": {"method": "webhook", "callback": CALLBACK}, "created_at": created_at,
            },
            "event": {"client_id": DEMO_CLIENT_ID, "user_id": ADA, "user_login": login, "user_name": name},
        });
        assert_eq!(body(request), expected);
        answer(&mut bench, &delivery, 204, "");
        disconnect_page(&mut bench);
        assert!(due(&mut bench).is_empty(), "who is not connected cannot disconnect");
    }
}

#[test]
fn a_grant_is_sent_when_the_user_was_asked_or_was_not_connected_but_not_for_a_silent_redirect() {
    let mut bench = bench(|_| {});
    enable(&mut bench, GRANT, CALLBACK);
    let sent = |bench: &mut Bench| {
        let deliveries = due(bench);
        deliveries.iter().for_each(|delivery| answer(bench, delivery, 200, ""));
        deliveries.iter().map(|delivery| body(&delivery.request)["event"].clone()).collect::<Vec<_>>()
    };
    let ada = json!({
        "client_id": DEMO_CLIENT_ID, "user_id": ADA, "user_login": "ada_builds", "user_name": "Ada_Builds",
    });
    bench.code(&[]);
    assert_eq!(sent(&mut bench), std::slice::from_ref(&ada));
    bench.code(&[]);
    assert_eq!(sent(&mut bench), [ada], "asked again");
    let query = super::super::encode(&[
        ("client_id", DEMO_CLIENT_ID),
        ("redirect_uri", crate::DEMO_REDIRECT_URI),
        ("response_type", "code"),
    ]);
    let cookie = format!("mock_twitch_user={ADA}");
    let silent = bench.send("GET", &format!("/oauth2/authorize?{query}"), &[("cookie", &cookie)], "");
    assert_eq!(silent.status, 302);
    assert!(sent(&mut bench).is_empty());
    bench.decide(ADA, "deny", &[]);
    assert!(sent(&mut bench).is_empty());
    bench.mock.sign_in(ADA, DEMO_CLIENT_ID, &[], NOW);
    assert!(sent(&mut bench).is_empty());
    bench.mock.sign_in(GRACE, DEMO_CLIENT_ID, &[], NOW);
    assert_eq!(sent(&mut bench)[0]["user_id"], GRACE);
}

#[test]
fn what_twitch_does_not_announce_is_not_announced() {
    let mut bench = bench(|_| {});
    enable(&mut bench, REVOKE, CALLBACK);
    let (access, _) = bench.sign_in("");
    bench.post("/oauth2/revoke", &[("client_id", DEMO_CLIENT_ID), ("token", &access)]);
    bench.mock.kill_tokens(ADA);
    bench.mock.expire_access_tokens(ADA);
    bench.mock.sign_in(ADA, crate::tests::OTHER_CLIENT, &[], NOW);
    bench.mock.disconnect(ADA, crate::tests::OTHER_CLIENT);
    assert!(due(&mut bench).is_empty());
}

#[test]
fn only_enabled_subscriptions_get_messages_each_its_own() {
    let mut bench = bench(|_| {});
    let callback = |number: u32| format!("http://127.0.0.1:{number}/hook");
    enable(&mut bench, REVOKE, &callback(1));
    enable(&mut bench, REVOKE, &callback(2));
    let pending = subscribe(&mut bench, REVOKE, &callback(3));
    one(due(&mut bench));
    bench.sign_in("");
    bench.mock.disconnect(ADA, DEMO_CLIENT_ID);
    let deliveries = due(&mut bench);
    let to: Vec<String> = deliveries.iter().map(|delivery| delivery.request.uri().to_string()).collect();
    assert_eq!(to, [callback(1), callback(2)]);
    assert_ne!(super::message_id(&deliveries[0]), super::message_id(&deliveries[1]));
    assert_eq!(status(&bench, &pending), "webhook_callback_verification_pending");
}
