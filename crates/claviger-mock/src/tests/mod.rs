//! Tests with a request and a time as input, and a reply as output.

mod accounts;
mod authorize;
mod changes;
mod cli;
mod control;
mod eventsub;
mod faults;
mod garbage;
mod helix;
mod oidc;
mod page;
mod socket;
mod token;
mod validate;

use bytes::Bytes;
use http::Request;
use serde_json::Value;

use crate::{
    Config, Connection, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, DEMO_REDIRECT_URI, MockTwitch, Reply, Rotation,
    Settings,
};

pub(crate) const ADA: &str = "100000001";
pub(crate) const GRACE: &str = "100000002";
pub(crate) const NOW: i64 = 1_800_000_000_000;
pub(crate) const OTHER_CLIENT: &str = "other";

/// A mock of the strict demo with a second client, and a manual clock.
pub(crate) struct Bench {
    pub(crate) mock: MockTwitch,
    pub(crate) now_ms: i64,
}

/// The reply to a request.
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) reply: Reply,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let other = crate::Client::new(OTHER_CLIENT, "other-secret").redirect_uri("https://other.example/cb");
        let public = crate::Client::new("public", "").public().redirect_uri("https://public.example/cb");
        let config = Config::strict().client(other).client(public).settings(|settings| {
            settings.awkward_refresh_tokens = false;
            settings.rotation = Rotation::OneTime;
            change(settings);
        });
        Self { mock: MockTwitch::new(config, 1), now_ms: NOW }
    }

    pub(crate) fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Got {
        let mut request = Request::builder().method(method).uri(path).header("host", "mock.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Bytes::copy_from_slice(body.as_bytes())).unwrap();
        let reply = self.mock.handle(&request, self.now_ms);
        let body = String::from_utf8_lossy(reply.response.body()).into_owned();
        Got { status: reply.response.status().as_u16(), body, reply }
    }

    pub(crate) fn get(&mut self, path: &str) -> Got {
        self.send("GET", path, &[], "")
    }

    pub(crate) fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Got {
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", path, &kind, &encode(form))
    }

    /// POST to `/oauth2/token` with the demo client's credentials.
    pub(crate) fn token(&mut self, form: &[(&str, &str)]) -> Got {
        let credentials = [("client_id", DEMO_CLIENT_ID), ("client_secret", DEMO_CLIENT_SECRET)];
        self.post("/oauth2/token", &[&credentials, form].concat())
    }

    pub(crate) fn refresh(&mut self, refresh_token: &str) -> Got {
        self.token(&[("grant_type", "refresh_token"), ("refresh_token", refresh_token)])
    }

    /// The consent form, as the demo app's user submits it.
    pub(crate) fn decide(&mut self, user: &str, decision: &str, more: &[(&str, &str)]) -> Got {
        let asked = [
            ("client_id", DEMO_CLIENT_ID),
            ("redirect_uri", DEMO_REDIRECT_URI),
            ("response_type", "code"),
            ("user", user),
            ("decision", decision),
        ];
        self.post("/oauth2/authorize", &[&asked, more].concat())
    }

    /// A code for Ada.
    pub(crate) fn code(&mut self, more: &[(&str, &str)]) -> String {
        let got = self.decide(ADA, "authorize", more);
        got.callback("code").unwrap()
    }

    pub(crate) fn exchange(&mut self, code: &str) -> Got {
        self.token(&[
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", DEMO_REDIRECT_URI),
        ])
    }

    /// Signs Ada in and returns (access token, refresh token).
    pub(crate) fn sign_in(&mut self, scope: &str) -> (String, String) {
        let code = self.code(&[("scope", scope)]);
        self.exchange(&code).tokens()
    }

    pub(crate) fn app_token(&mut self) -> String {
        self.token(&[("grant_type", "client_credentials")]).json()["access_token"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) fn validate(&mut self, token: &str) -> Got {
        self.send("GET", "/oauth2/validate", &[("authorization", &format!("OAuth {token}"))], "")
    }

    pub(crate) fn is_live(&mut self, token: &str) -> bool {
        self.validate(token).status == 200
    }
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.reply.response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn tokens(&self) -> (String, String) {
        assert_eq!(self.status, 200, "{}", self.body);
        let body = self.json();
        let field = |name: &str| body[name].as_str().unwrap().to_owned();
        (field("access_token"), field("refresh_token"))
    }

    /// A parameter of the redirect back to the app.
    pub(crate) fn callback(&self, name: &str) -> Option<String> {
        let url = url::Url::parse(self.header("location")?).unwrap();
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.reply.connection == Connection::CloseWithoutAnswer
    }

    #[track_caller]
    pub(crate) fn is(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.body.as_str()), (status, body));
    }
}

pub(crate) fn encode(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[test]
fn the_same_seed_gives_the_same_tokens_and_another_seed_others() {
    let tokens = |seed| {
        let mut mock = MockTwitch::new(Config::demo(), seed);
        mock.sign_in(ADA, DEMO_CLIENT_ID, &[], NOW).unwrap()
    };
    assert!(tokens(1) == tokens(1));
    assert!(tokens(1) != tokens(2));
    assert_eq!(tokens(1).access_token.len(), 30);
    assert!(tokens(1).refresh_token.ends_with("%2F+/="));
}

#[test]
fn nothing_that_can_be_printed_shows_a_secret() {
    let mut bench = Bench::new();
    let (access, refresh) = bench.sign_in("");
    let got = bench.refresh(&refresh);
    bench.post("/oauth2/revoke", &[("client_id", &access), ("token", &access)]);
    let log: Vec<_> = bench.mock.log().collect();
    let client = bench.mock.clients().next().unwrap();
    let json = serde_json::to_string(&log).unwrap();
    let printed = format!("{:?} {:?} {log:?} {client:?} {json}", bench.mock, got.reply);
    for secret in [access, refresh, got.tokens().0, got.tokens().1, DEMO_CLIENT_SECRET.to_owned()] {
        assert!(!printed.contains(&secret));
    }
}

#[test]
fn an_endpoint_has_the_same_name_everywhere() {
    for path in ["/oauth2/authorize", "/helix/authorization/users", "/helix/eventsub/subscriptions", "/x"] {
        let endpoint = crate::Endpoint::of_path(path).unwrap();
        assert_eq!(serde_json::to_value(endpoint).unwrap(), endpoint.name());
    }
}
