//! The settings of what the operator and the site's own programs see.

use std::path::PathBuf;

use super::super::{
    declare::settings,
    endpoints::ListenAt,
    values::{HostName, Listen, Word},
};

settings! {
    /// `[metrics]`
    pub struct Metrics {
        /// The address for Prometheus, at `/metrics`, and for `claviger status`. Without it neither
        /// works. It has no access control, so keep it private. [All metrics](metrics.md).
        listen: Option<Listen>, example "127.0.0.1:9464";

        /// Host names by which programs may ask there, so that no page in a browser can do it
        /// through a name of its own. IP addresses, names without a dot, and names that end with
        /// `.internal`, `.local`, `.localhost`, `.svc` or `.home.arpa` need not be listed.
        hosts: Vec<HostName> = [];
    }

    /// `[private]`
    pub struct Private {
        /// The address of the private listener, where servers with a credential ask what
        /// [private.md](private.md) lists. It is an address of this computer only, or a Unix
        /// socket in the form of `listen`. Without it there is no private listener.
        listen: Option<ListenAt>, example "127.0.0.1:9465";

        /// A file with the credentials, as `claviger credentials add` writes it. It holds hashes
        /// and no secrets. The gateway reads it again when it changes and at SIGHUP, and refuses it
        /// if users other than its owner and its group can read or write it.
        credentials_file: Option<PathBuf>, example "/etc/claviger/claviger.credentials";

        /// Allows any address in `private.listen`, as containers need it. The listener speaks plain
        /// HTTP, so anybody on the network between can read credentials and tokens.
        insecure_listen_on_network: bool = false;
    }

    /// `[log]`
    pub struct Log {
        /// The format of log lines on standard error.
        format: Word<LogFormat> = "text";

        /// Which log lines are written, in the syntax of `RUST_LOG`: `info`, `claviger=debug,warn`.
        /// The variable `RUST_LOG` counts if neither file nor environment sets this.
        filter: String = "info";
    }
}

claviger_core::named! {
    /// `log.format`
    pub enum LogFormat {
        /// For people.
        Text = "text",
        /// For programs.
        Json = "json",
    }
}
