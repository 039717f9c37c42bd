//! Pages of other origins that a route allows (Fetch standard, "CORS protocol").

use axum::{body::Body, response::Response};
use claviger_axum::RequestHead;
use claviger_core::request::routes::CrossOrigin;
use http::{HeaderMap, HeaderValue, StatusCode, header};

/// How long a browser keeps our answer to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// The origin of another site's page that made a request, if the rule of its route allows it.
pub(super) fn allowed(head: &RequestHead, rule: Option<&CrossOrigin>) -> Option<HeaderValue> {
    let origin = head.foreign_origin()?;
    rule?.allows(origin.as_bytes()).then(|| origin.clone())
}

/// Answers a preflight with yes.
pub(super) fn accept(request: &HeaderMap, origin: &HeaderValue, method: &HeaderValue) -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    open(headers, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method.clone());
    if let Some(fields) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, fields.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    for asked in [header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_REQUEST_HEADERS] {
        headers.append(header::VARY, HeaderValue::from(asked));
    }
    answer
}

/// Lets a page of this origin read an answer, unless the app decided who may.
pub(super) fn open(answer: &mut HeaderMap, origin: &HeaderValue) {
    answer.append(header::VARY, HeaderValue::from(header::ORIGIN));
    if !answer.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    }
}
