//! Reading requests and building answers.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, DATE, Entry, LOCATION};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde::Serialize;

use crate::limits;
use crate::log::Note;

/// The answer that every endpoint gives.
pub(crate) type Answer = Response<Bytes>;

/// A refusal in the shape of Twitch's error bodies.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    error: Option<&'static str>,
    message: String,
}

impl Refusal {
    /// A refusal of id.twitch.tv: `{"status":..,"message":".."}`.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, error: None, message: message.into() }
    }

    /// A refusal of id.twitch.tv with status 400.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A refusal of Helix: `{"error":"..","status":..,"message":".."}`.
    pub(crate) fn helix(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, error: status.canonical_reason(), message: message.into() }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn into_answer(self) -> Answer {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            error: Option<&'a str>,
            status: u16,
            message: &'a str,
        }
        let body = Body { error: self.error, status: self.status.as_u16(), message: &self.message };
        json(self.status, &body)
    }
}

/// One request on its way through an endpoint.
pub(crate) struct Call<'a> {
    pub(crate) request: &'a Request<Bytes>,
    pub(crate) params: Params,
    pub(crate) now_ms: i64,
    pub(crate) note: Note,
}

impl<'a> Call<'a> {
    pub(crate) fn new(request: &'a Request<Bytes>, now_ms: i64) -> Self {
        Self { request, params: Params::of(request), now_ms, note: Note::default() }
    }

    pub(crate) fn is_get(&self) -> bool {
        matches!(*self.request.method(), Method::GET | Method::HEAD)
    }

    pub(crate) fn is_post(&self) -> bool {
        *self.request.method() == Method::POST
    }

    /// A header as text, if it occurs once and is visible ASCII.
    pub(crate) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&'a str> {
        self.request.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The token of an `Authorization` header with one of these schemes, in any case.
    pub(crate) fn authorization(&self, schemes: &[&str]) -> Option<&'a str> {
        let (scheme, token) = self.header(AUTHORIZATION)?.trim().split_once(' ')?;
        let token = token.trim();
        let known = schemes.iter().any(|wanted| wanted.eq_ignore_ascii_case(scheme));
        (known && !token.is_empty()).then_some(token)
    }

    /// A cookie's value, from any of the `Cookie` headers.
    pub(crate) fn cookie(&self, name: &str) -> Option<&'a str> {
        let headers = self.request.headers().get_all(COOKIE).iter();
        let mut pairs = headers.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
        pairs.find_map(|pair| {
            pair.trim().split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value)
        })
    }

    /// Whether the browser's headers show that another site caused this request.
    pub(crate) fn is_cross_site(&self) -> bool {
        if let Some(site) = self.header("sec-fetch-site") {
            return !matches!(site, "same-origin" | "none");
        }
        let Some(origin) = self.request.headers().get(http::header::ORIGIN) else {
            return false;
        };
        let authority =
            origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
        authority.is_none() || authority != self.header(http::header::HOST)
    }
}

/// The parameters of query string and form body together; Twitch accepts both on POST.
#[derive(Debug, Default)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    overflow: bool,
}

impl Params {
    fn of(request: &Request<Bytes>) -> Self {
        let query = request.uri().query().unwrap_or_default().as_bytes();
        let body: &[u8] = if has_form(request) { request.body() } else { &[] };
        let mut all = form_urlencoded::parse(query).chain(form_urlencoded::parse(body));
        let pairs = all
            .by_ref()
            .take(limits::PARAMETERS)
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
            .collect();
        Self { pairs, overflow: all.next().is_some() }
    }

    /// The first value of a parameter, empty or not.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a parameter, if it is not empty.
    pub(crate) fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Refuses repeated parameters (RFC 6749, section 3.1) and too many.
    pub(crate) fn unambiguous(&self) -> Result<(), Refusal> {
        if self.overflow {
            return Err(Refusal::bad_request("too many parameters"));
        }
        let mut seen = std::collections::BTreeSet::new();
        match self.pairs.iter().find(|(key, _)| !seen.insert(key.as_str())) {
            Some(_) => Err(Refusal::bad_request("duplicate parameter")),
            None => Ok(()),
        }
    }
}

fn has_form(request: &Request<Bytes>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    *request.method() == Method::POST
        && kind.is_none_or(|kind| {
            let essence = kind.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        })
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    typed(status, "application/json", Bytes::from(bytes))
}

/// An HTML answer that loads nothing from elsewhere and cannot be framed.
pub(crate) fn html(status: StatusCode, page: String) -> Answer {
    let mut answer = typed(status, "text/html; charset=utf-8", Bytes::from(page));
    let policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
         base-uri 'none'; frame-ancestors 'none'";
    let headers = answer.headers_mut();
    headers.insert(http::header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(http::header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    answer
}

/// An answer with a body of a given media type.
pub(crate) fn typed(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A redirect; `None` if the address cannot be sent in a header.
pub(crate) fn redirect(status: StatusCode, location: &str) -> Option<Answer> {
    let location = HeaderValue::from_str(location).ok()?;
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = status;
    answer.headers_mut().insert(LOCATION, location);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(answer)
}

/// The answer of an unknown path, or of a known one with the wrong method (twitchdev/issues#862 for
/// GET on `/token`).
pub(crate) fn not_found() -> Answer {
    typed(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", Bytes::from_static(b"404 page not found\n"))
}

/// The answer with the time at which it was written, unless it names one.
pub(crate) fn dated(mut answer: Answer, now_ms: i64) -> Answer {
    if let Entry::Vacant(date) = answer.headers_mut().entry(DATE) {
        date.insert(http_date(now_ms / 1_000));
    }
    answer
}

/// The date of this second. The formatter supports years up to 9999.
pub(crate) fn http_date(unix_secs: i64) -> HeaderValue {
    let secs = u64::try_from(unix_secs).unwrap_or(0).min(253_402_300_799);
    let date = std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs);
    HeaderValue::from_str(&httpdate::fmt_http_date(date)).unwrap_or(HeaderValue::from_static(""))
}

/// An answer with these headers and an empty body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = status;
    answer
}
