//! Tells a person's navigation from a request of a script.

use http::{HeaderMap, Method, header};

/// Whether an answer to this request would be shown in a browser's window, so that it may be a page or a redirect.
///
/// Browsers say so (Fetch Metadata); for others the Accept header has to do.
pub fn can_navigate(method: &Method, headers: &HeaderMap) -> bool {
    let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let safe = matches!(*method, Method::GET | Method::HEAD) && !headers.contains_key(header::UPGRADE);
    match (field("sec-fetch-mode"), field("sec-fetch-dest")) {
        (Some(mode), dest) => safe && mode == "navigate" && dest.is_none_or(|dest| dest == "document"),
        (None, _) => safe && wants_html(headers) && !headers.contains_key("x-requested-with"),
    }
}

/// Whether the client would rather have a page than JSON.
pub(crate) fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn only_navigations_may_be_redirected() {
        let html = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        type Case = (Method, Vec<(&'static str, &'static str)>, bool);
        let table: [Case; 10] = [
            (Method::GET, vec![("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")], true),
            (Method::GET, vec![("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe"), html], false),
            (Method::GET, vec![("sec-fetch-mode", "cors"), html], false),
            (Method::GET, vec![("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")], false),
            (Method::POST, vec![("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")], false),
            (Method::GET, vec![html], true),
            (Method::GET, vec![("accept", "application/json")], false),
            (Method::GET, vec![html, ("x-requested-with", "XMLHttpRequest")], false),
            (Method::GET, vec![html, ("upgrade", "websocket")], false),
            (Method::GET, vec![], false),
        ];
        for (method, fields, expected) in table {
            let headers: HeaderMap = fields
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            assert_eq!(can_navigate(&method, &headers), expected, "{method} {fields:?}");
        }
    }
}
