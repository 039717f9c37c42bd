//! Where the database is, and how the way there is protected.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::AddressError;

/// A connection has so long to be made.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
/// By this name the database knows the connections of gateways, unless the address says otherwise.
pub(crate) const GATEWAY: &str = "claviger";
/// And by this one those of who copies.
const COPY: &str = "claviger store copy";
/// And by this one those of who opens the store, and may change its schema.
const OPENING: &str = "claviger opening";
/// A connection on which nothing comes back for so long is dead.
const SILENCE: Duration = Duration::from_secs(15);

/// How the way to the database is protected. Sockets in the file system need no protection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// TLS, and the server has to show a certificate of its name.
    Tls {
        /// A PEM file with the certificates of the authorities that are believed; without it, those that the operating
        /// system believes.
        authorities: Option<PathBuf>,
    },
    /// None: whoever is between here and the database reads and changes everything. Also where the server offers TLS.
    InsecurePlaintext,
}

/// Where a database is, and how the way there is protected.
#[derive(Clone)]
pub struct Address {
    pub(crate) config: tokio_postgres::Config,
    pub(crate) tls: Option<MakeRustlsConnect>,
}

/// An address holds a password.
impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl Address {
    /// Reads an address as libpq takes it (PostgreSQL's documentation, section 34.1.1): `postgres://user:password@host/name`, or
    /// `host=/run/postgresql user=claviger dbname=claviger`.
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

    /// Whether it is a socket in the file system.
    pub fn is_local(&self) -> bool {
        self.config.get_hosts().iter().all(|host| !matches!(host, Host::Tcp(_)))
    }

    /// Whether it holds a password.
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    /// Where it leads, without who goes there and by which password.
    pub fn place(&self) -> String {
        let hosts = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let hosts: Vec<String> = hosts.collect();
        match self.config.get_dbname() {
            Some(name) => format!("the database {name} at {}", hosts.join(", ")),
            None => format!("the database at {}", hosts.join(", ")),
        }
    }

    /// The same address for who copies, told apart from gateways by the database.
    pub(crate) fn of_copy(&self) -> Self {
        self.named(COPY)
    }

    /// The same for who looks at the database before it is served from, and changes its schema.
    pub(crate) fn of_opening(&self) -> Self {
        self.named(OPENING)
    }

    fn named(&self, name: &str) -> Self {
        let mut own = self.clone();
        own.config.application_name(name);
        own
    }

    /// Lets the database itself bound what we ask of it, so that a statement of ours that nobody waits for any more holds
    /// nothing up.
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
    fn the_way_over_a_network_is_protected_unless_the_operator_says_otherwise() {
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
    fn what_cannot_be_used_is_told_without_its_password() {
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
    fn an_address_says_where_it_leads_and_no_more() {
        let address = Address::parse("postgres://ada:canary@db.example/claviger", &TLS).unwrap();
        assert_eq!(
            (address.place().as_str(), address.has_password()),
            ("the database claviger at db.example", true)
        );
        let address = Address::parse("postgres://ada@%2Frun%2Fpostgresql", &TLS).unwrap();
        assert_eq!(
            (address.place().as_str(), address.has_password()),
            ("the database at /run/postgresql", false)
        );
    }

    #[test]
    fn a_file_without_certificates_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let way = Way::Tls { authorities: Some(file.path().to_owned()) };
        let told = Address::parse("postgres://db.example", &way).unwrap_err();
        assert!(matches!(told, AddressError::Certificates(_)), "{told}");
    }
}
