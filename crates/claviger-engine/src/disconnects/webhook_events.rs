//! Takes in the provider's webhook events, which tell that a user disconnected the app.

use std::sync::Arc;

use claviger_core::{Cause, Subject, Suspicion};
use claviger_provider::{MessageKind, Refused};
use claviger_store::StoreError;
use http::HeaderMap;

use super::{
    Disconnects, key_of,
    subscription::{Subscriber, WebhookSettings},
};
use crate::{Env, ProviderClient, metrics, part::part};

/// How to answer a webhook event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookReply {
    /// With this text and nothing else: the provider asks whether the address is ours.
    Challenge(String),
    /// With success: it is written down, or does not concern us.
    Noted,
}

/// Why a webhook event is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// No webhook is configured.
    #[error("no webhook is configured")]
    Unwanted,
    /// The provider did not send it, or not in this form.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It cannot be written down; the provider will send it again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

part! {
    /// Takes in webhook events.
    pub(crate) struct WebhookEvents needs {
        env: Env,
        settings: Option<WebhookSettings>,
        provider: Arc<ProviderClient>,
        disconnects: Arc<Disconnects>,
        subscriber: Arc<Subscriber>,
    }
}

impl WebhookEvents {
    /// Whether a webhook is configured, and the provider sends events.
    pub(crate) fn wanted(&self) -> bool {
        self.settings.is_some() && self.provider.provider().capabilities.webhook_events.is_some()
    }

    /// Takes in a webhook event. When it returns, the event is written down; the work follows after
    /// it.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub(crate) async fn take(&self, headers: &HeaderMap, body: &[u8]) -> Result<WebhookReply, WebhookError> {
        let settings = self.settings.as_ref().ok_or(WebhookError::Unwanted)?;
        let provider = self.provider.provider();
        let events = provider.capabilities.webhook_events.ok_or(WebhookError::Unwanted)?;
        let message = events.read(&provider.client, &settings.secret, headers, body, self.env.now());
        metrics::webhook_event(message.as_ref().map(|message| &message.kind));
        let message = message?;
        let (kind, id) = (metrics::kind_of_event(&message.kind), &message.id);
        tracing::info!(kind, ?id, "received a webhook event");
        match message.kind {
            MessageKind::Challenge(text) => return Ok(WebhookReply::Challenge(text)),
            MessageKind::Revoked { user_id, at, .. } => {
                let subject = Subject { provider: provider.name.clone(), id: user_id };
                let key = key_of([Cause::WebhookEvent.name().as_bytes(), message.id.as_bytes()]);
                let suspicion = Suspicion { subject, at, cause: Cause::WebhookEvent };
                self.disconnects.note(key, &suspicion).await?;
            }
            MessageKind::SubscriptionEnded { status, .. } => {
                tracing::warn!(status, "the provider ended the webhook subscription; it is created again");
                self.subscriber.note_ended();
            }
            MessageKind::OtherClient => {
                tracing::warn!("a webhook event concerns another client id than ours");
            }
            MessageKind::Granted { .. } | MessageKind::Other => {}
        }
        Ok(WebhookReply::Noted)
    }
}
