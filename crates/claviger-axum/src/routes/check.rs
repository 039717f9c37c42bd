//! `/auth/check`: tells a front proxy whether a request may pass (forward-auth).
//!
//! 200 with the identity headers lets it pass; 401 and 503 do not. The proxy's configuration sets
//! these parameters:
//!
//! * `assurance=optional|cookie|session|provider`
//! * `max_age=` in seconds, for `provider`
//! * `passive=1`: the request is no use of the session
//! * `denied=redirect` redirects navigations to the sign-in, for proxies that pass our answer on to
//!   the browser (Caddy, Traefik)
//!
//! The site's rules for the original address are the minimum. Anybody may ask for more than
//! `session`, and only a trusted proxy for less.
//!
//! Envoy appends the address of the original request to the path instead. Then the query is the
//! client's own, so there are no parameters.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use claviger_core::{
    Ask, Assurance, Presence,
    request::{path, routes::Admission},
};
use claviger_engine::{AtOnce, Caller, Denied};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts};

use crate::{
    claviger::Claviger,
    guard,
    head::RequestHead,
    params,
    problem::Problem,
    respond::{self, bad_request},
    routes::failed,
};

pub(crate) const PATH: &str = "/auth/check";
/// The same for those with a credential. The gateway serves it at its private listener.
const PRIVATE_PATH: &str = "/v1/check";

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asker {
    /// A script in a page may read the answer.
    Anybody,
    /// A program with the credential for it.
    Program,
}

pub(crate) async fn check(State(claviger): State<Claviger>, request: Request) -> Response {
    answer(&claviger, request, Asker::Anybody).await
}

/// The same for a program with a credential. Its answer has the assertion too.
pub(crate) async fn private(claviger: &Claviger, request: Request) -> Response {
    answer(claviger, request, Asker::Program).await
}

async fn answer(claviger: &Claviger, request: Request, asker: Asker) -> Response {
    let (mut parts, _body) = request.into_parts();
    let head = match claviger.head(&mut parts) {
        Ok(head) => head,
        Err(refused) => return refused,
    };
    let asked = match CheckParams::read(&parts) {
        Ok(asked) => asked,
        Err(problem) => return problem.json(),
    };
    let original = match Original::of(&parts, &head) {
        Ok(original) => original,
        Err(problem) => return problem.json(),
    };
    let admission = match admission(claviger, &parts, &head, &asked, &original) {
        Ok(admission) => admission,
        Err(problem) => return problem.json(),
    };
    let presence = asked.presence.unwrap_or(head.presence());
    let head = head.with_method(original.method.clone()).with_presence(presence);
    if let Err(refused) = claviger.guard(&head) {
        return refused;
    }
    let caller = match (admission, claviger.cookie(&head)) {
        (Admission::Vouched(assurance), Ok(cookie)) => {
            claviger.engine().authenticate(cookie, head.ask(assurance)).await.map(Some)
        }
        (Admission::Vouched(_), Err(denied)) => Err(denied),
        (Admission::Optional, Ok(cookie)) => Ok(claviger.recognize(&head, cookie).await),
        (Admission::Optional, Err(_)) | (Admission::Anyone, _) => Ok(None),
    };
    match caller {
        Ok(caller) => pass(claviger, caller, asker, &mut parts, &head),
        Err(denied) => refuse(claviger, &parts, &head, &asked, &original, &denied).await,
    }
}

/// Refuses a request. The answer to a window says where to sign in, for proxies that lead the
/// browser there themselves. One that posted a form goes to a page that says so.
async fn refuse(
    claviger: &Claviger,
    parts: &Parts,
    head: &RequestHead,
    asked: &CheckParams,
    original: &Original,
    denied: &Denied,
) -> Response {
    let problem = respond::of_denied(denied);
    if problem.status != StatusCode::UNAUTHORIZED || !head.navigates() {
        // A proxy that passes our answer on shows it to the user.
        if asked.redirects {
            return problem.unsent().answer_to(head);
        }
        let posts_form = problem.sign_in_helps && head.shows_page();
        return if posts_form { leads_to(&problem, failed::UNSENT) } else { problem.json() };
    }
    let return_to = claviger.way_back(original.target(parts)).await;
    if asked.redirects {
        return respond::to_sign_in(&return_to, denied);
    }
    leads_to(&problem, &respond::sign_in_address(&return_to, denied))
}

/// An answer for a proxy that leads the browser itself.
fn leads_to(problem: &Problem, address: &str) -> Response {
    let mut answer = problem.json();
    if let Ok(address) = HeaderValue::try_from(address) {
        answer.headers_mut().insert(SIGN_IN, address);
    }
    answer
}

/// Where to sign in. It is a path of this site.
const SIGN_IN: HeaderName = HeaderName::from_static("x-auth-sign-in");

/// The answer of [`check`] if the request passes and memory suffices to say so.
pub(crate) fn at_once(claviger: &Claviger, parts: &mut Parts, head: &RequestHead) -> Option<Response> {
    let asked = CheckParams::read(parts).ok()?;
    let original = Original::of(parts, head).ok()?;
    let Admission::Vouched(assurance) = admission(claviger, parts, head, &asked, &original).ok()? else {
        return None;
    };
    guard::check(&original.method, head).ok()?;
    let cookie = claviger.cookie(head).ok()?;
    let presence = asked.presence.unwrap_or(head.presence());
    match claviger.engine().authenticate_at_once(cookie, Ask { assurance, presence }) {
        AtOnce::Caller(caller) => Some(pass(claviger, Some(caller), Asker::Anybody, parts, head)),
        AtOnce::Unknown(_) => None,
    }
}

/// What the original request needs: what the proxy asks for, and no less than the site's rules say
/// of the original address. A stranger's word makes it stricter, never laxer.
fn admission(
    claviger: &Claviger,
    parts: &Parts,
    head: &RequestHead,
    asked: &CheckParams,
    original: &Original,
) -> Result<Admission, Problem> {
    let asked = if original.trusted { asked.admission } else { asked.admission.stricter(Admission::DEFAULT) };
    let routes = &claviger.site().routes;
    if routes.is_empty() {
        return Ok(asked);
    }
    let unclear = || bad_request("the original address can be read in more than one way");
    // Proxies pass on a client's own header where they set another.
    let told = TARGETS.iter().flat_map(|name| parts.headers.get_all(name)).map(HeaderValue::to_str);
    appended(&parts.uri).map(Ok).into_iter().chain(told).try_fold(asked, |asked, target| {
        let target = target.map_err(|_| unclear())?;
        let raw = target.split(['?', '#']).next().unwrap_or_default();
        let method = head.asked_method_of(&original.method);
        let minimum = routes.asks(method, raw, &path::read(raw)).map_err(|_| unclear())?;
        Ok(minimum.map_or(asked, |minimum| asked.stricter(minimum.admission)))
    })
}

/// Lets a request pass. The answer reuses the request's header map, since a new one costs two
/// allocations.
fn pass(
    claviger: &Claviger,
    caller: Option<Caller>,
    asker: Asker,
    parts: &mut Parts,
    head: &RequestHead,
) -> Response {
    let outdated = caller.as_ref().and_then(|_| claviger.outdated_cookie(head));
    let mut headers = std::mem::take(&mut parts.headers);
    headers.clear();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(caller) = caller {
        if asker == Asker::Program
            && let Err(denied) = claviger.add_assertion(&mut headers, &caller)
        {
            return respond::of_denied(&denied).json();
        }
        claviger.add_identity(&mut headers, caller);
    }
    if let Some(outdated) = outdated {
        claviger.renew_cookie(&mut headers, &outdated);
    }
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = headers;
    response
}

/// Headers with the original address: Caddy and Traefik, and nginx as our guide sets it up.
static TARGETS: [HeaderName; 2] =
    [HeaderName::from_static("x-forwarded-uri"), HeaderName::from_static("x-original-uri")];
/// Headers with the original method.
static METHODS: [HeaderName; 2] =
    [HeaderName::from_static("x-forwarded-method"), HeaderName::from_static("x-original-method")];

/// The parameters.
struct CheckParams {
    admission: Admission,
    redirects: bool,
    presence: Option<Presence>,
}

impl CheckParams {
    /// Those of a proxy that appends the original address. Envoy passes our answer on.
    const APPENDED: Self = Self { admission: Admission::DEFAULT, redirects: true, presence: None };

    fn read(parts: &Parts) -> Result<Self, Problem> {
        if appended(&parts.uri).is_some() {
            return Ok(Self::APPENDED);
        }
        let [assurance, max_age, denied, passive] =
            params::exactly(&parts.uri, ["assurance", "max_age", "denied", params::PASSIVE])
                .map_err(|error| respond::of_bad_params(&error))?;
        let presence =
            params::presence(passive.as_deref()).map_err(|error| respond::of_bad_params(&error))?;
        let max_age = max_age.map(|text| text.parse().map(Duration::from_secs)).transpose();
        let max_age = max_age.map_err(|_| bad_request("max_age must be a number of seconds"))?;
        let vouched = Admission::Vouched;
        let admission = match (assurance.as_deref(), max_age) {
            (Some("provider"), max_age) => vouched(Assurance::asked_by_client(max_age.unwrap_or_default())),
            (_, Some(_)) => return Err(bad_request("max_age needs assurance=provider")),
            (Some("optional"), None) => Admission::Optional,
            (Some("cookie"), None) => vouched(Assurance::Cookie),
            (None | Some("session"), None) => vouched(Assurance::Session),
            (Some(_), None) => {
                return Err(bad_request("assurance must be optional, cookie, session or provider"));
            }
        };
        let redirects = match denied.as_deref() {
            None => false,
            Some("redirect") => true,
            Some(_) => return Err(bad_request("denied must be redirect, or left out")),
        };
        Ok(Self { admission, redirects, presence })
    }
}

/// The request that the proxy asks about.
struct Original {
    method: Method,
    /// Whether headers say what the request was: those of a trusted proxy that appends nothing.
    trusted: bool,
}

impl Original {
    fn of(parts: &Parts, head: &RequestHead) -> Result<Self, Problem> {
        let trusted = head.peer().is_front() && appended(&parts.uri).is_none();
        // Headers of others may make us stricter, never laxer.
        let forwarded = forwarded_method(parts)?.filter(|method| trusted || !method.is_safe());
        Ok(Self { method: forwarded.unwrap_or_else(|| parts.method.clone()), trusted })
    }

    /// Returns where the request was going.
    fn target<'a>(&self, parts: &'a Parts) -> &'a [u8] {
        let forwarded = || {
            let field = TARGETS.iter().find_map(|name| parts.headers.get(name)).filter(|_| self.trusted)?;
            Some(field.as_bytes())
        };
        appended(&parts.uri).map(str::as_bytes).or_else(forwarded).unwrap_or(b"/")
    }
}

/// Returns the original address if the proxy appended it to the path of the check.
fn appended(uri: &Uri) -> Option<&str> {
    let asked = uri.path_and_query()?.as_str();
    let target = asked.strip_prefix(PATH).or_else(|| asked.strip_prefix(PRIVATE_PATH));
    target.filter(|target| target.starts_with('/'))
}

/// Reads the original method. Proxies pass on a client's own headers where they set none, so two
/// values that differ, or one that is no method, are an error.
fn forwarded_method(parts: &Parts) -> Result<Option<Method>, Problem> {
    // One pass over all names is cheaper than a look-up for each.
    let mut forwarded =
        parts.headers.iter().filter(|(name, _)| METHODS.contains(name)).map(|(_, value)| value);
    let Some(first) = forwarded.next() else { return Ok(None) };
    if forwarded.any(|other| other != first) {
        return Err(bad_request("the forwarded headers name two methods"));
    }
    Method::from_bytes(first.as_bytes())
        .map(Some)
        .map_err(|_| bad_request("the forwarded headers name no method"))
}
