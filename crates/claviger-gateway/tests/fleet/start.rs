//! A gateway starts while its database is away, or is not the one that was meant.

use std::{net::SocketAddr, sync::Arc};

use claviger_mock::Rotation;
use http::StatusCode;

use crate::{
    STRICT, alone,
    common::process::{self, Running},
    instances::{Fleet, ours},
};

async fn status(client: &reqwest::Client, address: SocketAddr, path: &str) -> Option<StatusCode> {
    let answer = client.get(format!("http://{address}{path}")).send().await;
    answer.ok().map(|answer| answer.status())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_waits_for_a_database_that_is_away_and_says_so() {
    let _alone = alone().await;
    let fleet = Fleet::of(&[ours()], Rotation::OneTimeKillsConnection, STRICT).await;
    let instance = &fleet.instances[0];
    let server = Arc::clone(&fleet.server);
    tokio::task::spawn_blocking(move || server.kill()).await.unwrap();
    instance.keep_up();
    let ask = |path| status(&instance.client, instance.address, path);
    let lives = || async { ask("/healthz").await == Some(StatusCode::OK) };
    process::until("the health check answers", || fleet.logs(), lives).await;
    for path in ["/readyz", "/", "/auth/session"] {
        assert_eq!(ask(path).await, Some(StatusCode::SERVICE_UNAVAILABLE), "{path}");
    }
    assert!(fleet.logs().contains("waiting for the session store before the start"), "{}", fleet.logs());
    let server = Arc::clone(&fleet.server);
    tokio::task::spawn_blocking(move || server.resume()).await.unwrap();
    let is_ready = || process::is_ready(&instance.client, instance.address);
    process::until("the gateway is ready", || fleet.logs(), is_ready).await;
    instance.require_running();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_does_not_wait_for_a_database_that_does_not_exist() {
    let _alone = alone().await;
    let fleet = Fleet::of(&[ours()], Rotation::OneTimeKillsConnection, STRICT).await;
    let program = &fleet.instances[0].program;
    let settings = std::fs::read_to_string(program.config()).unwrap();
    program.configure(&settings.replace(&format!("dbname={}", fleet.database), "dbname=mistyped"));
    let mut running: Running = program.start();
    process::until("it ends", || program.log(), || std::future::ready(running.has_ended())).await;
    let log = program.log();
    assert!(log.contains("there is no such database") && !log.contains("the start waits"), "{log}");
}
