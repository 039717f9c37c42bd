//! Log lines on standard error. They contain no secret, no address with a query, and no user name.

use std::io;

use tracing_subscriber::EnvFilter;

use crate::config::{Layers, Log, LogFormat, Origin};

/// The variable that other programs read their filter from.
const RUST_LOG: &str = "RUST_LOG";

/// Starts logging as configured. `RUST_LOG` counts if `log.filter` is not set.
pub fn start(log: &Log, layers: &Layers) {
    let unset = matches!(layers.origin("log.filter"), None | Some(Origin::Default));
    let common = std::env::var(RUST_LOG).ok().filter(|text| unset && !text.is_empty());
    begin(log.format.0, common.as_deref().unwrap_or(&log.filter));
}

/// Starts logging.
pub fn begin(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // An error means that this process has another logger already.
    let _begun = match format {
        LogFormat::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    report_panics();
}

/// Logs panics with their place only, because the message could contain a secret.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(%place, "a bug: please report it with this place");
    }));
}
