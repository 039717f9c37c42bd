//! `/oauth2/authorize`: the consent page and the way back to the app (Twitch docs: getting tokens).

use std::collections::BTreeSet;

use http::header::SET_COOKIE;
use http::{HeaderValue, StatusCode};

use crate::config::{self, Client};
use crate::exchange::{self, Answer, Call, Params, Refusal};
use crate::limits;
use crate::mock::MockTwitch;
use crate::oauth::callback::Callback;
use crate::pages;
use crate::state::{Code, OidcRequest, Pair, SignIn};

/// The cookie that says who is signed in at the mock in this browser.
pub(crate) const USER_COOKIE: &str = "mock_twitch_user";

/// An authorization request, checked.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) client_id: String,
    pub(crate) client_name: String,
    pub(crate) redirect_uri: String,
    pub(crate) state: Option<String>,
    pub(crate) scopes: Vec<String>,
    force_verify: bool,
    oidc: OidcRequest,
    challenge: Option<String>,
}

/// Why an authorization stops.
enum Stop {
    /// The browser stays here.
    Page(Refusal),
    /// The browser goes back to the app with an error.
    Callback { redirect_uri: String, state: Option<String>, error: &'static str, description: String },
}

impl MockTwitch {
    /// Answers GET (the page, or a silent redirect) and POST (the decision).
    pub(crate) fn authorize(&mut self, call: &mut Call<'_>) -> Answer {
        if !call.is_get() && !call.is_post() {
            return exchange::not_found();
        }
        call.note.client_id = call.params.get("client_id").and_then(|id| self.known_client(id));
        let from_form = call.is_post();
        let request = match self.read_request(&call.params) {
            Ok(request) => request,
            Err(stop) => return self.stopped(call, stop, from_form),
        };
        if from_form { self.decided(call, &request) } else { self.asked(call, &request) }
    }

    fn asked(&mut self, call: &mut Call<'_>, request: &Request) -> Answer {
        if let Some(user_id) = self.settings.authorize_at_once_as.clone()
            && self.active_user(&user_id).is_some()
        {
            return self.consented(call, request, &user_id);
        }
        let current = call.cookie(USER_COOKIE).filter(|id| self.active_user(id).is_some());
        if let Some(user_id) = current.filter(|_| !request.force_verify) {
            let authorized = self.state.authorized_scopes(&Pair::user(&request.client_id, user_id));
            if authorized.is_some_and(|scopes| request.scopes.iter().all(|scope| scopes.contains(scope))) {
                return self.consented(call, request, user_id);
            }
        }
        call.note.user_id = current.map(str::to_owned);
        pages::consent(self, request, &call.params, current)
    }

    fn decided(&mut self, call: &mut Call<'_>, request: &Request) -> Answer {
        if call.is_cross_site() {
            let refusal = Refusal::new(StatusCode::FORBIDDEN, "The decision must come from the consent page");
            return pages::refusal(&refusal, StatusCode::FORBIDDEN);
        }
        match (call.params.get("decision"), call.params.get("user").map(str::to_owned)) {
            (Some("deny"), _) => {
                let stop = request.stop("access_denied", "The user denied you access");
                self.stopped(call, stop, true)
            }
            (Some("authorize"), Some(user_id)) if self.active_user(&user_id).is_some() => {
                let mut granted = request.clone();
                if self.settings.partial_grants {
                    let chosen = |scope: &String| call.params.get(&format!("grant {scope}")).is_some();
                    granted.scopes.retain(chosen);
                }
                let mut answer = self.consented(call, &granted, &user_id);
                set_user_cookie(&mut answer, Some(&user_id));
                answer
            }
            (Some("authorize"), Some(user_id)) if self.users.contains_key(&user_id) => pages::refusal(
                &Refusal::new(StatusCode::FORBIDDEN, "This account is suspended"),
                StatusCode::FORBIDDEN,
            ),
            (Some("authorize"), _) => {
                pages::refusal(&Refusal::bad_request("Please choose who you are"), StatusCode::BAD_REQUEST)
            }
            _ => pages::refusal(&Refusal::bad_request("Unknown decision"), StatusCode::BAD_REQUEST),
        }
    }

    /// The user agrees: records the authorization and sends a code to the app.
    fn consented(&mut self, call: &mut Call<'_>, request: &Request, user_id: &str) -> Answer {
        call.note.user_id = Some(user_id.to_owned());
        let code = self.mint_code(request, user_id, call);
        let callback = Callback::new(&request.redirect_uri)
            .with("code", &code)
            .with("scope", &request.scopes.join(" "))
            .with_some("state", request.state.as_deref())
            .with_some("iss", self.callback_iss(call).as_deref());
        if self.settings.callback_by_hand {
            return pages::callback(callback.location());
        }
        callback.answer(call.is_post()).unwrap_or_else(bad_location)
    }

    fn mint_code(&mut self, request: &Request, user_id: &str, call: &Call<'_>) -> String {
        let pair = Pair::user(&request.client_id, user_id);
        self.grant(&pair, &request.scopes, call.is_post());
        let family = self.state.new_family();
        let sign_in = SignIn { pair, scopes: request.scopes.clone(), oidc: request.oidc.clone(), family };
        let code = Code {
            sign_in,
            redirect_uri: request.redirect_uri.clone(),
            challenge: request.challenge.clone(),
            expires_at_ms: call.now_ms.saturating_add(i64::from(self.settings.code_lifetime_secs) * 1_000),
        };
        let value = self.mint.code();
        self.state.add_code(value.clone(), code, call.now_ms);
        value
    }

    fn stopped(&self, call: &Call<'_>, stop: Stop, from_form: bool) -> Answer {
        match stop {
            Stop::Page(refusal) => pages::refusal(&refusal, StatusCode::BAD_REQUEST),
            Stop::Callback { redirect_uri, state, error, description } => Callback::new(&redirect_uri)
                .with("error", error)
                .with("error_description", &description)
                .with_some("state", state.as_deref())
                .with_some("iss", self.callback_iss(call).as_deref())
                .answer(from_form)
                .unwrap_or_else(bad_location),
        }
    }

    fn callback_iss(&self, call: &Call<'_>) -> Option<String> {
        self.settings.callback_iss.then(|| self.issuer(call))
    }

    fn read_request(&self, params: &Params) -> Result<Request, Stop> {
        params.unambiguous().map_err(Stop::Page)?;
        let client_id = params
            .filled("client_id")
            .ok_or_else(|| Stop::Page(Refusal::bad_request("missing client id")))?;
        let client =
            self.clients.get(client_id).ok_or_else(|| Stop::Page(Refusal::bad_request("invalid client")))?;
        let redirect_uri = self.read_redirect_uri(client, params)?;
        let mut request = Request {
            client_id: client_id.to_owned(),
            client_name: client.name.clone(),
            redirect_uri,
            state: params.get("state").map(str::to_owned),
            scopes: Vec::new(),
            force_verify: params.get("force_verify") == Some("true"),
            oidc: OidcRequest::default(),
            challenge: None,
        };
        match params.get("response_type") {
            Some("code") => {}
            Some(_) => {
                return Err(
                    request.stop("unsupported_response_type", "The mock supports only response_type=code")
                );
            }
            None => return Err(request.stop("invalid_request", "missing response type")),
        }
        request.scopes = read_scopes(params).map_err(|bad| request.stop("invalid_scope", bad))?;
        request.oidc = read_oidc(params).map_err(|bad| request.stop("invalid_request", bad))?;
        if self.settings.pkce {
            request.challenge = read_challenge(params).map_err(|bad| request.stop("invalid_request", bad))?;
        }
        Ok(request)
    }

    /// The redirect URI to use; a wrong one sends the browser to the first registered one, with the
    /// request's `state`.
    fn read_redirect_uri(&self, client: &Client, params: &Params) -> Result<String, Stop> {
        let given = params.get("redirect_uri").unwrap_or_default();
        let registered = client.redirect_uris.iter().any(|uri| uri == given);
        if registered || (self.settings.allow_any_loopback_redirect && config::is_loopback_address(given)) {
            return Ok(given.to_owned());
        }
        let description = "Parameter redirect_uri does not match registered URI";
        match client.redirect_uris.first() {
            Some(first) => Err(Stop::Callback {
                redirect_uri: first.clone(),
                state: params.get("state").map(str::to_owned),
                error: "redirect_mismatch",
                description: description.to_owned(),
            }),
            None => Err(Stop::Page(Refusal::bad_request(description))),
        }
    }
}

impl Request {
    fn stop(&self, error: &'static str, description: impl Into<String>) -> Stop {
        Stop::Callback {
            redirect_uri: self.redirect_uri.clone(),
            state: self.state.clone(),
            error,
            description: description.into(),
        }
    }
}

/// Signs the browser in at the mock, or out.
pub(crate) fn set_user_cookie(answer: &mut Answer, user_id: Option<&str>) {
    let cookie = match user_id {
        Some(user_id) => format!("{USER_COOKIE}={user_id}; Path=/; HttpOnly; SameSite=Lax"),
        None => format!("{USER_COOKIE}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"),
    };
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        answer.headers_mut().append(SET_COOKIE, cookie);
    }
}

/// Splits a `scope` parameter; Twitch's list of scopes grows, so any well-formed one is accepted.
pub(crate) fn split_scopes(text: &str) -> Result<Vec<String>, String> {
    let mut seen = BTreeSet::new();
    let scopes: Vec<String> =
        text.split(' ').filter(|scope| !scope.is_empty() && seen.insert(*scope)).map(str::to_owned).collect();
    let well_formed = |scope: &String| {
        scope.len() <= limits::SCOPE_BYTES
            && scope
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b":_".contains(&byte))
    };
    match scopes.iter().find(|scope| !well_formed(scope)) {
        Some(bad) => Err(format!("invalid scope requested: '{bad}'")),
        None if scopes.len() > limits::SCOPES => Err("too many scopes requested".to_owned()),
        None => Ok(scopes),
    }
}

fn read_scopes(params: &Params) -> Result<Vec<String>, String> {
    split_scopes(params.get("scope").unwrap_or_default())
}

fn read_oidc(params: &Params) -> Result<OidcRequest, String> {
    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct Claims {
        id_token: std::collections::BTreeMap<String, serde::de::IgnoredAny>,
        userinfo: std::collections::BTreeMap<String, serde::de::IgnoredAny>,
    }
    let claims: Claims = match params.filled("claims") {
        Some(text) => serde_json::from_str(text).map_err(|_| "claims is not the expected JSON".to_owned())?,
        None => Claims::default(),
    };
    Ok(OidcRequest {
        nonce: params.filled("nonce").map(str::to_owned),
        id_token_claims: claims.id_token.into_keys().collect(),
        userinfo_claims: claims.userinfo.into_keys().collect(),
    })
}

/// Reads an S256 challenge (RFC 7636, section 4.3).
fn read_challenge(params: &Params) -> Result<Option<String>, String> {
    match (params.filled("code_challenge"), params.get("code_challenge_method")) {
        (None, _) => Ok(None),
        (Some(challenge), Some("S256")) => Ok(Some(challenge.to_owned())),
        (Some(_), _) => Err("code_challenge_method must be S256".to_owned()),
    }
}

fn bad_location() -> Answer {
    pages::refusal(&Refusal::bad_request("The redirect URI cannot be sent"), StatusCode::BAD_REQUEST)
}
