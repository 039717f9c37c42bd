//! Log lines on standard error. They hold no secret, no address with a query, and no user's name.

use std::io;

use tracing_subscriber::EnvFilter;

use crate::config::{Layers, Log, LogFormat, Origin};

/// The variable that other programs take their filter from.
const RUST_LOG: &str = "RUST_LOG";

/// Begins to write log lines as the configuration says. `RUST_LOG` counts where nobody set `log.filter`.
pub fn start(log: &Log, layers: &Layers) {
    let unset = matches!(layers.origin("log.filter"), None | Some(Origin::Default));
    let common = std::env::var(RUST_LOG).ok().filter(|text| unset && !text.is_empty());
    begin(log.format, common.as_deref().unwrap_or(&log.filter));
}

/// Begins to write log lines.
pub fn begin(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // An error says that somebody else in this process writes log lines already.
    let _begun = match format {
        LogFormat::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    report_panics();
}

/// A panic is logged by its place. Its message could hold what was being worked on.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(%place, "a defect: please report it with this place");
    }));
}
