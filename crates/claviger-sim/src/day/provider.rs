//! The provider of a day: the mock's pure handler behind a slow network, with an outage and a storm
//! of 429s. It judges HOURLY and SPREAD by what reaches it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use claviger_core::{AuthorizationCode, RateLimitBounds, limits};
use claviger_engine::{Callback, ProviderHttp};
use claviger_mock::{Endpoint, Fault, FaultKind, MockTwitch, Outcome, RetryAfter};
use claviger_provider::Unanswered;
use http::{Request, Response};

use crate::{rng::Rng, spread::Spread};

use super::{Calendar, Clock, watch::Watch};

/// Time of a round trip, minimum and maximum.
const LATENCY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(80));

pub(super) struct Provider {
    pub(super) mock: Mutex<MockTwitch>,
    pub(super) clock: Arc<Clock>,
    calendar: Calendar,
    rng: Arc<Rng>,
    spread: Mutex<Spread>,
    watch: Mutex<Watch>,
}

impl Provider {
    pub(super) fn new(
        mock: MockTwitch,
        calendar: Calendar,
        budget: u32,
        people: usize,
        clock: Arc<Clock>,
        rng: Arc<Rng>,
    ) -> Self {
        let bounds = RateLimitBounds::per_second(budget);
        // The clocks of the instances agree.
        let spread = Spread::new(bounds.ceiling_per_second, bounds.burst, limits::RATE_LIMIT_LATE);
        let watch = Watch::new(people, clock.start());
        Self {
            mock: Mutex::new(mock),
            clock,
            calendar,
            rng,
            spread: Mutex::new(spread),
            watch: Mutex::new(watch),
        }
    }

    pub(super) fn mock(&self) -> MutexGuard<'_, MockTwitch> {
        self.mock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the highest use of the budget, where 1 is the limit.
    pub(super) fn fullest(&self) -> f64 {
        self.spread.lock().unwrap_or_else(PoisonError::into_inner).fullest
    }

    /// Returns the number of calls of an endpoint.
    pub(super) fn calls(&self, endpoint: Endpoint) -> u64 {
        self.mock().calls(endpoint)
    }

    /// Sends a browser to the authorization page, where the user agrees at once, and back.
    pub(super) fn authorize(&self, user: &str, location: &str) -> Option<Callback> {
        if self.calendar.out(self.clock.elapsed()).is_some() {
            return None;
        }
        let mut mock = self.mock();
        mock.settings_mut().authorize_at_once_as = Some(user.to_owned());
        let request = Request::get(location).body(Bytes::new()).ok()?;
        let reply = mock.handle(&request, self.clock.at().as_millis());
        drop(mock);
        let back = reply.response.headers().get(http::header::LOCATION)?.to_str().ok()?.to_owned();
        let back = url::Url::parse(&back).ok()?;
        let param = |name: &str| back.query_pairs().find(|(key, _)| key == name).map(|(_, v)| v.into_owned());
        Some(Callback {
            state: param("state").unwrap_or_default(),
            code: param("code").map(AuthorizationCode::new),
            error: param("error"),
            iss: param("iss"),
            address: None,
        })
    }

    fn arrive(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let now = self.clock.at();
        let mut mock = self.mock();
        if self.calendar.storms(self.clock.elapsed()) && request.uri().path() == "/oauth2/validate" {
            self.weather(&mut mock);
        }
        let reply = mock.handle(request, now.as_millis());
        let Some(seen) = mock.log().next_back() else { return reply.response };
        let good = seen.outcome == Outcome::Answered(200);
        let (endpoint, user) = (seen.endpoint, seen.user_id.as_deref().and_then(number_of));
        let validates = seen.endpoint == Endpoint::Validate;
        let mut watch = self.watch();
        if validates {
            watch.answered(seen.outcome == Outcome::Answered(429));
        }
        if let Some(user) = user.filter(|_| good) {
            match endpoint {
                Endpoint::Validate => watch.proven(user, now),
                Endpoint::Token => {
                    let lifetime = Duration::from_secs(u64::from(mock.settings().token_lifetime_secs));
                    watch.issued(user, now, now.after(lifetime));
                }
                _ => {}
            }
        }
        reply.response
    }

    /// Answers two of three validations with 429, some with Retry-After.
    fn weather(&self, mock: &mut MockTwitch) {
        if self.rng.chance(667) {
            let retry_after = self.rng.chance(50).then_some(RetryAfter::Seconds(20));
            mock.add_fault(Fault::once(Endpoint::Validate, FaultKind::too_many_requests(retry_after)));
        }
    }

    /// SPREAD: counts a validation against the budget. A sign-in's first validation of its new
    /// token does not count.
    fn leaves(&self, request: &Request<Bytes>) {
        if request.uri().path() != "/oauth2/validate" {
            return;
        }
        let now = self.clock.elapsed();
        let value = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = value.and_then(|value| value.strip_prefix("OAuth ")).unwrap_or_default();
        let mut watch = self.watch();
        if watch.identifies(token) {
            return;
        }
        watch.sent(now);
        let allowed = self.spread.lock().unwrap_or_else(PoisonError::into_inner).sent(now);
        if !allowed {
            watch.violate("SPREAD", format!("after {now:?}: more than the budget allows"));
        }
    }
}

/// Ids of users are this number plus their index.
const FIRST_USER: u64 = 200_000_000;

pub(super) fn user_id(number: usize) -> String {
    (FIRST_USER + number as u64).to_string()
}

fn number_of(user: &str) -> Option<usize> {
    usize::try_from(user.parse::<u64>().ok()?.checked_sub(FIRST_USER)?).ok()
}

/// An instance's way to the provider, for as long as it lives.
pub(super) struct Line {
    pub(super) provider: Arc<Provider>,
    pub(super) dead: Arc<AtomicBool>,
}

impl Line {
    async fn live_on(&self) {
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl ProviderHttp for Line {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Unanswered> {
        self.live_on().await;
        let provider = &self.provider;
        provider.leaves(&request);
        tokio::time::sleep(provider.rng.span(LATENCY.0, LATENCY.1) / 2).await;
        let answer = match provider.calendar.out(provider.clock.elapsed()) {
            Some(Out::Unreachable) => Err(Unanswered::NotSent),
            Some(Out::Unavailable) => Ok(unavailable()),
            None => Ok(provider.arrive(&request)),
        };
        if let Some(answer) = answer.as_ref().ok().filter(|_| exchanges_code(&request)) {
            provider.watch().signs_in(answer.body());
        }
        tokio::time::sleep(provider.rng.span(LATENCY.0, LATENCY.1) / 2).await;
        self.live_on().await;
        answer
    }
}

/// Returns whether this request exchanges a sign-in's code.
fn exchanges_code(request: &Request<Bytes>) -> bool {
    let mut form = url::form_urlencoded::parse(request.body());
    request.uri().path() == "/oauth2/token"
        && form.any(|(name, value)| name == "grant_type" && value == "authorization_code")
}

/// The two kinds of an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Out {
    /// No connection can be made.
    Unreachable,
    /// Each answer is a 503.
    Unavailable,
}

fn unavailable() -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    answer
}
