//! Where the gateway listens, and where it reaches the app: an address, or a Unix socket.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, de::Error};

use super::values::{SiteUrl, socket_address};

/// The path in `unix:/path`.
fn socket_path(text: &str) -> Option<&Path> {
    text.strip_prefix("unix:").map(Path::new).filter(|path| path.is_absolute())
}

/// Where the gateway listens: an address of this computer, or a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAt {
    /// An address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl ListenAt {
    /// The address and the port, if it is no Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for ListenAt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const HINT: &str = "expected an IP address and a port, such as \"127.0.0.1:8080\", \"[::1]:8080\", \
                            \"localhost:8080\" or \":8080\", or a Unix socket, such as \
                            \"unix:/run/claviger/claviger.sock\"";
        let toml::Value::String(text) = toml::Value::deserialize(deserializer)? else {
            return Err(D::Error::custom(HINT));
        };
        let unix = socket_path(&text).map(|path| Self::Unix(path.to_owned()));
        unix.or_else(|| socket_address(&text).map(Self::Tcp)).ok_or_else(|| D::Error::custom(HINT))
    }
}

/// How the app is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// HTTP/1.1 over TCP, with or without TLS.
    Tcp,
    /// HTTP/2 over TCP, without TLS.
    Http2,
    /// HTTP/1.1 over the Unix socket at this path.
    Unix(PathBuf),
}

/// The address of the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    site: SiteUrl,
    via: Via,
}

impl Upstream {
    /// How it is reached.
    pub fn via(&self) -> &Via {
        &self.via
    }

    /// Scheme, host and port of its requests. An app at a Unix socket is `http://localhost`.
    pub fn site(&self) -> &SiteUrl {
        &self.site
    }

    /// Whether nobody on a network is between here and there.
    pub fn is_on_this_computer(&self) -> bool {
        matches!(self.via, Via::Unix(_)) || self.site.is_loopback()
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.via {
            Via::Tcp => f.write_str(&self.site.origin()),
            Via::Http2 => write!(f, "h2c://{}", self.site.authority()),
            Via::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const HINT: &str = "expected scheme, host and port, such as \"http://127.0.0.1:3000\", or \
                            \"h2c://127.0.0.1:3000\" for HTTP/2, or a Unix socket, such as \
                            \"unix:/run/app/app.sock\"";
        let toml::Value::String(text) = toml::Value::deserialize(deserializer)? else {
            return Err(D::Error::custom(HINT));
        };
        let (address, via) = match (socket_path(&text), text.strip_prefix("h2c://")) {
            (Some(path), _) => ("http://localhost".to_owned(), Via::Unix(path.to_owned())),
            (None, Some(rest)) => (format!("http://{rest}"), Via::Http2),
            (None, None) => (text, Via::Tcp),
        };
        let site = SiteUrl::parse(&address).map_err(|_| D::Error::custom(HINT))?;
        Ok(Self { site, via })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::tests::read;

    #[test]
    fn an_app_is_at_an_address_or_at_a_unix_socket() {
        let table = [
            ("http://127.0.0.1:3000", Some("http://127.0.0.1:3000")),
            ("https://app.internal", Some("https://app.internal")),
            ("h2c://127.0.0.1:3000", Some("h2c://127.0.0.1:3000")),
            ("unix:/run/app/app.sock", Some("unix:/run/app/app.sock")),
            ("unix:app.sock", None),
            ("unix:", None),
            ("h2c://app/path", None),
            ("h2c:app", None),
            ("h2c://user:canary@app", None),
            ("127.0.0.1:3000", None),
            ("", None),
        ];
        for (text, expected) in table {
            let read = read::<Upstream>(&format!("value = \"{text}\""));
            let hints = |error: &String| error.contains("h2c://127.0.0.1") && !error.contains("canary");
            assert!(read.as_ref().err().is_none_or(hints), "{read:?}");
            assert_eq!(read.ok().map(|app| app.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_socket_to_listen_at_has_an_absolute_path() {
        let read = |text: &str| read::<ListenAt>(&format!("value = \"{text}\""));
        assert_eq!(read("unix:/run/a.sock").unwrap(), ListenAt::Unix("/run/a.sock".into()));
        assert_eq!(read(":80").unwrap(), ListenAt::Tcp("[::]:80".parse().unwrap()));
        for wrong in ["unix:a.sock", "unix:", "/run/a.sock", "8080"] {
            assert!(read(wrong).unwrap_err().contains("\"unix:/run/claviger/claviger.sock\""), "{wrong}");
        }
    }
}
