//! Asks the provider: sends what [`claviger_provider`] builds and has it read the answers.
//!
//! This is the only module that sends. Each method sends one request, once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use claviger_core::{
    AccessToken, AuthorizationCode, ClientSecret, CodeVerifier, IssuedPair, Lifespan, ProviderName,
    RefreshToken, RevokeAnswer, SessionId, TokenAnswer, ValidateAnswer, limits,
};
use claviger_provider::{
    Answer, AppTokenAnswer, ConnectionCheck, ConnectionsAnswer, CreateAnswer, DeleteAnswer, ListAnswer,
    Provider, Said, Subscriptions, WebhookSecret,
};
use url::Url;

use crate::{ClockWatch, Denied, Env, ProviderHttp, metrics};

/// The provider, and the way to it.
pub(crate) struct ProviderClient {
    env: Env,
    clock_watch: Arc<ClockWatch>,
    http: Arc<dyn ProviderHttp>,
    provider: ArcSwap<Provider>,
    /// How long the last access token lives that the provider issued.
    token_life_secs: AtomicU64,
    /// Whether the log says that the provider's tokens are too short-lived.
    told_short: AtomicBool,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

/// An answer about the tokens of one user, and the same in words for the log.
pub(crate) struct Answered<T> {
    pub(crate) answer: T,
    pub(crate) said: Said,
}

impl ProviderClient {
    pub(crate) fn new(
        env: Env,
        clock_watch: Arc<ClockWatch>,
        http: Arc<dyn ProviderHttp>,
        provider: Provider,
    ) -> Arc<Self> {
        let (provider, changing) = (ArcSwap::from_pointee(provider), tokio::sync::Mutex::default());
        let (token_life_secs, told_short) = (AtomicU64::new(u64::MAX), AtomicBool::new(false));
        Arc::new(Self { env, clock_watch, http, provider, token_life_secs, told_short, changing })
    }

    /// The provider, with our credentials as they are now.
    pub(crate) fn provider(&self) -> Arc<Provider> {
        self.provider.load_full()
    }

    /// Whether the provider validates access tokens.
    pub(crate) fn has_validation(&self) -> bool {
        self.provider.load().capabilities.validation.is_some()
    }

    /// How the provider says whether users are still connected, if it does.
    pub(crate) fn connection_check(&self) -> Option<&'static dyn ConnectionCheck> {
        self.provider.load().capabilities.connection_check
    }

    /// How the app subscribes to the provider's webhook events, if it does.
    pub(crate) fn subscriptions(&self) -> Option<&'static dyn Subscriptions> {
        self.provider.load().capabilities.webhook_events?.subscriptions()
    }

    /// Uses another client secret for all requests from now on.
    pub(crate) async fn use_client_secret(&self, client_secret: ClientSecret) {
        let _changing = self.changing.lock().await;
        let before = self.provider.load_full();
        if before.client.secret.expose() == client_secret.expose() {
            return;
        }
        let mut provider = Provider::clone(&before);
        provider.client.secret = client_secret;
        self.provider.store(Arc::new(provider));
        tracing::info!("the client secret was changed");
    }

    /// Alerts the operator that the provider refuses our own credentials.
    pub(crate) fn alarm(&self, said: &Said) {
        let client_id = &self.provider().client.id;
        let Said { endpoint, status, words } = said;
        tracing::error!(
            client_id,
            endpoint,
            status,
            said = words.as_deref(),
            "the provider refuses this app's client id or secret: check the configuration"
        );
    }

    /// Requires that this provider issued a session's tokens. Tokens are sent to their issuer and
    /// to nobody else. Tokens of a provider that is no longer configured stay where they are, and
    /// nobody is signed out.
    ///
    /// # Errors
    /// [`Denied::Misconfigured`] if another provider issued them.
    pub(crate) fn require_issuer(&self, session: SessionId, issuer: &ProviderName) -> Result<(), Denied> {
        if *issuer == self.provider().name {
            return Ok(());
        }
        tracing::error!(%session, issuer = issuer.0, "a token of a provider that is not configured was not sent");
        Err(Denied::Misconfigured)
    }

    pub(crate) async fn exchange_code(
        &self,
        code: &AuthorizationCode,
        verifier: &CodeVerifier,
        redirect_uri: &str,
    ) -> Answered<TokenAnswer> {
        let client = &self.provider().client;
        let secrets = [client.secret.expose(), code.expose(), verifier.expose()];
        let request = client.exchange_code(code, verifier, redirect_uri);
        let (answer, said) = self.send_for_log(request, &secrets).await;
        let answer = self.read_token(answer);
        metrics::provider_refused("code", metrics::cause_of_token(&answer));
        Answered { answer, said }
    }

    pub(crate) async fn refresh(&self, token: &RefreshToken) -> Answered<TokenAnswer> {
        let client = &self.provider().client;
        let secrets = [client.secret.expose(), token.expose()];
        let (answer, said) = self.send_for_log(client.refresh(token), &secrets).await;
        let answer = self.read_token(answer);
        metrics::provider_refused("refresh", metrics::cause_of_token(&answer));
        Answered { answer, said }
    }

    fn read_token(&self, answer: Answer) -> TokenAnswer {
        let answer = self.provider().client.read_token(answer, self.env.now());
        if let TokenAnswer::Issued(IssuedPair { lifespan: Lifespan::Lasts(span), .. }) = &answer {
            let secs = span.as_secs();
            self.token_life_secs.store(secs, Ordering::Relaxed);
            if *span < limits::TOKEN_LIFE_LEAST && !self.told_short.swap(true, Ordering::Relaxed) {
                tracing::error!(
                    secs,
                    "the provider's access tokens live too short to be used: ask it for longer ones"
                );
            }
        }
        answer
    }

    /// Asks whose a new access token is.
    pub(crate) async fn identify(&self, token: &AccessToken) -> Answered<ValidateAnswer> {
        let provider = self.provider();
        let (client, check) = (&provider.client, &provider.identity);
        let secrets = [client.secret.expose(), token.expose()];
        let (answer, said) = self.send_for_log(check.request(client, token), &secrets).await;
        let answer = check.read(client, answer, self.env.now());
        metrics::provider_refused("identity", metrics::cause_of_validation(&answer));
        Answered { answer, said }
    }

    /// Asks whether an access token is good. None if the provider has no validation.
    pub(crate) async fn validate(&self, token: &AccessToken) -> Option<ValidateAnswer> {
        let provider = self.provider();
        let (client, check) = (&provider.client, &provider.capabilities.validation.as_ref()?.check);
        let answer = self.send(check.request(client, token)).await;
        Some(check.read(client, answer, self.env.now()))
    }

    /// How long access tokens live, as far as the provider said since the start.
    pub(crate) fn token_life(&self) -> Duration {
        Duration::from_secs(self.token_life_secs.load(Ordering::Relaxed))
    }

    pub(crate) async fn revoke_access(&self, token: &AccessToken) -> RevokeAnswer {
        self.revoke(self.provider().revoke(token)).await
    }

    pub(crate) async fn revoke_refresh(&self, token: &RefreshToken) -> RevokeAnswer {
        self.revoke(self.provider().revoke_refresh(token)).await
    }

    /// Sends a revocation. A provider that has none is owed none.
    async fn revoke(&self, request: Option<http::Request<Bytes>>) -> RevokeAnswer {
        let Some(request) = request else { return RevokeAnswer::Done };
        let answer = self.send(request).await;
        self.provider().client.read_revoke(answer, self.env.now())
    }

    pub(crate) async fn app_token(&self) -> Answered<AppTokenAnswer> {
        let client = &self.provider().client;
        let (answer, said) = self.send_for_log(client.app_token_request(), &[client.secret.expose()]).await;
        Answered { answer: client.read_app_token(answer, self.env.now()), said }
    }

    /// Asks whether users are still connected.
    pub(crate) async fn connections(
        &self,
        check: &dyn ConnectionCheck,
        app: &AccessToken,
        user_ids: &[String],
    ) -> ConnectionsAnswer {
        let provider = self.provider();
        let answer = self.send(check.request(&provider.client, app, user_ids)).await;
        check.read(&provider.client, answer, user_ids, self.env.now())
    }

    pub(crate) async fn list_subscriptions(
        &self,
        subscriptions: &dyn Subscriptions,
        app: &AccessToken,
        after: Option<&str>,
    ) -> ListAnswer {
        let provider = self.provider();
        let answer = self.send(subscriptions.list(&provider.client, app, after)).await;
        subscriptions.read_list(&provider.client, answer, self.env.now())
    }

    pub(crate) async fn create_subscription(
        &self,
        subscriptions: &dyn Subscriptions,
        app: &AccessToken,
        callback: &Url,
        secret: &WebhookSecret,
    ) -> CreateAnswer {
        let provider = self.provider();
        let answer = self.send(subscriptions.create(&provider.client, app, callback, secret)).await;
        subscriptions.read_created(&provider.client, answer, self.env.now())
    }

    pub(crate) async fn delete_subscription(
        &self,
        subscriptions: &dyn Subscriptions,
        app: &AccessToken,
        id: &str,
    ) -> DeleteAnswer {
        let provider = self.provider();
        let answer = self.send(subscriptions.delete(&provider.client, app, id)).await;
        subscriptions.read_deleted(&provider.client, answer, self.env.now())
    }

    /// Asks the provider for nothing but the time, which is taken in as that of every answer.
    pub(crate) async fn ask_time(&self) {
        let _answer = self.send(self.provider().client.time_request()).await;
    }

    /// Sends a request. The answer comes with its words for the log, in which the secrets of the
    /// request are hidden.
    async fn send_for_log(&self, request: http::Request<Bytes>, secrets: &[&str]) -> (Answer, Said) {
        let uri = request.uri().clone();
        let answer = self.send(request).await;
        let said = Said::of(&uri, &answer, secrets);
        (answer, said)
    }

    async fn send(&self, request: http::Request<Bytes>) -> Answer {
        let asked = self.clock_watch.asks();
        let answer = self.http.send(request).await;
        if let Ok(answer) = &answer {
            self.clock_watch.answers(asked, claviger_provider::date(answer));
        }
        answer
    }
}
