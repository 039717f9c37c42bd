//! What Prometheus is told.

use claviger::metrics;
use http::{StatusCode, header};
use tokio_util::sync::CancellationToken;

use crate::world::{ADA, World, listen, patiently};

#[tokio::test]
async fn what_happened_is_counted_and_nobody_is_named() {
    let listener = listen();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served = metrics::serve(listener, stop.clone()).unwrap();
    let world = World::echoing().await;
    let cookie = world.sign_in(ADA).await;
    world.mock.with(|mock| mock.expire_access_tokens(ADA));
    let answer = world.get("/api/twitch/users").header(header::COOKIE, &cookie).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    world.sign_out(&cookie).await;

    let shown = world.client.get(format!("http://{address}/metrics")).send().await.unwrap();
    assert_eq!(shown.status(), StatusCode::OK);
    let shown = shown.text().await.unwrap();
    for line in [
        "claviger_sign_ins_total{outcome=\"signed_in\"} ",
        "claviger_refreshes_total{outcome=\"rotated\"} ",
        "claviger_refresh_seconds_bucket{le=\"0.5\"} ",
        "claviger_sessions_ended_total{reason=\"signed_out\"} ",
        "claviger_provider_breaker{question=\"refresh\"} ",
        "claviger_claims{state=\"ambiguous\"} ",
        "claviger_outbox_revocations ",
        "# HELP claviger_outbox_oldest_seconds ",
    ] {
        assert!(shown.contains(line), "{line:?} is missing in\n{shown}");
    }
    let value = cookie.split_once('=').unwrap().1;
    for secret in [value, ADA, "ada_builds"] {
        assert!(!shown.contains(secret), "SECRET\n{shown}");
    }
    stop.cancel();
    patiently(served).await.unwrap();
}
