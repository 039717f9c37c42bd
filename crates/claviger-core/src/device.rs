//! A device's name, read from its browser's User-Agent header.
//!
//! Browsers freeze most of that header, so the name helps people and is never evidence.

use std::fmt;

use crate::{display::shows_itself, limits::DEVICE_LABEL_CHARS};

/// A device's name, such as "Firefox 143 on Windows". Never empty, never long, without control
/// characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceLabel(String);

impl DeviceLabel {
    /// Names the device by its User-Agent header.
    pub fn from_user_agent(user_agent: &str) -> Self {
        let system = first_match(user_agent, &SYSTEMS);
        let browser = browser(user_agent);
        Self::new(&match (browser, system) {
            (Some(browser), Some(system)) => format!("{browser} on {system}"),
            (Some(name), None) => name,
            (None, Some(name)) => name.to_owned(),
            (None, None) => program(user_agent).unwrap_or(UNKNOWN).to_owned(),
        })
    }

    /// Takes a name without characters that do not show as themselves, and cuts it.
    pub fn new(name: &str) -> Self {
        let name: String = name.chars().filter(|c| shows_itself(*c)).take(DEVICE_LABEL_CHARS).collect();
        let name = name.trim();
        Self(if name.is_empty() { UNKNOWN } else { name }.to_owned())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const UNKNOWN: &str = "Unknown device";

/// Marks in order of precedence: a browser that imitates another comes before it.
const BROWSERS: [(&str, &str); 20] = [
    ("EdgA/", "Edge"),
    ("EdgiOS/", "Edge"),
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Opera", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Vivaldi/", "Vivaldi"),
    ("YaBrowser/", "Yandex Browser"),
    ("DuckDuckGo/", "DuckDuckGo"),
    ("UCBrowser/", "UC Browser"),
    ("FxiOS/", "Firefox"),
    ("Firefox/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("HeadlessChrome/", "Chrome without a window"),
    ("Electron/", "Desktop app"),
    ("Chromium/", "Chromium"),
    ("Chrome/", "Chrome"),
    ("Version/", "Safari"),
    ("Safari/", "Safari"),
    ("Trident/", "Internet Explorer"),
];

const SYSTEMS: [(&str, &str); 16] = [
    ("PlayStation", "PlayStation"),
    ("Xbox", "Xbox"),
    ("Nintendo", "Nintendo console"),
    ("SMART-TV", "a television"),
    ("SmartTV", "a television"),
    ("Tizen", "a television"),
    ("Web0S", "a television"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Windows", "Windows"),
    ("Macintosh", "Mac"),
    ("FreeBSD", "FreeBSD"),
    ("OpenBSD", "OpenBSD"),
    ("Linux", "Linux"),
];

fn first_match(text: &str, marks: &[(&str, &'static str)]) -> Option<&'static str> {
    marks.iter().find(|(mark, _)| text.contains(mark)).map(|(_, name)| *name)
}

/// Returns the browser with its major version. Without it, devices of one household look alike.
fn browser(user_agent: &str) -> Option<String> {
    let (mark, name) = BROWSERS.iter().find(|(mark, _)| user_agent.contains(mark))?;
    let (_, rest) = user_agent.split_once(mark)?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    // Safari names its own version elsewhere, and Trident is not that of the browser.
    let says_version = !matches!(*mark, "Safari/" | "Trident/" | "Opera");
    let version = rest.get(..digits).filter(|version| says_version && (1..=4).contains(&version.len()));
    Some(version.map_or_else(|| (*name).to_owned(), |version| format!("{name} {version}")))
}

/// Returns the first product of a header that no browser sent, such as `curl` in `curl/8.5.0`.
fn program(user_agent: &str) -> Option<&str> {
    let name = user_agent.split(['/', ' ', '(']).next()?.trim();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_get_readable_names() {
        let table = [
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
                "Chrome 140 on Windows",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
                "Edge 140 on Windows",
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
                "Firefox 143 on Linux",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15",
                "Safari 18 on Mac",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
                "Safari 18 on iPhone",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/140.0 Mobile/15E148 Safari/604.1",
                "Chrome 140 on iPhone",
            ),
            (
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
                "Chrome 140 on Android",
            ),
            (
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
                "Samsung Internet 28 on Android",
            ),
            (
                "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
                "Chrome 140 on ChromeOS",
            ),
            ("curl/8.5.0", "curl"),
            ("", "Unknown device"),
            ("\u{0}\u{7}", "Unknown device"),
        ];
        for (user_agent, expected) in table {
            assert_eq!(DeviceLabel::from_user_agent(user_agent).as_str(), expected, "{user_agent}");
        }
    }

    #[test]
    fn names_are_cut() {
        let label = DeviceLabel::from_user_agent(&"x".repeat(100_000));
        assert_eq!(label.as_str().chars().count(), DEVICE_LABEL_CHARS);
    }
}
