//! The types of single values. Their errors never repeat the value, which may hold a secret.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use claviger_core::{
    Named,
    request::{host, network::Network},
};
use claviger_provider::{PRESETS, Preset};
use http::HeaderName;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, de::Error};
use url::Url;

use super::{
    declare::{Kind, SettingType},
    endpoints::{ListenAt, Upstream},
};

/// Says of which kind the values of a type are.
macro_rules! kinds {
    ($($type:ty => $kind:ident,)*) => {$(
        impl SettingType for $type {
            fn kind() -> Kind {
                Kind::$kind
            }
        }
    )*};
}

kinds! {
    String => Text,
    Proxies => Text,
    Secret => Secret,
    PathBuf => Path,
    SiteUrl => Url,
    HookUrl => Url,
    HostName => Text,
    FieldName => Text,
    Listen => Socket,
    ListenAt => Socket,
    Upstream => Url,
    bool => Switch,
    u32 => Number,
    usize => Number,
    Span => Span,
}

impl<T: SettingType> SettingType for Option<T> {
    const OPTIONAL: bool = true;

    fn kind() -> Kind {
        T::kind()
    }
}

impl<T: SettingType> SettingType for Vec<T> {
    fn kind() -> Kind {
        Kind::List(Box::new(T::kind()))
    }
}

impl<T: Named> SettingType for Word<T> {
    fn kind() -> Kind {
        Kind::Word(T::NAMES.iter().map(|(_, name)| *name).collect())
    }
}

/// One of the named values of an enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<T>(pub T);

impl<'de, T: Named> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let known = match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => T::from_name(&text),
            _ => None,
        };
        known.map(Self).ok_or_else(|| {
            let names: Vec<String> = T::NAMES.iter().map(|(_, name)| format!("`{name}`")).collect();
            D::Error::custom(format!("expected one of {}", names.join(", ")))
        })
    }
}

/// The name of a provider that is known.
#[derive(Clone, Copy, Debug)]
pub struct PresetName(pub &'static Preset);

impl SettingType for PresetName {
    fn kind() -> Kind {
        Kind::Word(PRESETS.iter().map(|preset| preset.name).collect())
    }
}

impl<'de> Deserialize<'de> for PresetName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let known = match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Preset::named(&text),
            _ => None,
        };
        known.map(Self).ok_or_else(|| {
            let names: Vec<String> = PRESETS.iter().map(|preset| format!("`{}`", preset.name)).collect();
            D::Error::custom(format!("expected one of {}", names.join(", ")))
        })
    }
}

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
    /// Wraps the value, so that it cannot be printed by accident.
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// The plain value. A review looks at each call.
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

/// The address of a site: scheme, host and port only.
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

    /// Whether it certainly names this computer.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }

    /// The host without its port.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// Host and port as a `Host` header has them.
    pub fn authority(&self) -> &str {
        self.0.authority()
    }
}

impl SiteUrl {
    /// Reads it.
    ///
    /// # Errors
    /// What it must look like.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let url = address(text)?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err("expected only scheme, host and port, such as \"https://app.example\"");
        }
        Ok(Self(url))
    }
}

impl<'de> Deserialize<'de> for SiteUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// An address of this computer to listen at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const HINT: &str = "expected an IP address and a port, such as \"127.0.0.1:8080\", \"[::1]:8080\", \
                            \"localhost:8080\" or \":8080\"";
        let toml::Value::String(text) = toml::Value::deserialize(deserializer)? else {
            return Err(D::Error::custom(HINT));
        };
        socket_address(&text).map(Self).ok_or_else(|| D::Error::custom(HINT))
    }
}

pub(super) fn socket_address(text: &str) -> Option<SocketAddr> {
    let at = |ip: std::net::IpAddr, port: &str| Some(SocketAddr::new(ip, port.parse().ok()?));
    match text.rsplit_once(':') {
        // Linux and others serve IPv4 at this address, too.
        Some(("", port)) => at(Ipv6Addr::UNSPECIFIED.into(), port),
        Some(("localhost", port)) => at(Ipv4Addr::LOCALHOST.into(), port),
        _ => text.parse().ok(),
    }
}

/// Proxies in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxies {
    /// The address of a proxy, or a network of proxies.
    Network(Network),
    /// Those that use a Unix socket, and so have no address.
    Unix,
}

impl Proxies {
    /// The network, if they have addresses.
    pub fn network(&self) -> Option<Network> {
        match self {
            Self::Network(network) => Some(*network),
            Self::Unix => None,
        }
    }
}

impl<'de> Deserialize<'de> for Proxies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "unix:" => Ok(Self::Unix),
            text => text.parse().map(Self::Network).map_err(|error| {
                D::Error::custom(format!("{error}, or \"unix:\" for a proxy that uses a Unix socket"))
            }),
        }
    }
}

/// The name of a host, with or without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub String);

impl<'de> Deserialize<'de> for HostName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let valid = host::name(text.as_bytes()).is_some();
        valid
            .then_some(Self(text))
            .ok_or_else(|| D::Error::custom("expected a host such as \"www.app.example\""))
    }
}

/// The name of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldName(pub HeaderName);

impl<'de> Deserialize<'de> for FieldName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?.parse();
        name.map(Self)
            .map_err(|_| D::Error::custom("expected the name of a header such as \"X-Forwarded-Prefix\""))
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

/// Parses a web address.
fn address(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "expected an address such as \"https://app.example\"")?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("expected an address that begins with http:// or https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address here may not hold a user or a password");
    }
    Ok(url)
}

/// Whether an address certainly names this computer.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Holder<T> {
        value: T,
    }

    pub(in crate::config) fn read<'de, T: Deserialize<'de>>(value: &'de str) -> Result<T, String> {
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
    fn an_address_to_listen_at_may_name_this_computer() {
        let table = [
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("[::1]:8080", Some("[::1]:8080")),
            ("localhost:8080", Some("127.0.0.1:8080")),
            (":8080", Some("[::]:8080")),
            ("0.0.0.0:0", Some("0.0.0.0:0")),
            ("8080", None),
            ("localhost", None),
            (":", None),
            (":65536", None),
            ("app.example:8080", None),
            ("http://localhost:8080", None),
            ("", None),
        ];
        for (text, expected) in table {
            let read = read::<Listen>(&format!("value = \"{text}\""));
            assert!(read.as_ref().err().is_none_or(|error| error.contains("\"localhost:8080\"")), "{read:?}");
            assert_eq!(read.ok().map(|listen| listen.0.to_string()).as_deref(), expected, "{text}");
        }
        assert!(read::<Listen>("value = 8080").unwrap_err().contains("\":8080\""));
    }

    #[test]
    fn a_trusted_proxy_is_an_address_or_a_network() {
        let network = |text| read::<Proxies>(text).unwrap().network().map(|network| network.to_string());
        assert_eq!(network("value = \"10.0.0.0/8\"").unwrap(), "10.0.0.0/8");
        assert_eq!(network("value = \"::1\"").unwrap(), "::1/128");
        assert_eq!(network("value = \"unix:\""), None);
        for wrong in ["proxy", "unix", "unix:/run/nginx.sock"] {
            let error = read::<Proxies>(&format!("value = \"{wrong}\"")).unwrap_err();
            assert!(error.contains("10.0.0.0/8") && error.contains("\"unix:\""), "{error}");
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
