//! `claviger serve`

use super::{ConfigArgs, block_on, told_to_stop};
use crate::{
    config::{Config, explain, secrets::Secrets},
    gateway::Gateway,
    metrics, server, telemetry,
};

pub(super) fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    let layers = args.layers()?;
    let config = args.config(&layers)?;
    let secrets = Secrets::load(&config, &layers)?;
    telemetry::start(&config.log, &layers);
    for warning in explain::warnings(&config) {
        tracing::warn!("{warning}");
    }
    block_on(serve(&config, secrets))
}

async fn serve(config: &Config, secrets: Secrets) -> anyhow::Result<()> {
    let stop = told_to_stop()?;
    let gateway = Gateway::open(config, secrets, stop.clone()).await?;
    let listener = server::bind(config.listen, "listen")?;
    let metrics = match config.metrics.listen {
        Some(address) => {
            let engine = gateway.claviger().engine().clone();
            Some(metrics::serve(server::bind(address, "metrics.listen")?, engine, stop.clone())?)
        }
        None => None,
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %listener.local_addr()?,
        public_url = %config.public_url.origin(),
        upstream = config.upstream.as_ref().map(|upstream| upstream.origin()),
        "ready"
    );
    server::serve(gateway, listener, &config.limits, stop).await?;
    if let Some(metrics) = metrics {
        metrics.await?;
    }
    tracing::info!("stopped");
    Ok(())
}
