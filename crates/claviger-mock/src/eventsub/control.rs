//! The part of the control API that is about EventSub.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::{LISTED, body, ok, unknown};
use crate::eventsub::Notice;
use crate::eventsub::deliveries::{DeliveryEntry, DeliveryId, ReleaseOrder};
use crate::eventsub::subscriptions::{RevocationReason, Subscription};
use crate::exchange::{self, Answer, Call, Refusal};
use crate::mock::MockTwitch;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeOrder {
    status: RevocationReason,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ReleaseBody {
    order: ReleaseOrder,
}

impl MockTwitch {
    /// Answers everything under `/mock/eventsub/`.
    pub(crate) fn eventsub_order(
        &mut self,
        call: &Call<'_>,
        method: &str,
        path: &[&str],
    ) -> Result<Answer, Refusal> {
        match (method, path) {
            ("GET", ["subscriptions"]) => Ok(self.list_all_subscriptions()),
            ("POST", ["subscriptions", id, "revoke"]) => self.revoke_order(call, id),
            ("GET", ["deliveries"]) => Ok(self.list_deliveries(call)),
            ("POST", ["notify"]) => self.notify_order(call),
            ("POST", ["release"]) => self.release_order(call),
            _ => Err(unknown("control call")),
        }
    }

    fn list_all_subscriptions(&self) -> Answer {
        let bodies: Vec<_> = self.subscriptions().take(LISTED).map(Subscription::body).collect();
        ok(&json!({ "subscriptions": bodies }))
    }

    fn revoke_order(&mut self, call: &Call<'_>, id: &str) -> Result<Answer, Refusal> {
        let order: RevokeOrder = body(call)?;
        if self.revoke_subscription(id, order.status) {
            Ok(exchange::empty(StatusCode::NO_CONTENT))
        } else {
            Err(unknown("enabled subscription"))
        }
    }

    /// The deliveries, oldest first; `after` (an id) chooses newer ones.
    fn list_deliveries(&self, call: &Call<'_>) -> Answer {
        let after = call.params.filled("after").and_then(|after| after.parse().ok()).unwrap_or(0);
        let newer = self.deliveries().filter(|delivery| delivery.id > DeliveryId(after));
        let listed: Vec<DeliveryEntry> = newer.take(LISTED).collect();
        ok(&json!({ "deliveries": listed }))
    }

    fn notify_order(&mut self, call: &Call<'_>) -> Result<Answer, Refusal> {
        let notice: Notice = body(call)?;
        notice.check().map_err(Refusal::bad_request)?;
        let message_ids = self.notify(&notice);
        if message_ids.is_empty() {
            return Err(unknown("enabled subscription"));
        }
        Ok(exchange::json(StatusCode::ACCEPTED, &json!({ "message_ids": message_ids })))
    }

    fn release_order(&mut self, call: &Call<'_>) -> Result<Answer, Refusal> {
        let order: ReleaseBody =
            if call.request.body().is_empty() { ReleaseBody::default() } else { body(call)? };
        let released: Value = json!({ "released": self.release_deliveries(order.order) });
        Ok(ok(&released))
    }
}
