//! The mock provider without a socket.

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use claviger_engine::{Clock, ProviderHttp};
use claviger_mock::{
    Client, Config, Connection, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Endpoint, Fault, FaultKind, MockTwitch,
    User,
};
use claviger_provider::Unanswered;
use http::{Request, Response, header};

use crate::site::ManualClock;

pub(crate) const ADA: &str = "100000001";
pub(crate) const GRACE: &str = "100000002";
/// A user whose name tries to break out of every context.
pub(crate) const MALLORY: &str = "100000666";
pub(crate) const HOSTILE_NAME: &str = "</p><script>\"'&x=%0d";

pub(crate) struct Twitch {
    mock: Mutex<MockTwitch>,
    clock: Arc<ManualClock>,
    /// Every code and token seen.
    secrets: Mutex<Vec<String>>,
}

impl Twitch {
    pub(crate) fn new(redirect_uri: &str, clock: Arc<ManualClock>) -> Self {
        let config = Config::strict()
            .settings(|settings| settings.rotation = claviger_mock::Rotation::OneTime)
            .client(Client::new(DEMO_CLIENT_ID, DEMO_CLIENT_SECRET).redirect_uri(redirect_uri))
            .user(User::new(MALLORY, HOSTILE_NAME));
        Self { mock: Mutex::new(MockTwitch::new(config, 1)), clock, secrets: Mutex::default() }
    }

    pub(crate) fn mock(&self) -> MutexGuard<'_, MockTwitch> {
        self.mock.lock().unwrap()
    }

    /// Makes every call of an endpoint fail until [`Twitch::mend`].
    pub(crate) fn breaks(&self, endpoint: Endpoint, status: u16) {
        self.mock().add_fault(Fault::always(endpoint, FaultKind::status(status)));
    }

    pub(crate) fn mend(&self) {
        self.mock().clear_faults();
    }

    /// Agrees as the user, and returns the address that the provider redirects to.
    pub(crate) fn agree(&self, user: &str, location: &str) -> String {
        self.mock().settings_mut().authorize_at_once_as = Some(user.to_owned());
        let back = self.redirect(Request::get(location).body(Bytes::new()).unwrap());
        let code = back.split_once("code=").unwrap().1.split('&').next().unwrap().to_owned();
        self.secrets.lock().unwrap().push(code);
        back
    }

    /// Refuses as the user.
    pub(crate) fn deny(&self, location: &str) -> String {
        self.mock().settings_mut().authorize_at_once_as = None;
        let (address, query) = location.trim_end_matches('#').split_once('?').unwrap();
        let form = format!("{query}&decision=deny");
        self.redirect(Request::post(address).body(Bytes::from(form)).unwrap())
    }

    /// Returns every code and token seen so far.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.secrets.lock().unwrap().clone()
    }

    fn redirect(&self, request: Request<Bytes>) -> String {
        let reply = self.mock().handle(&request, self.clock.now().as_millis());
        reply.response.headers()[header::LOCATION].to_str().unwrap().to_owned()
    }

    fn note(&self, answer: &Response<Bytes>) {
        let Ok(body) = serde_json::from_slice::<serde_json::Value>(answer.body()) else { return };
        let tokens = ["access_token", "refresh_token"].map(|name| body[name].as_str().map(str::to_owned));
        self.secrets.lock().unwrap().extend(tokens.into_iter().flatten());
    }
}

#[async_trait]
impl ProviderHttp for Twitch {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Unanswered> {
        tokio::task::yield_now().await;
        let reply = self.mock().handle(&request, self.clock.now().as_millis());
        self.note(&reply.response);
        match reply.connection {
            Connection::Keep => Ok(reply.response),
            Connection::CloseWithoutAnswer => Err(Unanswered::NoAnswer),
        }
    }
}
