//! A little of Helix: users, authorizations, one endpoint with a scope, and the rate limit (Twitch
//! docs: API guide).

use std::collections::BTreeMap;

use http::{HeaderValue, Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::User;
use crate::exchange::{self, Answer, Call, Refusal};
use crate::limits;
use crate::log::Endpoint;
use crate::mock::MockTwitch;
use crate::state::{Pair, SignIn};

/// A token bucket that fills evenly and holds a minute's points.
#[derive(Clone, Copy)]
struct Bucket {
    /// Thousandths of a point.
    millipoints: i64,
    at_ms: i64,
}

/// The buckets of all pairs of client and user; app tokens of a client share one.
#[derive(Default)]
pub(crate) struct Buckets(BTreeMap<Pair, Bucket>);

/// The values of the `Ratelimit-*` headers.
struct Level {
    limit: u32,
    remaining: i64,
    reset_secs: i64,
    allowed: bool,
}

impl Buckets {
    fn take(&mut self, pair: &Pair, points_per_minute: u32, now_ms: i64) -> Level {
        let rate = i64::from(points_per_minute);
        let full = rate * 1_000;
        if self.0.len() >= limits::BUCKETS {
            self.0.retain(|_, bucket| bucket.filled(rate, now_ms) < full);
        }
        let fresh = Bucket { millipoints: full, at_ms: now_ms };
        let bucket = self.0.entry(pair.clone()).or_insert(fresh);
        *bucket = Bucket { millipoints: bucket.filled(rate, now_ms), at_ms: now_ms };
        let allowed = bucket.millipoints >= 1_000;
        if allowed {
            bucket.millipoints -= 1_000;
        }
        let wait_ms = (full - bucket.millipoints).saturating_mul(60) / rate.max(1);
        let reset_secs = now_ms.saturating_add(wait_ms).saturating_add(999) / 1_000;
        Level { limit: points_per_minute, remaining: bucket.millipoints / 1_000, reset_secs, allowed }
    }
}

impl Bucket {
    /// Thousandths of a point now; a minute adds `rate` points.
    fn filled(self, rate: i64, now_ms: i64) -> i64 {
        let passed_ms = now_ms.saturating_sub(self.at_ms).clamp(0, 60_000);
        (self.millipoints + passed_ms * rate / 60).min(rate * 1_000)
    }
}

impl MockTwitch {
    /// Answers GET under `/helix/`, and EventSub's other methods: token, client id, rate limit,
    /// then the endpoint.
    pub(crate) fn helix(&mut self, call: &mut Call<'_>, endpoint: Endpoint) -> Result<Answer, Refusal> {
        let changes = endpoint == Endpoint::HelixEventsubSubscriptions
            && matches!(*call.request.method(), Method::POST | Method::DELETE);
        if !call.is_get() && !changes {
            return Err(Refusal::helix(StatusCode::NOT_FOUND, ""));
        }
        let sign_in = self.helix_caller(call)?;
        let points = self.settings.helix_points_per_minute;
        let level = self.buckets.take(&sign_in.pair, points, call.now_ms);
        let answer = if level.allowed {
            let answer = match endpoint {
                Endpoint::HelixUsers => self.helix_users(call, &sign_in),
                Endpoint::HelixAuthorizationUsers => self.helix_authorization_users(call, &sign_in),
                Endpoint::HelixEventsubSubscriptions => self.eventsub_subscriptions(call, &sign_in),
                _ => helix_subscriptions(&sign_in),
            };
            answer.unwrap_or_else(Refusal::into_answer)
        } else {
            Refusal::helix(StatusCode::TOO_MANY_REQUESTS, "Request limit exceeded").into_answer()
        };
        Ok(with_level(answer, &level))
    }

    fn helix_caller(&self, call: &mut Call<'_>) -> Result<SignIn, Refusal> {
        let unauthorized = |message: &str| Refusal::helix(StatusCode::UNAUTHORIZED, message);
        let presented =
            call.authorization(&["bearer"]).ok_or_else(|| unauthorized("OAuth token is missing"))?;
        call.note.token = Some(self.fingerprint(presented));
        let client_id = call.header("client-id").ok_or_else(|| unauthorized("Client ID is missing"))?;
        let token = self.live_token(presented, call).ok_or_else(|| unauthorized("Invalid OAuth token"))?;
        if token.sign_in.pair.client_id != client_id {
            return Err(unauthorized("Client ID and OAuth token do not match"));
        }
        Ok(token.sign_in.clone())
    }

    /// Get Users: by `id` and `login`, or the token's own user.
    fn helix_users(&self, call: &Call<'_>, sign_in: &SignIn) -> Result<Answer, Refusal> {
        let asked = call.params.all("id").count() + call.params.all("login").count();
        if asked > limits::HELIX_USERS {
            return Err(helix_bad_request("The sum of ids and logins must not exceed 100."));
        }
        let me = sign_in.pair.user_id.as_deref();
        let users: Vec<&User> = match (asked, me) {
            (0, None) => return Err(helix_bad_request("Must provide an ID, Login or OAuth Token.")),
            (0, Some(me)) => self.active_user(me).into_iter().collect(),
            _ => self
                .users
                .values()
                .filter(|user| !user.suspended)
                .filter(|user| {
                    let login = user.login.to_ascii_lowercase();
                    call.params.all("id").any(|id| id == user.id)
                        || call.params.all("login").any(|asked| asked.eq_ignore_ascii_case(&login))
                })
                .collect(),
        };
        let reads_email = sign_in.scopes.iter().any(|scope| scope == "user:read:email");
        let data: Vec<Value> = users
            .into_iter()
            .map(|user| user_json(user, reads_email && me == Some(user.id.as_str())))
            .collect();
        Ok(helix_json(StatusCode::OK, &json!({ "data": data })))
    }

    /// Get Authorization By User: at most ten ids, app access token only; unknown and
    /// suspended users are left out.
    fn helix_authorization_users(&self, call: &Call<'_>, sign_in: &SignIn) -> Result<Answer, Refusal> {
        if sign_in.pair.user_id.is_some() {
            return Err(Refusal::helix(StatusCode::UNAUTHORIZED, "Incorrect token authorization"));
        }
        let ids: Vec<&str> = call.params.all("user_id").filter(|id| !id.is_empty()).collect();
        if ids.is_empty() {
            return Err(helix_bad_request("Missing required parameter \"user_id\""));
        }
        if ids.len() > limits::AUTHORIZATION_USER_IDS {
            return Err(helix_bad_request("The parameter \"user_id\" must not have more than 10 values"));
        }
        let known = ids.into_iter().filter_map(|id| self.active_user(id));
        let data: Vec<Value> = known
            .map(|user| {
                let scopes = self.state.authorized_scopes(&Pair::user(&sign_in.pair.client_id, &user.id));
                json!({
                    "user_id": user.id,
                    "user_name": user.display_name,
                    "user_login": user.login,
                    "scopes": scopes.into_iter().flatten().collect::<Vec<_>>(),
                    "has_authorized": scopes.is_some(),
                })
            })
            .collect();
        Ok(helix_json(StatusCode::OK, &json!({ "data": data })))
    }
}

/// Get Broadcaster Subscriptions, always empty. It shows the answer to a missing scope.
fn helix_subscriptions(sign_in: &SignIn) -> Result<Answer, Refusal> {
    let needed = ["channel:read:subscriptions", "channel_subscriptions"];
    if !sign_in.scopes.iter().any(|scope| needed.contains(&scope.as_str())) {
        let message = format!("Missing scope: {}", needed.join(" or "));
        return Err(Refusal::helix(StatusCode::UNAUTHORIZED, message));
    }
    Ok(helix_json(StatusCode::OK, &json!({ "data": [], "pagination": {}, "points": 0, "total": 0 })))
}

fn user_json(user: &User, with_email: bool) -> Value {
    let mut value = json!({
        "id": user.id,
        "login": user.login,
        "display_name": user.display_name,
        "type": "",
        "broadcaster_type": "",
        "description": "",
        "profile_image_url": user.picture(),
        "offline_image_url": "",
        "view_count": 0,
        "created_at": "2020-01-01T00:00:00Z",
    });
    if let (true, Some(email), Some(fields)) = (with_email, &user.email, value.as_object_mut()) {
        fields.insert("email".to_owned(), json!(email));
    }
    value
}

/// A JSON answer with Helix's media type.
pub(crate) fn helix_json(status: StatusCode, body: &impl Serialize) -> Answer {
    let mut answer = exchange::json(status, body);
    let kind = HeaderValue::from_static("application/json; charset=utf-8");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    answer
}

fn helix_bad_request(message: &str) -> Refusal {
    Refusal::helix(StatusCode::BAD_REQUEST, message)
}

fn with_level(mut answer: Answer, level: &Level) -> Answer {
    let headers = answer.headers_mut();
    headers.insert("ratelimit-limit", HeaderValue::from(level.limit));
    headers.insert("ratelimit-remaining", HeaderValue::from(level.remaining));
    headers.insert("ratelimit-reset", HeaderValue::from(level.reset_secs));
    answer
}
