//! Checks for every page.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, header};
use sha2::{Digest as _, Sha256};

pub(crate) const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The headers that say whose frame may show a page: only pages that change nothing, and only one
/// of this site.
pub(crate) fn framing(html: &str) -> [(HeaderName, String); 2] {
    let harmful = ["<form", "http-equiv=\"refresh\"", "id=\"onward\""];
    let harmless = !harmful.iter().any(|part| html.contains(part));
    let (who, word) = if harmless { ("'self'", "SAMEORIGIN") } else { ("'none'", "DENY") };
    let script = script(html).map_or_else(String::new, |text| {
        format!("script-src 'sha256-{}'; ", STANDARD.encode(Sha256::digest(text)))
    });
    let policy = format!(
        "default-src 'none'; {script}style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors {who}; \
         base-uri 'none'"
    );
    [(header::CONTENT_SECURITY_POLICY, policy), (header::X_FRAME_OPTIONS, word.to_owned())]
}

/// Our scripts, which stand in pages as they are.
const SCRIPTS: [&str; 2] =
    [include_str!("../../templates/sign_in.js"), include_str!("../../templates/onward.js")];

fn script(html: &str) -> Option<&'static str> {
    SCRIPTS.into_iter().find(|script| html.contains(&format!("<script>{script}</script>")))
}

/// The page without our own script.
pub(crate) fn without_script(html: &str) -> String {
    script(html)
        .map_or_else(|| html.to_owned(), |own| html.replacen(&format!("<script>{own}</script>"), "", 1))
}

const PAGE_BYTES: usize = 20 * 1024;
const VOID: [&str; 4] = ["meta", "link", "br", "img"];

struct Tag<'a> {
    name: &'a str,
    attributes: Vec<(&'a str, &'a str)>,
    closes: bool,
    /// The text up to the next tag.
    text: &'a str,
}

/// Checks a page's structure. User names must come out as text.
pub(crate) fn check(html: &str) {
    assert!(html.len() < PAGE_BYTES, "{} bytes", html.len());
    let html = &without_script(html);
    let rest = html.strip_prefix("<!doctype html>").expect("a doctype comes first");
    let tags = tags(rest);
    let all = |name: &str| tags.iter().filter(|tag| tag.name == name && !tag.closes).collect::<Vec<_>>();
    assert_eq!(attribute(all("html")[0], "lang"), Some("en"));
    assert_eq!((all("h1").len(), all("title").len(), all("main").len()), (1, 1, 1), "{html}");
    assert!(!all("h1")[0].text.trim().is_empty() && !all("title")[0].text.trim().is_empty(), "{html}");
    for forbidden in ["script", "style", "iframe", "object", "embed", "base", "svg"] {
        assert!(all(forbidden).is_empty(), "{forbidden}: {html}");
    }
    for tag in &tags {
        for (name, value) in &tag.attributes {
            assert!(!name.starts_with("on") && *name != "style", "{name} in {html}");
            let address = ["href", "action", "src"].contains(name);
            assert!(!address || value.is_empty() || value.starts_with('/'), "{value} is not of this site");
        }
    }
    check_nesting(&tags, html);
}

fn check_nesting(tags: &[Tag<'_>], html: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in tags {
        if tag.closes {
            assert_eq!(open.pop(), Some(tag.name), "{html}");
            continue;
        }
        if tag.name == "button" {
            assert!(open.contains(&"form"), "a button outside of a form does nothing: {html}");
            let named = !tag.text.trim().is_empty() || attribute(tag, "aria-label").is_some();
            assert!(named, "a button that says nothing: {html}");
        }
        if !VOID.contains(&tag.name) {
            open.push(tag.name);
        }
    }
    assert!(open.is_empty(), "{open:?} stay open: {html}");
}

fn attribute<'a>(tag: &Tag<'a>, name: &str) -> Option<&'a str> {
    tag.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

fn tags(html: &str) -> Vec<Tag<'_>> {
    html.split('<').skip(1).map(tag).collect()
}

fn tag(piece: &str) -> Tag<'_> {
    let name_end = piece.find(|c: char| c.is_whitespace() || c == '>').expect("a tag ends");
    let (name, mut rest) = piece.split_at(name_end);
    let mut attributes = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(text) = rest.strip_prefix('>') {
            let closes = name.starts_with('/');
            assert!(!text.contains('>'), "unescaped text: {text}");
            return Tag { name: name.trim_start_matches('/'), attributes, closes, text };
        }
        let (attribute, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("not an attribute: {rest}"));
        assert!(
            attribute.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
            "not an attribute: {attribute}"
        );
        let (value, after) = value.split_once('"').expect("a value ends");
        attributes.push((attribute, value));
        rest = after;
    }
}
