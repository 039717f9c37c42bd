//! An answer with its whole body.

use axum::response::Response;
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde_json::Value;

use crate::page;

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let body = String::from_utf8(body.to_vec()).expect("our answers are UTF-8");
        Self { status: parts.status, headers: parts.headers, body }
    }

    /// Checks what must hold for every answer.
    pub(crate) fn assert_sound(&self, asked: &str, path: &str) {
        let ours = path.starts_with("/auth/") || path == "/healthz" || path == "/readyz";
        let health = path == "/healthz" || path == "/readyz";
        let kept = ["/auth/style.css", "/auth/jwks.json"].contains(&path)
            || (health && self.status == StatusCode::METHOD_NOT_ALLOWED);
        if ours && !kept {
            assert_eq!(self.header(header::CACHE_CONTROL), Some("no-store"), "{asked}: {self:?}");
        }
        if self.is_page() && ours {
            for (name, value) in page::HEADERS {
                assert_eq!(self.header(name.clone()), Some(value), "{asked}: {name}");
            }
            assert!(self.header(header::REFERRER_POLICY).is_some(), "{asked}");
            if !self.body.is_empty() {
                for (name, value) in page::framing(&self.body) {
                    assert_eq!(self.header(name.clone()), Some(value.as_str()), "{asked}: {name}");
                }
                page::check(&self.body);
            }
        }
        assert!(
            self.header(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_none(),
            "{asked}: no other site may read"
        );
        let is_check = path == "/auth/check" || path.starts_with("/auth/check/");
        for name in self.headers.keys() {
            let allowed = is_check && (self.status == StatusCode::OK || name == "x-auth-sign-in");
            assert!(allowed || !name.as_str().starts_with("x-auth"), "{asked}: {name} is for apps only");
        }
    }

    pub(crate) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn location(&self) -> &str {
        self.header(header::LOCATION).unwrap_or_else(|| panic!("no redirect: {self:?}"))
    }

    pub(crate) fn set_cookies(&self) -> Vec<&str> {
        self.headers.get_all(header::SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect()
    }

    /// Returns where the page goes on to by itself.
    pub(crate) fn goes_on_to(&self) -> Option<String> {
        let refresh = self.body.split_once("<meta http-equiv=\"refresh\" content=\"0;url=")?.1;
        Some(refresh.split('"').next().unwrap().replace("&#38;", "&"))
    }

    /// Returns the value that a cookie is set to.
    pub(crate) fn cookie_value(&self, name: &str) -> &str {
        let found = self.set_cookies().into_iter().find_map(|line| line.strip_prefix(&format!("{name}=")));
        found.unwrap_or_else(|| panic!("{name} is not set: {self:?}")).split(';').next().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header(header::CONTENT_TYPE), Some("application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn is_page(&self) -> bool {
        self.header(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"))
    }

    /// Checks for a redirect with status 303 (RFC 9700 section 4.12).
    #[track_caller]
    pub(crate) fn assert_leads_to(&self, target: &str) {
        assert_eq!((self.status, self.location()), (StatusCode::SEE_OTHER, target), "{self:?}");
    }

    /// Checks for a page with this status and text.
    #[track_caller]
    pub(crate) fn assert_page(&self, status: StatusCode, words: &str) {
        assert!(self.status == status && self.is_page(), "{self:?}");
        assert!(self.body.contains(words), "{words:?} is missing in {}", self.body);
    }

    /// Checks for a JSON error without a redirect.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: StatusCode, error: &str) {
        assert_eq!((self.status, self.json()["error"].as_str()), (status, Some(error)), "{self:?}");
        assert!(!self.headers.contains_key(header::LOCATION), "{self:?}");
    }

    /// Checks for a passing failure: it says when to try again and changes no cookie (TRANSIENT).
    #[track_caller]
    pub(crate) fn assert_passing_failure(&self) {
        assert_eq!(self.status, StatusCode::SERVICE_UNAVAILABLE, "{self:?}");
        let retry_after: u64 = self.header(header::RETRY_AFTER).unwrap().parse().unwrap();
        assert!((1..=3600).contains(&retry_after), "{self:?}");
        self.assert_sets_no_cookie();
    }

    #[track_caller]
    pub(crate) fn assert_sets_no_cookie(&self) {
        assert_eq!(self.set_cookies(), Vec::<&str>::new(), "TRANSIENT");
    }

    /// Checks that the session cookie stays as it is.
    #[track_caller]
    pub(crate) fn assert_sets_no_cookie_of_a_session(&self) {
        assert!(!self.touches_session(), "{self:?}");
    }

    /// Returns whether the session cookie is set or removed.
    pub(crate) fn touches_session(&self) -> bool {
        self.set_cookies().iter().any(|line| line.starts_with("__Host-claviger="))
    }
}
