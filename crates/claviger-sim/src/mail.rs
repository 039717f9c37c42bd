//! Users who disconnect the app, and the delivery of the provider's webhook events: prompt, late,
//! twice, out of order or never.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use claviger_engine::{WebhookError, WebhookReply};
use claviger_mock::{Delivery, DeliveryId, MockTwitch, ReleaseOrder, WebhookAnswer};

use crate::{
    devices::sign_in,
    plan::Mail,
    world::{USERS, World},
};

/// How long the provider waits for the answer to an event.
const PATIENCE: Duration = Duration::from_secs(10);

/// The user disconnects the app.
pub(crate) fn disconnect(world: &World, user: usize) {
    let Some(user) = USERS.get(user) else { return };
    if world.provider.beside(|mock| mock.disconnect(user, claviger_mock::DEMO_CLIENT_ID)) {
        world.record.count("user: disconnected", 8);
        world.ledger.disconnected(user);
    }
}

/// The user's account goes, and never comes back.
pub(crate) fn delete_account(world: &World, user: usize) {
    let Some(user) = USERS.get(user) else { return };
    if world.provider.beside(|mock| mock.delete_user(user)) {
        world.record.count("user: account deleted", 8);
        world.ledger.disconnected(user);
    }
}

/// A device signs in, and its user disconnects the app `gap_ms` after that began, or before it if
/// negative.
pub(crate) async fn reconnect(world: Arc<World>, device: usize, instance: usize, gap_ms: i64) {
    let gap = Duration::from_millis(gap_ms.unsigned_abs());
    let user = world.plan.user_of(device);
    world.record.count("user: disconnects around a sign-in", device);
    if gap_ms < 0 {
        disconnect(&world, user);
        tokio::time::sleep(gap).await;
        return sign_in(&world, device, instance).await;
    }
    let own = Arc::clone(&world);
    tokio::spawn(async move { sign_in(&own, device, instance).await });
    tokio::time::sleep(gap).await;
    disconnect(&world, user);
}

/// Sets how webhook events are delivered from now on.
pub(crate) fn set_mail(world: &World, mail: Mail) {
    world.provider.beside(|mock| {
        let settings = &mut mock.settings_mut().eventsub;
        *settings = claviger_mock::EventsubSettings::default();
        match mail {
            Mail::Prompt => {}
            Mail::Late(span) => settings.delay_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX),
            Mail::Twice => settings.copies = 2,
            Mail::Held => settings.hold = true,
            Mail::Lost => settings.drop = true,
        }
    });
    let name = match mail {
        Mail::Prompt => return,
        Mail::Late(_) => "mail: late",
        Mail::Twice => "mail: twice",
        Mail::Held => "mail: held",
        Mail::Lost => "mail: lost",
    };
    world.record.count(name, 8);
}

/// Delivers the events that were held.
pub(crate) fn release(world: &World, newest_first: bool) {
    let order = if newest_first { ReleaseOrder::NewestFirst } else { ReleaseOrder::OldestFirst };
    let released = world.provider.beside(|mock| mock.release_deliveries(order));
    if released > 1 && newest_first {
        world.record.count("mail: out of order", 8);
    }
}

/// Delivers the provider's events for as long as the history lasts.
pub(crate) async fn carry(world: Arc<World>) {
    loop {
        let now_ms = world.provider.now().as_millis();
        let (due, next_ms) = {
            let mut mock = world.provider.mock();
            (mock.due_deliveries(now_ms), mock.next_delivery_at_ms())
        };
        for delivery in due {
            tokio::spawn(deliver(Arc::clone(&world), delivery));
        }
        let until_next = next_ms.map_or(Duration::MAX, |at_ms| {
            Duration::from_millis(u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or(0))
        });
        let _sooner = tokio::time::timeout(until_next, world.provider.mail.notified()).await;
    }
}

async fn deliver(world: Arc<World>, delivery: Delivery) {
    let Delivery { id, request } = delivery;
    tokio::time::sleep(world.rng.span(Duration::from_millis(1), Duration::from_millis(200))).await;
    let taken = take(&world, &request);
    let answer = tokio::time::timeout(PATIENCE, taken).await.unwrap_or(WebhookAnswer::NoAnswer);
    answered(&world, id, &answer);
}

/// A random instance takes the event, as behind a load balancer.
async fn take(world: &World, request: &http::Request<Bytes>) -> WebhookAnswer {
    let Some(instance) = world.instance(world.rng.below(world.plan.instances)) else {
        return WebhookAnswer::NoAnswer;
    };
    let who = instance.fate.who;
    let taken = tokio::select! {
        biased;
        () = instance.fate.died() => {
            world.record.count("mail: instance died", who);
            return WebhookAnswer::NoAnswer;
        }
        taken = instance.engine.take_webhook_event(request.headers(), request.body()) => taken,
    };
    let (status, body, name) = match taken {
        Ok(WebhookReply::Challenge(text)) => (200, Bytes::from(text), "mail: challenge answered"),
        Ok(WebhookReply::Noted) => (204, Bytes::new(), "mail: taken"),
        Err(WebhookError::Store(_)) => (503, Bytes::new(), "mail: store trouble"),
        Err(WebhookError::Refused(_) | WebhookError::Unwanted) => (403, Bytes::new(), "mail: refused"),
    };
    world.record.count(name, who);
    WebhookAnswer::Answered { status, body }
}

fn answered(world: &World, id: DeliveryId, answer: &WebhookAnswer) {
    let now_ms = world.provider.now().as_millis();
    world.provider.beside(|mock: &mut MockTwitch| mock.delivered(id, answer, now_ms));
}
