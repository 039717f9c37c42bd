//! Baselines as processes of their own: axum handlers that do nothing or answer a little, alone and
//! with the limits of the gateway's accept loop.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context, Result};
use axum::{Router, routing::get};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::load::{Load, Measured};

/// The path of the handler that does nothing.
pub(crate) const CHECK: &str = "/auth/check";
/// The path of a small answer.
pub(crate) const SMALL: &str = "/small";

/// Prints its address, and serves until it is killed.
pub(crate) async fn serve(limits: bool) -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    let app = Router::new().route(CHECK, get(|| async {})).route(SMALL, get(|| async { "x".repeat(100) }));
    let mut server = axum_server::from_tcp(listener)?;
    if limits {
        server.http_builder().http1().header_read_timeout(Duration::from_secs(130)).max_buf_size(32 * 1024);
    }
    server.serve(app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

/// The baseline as a process of its own, which ends when this is dropped.
pub(crate) struct Bare {
    process: u32,
    _child: Child,
    address: String,
}

impl Bare {
    /// Starts this program with these arguments.
    pub(crate) async fn start(arguments: &[&str]) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the baseline does not start")?;
        let output = process.stdout.take().context("no output")?;
        let address = BufReader::new(output).lines().next_line().await?.context("no address")?;
        let id = process.id().context("the baseline has ended")?;
        Ok(Self { process: id, _child: process, address })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) async fn measure(&self, load: &Load, path: &str) -> Result<Measured> {
        load.run(self.process, &self.address, path).await
    }
}
