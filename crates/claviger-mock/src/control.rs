//! The control API under `/mock/`: settings, faults, clients, users, tokens and the log, as JSON.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::config::{Client, Settings, User};
use crate::exchange::{self, Answer, Call, Refusal};
use crate::faults::Fault;
use crate::limits;
use crate::log::LogEntry;
use crate::mock::MockTwitch;
use crate::page::{self, Said};
use crate::pages;
use crate::secret::Secret;
use crate::state::SignIn;

/// Maximum number of tokens, subscriptions or deliveries in one listing.
pub(crate) const LISTED: usize = 1_000;

/// A client to register; a missing id or secret is generated.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewClient {
    client_id: Option<String>,
    client_secret: Option<Secret>,
    #[serde(default)]
    public: bool,
    #[serde(default)]
    name: String,
    #[serde(default)]
    redirect_uris: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct DisconnectOrder {
    client_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum KillOrder {
    Token(String),
    Fingerprint(String),
}

impl MockTwitch {
    /// Answers `/` and everything under `/mock/`.
    pub(crate) fn control(&mut self, call: &mut Call<'_>) -> Answer {
        if !call.is_get() && call.is_cross_site() {
            let refusal =
                Refusal::new(StatusCode::FORBIDDEN, "the control API refuses requests from other sites");
            return refusal.into_answer();
        }
        let answer = match call.request.uri().path() {
            "/" | "/mock" | "/mock/" if call.is_get() => Ok(self.show_page(call)),
            "/mock/style.css" if call.is_get() => Ok(pages::style()),
            "/mock/page.js" if call.is_get() => Ok(page::script()),
            page::ORDERS if call.is_post() => Ok(self.order(call)),
            path => self.control_api(call, path),
        };
        answer.unwrap_or_else(Refusal::into_answer)
    }

    /// The page at `/`. The words of the last order are shown once; a page that keeps itself up to
    /// date (`?live`) leaves them.
    fn show_page(&mut self, call: &Call<'_>) -> Answer {
        let said = if call.params.get("live").is_some() { None } else { self.said.take() };
        let said = said.map(|words| Said { words, is_error: false });
        self.page(&self.base_url(call), said).answer()
    }

    fn control_api(&mut self, call: &Call<'_>, path: &str) -> Result<Answer, Refusal> {
        let path = path.strip_prefix("/mock/").unwrap_or_default();
        let segments: Vec<&str> = path.split('/').collect();
        let method = if call.is_get() { &Method::GET } else { call.request.method() };
        match (method.as_str(), segments.as_slice()) {
            ("GET", ["settings"]) => Ok(exchange::json(StatusCode::OK, &self.settings)),
            ("PATCH", ["settings"]) => self.patch_settings(call),
            ("GET", ["faults"]) => Ok(ok(&json!({ "faults": self.faults().collect::<Vec<_>>() }))),
            ("POST", ["faults"]) => self.post_fault(call),
            ("DELETE", ["faults"]) => Ok(done(|| self.clear_faults())),
            ("GET", ["clients"]) => Ok(self.list_clients()),
            ("POST", ["clients"]) => self.post_client(call),
            ("GET", ["users"]) => Ok(ok(&json!({ "users": self.users().collect::<Vec<_>>() }))),
            ("POST", ["users"]) => self.post_user(call),
            (_, ["users", user_id, rest @ ..]) => self.user_order(call, method, user_id, rest),
            ("GET", ["tokens"]) => Ok(self.list_tokens(call.now_ms)),
            ("POST", ["tokens", "kill"]) => self.kill_order(call),
            ("GET", ["log"]) => Ok(self.list_log(call)),
            ("DELETE", ["log"]) => Ok(done(|| self.clear_log())),
            ("GET", ["counters"]) => Ok(exchange::json(StatusCode::OK, self.counters())),
            ("POST", ["signing-key", "rotate"]) => Ok(done(|| self.rotate_signing_key())),
            (method, ["eventsub", path @ ..]) => self.eventsub_order(call, method, path),
            ("POST", ["reset"]) => Ok(done(|| self.reset())),
            _ => Err(unknown("control call")),
        }
    }

    fn patch_settings(&mut self, call: &Call<'_>) -> Result<Answer, Refusal> {
        self.change_settings(body(call)?)?;
        Ok(exchange::json(StatusCode::OK, &self.settings))
    }

    /// Changes the settings that a patch names, also those within `eventsub`.
    pub(crate) fn change_settings(&mut self, patch: serde_json::Map<String, Value>) -> Result<(), Refusal> {
        let mut merged = match serde_json::to_value(&self.settings) {
            Ok(Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        for (name, value) in patch {
            match (merged.get_mut(&name), value) {
                (Some(Value::Object(group)), Value::Object(fields)) if name == "eventsub" => {
                    group.extend(fields);
                }
                (_, value) => {
                    merged.insert(name, value);
                }
            }
        }
        let settings: Settings = serde_json::from_value(Value::Object(merged)).map_err(unreadable)?;
        settings.check().map_err(Refusal::bad_request)?;
        self.settings = settings;
        Ok(())
    }

    fn post_fault(&mut self, call: &Call<'_>) -> Result<Answer, Refusal> {
        let fault: Fault = body(call)?;
        fault.check().map_err(Refusal::bad_request)?;
        if self.faults().count() >= limits::FAULTS {
            return Err(Refusal::bad_request("too many faults are waiting"));
        }
        self.add_fault(fault.clone());
        Ok(exchange::json(StatusCode::CREATED, &fault))
    }

    fn list_clients(&self) -> Answer {
        let clients: Vec<Value> = self
            .clients()
            .map(|client| {
                json!({
                    "client_id": client.client_id,
                    "name": client.name,
                    "public": client.client_secret.is_none(),
                    "redirect_uris": client.redirect_uris,
                })
            })
            .collect();
        ok(&json!({ "clients": clients }))
    }

    fn post_client(&mut self, call: &Call<'_>) -> Result<Answer, Refusal> {
        let new: NewClient = body(call)?;
        let client_id = new.client_id.unwrap_or_else(|| self.mint.code());
        let secret = new.client_secret.unwrap_or_else(|| Secret::new(self.mint.client_secret()));
        let client = Client {
            name: if new.name.is_empty() { client_id.clone() } else { new.name },
            client_id,
            client_secret: (!new.public).then_some(secret),
            redirect_uris: new.redirect_uris,
        };
        let answer = json!({
            "client_id": client.client_id,
            "client_secret": client.client_secret.as_ref().map(Secret::expose),
            "name": client.name,
            "redirect_uris": client.redirect_uris,
        });
        self.take_client(client)?;
        Ok(exchange::json(StatusCode::CREATED, &answer))
    }

    fn post_user(&mut self, call: &Call<'_>) -> Result<Answer, Refusal> {
        let mut user: User = body(call)?;
        if user.display_name.is_empty() {
            user.display_name.clone_from(&user.login);
        }
        user.check().map_err(Refusal::bad_request)?;
        if self.users.len() >= limits::USERS {
            return Err(Refusal::bad_request("too many users"));
        }
        self.add_user(user.clone());
        Ok(exchange::json(StatusCode::CREATED, &user))
    }

    fn user_order(
        &mut self,
        call: &Call<'_>,
        method: &Method,
        user_id: &str,
        order: &[&str],
    ) -> Result<Answer, Refusal> {
        if !self.users.contains_key(user_id) {
            return Err(unknown("user"));
        }
        match (method.as_str(), order) {
            ("DELETE", []) => Ok(done(|| self.delete_user(user_id))),
            ("PATCH", []) => {
                let user = self.patch_user(user_id, &body(call)?).map_err(Refusal::bad_request)?;
                Ok(exchange::json(StatusCode::OK, user))
            }
            ("POST", ["disconnect"]) => self.disconnect_order(call, user_id),
            ("POST", ["expire-access-tokens"]) => {
                Ok(ok(&json!({ "expired": self.expire_access_tokens(user_id) })))
            }
            ("POST", ["kill-tokens"]) => Ok(ok(&json!({ "killed": self.kill_tokens(user_id) }))),
            _ => Err(unknown("control call")),
        }
    }

    fn disconnect_order(&mut self, call: &Call<'_>, user_id: &str) -> Result<Answer, Refusal> {
        let order: DisconnectOrder =
            if call.request.body().is_empty() { DisconnectOrder::default() } else { body(call)? };
        let client_ids: Vec<String> = match order.client_id {
            Some(client_id) => vec![client_id],
            None => self.clients.keys().cloned().collect(),
        };
        let disconnected: Vec<String> =
            client_ids.into_iter().filter(|client_id| self.disconnect(user_id, client_id)).collect();
        Ok(ok(&json!({ "disconnected": disconnected })))
    }

    fn list_tokens(&self, now_ms: i64) -> Answer {
        let row = |kind: &str, value: &String, sign_in: &SignIn, expires_in_secs: Option<i64>| {
            json!({
                "kind": kind,
                "fingerprint": self.fingerprint(value),
                "client_id": sign_in.pair.client_id,
                "user_id": sign_in.pair.user_id,
                "scopes": sign_in.scopes,
                "expires_in_secs": expires_in_secs,
            })
        };
        let access = self.state.live_access(now_ms).map(|(value, token)| {
            let expires_in_secs = token.expires_at_ms.saturating_sub(now_ms) / 1_000;
            row("access", value, &token.sign_in, Some(expires_in_secs))
        });
        let refresh =
            self.state.live_refresh().map(|(value, token)| row("refresh", value, &token.sign_in, None));
        let tokens: Vec<Value> = access.take(LISTED).chain(refresh.take(LISTED)).collect();
        ok(&json!({ "tokens": tokens }))
    }

    fn kill_order(&mut self, call: &Call<'_>) -> Result<Answer, Refusal> {
        let token = match body(call)? {
            KillOrder::Token(token) => token,
            KillOrder::Fingerprint(wanted) => {
                self.token_named(&wanted, call.now_ms).ok_or_else(|| unknown("token"))?
            }
        };
        Ok(ok(&json!({ "killed": self.kill_token(&token) })))
    }

    /// The live token with this fingerprint.
    pub(crate) fn token_named(&self, fingerprint: &str, now_ms: i64) -> Option<String> {
        let access = self.state.live_access(now_ms).map(|(value, _)| value);
        let mut values = access.chain(self.state.live_refresh().map(|(value, _)| value));
        values.find(|value| self.fingerprint(value) == fingerprint).cloned()
    }

    /// The log, oldest first; `endpoint`, `grant_type` and `after` (a sequence number) select
    /// entries.
    fn list_log(&self, call: &Call<'_>) -> Answer {
        let endpoint = call.params.filled("endpoint");
        let grant_type = call.params.filled("grant_type");
        let after = call.params.filled("after").and_then(|after| after.parse().ok()).unwrap_or(0);
        let chosen = |entry: &&LogEntry| {
            endpoint.is_none_or(|name| entry.endpoint.name() == name)
                && grant_type.is_none_or(|name| entry.grant_type.as_deref() == Some(name))
                && entry.sequence > after
        };
        ok(&json!({ "log": self.log().filter(chosen).collect::<Vec<_>>() }))
    }
}

pub(crate) fn body<T: DeserializeOwned>(call: &Call<'_>) -> Result<T, Refusal> {
    serde_json::from_slice(call.request.body()).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> Refusal {
    Refusal::bad_request(format!("the JSON body is not as expected: {error}"))
}

pub(crate) fn unknown(what: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("unknown {what}"))
}

pub(crate) fn ok(value: &Value) -> Answer {
    exchange::json(StatusCode::OK, value)
}

fn done<T>(order: impl FnOnce() -> T) -> Answer {
    order();
    exchange::empty(StatusCode::NO_CONTENT)
}
