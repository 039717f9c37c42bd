//! The provider's webhook events about disconnects, from the subscription to the last device.

use std::sync::Arc;

use claviger_core::EndReason;
use claviger_engine::{Engine, Subscribed, WebhookError, WebhookReply, WebhookSettings};
use claviger_mock::{
    Delivery, Endpoint, FaultKind, Notice, RevocationReason, Subscription, SubscriptionStatus,
    SubscriptionType, WebhookAnswer,
};
use claviger_provider::{Refused, WebhookSecret};
use claviger_store::{Method, Queue, SharedEntry, Store as _};

use crate::{
    crowd::Running,
    faulty_store::{FaultyStore, Trick, unavailable},
    store_health::Log,
    world::{ADA, GRACE, HOUR, Instance, MINUTE, NOW, SECOND, Setup, World},
};

const DISCONNECTED: Option<EndReason> = Some(EndReason::DisconnectedAtProvider);

impl World {
    /// An instance that wants webhook events.
    pub(crate) async fn listening(&self) -> Instance {
        self.listening_with("https://app.test/notices", "a-secret-of-some-length").await
    }

    async fn listening_with(&self, callback: &str, secret: &str) -> Instance {
        let faulty_store = Arc::new(FaultyStore::new(Arc::clone(&self.memory)));
        let mut parts = self.parts(Arc::clone(&faulty_store), &[1]);
        parts.webhook = Some(WebhookSettings {
            callback: callback.parse().unwrap(),
            secret: WebhookSecret::new(secret).unwrap(),
        });
        Instance { engine: Engine::start(parts).await.unwrap(), faulty_store }
    }

    /// Returns the deliveries that are due.
    fn due(&self) -> Vec<Delivery> {
        self.twitch.mock().due_deliveries(self.now().as_millis())
    }

    /// Delivers a message to the webhook, and returns the answer to the mock.
    async fn bring(&self, app: &Instance, delivery: &Delivery) -> Result<WebhookReply, WebhookError> {
        let taken = app.take_webhook_event(delivery.request.headers(), delivery.request.body()).await;
        let answer = match &taken {
            Ok(WebhookReply::Challenge(text)) => answered(200, text),
            Ok(WebhookReply::Noted) => answered(204, ""),
            Err(WebhookError::Store(_)) => answered(503, ""),
            Err(_) => answered(403, ""),
        };
        self.twitch.mock().delivered(delivery.id, &answer, self.now().as_millis());
        taken
    }

    /// Delivers everything that is due, and returns the results.
    pub(crate) async fn deliver(&self, app: &Instance) -> Vec<Result<WebhookReply, WebhookError>> {
        let mut taken = Vec::new();
        for delivery in self.due() {
            taken.push(self.bring(app, &delivery).await);
        }
        taken
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        self.twitch.mock().subscriptions().cloned().collect()
    }

    fn enabled(&self) -> usize {
        let enabled = |one: &&Subscription| one.status == SubscriptionStatus::Enabled;
        self.subscriptions().iter().filter(enabled).count()
    }

    fn created(&self) -> usize {
        let mock = self.twitch.mock();
        let created = |entry: &&claviger_mock::LogEntry| {
            entry.endpoint == Endpoint::HelixEventsubSubscriptions && entry.method == "POST"
        };
        mock.log().filter(created).count()
    }
}

fn answered(status: u16, body: &str) -> WebhookAnswer {
    WebhookAnswer::Answered { status, body: bytes::Bytes::copy_from_slice(body.as_bytes()) }
}

/// A world with a working subscription and a running instance.
pub(crate) async fn subscribed(change: impl FnOnce(&mut Setup)) -> (World, Instance, Running) {
    let (world, _) = World::with(change).await;
    let app = world.listening().await;
    let running = app.run();
    world.run_for(SECOND).await;
    let taken = world.deliver(&app).await;
    assert!(matches!(taken[..], [Ok(WebhookReply::Challenge(_))]), "{taken:?}");
    assert_eq!(world.enabled(), 1);
    (world, app, running)
}

#[tokio::test(start_paused = true)]
async fn an_event_signs_the_user_out_on_every_device() {
    let (world, app, running) = subscribed(|_| {}).await;
    let devices = world.sign_in_on(&app, 3).await;
    let set_aside = world.plant(ADA, crate::crowd::parked).await;
    let bystander = world.sign_in(&app, GRACE).await;
    let mut endings = app.endings();
    world.run_for(MINUTE).await;
    world.disconnect(ADA);
    assert_eq!(world.deliver(&app).await, [Ok(WebhookReply::Noted)]);
    world.run_for(SECOND / 2).await;
    for id in devices.iter().map(|device| device.session).chain([set_aside]) {
        assert_eq!(world.end_reason(id).await, DISCONNECTED, "within a second");
        endings.try_recv().expect("its streams are closed");
    }
    endings.try_recv().unwrap_err();
    bystander.asks_with(&app, NOW).await.expect("BLAST");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_message_changes_nothing() {
    let (world, app, running) = subscribed(|setup| setup.mock.eventsub.copies = 3).await;
    world.sign_in(&app, ADA).await;
    world.run_for(MINUTE).await;
    world.disconnect(ADA);
    let deliveries = world.due();
    assert_eq!(deliveries.len(), 3);
    for delivery in &deliveries {
        assert_eq!(world.bring(&app, delivery).await, Ok(WebhookReply::Noted));
    }
    world.run_for(SECOND).await;
    let asked = world.twitch.calls(Endpoint::HelixAuthorizationUsers);
    let ended = world.memory.calls(Method::EndSessions);
    assert_eq!((asked, ended), (1, 1));
    // Somebody recorded it and sends it again, after the user came back.
    let back = world.sign_in(&app, ADA).await;
    for _ in 0..9 {
        world.run_for(MINUTE).await;
        assert_eq!(world.bring(&app, &deliveries[0]).await, Ok(WebhookReply::Noted));
    }
    world.run_for(2 * MINUTE).await;
    let stale = world.bring(&app, &deliveries[0]).await;
    assert_eq!(stale, Err(WebhookError::Refused(Refused::Stale)));
    assert_eq!(world.memory.calls(Method::EndSessions), ended, "a replay does nothing");
    assert_eq!(world.twitch.calls(Endpoint::HelixAuthorizationUsers), asked);
    back.asks_with(&app, NOW).await.expect("OTHERS");
    running.stop().await;
}

/// The user came back before the event arrived.
#[tokio::test(start_paused = true)]
async fn a_sign_in_after_the_event_survives_late_delivery() {
    for late in [SECOND, MINUTE, 9 * MINUTE] {
        let (world, app, running) = subscribed(|_| {}).await;
        let old = world.sign_in_on(&app, 2).await;
        let set_aside = world.plant(ADA, crate::crowd::parked).await;
        world.twitch.mock().settings_mut().eventsub.delay_ms = u64::try_from(late.as_millis()).unwrap();
        world.run_for(MINUTE).await;
        world.disconnect(ADA);
        world.run_for(SECOND / 2).await;
        let young = world.sign_in(&app, ADA).await;
        world.run_for(late).await;
        assert_eq!(world.deliver(&app).await, [Ok(WebhookReply::Noted)]);
        world.run_for(5 * SECOND).await;
        for device in &old {
            assert_eq!(world.end_reason(device.session).await, DISCONNECTED, "its own token is dead");
        }
        young.asks_with(&app, NOW).await.expect("OTHERS, BLAST: it is younger than the event");
        assert_eq!(world.end_reason(set_aside).await, None, "nothing is known of it; its refresh decides");
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_stored_is_sent_again() {
    for trick in [Trick::Fail, Trick::FailAfter] {
        let (world, app, running) = subscribed(|_| {}).await;
        let device = world.sign_in(&app, ADA).await;
        world.run_for(MINUTE).await;
        world.disconnect(ADA);
        app.faulty_store.next(Method::Enqueue(Queue::Suspicions), trick);
        assert_eq!(world.deliver(&app).await, [Err(WebhookError::Store(unavailable()))]);
        world.run_for(2 * SECOND).await;
        assert_eq!(world.deliver(&app).await, [Ok(WebhookReply::Noted)], "the provider sends it again");
        world.run_for(10 * SECOND).await;
        assert_eq!(world.end_reason(device.session).await, DISCONNECTED);
        assert_eq!(world.memory.calls(Method::EndSessions), 1);
        assert!(world.due().is_empty());
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_event_has_one_line_with_its_outcome() {
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let (log, _captured) = Log::begin();
    let (world, app, running) = subscribed(|_| {}).await;
    world.sign_in_on(&app, 2).await;
    world.run_for(MINUTE).await;
    world.twitch.mock().set_now(world.now().as_millis());
    // As Twitch's command line tool does, for a user who is still connected, and for nobody here.
    for user in [ADA, "999"] {
        world.twitch.mock().notify(&Notice::new(SubscriptionType::UserAuthorizationRevoke, user));
        assert_eq!(world.deliver(&app).await, [Ok(WebhookReply::Noted)]);
        world.run_for(SECOND).await;
    }
    world.disconnect(ADA);
    assert_eq!(world.deliver(&app).await, [Ok(WebhookReply::Noted)]);
    world.run_for(SECOND).await;
    assert_eq!(log.lines_with("received a webhook event kind=\"revoked\"").len(), 3);
    let outcomes = log.lines_with("the provider sent word of a disconnect");
    let expected = [(ADA, "connected", 0), ("999", "gone", 0), (ADA, "disconnected", 2)];
    assert_eq!(outcomes.len(), expected.len(), "{outcomes:?}");
    for (line, (user, answer, ended)) in outcomes.iter().zip(expected) {
        let fields = format!("subject=\"{user}\" answer=\"{answer}\" ended={ended}");
        assert!(line.contains(&fields), "{fields}: {line}");
    }
    running.stop().await;
}

/// The event is wrong or about something else: the user is connected and the tokens live.
#[tokio::test(start_paused = true)]
async fn an_unconfirmed_event_signs_nobody_out() {
    let (world, app, running) = subscribed(|_| {}).await;
    let devices = world.sign_in_on(&app, 2).await;
    world.run_for(MINUTE).await;
    world.twitch.mock().set_now(world.now().as_millis());
    let notice = Notice::new(SubscriptionType::UserAuthorizationRevoke, ADA);
    assert_eq!(world.twitch.mock().notify(&notice).len(), 1);
    assert_eq!(world.deliver(&app).await, [Ok(WebhookReply::Noted)]);
    // A user without sessions here.
    let stranger = Notice::new(SubscriptionType::UserAuthorizationRevoke, "999");
    world.twitch.mock().notify(&stranger);
    assert_eq!(world.deliver(&app).await, [Ok(WebhookReply::Noted)]);
    world.run_for(HOUR).await;
    for device in &devices {
        device.asks_with(&app, NOW).await.expect("BLAST");
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn forged_messages_are_refused() {
    let (world, app, running) = subscribed(|_| {}).await;
    let device = world.sign_in(&app, ADA).await;
    world.run_for(MINUTE).await;
    world.twitch.mock().set_now(world.now().as_millis());
    let notice = Notice::new(SubscriptionType::UserAuthorizationRevoke, ADA);
    world.twitch.mock().notify(&notice);
    let delivery = world.due().remove(0);
    let (headers, body) = (delivery.request.headers(), delivery.request.body());
    let mut longer = body.to_vec();
    longer.push(b' ');
    let forged = Err(WebhookError::Refused(Refused::Forged));
    assert_eq!(app.take_webhook_event(headers, &longer).await, forged);
    let mut bare = headers.clone();
    bare.remove("twitch-eventsub-message-signature");
    assert_eq!(app.take_webhook_event(&bare, body).await, Err(WebhookError::Refused(Refused::Malformed)));
    let deaf = world.instance().await;
    assert_eq!(deaf.take_webhook_event(headers, body).await, Err(WebhookError::Unwanted));
    world.pass(11 * MINUTE);
    assert_eq!(app.take_webhook_event(headers, body).await, Err(WebhookError::Refused(Refused::Stale)));
    assert_eq!(world.memory.calls(Method::Enqueue(Queue::Suspicions)), 0, "nothing of it is written down");
    device.asks(&app).await.unwrap();
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_is_created_once_and_replaced_when_it_ends() {
    let (world, app, running) = subscribed(|_| {}).await;
    world.run_for(3 * HOUR).await;
    assert_eq!((world.created(), world.subscriptions().len()), (1, 1), "it is there");
    let id = world.subscriptions()[0].id.clone();
    world.twitch.mock().set_now(world.now().as_millis());
    assert!(world.twitch.mock().revoke_subscription(&id, RevocationReason::NotificationFailuresExceeded));
    assert_eq!(world.deliver(&app).await, [Ok(WebhookReply::Noted)]);
    world.run_for(2 * MINUTE).await;
    assert!(matches!(world.deliver(&app).await[..], [Ok(WebhookReply::Challenge(_))]));
    let now = world.subscriptions();
    assert_eq!((now.len(), world.enabled()), (1, 1), "the dead one is deleted: {now:?}");
    assert_ne!(now[0].id, id);
    // Its end may go unnoticed; the next look finds out.
    world.run_for(2 * MINUTE).await;
    let id = now[0].id.clone();
    world.twitch.mock().revoke_subscription(&id, RevocationReason::VersionRemoved);
    let unheard = world.due();
    assert_eq!(unheard.len(), 1);
    for _ in 0..62 {
        world.run_for(MINUTE).await;
        world.deliver(&app).await;
    }
    assert_eq!((world.subscriptions().len(), world.enabled()), (1, 1));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_challenge_is_repeated() {
    let (world, _) = World::start().await;
    let app = world.listening().await;
    let running = app.run();
    world.run_for(SECOND).await;
    let challenge = world.due().remove(0);
    world.twitch.mock().delivered(challenge.id, &WebhookAnswer::NoAnswer, world.now().as_millis());
    assert_eq!(world.enabled(), 0);
    world.run_for(2 * MINUTE).await;
    world.deliver(&app).await;
    assert_eq!((world.subscriptions().len(), world.enabled()), (1, 1));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_instances_share_one_subscription_and_duplicates_are_deleted() {
    let (world, app, running) = subscribed(|_| {}).await;
    let other = world.listening().await;
    let other_running = other.run();
    world.run_for(2 * MINUTE).await;
    world.deliver(&other).await;
    assert_eq!((world.created(), world.subscriptions().len()), (1, 1));
    // The provider lists a second one of the same kind.
    world.twitch.clear_log();
    world.twitch.rewrite(Endpoint::HelixEventsubSubscriptions, |body| {
        if let Some(data) = body["data"].as_array_mut().filter(|data| data.len() == 1) {
            let mut double = data[0].clone();
            double["id"] = "a-duplicate".into();
            data.push(double);
        }
    });
    world.run_for(HOUR).await;
    let deleted = {
        let mock = world.twitch.mock();
        mock.log().filter(|entry| entry.method == "DELETE").count()
    };
    assert!(deleted >= 1);
    world.twitch.mend();
    assert_eq!((world.created(), world.enabled()), (0, 1), "the one that works stays");
    running.stop().await;
    other_running.stop().await;
    drop(app);
}

/// The provider does not tell which secret it signs with.
#[tokio::test(start_paused = true)]
async fn changed_settings_are_subscribed_with_at_the_next_start() {
    let (world, _, running) = subscribed(|_| {}).await;
    running.stop().await;
    let before = world.subscriptions()[0].id.clone();
    let app = world.listening_with("https://app.test/notices", "another-secret-of-some-length").await;
    let device = world.sign_in(&app, ADA).await;
    let running = app.run();
    world.run_for(SECOND).await;
    assert_eq!(app.report().await.subscribed, Subscribed::Waiting);
    assert!(matches!(world.deliver(&app).await[..], [Ok(WebhookReply::Challenge(_))]));
    world.run_for(2 * MINUTE).await;
    assert_eq!(app.report().await.subscribed, Subscribed::Works);
    let now = world.subscriptions();
    assert_eq!((now.len(), world.enabled()), (1, 1), "the one before is deleted: {now:?}");
    assert_ne!(now[0].id, before);
    world.disconnect(ADA);
    assert_eq!(world.deliver(&app).await, [Ok(WebhookReply::Noted)]);
    world.run_for(SECOND).await;
    assert_eq!(world.end_reason(device.session).await, DISCONNECTED);
    running.stop().await;
}

/// A copy of a store remembers the subscription of the original, which may be at work.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_started_elsewhere_leaves_the_subscription_of_the_original() {
    let (log, _captured) = Log::begin();
    let (world, _, running) = subscribed(|_| {}).await;
    running.stop().await;
    let original = world.subscriptions()[0].clone();
    let app = world.listening_with("https://staging.test/notices", "a-secret-of-some-length").await;
    let running = app.run();
    world.run_for(SECOND).await;
    assert!(matches!(world.deliver(&app).await[..], [Ok(WebhookReply::Challenge(_))]));
    world.run_for(3 * HOUR).await;
    assert_eq!(app.report().await.subscribed, Subscribed::Works);
    let now = world.subscriptions();
    assert_eq!((now.len(), world.enabled()), (2, 2), "{now:?}");
    assert_eq!(now[0].id, original.id);
    let said = log.lines_with("is left alone");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(&original.id) && said[0].contains("app.test/notices"), "{said:?}");
    running.stop().await;
}

/// The release before remembered nothing, so its secret is unknown.
#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_not_remembered_is_made_again_once() {
    let (world, _, running) = subscribed(|_| {}).await;
    running.stop().await;
    let before = world.subscriptions()[0].id.clone();
    let entry = world.memory.shared_entry("webhook-subscription").await.unwrap().unwrap();
    let unknown = SharedEntry { version: entry.version.next(), value: b"of a later release".to_vec() };
    assert!(world.memory.put_shared_entry("webhook-subscription", &unknown).await.unwrap());
    for _ in 0..2 {
        let app = world.listening().await;
        let running = app.run();
        world.run_for(SECOND).await;
        world.deliver(&app).await;
        world.run_for(2 * HOUR).await;
        assert_eq!(app.report().await.subscribed, Subscribed::Works);
        running.stop().await;
    }
    assert_eq!((world.created(), world.enabled()), (2, 1));
    assert_ne!(world.subscriptions()[0].id, before);
}

#[tokio::test(start_paused = true)]
async fn instances_that_start_together_agree_on_one_subscription() {
    for apart_ms in [0, 30, 120, 250, 400] {
        let (world, _) = World::start().await;
        world.twitch.slow(SECOND / 10);
        let one = world.listening().await;
        let one_running = one.run();
        world.run_for(std::time::Duration::from_millis(apart_ms)).await;
        let two = world.listening().await;
        let two_running = two.run();
        for _ in 0..10 {
            world.run_for(MINUTE).await;
            world.deliver(&two).await;
        }
        for app in [&one, &two] {
            assert_eq!(app.report().await.subscribed, Subscribed::Works, "{apart_ms} ms");
        }
        assert_eq!((world.subscriptions().len(), world.enabled()), (1, 1), "{apart_ms} ms");
        one_running.stop().await;
        two_running.stop().await;
    }
}

/// While instances are restarted one by one with another secret, the old ones change nothing.
#[tokio::test(start_paused = true)]
async fn an_instance_with_old_settings_says_so_and_leaves_the_subscription() {
    let (world, old, old_running) = subscribed(|_| {}).await;
    world.run_for(2 * MINUTE).await;
    assert_eq!(old.report().await.subscribed, Subscribed::Works);
    let new = world.listening_with("https://app.test/notices", "another-secret-of-some-length").await;
    let new_running = new.run();
    world.run_for(SECOND).await;
    world.deliver(&new).await;
    world.run_for(3 * HOUR).await;
    assert_eq!(old.report().await.subscribed, Subscribed::Elsewhere);
    assert_eq!(new.report().await.subscribed, Subscribed::Works);
    assert_eq!((world.created(), world.enabled()), (2, 1), "they do not take it from each other");
    old_running.stop().await;
    new_running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_works_is_not_doubted_while_the_provider_does_not_answer() {
    let (world, app, running) = subscribed(|_| {}).await;
    world.run_for(2 * MINUTE).await;
    world.twitch.always(Endpoint::HelixEventsubSubscriptions, FaultKind::status(500));
    world.run_for(3 * HOUR).await;
    assert_eq!(app.report().await.subscribed, Subscribed::Works);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn subscriptions_recover_from_failures() {
    let kinds = [
        (Endpoint::HelixEventsubSubscriptions, FaultKind::status(500)),
        (Endpoint::HelixEventsubSubscriptions, FaultKind::status(401)),
        (Endpoint::HelixEventsubSubscriptions, FaultKind::CloseAfter),
        (Endpoint::Token, FaultKind::status(503)),
    ];
    for (endpoint, kind) in kinds {
        let (world, _) = World::start().await;
        let app = world.listening().await;
        world.twitch.always(endpoint, kind.clone());
        let running = app.run();
        world.run_for(2 * HOUR).await;
        let calls = world.twitch.calls(endpoint);
        assert!((60..500).contains(&calls), "{kind:?}: {calls} calls in two hours");
        world.twitch.mend();
        world.run_for(2 * MINUTE).await;
        world.deliver(&app).await;
        assert_eq!((world.subscriptions().len(), world.enabled()), (1, 1), "{kind:?}");
        running.stop().await;
    }
}
