//! The Claviger gateway: sign-in and sessions in front of any web app.
//!
//! | module | what it holds |
//! |---|---|
//! | [`cli`] | the commands |
//! | [`config`] | what an operator decides, and where each decision came from |
//! | [`gateway`] | store, engine, routes and proxies put together |
//! | [`server`] | the socket |
//! | `entry` | what every request meets first |
//! | [`proxy`] | the reverse proxy |
//! | [`api`] | the proxy to the provider's API |
//! | [`demo`] | mock Twitch, a sample app and a gateway on one computer |
//! | [`problems`] | errors as pages and as JSON |
//! | [`metrics`], [`status`] | what is counted, for Prometheus and for people |
//! | [`telemetry`] | log lines |

pub mod api;
pub mod cli;
pub mod config;
pub mod demo;
mod entry;
pub mod gateway;
pub mod metrics;
pub mod problems;
pub mod proxy;
pub mod reload;
pub mod server;
pub mod status;
pub mod telemetry;

/// Chooses the one TLS library of the process. To be called first.
pub fn choose_tls() {
    // An error says that it was chosen before, and there is only one to choose.
    let _chosen = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
