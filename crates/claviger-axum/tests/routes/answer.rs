//! An answer, read whole.

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
        let body = String::from_utf8(body.to_vec()).expect("all we say is text");
        Self { status: parts.status, headers: parts.headers, body }
    }

    /// What holds of every answer of ours, whatever was asked.
    pub(crate) fn assert_sound(&self, asked: &str, path: &str) {
        let ours = path.starts_with("/auth/") || path == "/healthz" || path == "/readyz";
        let health = path == "/healthz" || path == "/readyz";
        let kept = path == "/auth/style.css" || (health && self.status == StatusCode::METHOD_NOT_ALLOWED);
        if ours && !kept {
            assert_eq!(self.header(header::CACHE_CONTROL), Some("no-store"), "{asked}: {self:?}");
        }
        if self.is_page() && ours {
            for (name, value) in page::HEADERS {
                assert_eq!(self.header(name.clone()), Some(value), "{asked}: {name}");
            }
            assert!(self.header(header::REFERRER_POLICY).is_some(), "{asked}");
            if !self.body.is_empty() {
                page::check(&self.body);
            }
        }
        assert!(
            self.header(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_none(),
            "{asked}: no other site may read"
        );
        for name in self.headers.keys() {
            let allowed = path == "/auth/check" && self.status == StatusCode::OK;
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

    /// Where the page leads by itself.
    pub(crate) fn goes_on_to(&self) -> Option<String> {
        let refresh = self.body.split_once("<meta http-equiv=\"refresh\" content=\"0;url=")?.1;
        Some(refresh.split('"').next().unwrap().replace("&#38;", "&"))
    }

    /// The value that a cookie is set to.
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

    /// A redirect of status 303 (RFC 9700 section 4.12).
    #[track_caller]
    pub(crate) fn assert_leads_to(&self, target: &str) {
        assert_eq!((self.status, self.location()), (StatusCode::SEE_OTHER, target), "{self:?}");
    }

    /// A page with this status that says these words.
    #[track_caller]
    pub(crate) fn assert_page(&self, status: StatusCode, words: &str) {
        assert!(self.status == status && self.is_page(), "{self:?}");
        assert!(self.body.contains(words), "{words:?} is missing in {}", self.body);
    }

    /// An error for programs: JSON, and no redirect.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: StatusCode, error: &str) {
        assert_eq!((self.status, self.json()["error"].as_str()), (status, Some(error)), "{self:?}");
        assert!(!self.headers.contains_key(header::LOCATION), "{self:?}");
    }

    /// Trouble that passes: try again, and nothing is lost (invariant TRANSIENT).
    #[track_caller]
    pub(crate) fn assert_passing_trouble(&self) {
        assert_eq!(self.status, StatusCode::SERVICE_UNAVAILABLE, "{self:?}");
        let retry_after: u64 = self.header(header::RETRY_AFTER).unwrap().parse().unwrap();
        assert!((1..=3600).contains(&retry_after), "{self:?}");
        self.assert_sets_no_cookie();
    }

    #[track_caller]
    pub(crate) fn assert_sets_no_cookie(&self) {
        assert_eq!(self.set_cookies(), Vec::<&str>::new(), "TRANSIENT");
    }

    /// Whether the session cookie is set or removed.
    pub(crate) fn touches_session(&self) -> bool {
        self.set_cookies().iter().any(|line| line.starts_with("__Host-claviger="))
    }
}
