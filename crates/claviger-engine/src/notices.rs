//! The provider's notices that a user disconnected the app: takes them in, and keeps the subscription to them.

use std::time::Duration;

use claviger_core::{
    ids::Subject,
    policy::limits,
    suspicion::{Cause, Suspicion},
    time::Timestamp,
};
use claviger_provider::{
    CreateAnswer, DeleteAnswer, ListAnswer, MessageKind, Refused, Subscription, Webhook, WebhookSecret,
    reconcile,
};
use claviger_store::StoreError;
use http::HeaderMap;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{Engine, Subscribed, app_token::NoToken, disconnect::key_of, meter};

/// Where the provider sends its notices, and what they are signed with.
#[derive(Clone, Debug)]
pub struct NoticeSettings {
    /// The public address of the webhook.
    pub callback: Url,
    /// The secret that the provider signs with.
    pub secret: WebhookSecret,
}

/// How to answer a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoticeTaken {
    /// With this text and nothing else: the provider asks whether the address is ours.
    Challenge(String),
    /// With success: it is written down, or is nothing to us.
    Noted,
}

/// Why a notice is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoticeError {
    /// No notices are wanted.
    #[error("notices are not configured")]
    Unwanted,
    /// It is not the provider's, or not what the provider sends.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It cannot be written down; the provider will send it again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the subscription is not what it should be.
enum Unsubscribed {
    /// The provider is asked again later.
    Later(&'static str),
    /// The operator must act.
    Refused(String),
    Store(StoreError),
}

impl From<NoToken> for Unsubscribed {
    fn from(none: NoToken) -> Self {
        match none {
            NoToken::Trouble(_) => Self::Later("the provider gives no app token"),
            NoToken::Misconfigured => {
                Self::Refused("the provider refuses the client id or secret".to_owned())
            }
            NoToken::Store(error) => Self::Store(error),
        }
    }
}

impl Engine {
    /// Whether the provider is to send notices.
    pub fn wants_notices(&self) -> bool {
        self.inner.parts.notices.is_some()
    }

    /// Takes a notice of the provider. When it returns, the notice is written down; the work follows at once, but after it.
    ///
    /// # Errors
    /// [`NoticeError`].
    pub async fn take_notice(&self, headers: &HeaderMap, body: &[u8]) -> Result<NoticeTaken, NoticeError> {
        let settings = self.inner.parts.notices.as_ref().ok_or(NoticeError::Unwanted)?;
        let webhook = Webhook::new(settings.secret.clone(), self.provider().client_id.clone());
        let message =
            webhook.read(headers, body, self.now()).inspect_err(|refused| meter::notice(refused.into()))?;
        meter::notice((&message.kind).into());
        match message.kind {
            MessageKind::Challenge(text) => return Ok(NoticeTaken::Challenge(text)),
            MessageKind::Revoked { user_id, at, .. } => {
                let subject = Subject { provider: self.provider().name.clone(), id: user_id };
                let key = key_of([Cause::Notice.name().as_bytes(), message.id.as_bytes()]);
                self.note_suspicion(key, &Suspicion { subject, at, cause: Cause::Notice }).await?;
            }
            MessageKind::SubscriptionEnded { status, .. } => {
                tracing::warn!(status, "the provider ended the subscription to its notices; it is made anew");
                self.inner.unsubscribed.notify_one();
            }
            MessageKind::OtherClient => {
                tracing::warn!("a notice concerns another client id than ours");
            }
            MessageKind::Granted { .. } | MessageKind::Other => {}
        }
        Ok(NoticeTaken::Noted)
    }

    pub(crate) async fn keep_subscribed(&self, stop: &CancellationToken) {
        let Some(settings) = self.inner.parts.notices.clone() else { return };
        let mut ended_at = None::<Timestamp>;
        loop {
            let Some(subscribed) = stop.run_until_cancelled(self.subscribe(&settings)).await else { return };
            let pause = self.after_subscribing(subscribed);
            let wake = async {
                if tokio::time::timeout(pause, self.inner.unsubscribed.notified()).await.is_ok() {
                    // One that is ended again and again is not made anew at once.
                    let since = ended_at.map_or(Duration::MAX, |at| self.now().since(at));
                    tokio::time::sleep(limits::SUBSCRIPTIONS_RETRY.saturating_sub(since)).await;
                    ended_at = Some(self.now());
                }
            };
            if stop.run_until_cancelled(wake).await.is_none() {
                return;
            }
        }
    }

    /// Says how it went, and when to look again.
    fn after_subscribing(&self, subscribed: Result<bool, Unsubscribed>) -> Duration {
        let found = match &subscribed {
            Ok(true) => Subscribed::Works,
            Ok(false) | Err(Unsubscribed::Later(_) | Unsubscribed::Store(_)) => Subscribed::Waiting,
            Err(Unsubscribed::Refused(_)) => Subscribed::Refused,
        };
        self.inner.last_subscribed.set(found);
        meter::subscribed(found);
        match subscribed {
            Ok(true) => return limits::SUBSCRIPTIONS_EVERY,
            Ok(false) => tracing::info!("the subscription to the provider's notices waits to be verified"),
            Err(Unsubscribed::Later(why)) => {
                tracing::warn!(why, "the subscription to the provider's notices has to wait");
            }
            Err(Unsubscribed::Refused(why)) => tracing::error!(
                why,
                "the provider refuses the subscription to its notices: check the client and the address of the webhook"
            ),
            Err(Unsubscribed::Store(error)) => {
                tracing::error!(%error, "the subscription to the provider's notices has to wait");
            }
        }
        limits::SUBSCRIPTIONS_RETRY
    }

    /// Makes the subscription what it should be: one that works. True if it is.
    async fn subscribe(&self, settings: &NoticeSettings) -> Result<bool, Unsubscribed> {
        let found = self.subscriptions().await?;
        let plan = reconcile(&found, &settings.callback, &self.provider().client_id);
        let token = self.app_token(None).await?;
        for id in &plan.delete {
            let request = self.provider().delete_subscription(&token, id);
            let answer = self.inner.parts.http.send(request).await;
            if !matches!(self.provider().read_deleted(answer, self.now()), DeleteAnswer::Done) {
                return Err(Unsubscribed::Later("a subscription cannot be deleted"));
            }
        }
        if !plan.create {
            let enabled = |one: &Subscription| {
                one.status == "enabled" && one.callback.as_deref() == Some(settings.callback.as_str())
            };
            return Ok(found.iter().any(enabled));
        }
        let request = self.provider().create_subscription(&token, &settings.callback, &settings.secret);
        let answer = self.inner.parts.http.send(request).await;
        match self.provider().read_created(answer, self.now()) {
            CreateAnswer::Created(_) | CreateAnswer::Exists => Ok(false),
            CreateAnswer::Refused(why) => Err(Unsubscribed::Refused(why)),
            CreateAnswer::TokenDead => {
                self.app_token(Some(&token)).await?;
                Err(Unsubscribed::Later("the app token had to be replaced"))
            }
            CreateAnswer::Unknown(_) => Err(Unsubscribed::Later("the provider does not answer")),
        }
    }

    /// All subscriptions of the app.
    async fn subscriptions(&self) -> Result<Vec<Subscription>, Unsubscribed> {
        let (mut all, mut after, mut dead) = (Vec::new(), None::<String>, None);
        for _ in 0..limits::SUBSCRIPTION_PAGES {
            let token = self.app_token(dead.as_ref()).await?;
            let request = self.provider().list_subscriptions(&token, after.as_deref());
            let answer = self.inner.parts.http.send(request).await;
            match self.provider().read_subscriptions(answer, self.now()) {
                ListAnswer::Page { subscriptions, next } => {
                    all.extend(subscriptions);
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
