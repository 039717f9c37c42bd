//! The Claviger gateway: sign-in and sessions in front of any web app.
//!
//! A request enters through `server` and `entry`. From there it goes to Claviger's own pages (in
//! `claviger-axum`), to the provider's API ([`api`]), or to the app ([`proxy`]).
//!
//! | module | what it holds |
//! |---|---|
//! | [`cli`] | the commands, one file each |
//! | [`config`] | the settings, and where each value came from |
//! | [`rules`] | which paths are the gateway's own, which API calls pass |
//! | [`gateway`] | the parts of a gateway put together |
//! | [`server`], `entry`, `misdirected` | the socket, and the first checks of every request |
//! | [`inbound`] | the body of a request, and the part of it that nobody reads |
//! | [`proxy`] | the reverse proxy |
//! | [`api`] | the proxy to the provider's API |
//! | [`private`] | the private listener, its credentials and their rights |
//! | [`reload`], `key_file`, `secret_file` | keys and secrets that change; the file of keys |
//! | [`metrics`], [`status`] | what Prometheus and `claviger status` read |
//! | [`problems`] | errors as pages and as JSON |
//! | [`telemetry`], `signals`, `timer` | logging; the signals that stop or reload; the runtime's clock |
//! | [`demo`] | mock Twitch, a sample app and a gateway on one computer |
//!
//! # How to add a setting
//!
//! 1. Declare it in `config/settings.rs`, in the struct of its section.
//! 2. Use the new field of [`config::Config`]; settings of the engine are passed on in
//!    `gateway.rs`.
//! 3. Run `cargo test -p claviger-gateway --lib`. It rewrites `docs/configuration.md`; commit that
//!    too.
//!
//! A check that concerns several settings goes into `config/check.rs`. To rename a setting, add its
//! old name to `RENAMED` in `config/keys.rs`.
//!
//! # How to add a command
//!
//! 1. Write `cli/NAME.rs` with the arguments as a `clap::Args` and a function `run`.
//! 2. Add a variant to `Command` in `cli/mod.rs`, and call `run` in `Cli::run`.
//! 3. Test it in `tests/gateway/commands.rs`, as a shell runs it.
//!
//! # How to add a page
//!
//! Pages live in `claviger-axum`: a route in its `routes/`, a template in its `templates/`. An
//! error of the gateway alone is a constant in `problems.rs`.
//!
//! # How to add a metric
//!
//! 1. Declare it in the table `metrics!` of the engine's file of metrics, with a function that
//!    records it.
//! 2. Call that function where it happens.
//! 3. Run `cargo test -p claviger-gateway --lib`. It rewrites `docs/metrics.md`; commit that too.
//!
//! To rename a metric, add its old name to `RENAMED` in the same file.

pub mod api;
pub mod cli;
pub mod config;
pub mod demo;
mod entry;
pub mod gateway;
pub mod inbound;
mod keeping;
mod key_file;
pub mod metrics;
mod misdirected;
mod patient_start;
pub mod private;
pub mod problems;
pub mod proxy;
pub mod reload;
pub mod rules;
mod secret_file;
pub mod server;
mod signals;
pub mod status;
pub mod telemetry;
mod timer;
mod well_known;

/// Installs the TLS library of the process. Call it first.
pub fn choose_tls() {
    // An error means that it was installed before, and there is only one to choose.
    let _chosen = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
