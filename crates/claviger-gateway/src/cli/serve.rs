//! `claviger serve`

use anyhow::Context as _;
use clap::Args;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{ConfigArgs, block_on};
use crate::{
    config::{Config, Layers, Listen, explain, secrets::Secrets, warnings},
    gateway::Gateway,
    metrics, patient_start,
    reload::{self, Source, Users, Watched},
    server::{self, Front, Listener},
    signals::{Hangups, stop_on_signal},
    telemetry,
};

/// The options of `claviger serve`.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Start although rows need a key that is not in the keyring; their users are not served until
    /// it is back. Keys of assertions that do not open are replaced for all gateways
    #[arg(long)]
    despite_missing_keys: bool,
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let layers = args.config.layers()?;
    let config = args.config.config(&layers)?;
    // Files may change while the gateway starts.
    let watched = Watched::new(&config);
    let secrets = Secrets::load(&config, &layers)?;
    telemetry::start(&config.log, &layers);
    for warning in explain::renamed(&layers).into_iter().chain(warnings::all(&config, &layers, &secrets)) {
        tracing::warn!("{warning}");
    }
    block_on(serve(&config, layers, secrets, watched, args))
}

/// Reads the configuration again.
fn load(source: &Source) -> anyhow::Result<(Config, Layers)> {
    let args = ConfigArgs { config: source.config.clone() };
    let layers = args.layers()?;
    Ok((args.config(&layers)?, layers))
}

async fn serve(
    config: &Config,
    layers: Layers,
    secrets: Secrets,
    watched: Watched,
    args: &ServeArgs,
) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    let hangups = Hangups::new()?;
    // A start may wait minutes for the database, or for a step of the schema.
    let opening = async {
        let (store, front) = patient_start::open_store(config, &secrets).await?;
        anyhow::Ok((Gateway::on(store, config, secrets).await?, front))
    };
    let Some((gateway, front)) = stop.run_until_cancelled(opening).await.transpose()? else {
        tracing::info!("stopped before it was ready");
        return Ok(());
    };
    let engine = gateway.claviger().engine().clone();
    if let Err(error) = engine.require_keys().await {
        if !args.despite_missing_keys {
            return Err(error).context(
                "the gateway does not start, because it could not serve all users; if the key is lost for good, start \
                 with --despite-missing-keys",
            );
        }
        tracing::error!(%error, "started although a key is missing");
        engine.replace_unreadable_signing_keys().await?;
    }
    // Metrics and new secrets are needed until the last request is over.
    let served = CancellationToken::new();
    let source = Source { config: args.config.config.clone(), started: layers, load };
    let users = Users { engine, credentials: gateway.credentials().clone() };
    let reloading = tokio::spawn(watch(source, watched, users, hangups, served.clone()));
    let private = match &config.private.listen {
        Some(at) => Some((Listener::open(at, "private.listen").await?, metrics::record(served.clone())?)),
        None => None,
    };
    let metrics = match config.metrics.listen {
        Some(Listen(address)) => {
            let shown = metrics::record(served.clone())?;
            let engine = gateway.claviger().engine().clone();
            let hosts = config.metrics.hosts.iter().map(|host| host.0.clone()).collect();
            let listener = server::bind(address, "metrics.listen")?;
            Some(metrics::serve(listener, hosts, engine, shown, served.clone())?)
        }
        None => None,
    };
    let front = match front {
        Some(front) => front,
        None => {
            let listener = Listener::open(&config.listen, "listen").await?;
            Front::open(listener, config, gateway.entry(), gateway.streams().stopping())
        }
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = front.shown(),
        private_listen = private.as_ref().map(|(listener, _)| listener.shown()),
        public_url = %config.public_url.origin(),
        upstream = config.upstream.as_ref().map(ToString::to_string),
        "ready"
    );
    front.serve(gateway, private, config, stop).await?;
    served.cancel();
    if let Some(metrics) = metrics {
        metrics.await?;
    }
    reloading.await?;
    tracing::info!("stopped");
    Ok(())
}

/// Reloads the secrets while the gateway runs.
async fn watch(
    source: Source,
    watched: Watched,
    users: Users,
    mut hangups: Hangups,
    stop: CancellationToken,
) {
    let asked = Notify::new();
    let forward = async {
        loop {
            hangups.next().await;
            asked.notify_one();
        }
    };
    tokio::select! {
        () = reload::keep(source, watched, &users, &asked, stop) => {}
        () = forward => {}
    }
}
