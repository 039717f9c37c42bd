//! Subscriptions, and `/helix/eventsub/subscriptions` (Twitch docs: managing event subscriptions).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::config;
use crate::eventsub::messages;
use crate::eventsub::settings::EventsubSettings;
use crate::exchange::{self, Answer, Call, Refusal};
use crate::helix::helix_json;
use crate::limits;
use crate::mock::MockTwitch;
use crate::secret::Secret;
use crate::state::SignIn;

/// The one version that both types have (Twitch docs: EventSub subscription types).
pub(crate) const VERSION: &str = "1";
/// What one subscription costs: none of these is for a user who has authorized the app.
const COST: usize = 1;
/// The filters of a listing, of which one may be used (Twitch docs: Get EventSub Subscriptions).
const FILTERS: [&str; 4] = ["status", "type", "user_id", "subscription_id"];

/// What a subscription is about (Twitch docs: EventSub subscription types).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SubscriptionType {
    /// A user has disconnected the app.
    #[serde(rename = "user.authorization.revoke")]
    UserAuthorizationRevoke,
    /// A user has authorized the app.
    #[serde(rename = "user.authorization.grant")]
    UserAuthorizationGrant,
}

impl SubscriptionType {
    /// All types of the mock.
    pub const ALL: [Self; 2] = [Self::UserAuthorizationRevoke, Self::UserAuthorizationGrant];

    /// The name used in JSON and in the header `Twitch-Eventsub-Subscription-Type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::UserAuthorizationRevoke => "user.authorization.revoke",
            Self::UserAuthorizationGrant => "user.authorization.grant",
        }
    }
}

/// The status of a subscription (Twitch docs: Get EventSub Subscriptions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionStatus {
    /// Notifications are sent.
    Enabled,
    /// The callback has not answered the challenge yet.
    WebhookCallbackVerificationPending,
    /// The callback did not answer the challenge correctly.
    WebhookCallbackVerificationFailed,
    /// Too many notifications failed.
    NotificationFailuresExceeded,
    /// The authorization that it needs is gone.
    AuthorizationRevoked,
    /// The user of its condition is gone.
    UserRemoved,
    /// Its type and version no longer exist.
    VersionRemoved,
}

impl SubscriptionStatus {
    /// The name used in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::WebhookCallbackVerificationPending => "webhook_callback_verification_pending",
            Self::WebhookCallbackVerificationFailed => "webhook_callback_verification_failed",
            Self::NotificationFailuresExceeded => "notification_failures_exceeded",
            Self::AuthorizationRevoked => "authorization_revoked",
            Self::UserRemoved => "user_removed",
            Self::VersionRemoved => "version_removed",
        }
    }

    /// Whether it is enabled or may become so; a dead one neither costs nor conflicts
    /// (twitchdev/issues#404).
    pub fn is_live(self) -> bool {
        matches!(self, Self::Enabled | Self::WebhookCallbackVerificationPending)
    }
}

/// Why Twitch ends a subscription (Twitch docs: handling webhook events, revoking your
/// subscription).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReason {
    /// The user of its condition is gone.
    UserRemoved,
    /// The authorization that it needs is gone.
    AuthorizationRevoked,
    /// Too many notifications failed.
    NotificationFailuresExceeded,
    /// Its type and version no longer exist.
    VersionRemoved,
}

impl RevocationReason {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::UserRemoved,
        Self::AuthorizationRevoked,
        Self::NotificationFailuresExceeded,
        Self::VersionRemoved,
    ];

    /// The status that the subscription has from then on.
    pub fn status(self) -> SubscriptionStatus {
        match self {
            Self::UserRemoved => SubscriptionStatus::UserRemoved,
            Self::AuthorizationRevoked => SubscriptionStatus::AuthorizationRevoked,
            Self::NotificationFailuresExceeded => SubscriptionStatus::NotificationFailuresExceeded,
            Self::VersionRemoved => SubscriptionStatus::VersionRemoved,
        }
    }
}

/// A subscription. Its secret is private.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The id.
    pub id: String,
    /// The client that created it, and whose users it concerns.
    pub client_id: String,
    /// What it is about.
    pub kind: SubscriptionType,
    /// Its status.
    pub status: SubscriptionStatus,
    /// The callback, as the client gave it.
    pub callback: String,
    /// When it was created, in RFC 3339 with nanoseconds.
    pub created_at: String,
    pub(crate) uri: Uri,
    pub(crate) secret: Secret,
    /// Grows with each subscription; listings use its order.
    pub(crate) number: u64,
    /// Failed notifications since the last success.
    pub(crate) failures: u32,
}

/// A subscription in Twitch's JSON.
#[derive(Serialize)]
pub(crate) struct SubscriptionBody<'a> {
    id: &'a str,
    status: SubscriptionStatus,
    #[serde(rename = "type")]
    kind: SubscriptionType,
    version: &'static str,
    cost: usize,
    condition: ConditionBody<'a>,
    transport: TransportBody<'a>,
    created_at: &'a str,
}

#[derive(Serialize)]
struct ConditionBody<'a> {
    client_id: &'a str,
}

#[derive(Serialize)]
struct TransportBody<'a> {
    method: &'static str,
    callback: &'a str,
}

impl Subscription {
    pub(crate) fn body(&self) -> SubscriptionBody<'_> {
        SubscriptionBody {
            id: &self.id,
            status: self.status,
            kind: self.kind,
            version: VERSION,
            cost: COST,
            condition: ConditionBody { client_id: &self.client_id },
            transport: TransportBody { method: "webhook", callback: &self.callback },
            created_at: &self.created_at,
        }
    }
}

/// All subscriptions, by number.
#[derive(Default)]
pub(crate) struct Subscriptions {
    by_number: BTreeMap<u64, Subscription>,
    last_number: u64,
}

impl Subscriptions {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.by_number.values()
    }

    pub(crate) fn of_client<'a>(&'a self, client_id: &'a str) -> impl Iterator<Item = &'a Subscription> {
        self.iter().filter(move |subscription| subscription.client_id == client_id)
    }

    pub(crate) fn numbered(&mut self, number: u64) -> Option<&mut Subscription> {
        self.by_number.get_mut(&number)
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<&Subscription> {
        self.iter().find(|subscription| subscription.id == id)
    }

    /// The enabled subscriptions that an event concerns.
    pub(crate) fn audience(&self, kind: SubscriptionType, client_id: &str) -> Vec<Subscription> {
        let concerned = |subscription: &&Subscription| {
            subscription.kind == kind && subscription.status == SubscriptionStatus::Enabled
        };
        self.of_client(client_id).filter(concerned).cloned().collect()
    }

    /// Refuses a duplicate of a live subscription, and one above the limits.
    fn room_for(&self, client_id: &str, kind: SubscriptionType, callback: &str) -> Result<(), Refusal> {
        let same: Vec<&Subscription> = self
            .of_client(client_id)
            .filter(|subscription| subscription.kind == kind && subscription.status.is_live())
            .collect();
        if same.iter().any(|subscription| subscription.callback == callback) {
            return Err(Refusal::helix(StatusCode::CONFLICT, "subscription already exists"));
        }
        let living = self.iter().filter(|subscription| subscription.status.is_live()).count();
        if same.len() >= limits::SAME_SUBSCRIPTIONS || living >= limits::SUBSCRIPTIONS {
            let message =
                "exceeded the number of subscriptions with the same combination of type and condition";
            return Err(Refusal::helix(StatusCode::TOO_MANY_REQUESTS, message));
        }
        Ok(())
    }

    fn add(&mut self, mut subscription: Subscription) -> Subscription {
        if self.by_number.len() >= limits::SUBSCRIPTIONS {
            let mut all = self.by_number.values();
            let oldest = all.find(|subscription| !subscription.status.is_live()).map(|dead| dead.number);
            oldest.and_then(|number| self.by_number.remove(&number));
        }
        self.last_number += 1;
        subscription.number = self.last_number;
        self.by_number.insert(self.last_number, subscription.clone());
        subscription
    }

    fn remove(&mut self, client_id: &str, id: &str) -> Option<Subscription> {
        let number = self.of_client(client_id).find(|subscription| subscription.id == id)?.number;
        self.by_number.remove(&number)
    }

    /// Forgets all. Numbers continue, so an older delivery finds nothing.
    pub(crate) fn clear(&mut self) {
        self.by_number.clear();
    }
}

/// The body of Create EventSub Subscription. Everything is optional here, so that each missing
/// field gets its own answer.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Order {
    #[serde(rename = "type")]
    kind: String,
    version: String,
    condition: ConditionOrder,
    transport: TransportOrder,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ConditionOrder {
    client_id: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TransportOrder {
    method: String,
    callback: String,
    secret: Option<Secret>,
}

impl MockTwitch {
    /// Answers POST, GET and DELETE, once token, client id and rate limit are fine.
    pub(crate) fn eventsub_subscriptions(
        &mut self,
        call: &Call<'_>,
        sign_in: &SignIn,
    ) -> Result<Answer, Refusal> {
        let client_id = &sign_in.pair.client_id;
        if call.is_post() {
            return self.create_subscription(call, sign_in);
        }
        if sign_in.pair.user_id.is_some() {
            return Err(Refusal::helix(StatusCode::UNAUTHORIZED, "Incorrect token authorization"));
        }
        if *call.request.method() == Method::DELETE {
            return self.delete_subscription(call, client_id);
        }
        self.list_subscriptions(call, client_id)
    }

    fn create_subscription(&mut self, call: &Call<'_>, sign_in: &SignIn) -> Result<Answer, Refusal> {
        if sign_in.pair.user_id.is_some() {
            return Err(bad_request("auth must use app access token to create webhook subscription"));
        }
        let client_id = &sign_in.pair.client_id;
        // serde's error for a wrong body could contain the secret.
        let order: Order = serde_json::from_slice(call.request.body())
            .map_err(|_| bad_request("the request body is not the expected JSON"))?;
        let kind = SubscriptionType::ALL.into_iter().find(|kind| kind.name() == order.kind);
        let kind = kind
            .filter(|_| order.version == VERSION)
            .ok_or_else(|| bad_request("invalid subscription type and version"))?;
        match order.condition.client_id.as_str() {
            "" => return Err(bad_request("condition: client_id failed on the 'required' tag")),
            own if own == client_id => {}
            _ => {
                let message = "subscription missing proper authorization";
                return Err(Refusal::helix(StatusCode::FORBIDDEN, message));
            }
        }
        let (uri, secret) = read_transport(&order.transport, &self.settings.eventsub)?;
        self.eventsub.subscriptions.room_for(client_id, kind, &order.transport.callback)?;
        let subscription = Subscription {
            id: messages::uuid(&mut self.mint),
            client_id: client_id.clone(),
            kind,
            status: SubscriptionStatus::WebhookCallbackVerificationPending,
            callback: order.transport.callback,
            created_at: messages::timestamp(&mut self.mint, call.now_ms),
            uri,
            secret,
            number: 0,
            failures: 0,
        };
        let subscription = self.eventsub.subscriptions.add(subscription);
        self.challenge(&subscription, call.now_ms);
        let mut answer = self.totals(client_id);
        answer.data = vec![subscription.body()];
        Ok(helix_json(StatusCode::ACCEPTED, &answer))
    }

    fn delete_subscription(&mut self, call: &Call<'_>, client_id: &str) -> Result<Answer, Refusal> {
        let id = call.params.filled("id").ok_or_else(|| bad_request("Missing required parameter \"id\""))?;
        let removed = self
            .eventsub
            .subscriptions
            .remove(client_id, id)
            .ok_or_else(|| Refusal::helix(StatusCode::NOT_FOUND, "subscription not found"))?;
        self.eventsub.outbox.cancel(removed.number, call.now_ms);
        Ok(exchange::empty(StatusCode::NO_CONTENT))
    }

    fn list_subscriptions(&self, call: &Call<'_>, client_id: &str) -> Result<Answer, Refusal> {
        let mut filters = FILTERS.into_iter().filter_map(|name| Some((name, call.params.filled(name)?)));
        let filter = filters.next();
        if filters.next().is_some() {
            return Err(bad_request("only one filter may be specified"));
        }
        let after = match call.params.filled("after") {
            Some(cursor) => read_cursor(cursor).ok_or_else(|| bad_request("invalid cursor"))?,
            None => 0,
        };
        let fits = |subscription: &&Subscription| match filter {
            None => true,
            Some(("status", status)) => subscription.status.name() == status,
            Some(("type", kind)) => subscription.kind.name() == kind,
            Some(("subscription_id", id)) => subscription.id == id,
            // The conditions of these types name no user.
            Some(_) => false,
        };
        let page_size = self.settings.eventsub.page_size;
        let mut rest = self
            .eventsub
            .subscriptions
            .of_client(client_id)
            .filter(|subscription| subscription.number > after)
            .filter(fits);
        let page: Vec<&Subscription> = rest.by_ref().take(page_size).collect();
        let cursor = page.last().filter(|_| rest.next().is_some()).map(|last| write_cursor(last.number));
        let mut answer = self.totals(client_id);
        answer.data = page.into_iter().map(Subscription::body).collect();
        answer.pagination = Some(match cursor {
            Some(cursor) => json!({ "cursor": cursor }),
            None => json!({}),
        });
        Ok(helix_json(StatusCode::OK, &answer))
    }

    fn totals<'a>(&self, client_id: &str) -> Listing<'a> {
        let all = self.eventsub.subscriptions.of_client(client_id);
        let (total, live) = all.fold((0, 0), |(total, live), subscription| {
            (total + 1, live + usize::from(subscription.status.is_live()))
        });
        Listing {
            total,
            data: Vec::new(),
            total_cost: live * COST,
            max_total_cost: limits::MAX_TOTAL_COST,
            pagination: None,
        }
    }
}

/// The common part of the answers to POST and GET.
#[derive(Serialize)]
struct Listing<'a> {
    total: usize,
    data: Vec<SubscriptionBody<'a>>,
    total_cost: usize,
    max_total_cost: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pagination: Option<serde_json::Value>,
}

fn read_transport(order: &TransportOrder, settings: &EventsubSettings) -> Result<(Uri, Secret), Refusal> {
    match order.method.as_str() {
        "webhook" => {}
        "websocket" => return Err(bad_request("invalid transport and auth combination")),
        _ => return Err(bad_request("the mock supports only the transport method webhook")),
    }
    let uri = read_callback(&order.callback, settings)?;
    let secret = order.secret.clone().filter(|secret| {
        limits::WEBHOOK_SECRET_CHARS.contains(&secret.expose().len()) && secret.expose().is_ascii()
    });
    let message = "secret must be between 10 and 100 characters";
    Ok((uri, secret.ok_or_else(|| bad_request(message))?))
}

/// Twitch accepts only HTTPS on port 443; the setting adds `http` on loopback hosts with any port.
fn read_callback(text: &str, settings: &EventsubSettings) -> Result<Uri, Refusal> {
    let invalid = || bad_request("callback must be an absolute address");
    let uri: Uri = Some(text)
        .filter(|text| config::is_redirect_uri(text))
        .and_then(|text| text.parse().ok())
        .ok_or_else(invalid)?;
    if settings.loopback_callbacks && config::is_loopback_address(text) {
        return Ok(uri);
    }
    let url = url::Url::parse(text).map_err(|_| invalid())?;
    if url.scheme() != "https" {
        return Err(bad_request("call back must be https protocol"));
    }
    if url.port_or_known_default() != Some(443) {
        return Err(bad_request("callback must use port 443"));
    }
    let plain = url.username().is_empty() && url.password().is_none();
    if plain { Ok(uri) } else { Err(invalid()) }
}

fn write_cursor(number: u64) -> String {
    URL_SAFE_NO_PAD.encode(number.to_string())
}

fn read_cursor(cursor: &str) -> Option<u64> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?.parse().ok()
}

fn bad_request(message: &str) -> Refusal {
    Refusal::helix(StatusCode::BAD_REQUEST, message)
}
