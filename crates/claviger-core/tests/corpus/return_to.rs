//! A return address. It never leads a browser away from this site (RFC 9700 section 4.11.1).

use claviger_core::{ReturnTo, limits::RETURN_TO_BYTES};
use url::Url;

pub(crate) const OUTCOMES: [&str; 2] = ["accepted", "refused"];

/// Pages that redirect there, at sites with and without a port and a path.
const PAGES: [&str; 4] = [
    "https://app.example/auth/callback?code=x",
    "https://app.example:8443/auth/sign-in?return_to=/",
    "http://localhost:8080/auth/login",
    "http://[::1]:8080/a/b/../auth/callback#x",
];

/// Parses a text, and resolves what was accepted as a browser does. The same for the target of a
/// request.
pub(crate) fn check(input: &[u8]) -> &'static str {
    let input = input.strip_suffix(b"\n").unwrap_or(input);
    if let Some(target) = ReturnTo::of_target(input) {
        stays_here(&target);
    }
    let Ok(text) = std::str::from_utf8(input) else { return "refused" };
    let Some(accepted) = ReturnTo::parse(text) else { return "refused" };
    assert_eq!(accepted.as_str(), text);
    assert_eq!(ReturnTo::of_target(input), Some(accepted.clone()));
    stays_here(&accepted);
    "accepted"
}

fn stays_here(accepted: &ReturnTo) {
    let text = accepted.as_str();
    assert_eq!(accepted.to_string(), text);
    assert!(text.len() <= RETURN_TO_BYTES);
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "a header can carry it as it is");
    for page in PAGES {
        let page = Url::parse(page).unwrap();
        let target = page.join(text).unwrap();
        assert_eq!(target.origin(), page.origin(), "{text:?} leads from {page} to {target}");
        assert!(target.username().is_empty() && target.password().is_none(), "{target}");
        assert!(!target.path().starts_with("//"), "{target}");
        // What the browser asks for then is an address of this site too, if it comes back.
        let again = target[url::Position::BeforePath..].to_owned();
        assert_eq!(page.join(&again).unwrap(), target, "{text:?}");
    }
}
