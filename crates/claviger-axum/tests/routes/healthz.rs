//! `GET /healthz` and `GET /readyz`.

use std::time::Duration;

use http::StatusCode;

use crate::{browser::Browser, site::App, twitch::ADA};

#[tokio::test(start_paused = true)]
async fn healthz_does_not_depend_on_the_store() {
    let app = App::start().await;
    for fails in [false, true] {
        app.store_fails(fails);
        let answer = Browser::new().fetches(&app, "/healthz").await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "ok\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn readyz_follows_the_store() {
    let app = App::start().await;
    let answer = Browser::new().fetches(&app, "/readyz").await;
    assert_eq!(
        (answer.status, answer.json()),
        (StatusCode::OK, serde_json::json!({ "ready": true, "store": "ok" }))
    );
    app.store_fails(true);
    assert_eq!(Browser::new().fetches(&app, "/readyz").await.status, StatusCode::OK, "asked a moment ago");
    app.pass(Duration::from_secs(1));
    let answer = Browser::new().fetches(&app, "/readyz").await;
    let body = serde_json::json!({ "ready": false, "store": "unavailable" });
    assert_eq!((answer.status, answer.json()), (StatusCode::SERVICE_UNAVAILABLE, body));
    app.store_fails(false);
    app.pass(Duration::from_secs(1));
    app.provider_fails_when_needed();
    assert_eq!(Browser::new().fetches(&app, "/readyz").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn readyz_reports_a_small_budget_and_stays_ready() {
    let app = App::start().await;
    app.signed_in(ADA).await;
    app.claviger.engine().measure_load().await.unwrap();
    let answer = Browser::new().fetches(&app, "/readyz").await;
    assert_eq!(answer.json(), serde_json::json!({ "ready": true, "store": "ok" }));
    // One session now needs 25 validations a second.
    let too_many = Duration::from_millis(40);
    let app = App::with(|setup| setup.settings.sweep.period = too_many).await;
    app.signed_in(ADA).await;
    app.claviger.engine().measure_load().await.unwrap();
    let sweep = serde_json::json!({
        "budget_per_second": 20.0, "needed_per_second": 25.0, "sufficient_per_second": 30.0
    });
    let answer = Browser::new().fetches(&app, "/readyz").await;
    assert_eq!(
        (answer.status, answer.json()),
        (StatusCode::OK, serde_json::json!({ "ready": true, "store": "ok", "sweep": sweep }))
    );
}
