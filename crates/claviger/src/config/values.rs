//! The types of single values. None of them repeats a secret in an error.

use std::{fmt, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, de::Error};
use url::Url;

/// A span of time, written as `"14d"` or `"1h 30m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const HINT: &str = "expected a span of time in quotes, such as \"30s\", \"1h 30m\" or \"14d\"";
        let toml::Value::String(text) = toml::Value::deserialize(deserializer)? else {
            return Err(D::Error::custom(HINT));
        };
        humantime::parse_duration(&text).map(Self).map_err(|_| D::Error::custom(HINT))
    }
}

/// Text that is never shown.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes the value in; from here on it cannot be printed by accident.
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// The plain value. Each call is a place that a review looks at.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self::new(text)),
            _ => Err(D::Error::custom("expected text in quotes")),
        }
    }
}

/// The address of a site: scheme, host and port, and nothing behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteUrl(Url);

impl SiteUrl {
    /// The address without a slash at its end, such as `https://app.example`.
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// The address.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// Whether it is https.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Whether it names this computer, and certainly so.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }

    /// Host and port as a `Host` header has them.
    pub fn authority(&self) -> &str {
        self.0.authority()
    }
}

impl<'de> Deserialize<'de> for SiteUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let url = address(&String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(D::Error::custom("expected scheme, host and port only: nothing may follow them"));
        }
        Ok(Self(url))
    }
}

/// The address of one page of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookUrl(Url);

impl HookUrl {
    /// The address.
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl<'de> Deserialize<'de> for HookUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let url = address(&String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(D::Error::custom("expected an address without '?' and '#'"));
        }
        Ok(Self(url))
    }
}

/// Reads an address of the web. What was given may hold a password, so no error repeats it.
fn address(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "expected an address such as \"https://app.example\"")?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("expected an address that begins with http:// or https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address here has no user and no password");
    }
    Ok(url)
}

/// Whether an address names this computer, and certainly so.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Holder<T> {
        value: T,
    }

    fn read<'de, T: Deserialize<'de>>(value: &'de str) -> Result<T, String> {
        toml::from_str::<Holder<T>>(value)
            .map(|holder| holder.value)
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn spans_of_time_are_read() {
        let table = [
            ("value = \"14d\"", Some(14 * 86_400)),
            ("value = \"1h 30m\"", Some(5_400)),
            ("value = \"0s\"", Some(0)),
            ("value = \"14\"", None),
            ("value = 14", None),
            ("value = \"-1s\"", None),
            ("value = \"\"", None),
        ];
        for (text, expected) in table {
            assert_eq!(read::<Span>(text).ok().map(|span| span.0.as_secs()), expected, "{text}");
        }
    }

    #[test]
    fn a_site_is_an_origin_and_nothing_more() {
        let table = [
            ("https://app.example", Some("https://app.example")),
            ("https://app.example/", Some("https://app.example")),
            ("https://APP.example:443", Some("https://app.example")),
            ("http://localhost:8080", Some("http://localhost:8080")),
            ("http://[::1]:8080", Some("http://[::1]:8080")),
            ("https://app.example/path", None),
            ("https://app.example/?q", None),
            ("https://user@app.example", None),
            ("https://user:canary@app.example", None),
            ("ftp://app.example", None),
            ("app.example", None),
            ("", None),
        ];
        for (text, expected) in table {
            let read = read::<SiteUrl>(&format!("value = \"{text}\""));
            assert!(read.as_ref().err().is_none_or(|error| !error.contains("canary")));
            assert_eq!(read.ok().map(|site| site.origin()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn only_this_computer_is_loopback() {
        let table = [
            ("http://localhost:1", true),
            ("http://app.localhost", true),
            ("http://127.0.0.1", true),
            ("http://[::1]", true),
            ("http://localhost.example", false),
            ("http://10.0.0.1", false),
            ("http://0.0.0.0", false),
        ];
        for (text, expected) in table {
            let site = read::<SiteUrl>(&format!("value = \"{text}\"")).unwrap();
            assert_eq!(site.is_loopback(), expected, "{text}");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        assert!(!read::<Secret>("value = 4711").unwrap_err().contains("4711"));
        let secret = read::<Secret>("value = \"canary\"").unwrap();
        assert!(!format!("{secret:?}").contains("canary"));
        assert_eq!(secret.expose(), "canary");
    }
}
