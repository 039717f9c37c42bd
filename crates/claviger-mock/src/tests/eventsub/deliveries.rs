//! Repetitions, failures, and the settings of deliveries.

use std::collections::BTreeSet;

use super::{
    Bench, CALLBACK, DEMO_CLIENT_ID, GRANT, NOW, REVOKE, answer, bench, body, due, enable, header, is_signed,
    message_id, one, status,
};
use crate::tests::{ADA, GRACE};
use crate::{Delivery, DeliveryState, EventsubSettings, ReleaseOrder, WebhookAnswer};

const USERS: [&str; 3] = [ADA, GRACE, "100000003"];

/// A mock with one enabled subscription, its id, and this number of users who have disconnected.
fn disconnected(users: usize, change: impl FnOnce(&mut EventsubSettings)) -> (Bench, String) {
    let mut bench = bench(change);
    let id = enable(&mut bench, REVOKE, CALLBACK);
    for user in &USERS[..users] {
        bench.mock.sign_in(user, DEMO_CLIENT_ID, &[], bench.now_ms);
        bench.mock.disconnect(user, DEMO_CLIENT_ID);
    }
    (bench, id)
}

fn users(deliveries: &[Delivery]) -> Vec<String> {
    let user = |delivery: &Delivery| body(&delivery.request)["event"]["user_id"].as_str().unwrap().to_owned();
    deliveries.iter().map(user).collect()
}

#[test]
fn a_failed_message_is_repeated_with_the_same_id_and_timestamp() {
    let (mut bench, id) = disconnected(1, |settings| settings.retry_after_ms = vec![1_000, 5_000]);
    let first = one(due(&mut bench));
    let parts = |delivery: &Delivery| {
        let names = ["twitch-eventsub-message-id", "twitch-eventsub-message-timestamp"];
        (names.map(|name| header(&delivery.request, name).to_owned()), delivery.request.body().clone())
    };
    answer(&mut bench, &first, 500, "");
    assert_eq!(bench.mock.next_delivery_at_ms(), Some(NOW + 1_000));
    assert!(due(&mut bench).is_empty());
    bench.now_ms += 1_000;
    let second = one(due(&mut bench));
    assert_eq!(parts(&second), parts(&first));
    assert_eq!(header(&second.request, "twitch-eventsub-message-retry"), "1");
    assert!(is_signed(&second.request));
    bench.mock.delivered(second.id, &WebhookAnswer::NoAnswer, bench.now_ms);
    bench.now_ms += 5_000;
    let third = one(due(&mut bench));
    assert_eq!(header(&third.request, "twitch-eventsub-message-retry"), "2");
    answer(&mut bench, &third, 204, "");
    assert_eq!(bench.mock.next_delivery_at_ms(), None);
    let states: Vec<DeliveryState> = bench.mock.deliveries().skip(1).map(|entry| entry.state).collect();
    assert_eq!(states, [DeliveryState::Answered(500), DeliveryState::NoAnswer, DeliveryState::Answered(204)]);
    assert_eq!(status(&bench, &id), "enabled");
}

#[test]
fn too_many_failures_in_a_row_revoke_the_subscription() {
    let (mut bench, id) = disconnected(3, |settings| {
        settings.retry_after_ms = Vec::new();
        settings.failures_until_revoked = 2;
    });
    let deliveries = due(&mut bench);
    answer(&mut bench, &deliveries[0], 500, "");
    answer(&mut bench, &deliveries[1], 200, "");
    answer(&mut bench, &deliveries[2], 500, "");
    assert_eq!(status(&bench, &id), "enabled", "one was taken in between");
    bench.mock.sign_in(ADA, DEMO_CLIENT_ID, &[], bench.now_ms);
    bench.mock.disconnect(ADA, DEMO_CLIENT_ID);
    let delivery = one(due(&mut bench));
    answer(&mut bench, &delivery, 404, "");
    assert_eq!(status(&bench, &id), "notification_failures_exceeded");
    let last = one(due(&mut bench));
    assert!(is_signed(&last.request));
    assert_eq!(header(&last.request, "twitch-eventsub-message-type"), "revocation");
    let told = body(&last.request);
    assert_eq!(told["subscription"]["status"], "notification_failures_exceeded");
    assert!(told.get("event").is_none() && told.get("challenge").is_none());
    answer(&mut bench, &last, 500, "");
    assert_eq!(bench.mock.next_delivery_at_ms(), None);
    bench.mock.sign_in(ADA, DEMO_CLIENT_ID, &[], bench.now_ms);
    bench.mock.disconnect(ADA, DEMO_CLIENT_ID);
    assert!(due(&mut bench).is_empty());
}

#[test]
fn copies_have_the_same_id_and_only_the_first_is_repeated() {
    let (mut bench, _) = disconnected(1, |settings| settings.copies = 3);
    let copies = due(&mut bench);
    assert_eq!(copies.len(), 3);
    assert_eq!(copies.iter().map(message_id).collect::<BTreeSet<_>>().len(), 1);
    copies.iter().for_each(|copy| answer(&mut bench, copy, 500, ""));
    bench.now_ms += 1_000;
    let again = one(due(&mut bench));
    assert_eq!(message_id(&again), message_id(&copies[0]));
}

#[test]
fn a_late_notification_keeps_the_time_of_its_event_and_a_stale_one_has_another() {
    let (mut bench, _) = disconnected(1, |settings| settings.delay_ms = 700_000);
    bench.now_ms += 699_999;
    assert!(due(&mut bench).is_empty());
    bench.now_ms += 1;
    let late = one(due(&mut bench));
    assert!(
        header(&late.request, "twitch-eventsub-message-timestamp").starts_with("2027-01-15T08:00:00.000")
    );
    let (mut bench, _) = disconnected(1, |settings| settings.timestamp_offset_ms = -660_000);
    let stale = one(due(&mut bench));
    assert!(
        header(&stale.request, "twitch-eventsub-message-timestamp").starts_with("2027-01-15T07:49:00.000")
    );
    assert!(is_signed(&stale.request));
}

#[test]
fn held_notifications_are_released_in_either_order() {
    for (order, expected) in
        [(ReleaseOrder::OldestFirst, USERS), (ReleaseOrder::NewestFirst, [USERS[2], USERS[1], USERS[0]])]
    {
        let (mut bench, _) = disconnected(3, |settings| settings.hold = true);
        assert_eq!((due(&mut bench).len(), bench.mock.next_delivery_at_ms()), (0, None));
        assert_eq!(bench.mock.release_deliveries(order), 3);
        assert_eq!(users(&due(&mut bench)), expected);
        assert_eq!(bench.mock.release_deliveries(order), 0);
    }
}

#[test]
fn dropped_notifications_are_listed_and_never_sent() {
    let (mut bench, _) = disconnected(2, |settings| settings.drop = true);
    assert!(due(&mut bench).is_empty());
    let states: Vec<DeliveryState> = bench.mock.deliveries().skip(1).map(|entry| entry.state).collect();
    assert_eq!(states, [DeliveryState::Dropped; 2]);
}

#[test]
fn one_at_a_time_waits_for_each_answer_of_a_subscription_but_not_of_another() {
    let mut bench = bench(|settings| settings.one_at_a_time = true);
    enable(&mut bench, REVOKE, CALLBACK);
    enable(&mut bench, GRANT, CALLBACK);
    for user in &USERS[..2] {
        bench.mock.sign_in(user, DEMO_CLIENT_ID, &[], bench.now_ms);
        bench.mock.disconnect(user, DEMO_CLIENT_ID);
    }
    let first = due(&mut bench);
    assert_eq!(users(&first), [ADA, ADA]);
    assert_eq!((due(&mut bench).len(), bench.mock.next_delivery_at_ms()), (0, None));
    answer(&mut bench, &first[0], 200, "");
    assert_eq!(bench.mock.next_delivery_at_ms(), Some(NOW));
    assert_eq!(users(&due(&mut bench)), [GRACE]);
}

#[test]
fn deliveries_in_flight_and_waiting_are_bounded() {
    let (mut bench, _) = disconnected(1, |settings| settings.copies = 100);
    let first = due(&mut bench);
    assert_eq!((first.len(), bench.mock.next_delivery_at_ms()), (64, None));
    answer(&mut bench, &first[0], 200, "");
    assert_eq!(due(&mut bench).len(), 1);
    bench.mock.settings_mut().eventsub.hold = true;
    for _ in 0..101 {
        bench.mock.notify(&crate::Notice::new(REVOKE, ADA));
    }
    assert_eq!(bench.mock.release_deliveries(ReleaseOrder::OldestFirst), 10_000 - 35);
    let dropped = bench.mock.deliveries().filter(|entry| entry.state == DeliveryState::Dropped).count();
    assert_eq!(dropped, 135);
}

#[test]
fn an_answer_to_a_delivery_before_a_reset_changes_nothing() {
    let (mut bench, _) = disconnected(1, |_| {});
    let old = one(due(&mut bench));
    bench.mock.reset();
    answer(&mut bench, &old, 500, "");
    assert_eq!((bench.mock.deliveries().count(), bench.mock.next_delivery_at_ms()), (0, None));
    enable(&mut bench, REVOKE, CALLBACK);
    assert!(bench.mock.deliveries().next().unwrap().id > old.id);
}
