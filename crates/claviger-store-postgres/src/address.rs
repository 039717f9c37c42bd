//! Address of the database, and how the connection to it is protected.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::AddressError;

/// Time limit for making a connection.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
/// Application name of a gateway's connections, unless its address sets another.
pub(crate) const GATEWAY: &str = "claviger";
/// Application name of the connections of a copy.
const COPY: &str = "claviger store copy";
/// Application name of the connections that inspect the database and may change its schema.
const OPENING: &str = "claviger opening";
/// Port where an address names none.
const USUAL_PORT: u16 = 5432;
/// A connection that stays silent for this long is dead.
const SILENCE: Duration = Duration::from_secs(15);

/// How the connection to the database is protected. Sockets in the file system need no protection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// TLS. The server must present a certificate for its host name.
    Tls {
        /// A PEM file with the certificates of trusted authorities. Without it, the authorities
        /// that the operating system trusts.
        authorities: Option<PathBuf>,
    },
    /// Plain text, even if the server offers TLS. Anybody on the network path can read and change
    /// everything.
    InsecurePlaintext,
}

/// Where a database is, and how the connection to it is protected.
#[derive(Clone)]
pub struct Address {
    pub(crate) config: tokio_postgres::Config,
    pub(crate) tls: Option<MakeRustlsConnect>,
}

/// Hides the address, which may hold a password.
impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl Address {
    /// Parses an address in libpq's format (PostgreSQL's documentation, section 34.1.1):
    /// `postgres://user:password@host/name`, or `host=/run/postgresql user=claviger
    /// dbname=claviger`.
    ///
    /// # Errors
    /// [`AddressError`]; each says what the operator can do.
    pub fn parse(text: &str, way: &Way) -> Result<Self, AddressError> {
        if text.contains("sslmode") {
            return Err(AddressError::SslMode);
        }
        let mut config: tokio_postgres::Config = text.trim().parse().map_err(|_| AddressError::Malformed)?;
        let hosts = config.get_hosts();
        let local = hosts.iter().filter(|host| !matches!(host, Host::Tcp(_))).count();
        if hosts.is_empty() {
            return Err(AddressError::Malformed);
        }
        if local != 0 && local != hosts.len() {
            return Err(AddressError::Mixed);
        }
        let tls = match way {
            Way::Tls { authorities } if local == 0 => Some(tls(authorities.as_ref())?),
            Way::Tls { .. } | Way::InsecurePlaintext => None,
        };
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if config.get_application_name().is_none() {
            config.application_name(GATEWAY);
        }
        config.keepalives_idle(SILENCE);
        config.tcp_user_timeout(SILENCE);
        Ok(Self { config, tls })
    }

    /// Whether the database is reached by a socket in the file system.
    pub fn is_local(&self) -> bool {
        self.config.get_hosts().iter().all(|host| !matches!(host, Host::Tcp(_)))
    }

    /// Whether the address holds a password.
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    /// The hosts and the database name, and the user, without the password.
    pub(crate) fn place_and_user(&self) -> String {
        let user = self.config.get_user().unwrap_or("the one of this process");
        format!("{}, user {user}", self.place())
    }

    /// The hosts and the database name, without user and password.
    pub fn place(&self) -> String {
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate().map(|(index, host)| {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(USUAL_PORT);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(path) => format!("{}, port {port}", path.display()),
            }
        });
        let hosts: Vec<String> = hosts.collect();
        match self.config.get_dbname() {
            Some(name) => format!("the database {name} at {}", hosts.join(", ")),
            None => format!("the database at {}", hosts.join(", ")),
        }
    }

    /// The same address under the application name of a copy.
    pub(crate) fn of_copy(&self) -> Self {
        self.named(COPY)
    }

    /// The same address under the application name that is used to inspect the database and change
    /// its schema.
    pub(crate) fn of_opening(&self) -> Self {
        self.named(OPENING)
    }

    fn named(&self, name: &str) -> Self {
        let mut own = self.clone();
        own.config.application_name(name);
        own
    }

    /// Sets time limits in the database itself, so that an abandoned statement stops holding locks.
    pub(crate) fn bounded(&self, patience: Duration) -> tokio_postgres::Config {
        let mut config = self.config.clone();
        let millis = patience.as_millis();
        let own = config.get_options().unwrap_or_default();
        let options = format!(
            "{own} -c statement_timeout={millis} -c idle_in_transaction_session_timeout={millis} -c lock_timeout={millis}"
        );
        config.options(options.trim());
        config
    }
}

fn tls(authorities: Option<&PathBuf>) -> Result<MakeRustlsConnect, AddressError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| AddressError::Tls)?;
    let config = match authorities {
        None => builder.with_platform_verifier().map_err(|_| AddressError::Tls)?,
        Some(path) => {
            let unread = || AddressError::Certificates(path.clone());
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(path).map_err(|_| unread())? {
                roots.add(certificate.map_err(|_| unread())?).map_err(|_| unread())?;
            }
            if roots.is_empty() {
                return Err(unread());
            }
            builder.with_root_certificates(roots)
        }
    };
    Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TLS: Way = Way::Tls { authorities: None };

    fn mode(text: &str, way: &Way) -> Result<SslMode, String> {
        let address = Address::parse(text, way).map_err(|error| error.to_string())?;
        assert!(!format!("{address:?}").contains("canary"), "SECRET");
        Ok(address.config.get_ssl_mode())
    }

    #[test]
    fn network_connections_use_tls_unless_the_operator_allows_plain_text() {
        let remote = "postgres://claviger:canary@db.example/claviger";
        assert_eq!(mode(remote, &TLS), Ok(SslMode::Require));
        assert_eq!(mode(remote, &Way::InsecurePlaintext), Ok(SslMode::Disable));
        for local in
            ["host=/run/postgresql user=claviger", "postgres://claviger@%2Frun%2Fpostgresql/claviger"]
        {
            assert_eq!(mode(local, &TLS), Ok(SslMode::Disable), "{local}");
        }
    }

    #[test]
    fn an_unusable_address_is_reported_without_its_password() {
        for (text, word) in [
            ("postgres://claviger:canary@db.example/claviger?sslmode=disable", "sslmode"),
            ("postgres://claviger:canary@db.example:port/claviger", "postgres://"),
            ("mysql://claviger:canary@db.example/claviger", "postgres://"),
            ("", "postgres://"),
            ("host=db.example,/run/postgresql user=claviger password=canary", "one kind"),
        ] {
            let told = mode(text, &TLS).unwrap_err();
            assert!(told.contains(word) && !told.contains("canary"), "{told}");
        }
    }

    #[test]
    fn place_holds_hosts_and_database_only() {
        let address = Address::parse("postgres://ada:canary@db.example/claviger", &TLS).unwrap();
        assert_eq!(
            (address.place().as_str(), address.has_password()),
            ("the database claviger at db.example:5432", true)
        );
        let address = Address::parse("postgres://ada@%2Frun%2Fpostgresql", &TLS).unwrap();
        assert_eq!(
            (address.place().as_str(), address.has_password()),
            ("the database at /run/postgresql, port 5432", false)
        );
    }

    #[test]
    fn a_file_without_certificates_is_reported() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let way = Way::Tls { authorities: Some(file.path().to_owned()) };
        let told = Address::parse("postgres://db.example", &way).unwrap_err();
        assert!(matches!(told, AddressError::Certificates(_)), "{told}");
    }
}
