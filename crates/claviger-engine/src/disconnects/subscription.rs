//! Keeps the provider's subscription to webhook events working.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use claviger_core::{Timestamp, limits};
use claviger_provider::{CreateAnswer, DeleteAnswer, ListAnswer, Subscription, Subscriptions, WebhookSecret};
use claviger_store::{Store, StoreError};
use tokio::sync::Notify;
use url::Url;

use super::{
    key_of,
    registration::{Registration, Stored},
};
use crate::{AppToken, Env, Lock, NoToken, ProviderClient, metrics, part::part};

/// Where the provider sends its webhook events, and what they are signed with.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// The public address of the webhook.
    pub callback: Url,
    /// The secret that the provider signs with.
    pub secret: WebhookSecret,
}

/// Whether the provider sends webhook events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Subscribed {
    /// No webhook is configured, or the operator subscribes at the provider.
    #[default]
    Unwanted,
    /// The provider has not been asked for them yet, or has not verified our address yet.
    Waiting,
    /// The provider refuses the subscription; the operator must act.
    Refused,
    /// Another instance subscribed with another secret or address; the operator must act.
    Elsewhere,
    /// It sends them.
    Works,
}

part! {
    /// Creates the subscription, and watches it.
    pub(crate) struct Subscriber needs {
        env: Env,
        store: Arc<dyn Store>,
        webhook: Option<WebhookSettings>,
        provider: Arc<ProviderClient>,
        app_token: Arc<AppToken>,
    } owns {
        /// The provider ended the subscription.
        ended: Notify = Notify::new(),
        /// What was found when the subscription was last looked at.
        found: Lock<Subscribed> = Lock::default(),
        /// A subscription with our settings was there since the start. From then on other settings
        /// are those of another instance, and newer.
        settled: AtomicBool = AtomicBool::new(false),
    }
}

/// Why the subscription does not work.
enum Unsubscribed {
    /// The provider is asked again later.
    Later(&'static str),
    /// The operator must act.
    Refused(String),
    Store(StoreError),
}

impl From<StoreError> for Unsubscribed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<NoToken> for Unsubscribed {
    fn from(none: NoToken) -> Self {
        match none {
            NoToken::ProviderFailure(_) | NoToken::NotYet(_) => {
                Self::Later("the provider gives no app token")
            }
            NoToken::Misconfigured => {
                Self::Refused("the provider refuses the client id or secret".to_owned())
            }
            NoToken::Store(error) => Self::Store(error),
        }
    }
}

impl Subscriber {
    /// Takes note that the provider ended the subscription.
    pub(crate) fn note_ended(&self) {
        *self.found.lock() = Subscribed::Waiting;
        self.ended.notify_one();
    }

    /// How the subscription was found when it was last looked at.
    pub(crate) fn status(&self) -> Subscribed {
        match *self.found.lock() {
            Subscribed::Unwanted if self.wanted().is_some() => Subscribed::Waiting,
            found => found,
        }
    }

    /// The webhook, and how to subscribe to its events. None if no webhook is configured, or the
    /// provider takes no subscriptions.
    fn wanted(&self) -> Option<(&WebhookSettings, &'static dyn Subscriptions)> {
        self.webhook.as_ref().zip(self.provider.subscriptions())
    }

    /// Keeps the subscription working until it is dropped. Without one it waits forever.
    pub(crate) async fn keep_subscribed(&self) {
        let Some((webhook, subscriptions)) = self.wanted() else { return std::future::pending().await };
        let mut ended_at = None::<Timestamp>;
        loop {
            let subscribed = self.subscribe(webhook, subscriptions).await;
            let pause = self.after_subscribing(subscribed);
            if tokio::time::timeout(pause, self.ended.notified()).await.is_ok() {
                // A subscription that is ended again and again is not created again at once.
                let since = ended_at.map_or(Duration::MAX, |at| self.env.now().since(at));
                tokio::time::sleep(limits::SUBSCRIPTIONS_RETRY.saturating_sub(since)).await;
                ended_at = Some(self.env.now());
            }
        }
    }

    /// Logs what was found, and gives the time until the next look.
    fn after_subscribing(&self, subscribed: Result<Subscribed, Unsubscribed>) -> Duration {
        let found = match &subscribed {
            Ok(found) => *found,
            // What was found to work goes on, as far as is known.
            Err(Unsubscribed::Later(_) | Unsubscribed::Store(_)) if self.status() == Subscribed::Works => {
                Subscribed::Works
            }
            Err(Unsubscribed::Later(_) | Unsubscribed::Store(_)) => Subscribed::Waiting,
            Err(Unsubscribed::Refused(_)) => Subscribed::Refused,
        };
        *self.found.lock() = found;
        metrics::subscription_works(found == Subscribed::Works);
        match subscribed {
            Ok(Subscribed::Works) => return limits::SUBSCRIPTIONS_EVERY,
            Ok(Subscribed::Elsewhere) => {
                tracing::error!(
                    "another instance subscribed with another webhook secret, callback address or client id: give all \
                     instances the same settings, and restart those with old ones"
                );
                return limits::SUBSCRIPTIONS_EVERY;
            }
            Ok(_) => tracing::info!("the webhook subscription waits to be verified"),
            Err(Unsubscribed::Later(why)) => {
                tracing::warn!(why, "the webhook subscription has to wait");
            }
            Err(Unsubscribed::Refused(why)) => tracing::error!(
                why,
                "the provider refuses the webhook subscription: check the client and the address of the webhook"
            ),
            Err(Unsubscribed::Store(error)) => {
                tracing::error!(%error, "the webhook subscription has to wait");
            }
        }
        limits::SUBSCRIPTIONS_RETRY
    }

    /// Creates and deletes subscriptions as needed.
    async fn subscribe(
        &self,
        webhook: &WebhookSettings,
        subscriptions: &dyn Subscriptions,
    ) -> Result<Subscribed, Unsubscribed> {
        let WebhookSettings { callback, secret } = webhook;
        let client = &self.provider.provider().client;
        let settings =
            key_of([client.id.as_bytes(), callback.as_str().as_bytes(), secret.expose().as_bytes()]).0;
        let stored = Stored::read(&*self.store).await?;
        if stored.differs(&settings) && self.settled.load(Ordering::Relaxed) {
            return Ok(Subscribed::Elsewhere);
        }
        let found = self.all(subscriptions).await?;
        let plan = subscriptions.plan(client, &found, callback, stored.current(&settings));
        if plan.create {
            *self.found.lock() = Subscribed::Waiting;
            self.announce(&stored, settings, callback).await?;
        }
        let token = self.app_token.get(None).await?;
        for id in &plan.delete {
            let answer = self.provider.delete_subscription(subscriptions, &token, id).await;
            if !matches!(answer, DeleteAnswer::Done) {
                return Err(Unsubscribed::Later("a subscription cannot be deleted"));
            }
            tracing::warn!(
                id,
                "a webhook subscription that does not work, or has other settings, was deleted"
            );
        }
        if !plan.create {
            self.settled.store(true, Ordering::Relaxed);
            return Ok(if plan.works { Subscribed::Works } else { Subscribed::Waiting });
        }
        match self.provider.create_subscription(subscriptions, &token, callback, secret).await {
            CreateAnswer::Created(id) => {
                let made = self.remember(settings, id, callback).await?;
                self.settled.store(true, Ordering::Relaxed);
                Ok(made)
            }
            CreateAnswer::Exists => Ok(Subscribed::Waiting),
            CreateAnswer::Refused(why) => Err(Unsubscribed::Refused(why)),
            CreateAnswer::TokenDead => {
                self.app_token.get(Some(&token)).await?;
                Err(Unsubscribed::Later("the app token had to be replaced"))
            }
            CreateAnswer::Unknown(_) => Err(Unsubscribed::Later("the provider does not answer")),
        }
    }

    /// Writes down that a subscription with these settings is about to be made. Until its id is
    /// known, none counts.
    async fn announce(
        &self,
        stored: &Stored,
        settings: [u8; 32],
        callback: &Url,
    ) -> Result<(), Unsubscribed> {
        let announced = Registration { settings, id: String::new(), callback: callback.to_string() };
        if !stored.replace(&*self.store, &announced).await? {
            return Err(Unsubscribed::Later("another instance subscribes"));
        }
        if let Some(Registration { id, callback, .. }) = stored.elsewhere(callback.as_str()) {
            tracing::warn!(
                id,
                callback,
                "the webhook has another address than before; its subscription to that address is left \
                 alone, since another deployment may use it: delete it at the provider if none does"
            );
        }
        Ok(())
    }

    /// Writes down which subscription was made. Another instance with the same settings may have
    /// written meanwhile.
    async fn remember(
        &self,
        settings: [u8; 32],
        id: String,
        callback: &Url,
    ) -> Result<Subscribed, Unsubscribed> {
        let made = Registration { settings, id, callback: callback.to_string() };
        for _ in 0..limits::SUBSCRIPTION_WRITES {
            let stored = Stored::read(&*self.store).await?;
            if stored.differs(&settings) {
                break;
            }
            if stored.replace(&*self.store, &made).await? {
                return Ok(Subscribed::Waiting);
            }
        }
        Err(Unsubscribed::Later("another instance subscribes"))
    }

    /// All subscriptions of the app.
    async fn all(&self, subscriptions: &dyn Subscriptions) -> Result<Vec<Subscription>, Unsubscribed> {
        let (mut all, mut after, mut dead) = (Vec::new(), None::<String>, None);
        for _ in 0..limits::SUBSCRIPTION_PAGES {
            let token = self.app_token.get(dead.as_ref()).await?;
            match self.provider.list_subscriptions(subscriptions, &token, after.as_deref()).await {
                ListAnswer::Page { subscriptions: page, next } => {
                    all.extend(page);
                    match next {
                        Some(next) => after = Some(next),
                        None => return Ok(all),
                    }
                }
                ListAnswer::TokenDead if dead.is_none() => dead = Some(token),
                ListAnswer::Misconfigured => {
                    return Err(Unsubscribed::Refused("the provider refuses the client id".to_owned()));
                }
                ListAnswer::TokenDead | ListAnswer::Unknown(_) => {
                    return Err(Unsubscribed::Later("the provider lists no subscriptions"));
                }
            }
        }
        Err(Unsubscribed::Later("the provider's list of subscriptions does not end"))
    }
}
