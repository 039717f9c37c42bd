//! The metrics.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use claviger_mock::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Endpoint, Fault, FaultKind};
use http::{StatusCode, header};
use serde_json::Value;

use crate::world::{ADA, Process, World, listen, patiently};

const METRICS: &str = "metrics.listen = \"127.0.0.1:0\"";

#[tokio::test]
async fn metrics_count_without_naming_users() {
    let world = World::new(crate::world::echo(), METRICS).await;
    let address = world.metrics.unwrap();
    world.mock.with(|mock| mock.add_fault(Fault::once(Endpoint::Validate, FaultKind::status(502))));
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
        "claviger_provider_refusals_total{request=\"identity\",cause=\"server_error\"} 1",
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
}

#[tokio::test]
async fn the_metrics_are_for_private_hosts_only() {
    let world =
        World::new(crate::world::echo(), &format!("{METRICS}\nmetrics.hosts = [\"metrics.app.example\"]"))
            .await;
    let address = world.metrics.unwrap();
    for (host, expected) in [
        ("127.0.0.1", StatusCode::OK),
        ("claviger:9464", StatusCode::OK),
        ("claviger.monitoring.svc", StatusCode::OK),
        ("metrics.app.example", StatusCode::OK),
        ("evil.example", StatusCode::MISDIRECTED_REQUEST),
        ("127.0.0.1.evil.example:9464", StatusCode::MISDIRECTED_REQUEST),
    ] {
        for path in ["/metrics", "/status", "/keys"] {
            let asked = world.client.get(format!("http://{address}{path}")).header(header::HOST, host);
            assert_eq!(asked.send().await.unwrap().status(), expected, "{host}{path}");
        }
    }
}

#[tokio::test]
async fn a_renamed_metric_is_exported_under_both_names() {
    let world = World::new(crate::world::echo(), &format!("{METRICS}\nwebhook.secret = \"canary-of-the-webhook\"\nwebhook.callback_url = \"http://127.0.0.1:{{port}}/auth/webhook\"")).await;
    let refused = world.client.post(world.url("/auth/webhook")).body("nothing").send().await.unwrap();
    assert!(refused.status().is_client_error());
    let shown = world.client.get(format!("http://{}/metrics", world.metrics.unwrap())).send().await.unwrap();
    let shown = shown.text().await.unwrap();
    let value = |name: &str| {
        let line =
            shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("{kind=\"malformed\"} "));
        line.map(str::to_owned)
    };
    assert!(value("claviger_webhook_events_total").is_some(), "{shown}");
    assert_eq!(value("claviger_webhook_events_total"), value("claviger_notices_total"), "{shown}");
    assert!(
        shown.contains("# HELP claviger_notices_total Old name of claviger_webhook_events_total."),
        "{shown}"
    );
}

#[tokio::test]
async fn status_is_shown_to_programs_and_people() {
    let world = World::new(crate::world::echo(), METRICS).await;
    let address = world.metrics.unwrap();
    let cookie = world.sign_in(ADA).await;
    let told = world.client.get(format!("http://{address}/status")).send().await.unwrap();
    assert_eq!(told.status(), StatusCode::OK);
    let text = told.text().await.unwrap();
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["refreshes"], "yes", "{text}");
    assert_eq!(status["webhook"], "not_configured", "{text}");
    assert_eq!(status["revocations_owed"], 0, "{text}");
    assert_eq!(status["counted"]["budget_per_second"], 20.0, "{text}");
    for secret in [cookie.split_once('=').unwrap().1, ADA, "ada_builds"] {
        assert!(!text.contains(secret), "SECRET\n{text}");
    }

    let file = tempfile::NamedTempFile::new().unwrap();
    let settings = |metrics: &str| {
        format!(
            "public_url = \"https://app.example\"\nkeyring_file = \"nowhere\"\n{metrics}\n\
             [provider]\nclient_id = \"abc\"\nclient_secret_file = \"nowhere\"\n"
        )
    };
    let status = async |metrics: &str| {
        std::fs::write(file.path(), settings(metrics)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
        command.env_clear().args(["status", "--config"]).arg(file.path());
        let output = patiently(tokio::task::spawn_blocking(move || command.output())).await.unwrap().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.success(), text)
    };
    let (done, text) = status(&format!("metrics.listen = \"{address}\"")).await;
    assert!(done, "{text}");
    for words in
        ["live, 0 parked, 0 suspect (counted ", "budget 20 a second", "the budget suffices", "not configured"]
    {
        assert!(text.contains(words), "{words:?} is not told:\n{text}");
    }
    let (done, text) = status("").await;
    assert!(!done && text.contains("CLAVIGER_METRICS__LISTEN"), "{text}");
    let (done, text) = status(&format!("metrics.listen = \"{}\"", world.address)).await;
    assert!(!done && text.contains("is no gateway of this version"), "{text}");
    let (done, text) = status("metrics.listen = \"127.0.0.1:1\"").await;
    assert!(!done && text.contains("no gateway answers at 127.0.0.1:1"), "{text}");
}

/// The operator sees a refresh whose answer was lost, even after a restart.
#[tokio::test]
async fn a_lost_answer_is_shown_as_an_ambiguous_claim() {
    let world = World::echoing().await;
    let cookies = [world.sign_in(ADA).await, world.sign_in(ADA).await];
    let lost = Fault::once(Endpoint::Token, FaultKind::CloseAfter).grant_type("refresh_token");
    world.mock.with(|mock| {
        mock.expire_access_tokens(ADA);
        mock.add_fault(lost);
    });
    for (cookie, status) in cookies.iter().zip([StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK]) {
        let answer = world.get("/api/twitch/users").header(header::COOKIE, cookie).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
    world.tell_to_stop();
    let directory = world.stopped().await;

    let free = || listen().local_addr().unwrap();
    let (address, metrics, nobody) = (free(), free(), free());
    let config = directory.path().join("claviger.toml");
    let text = format!(
        r#"
        listen = "{address}"
        public_url = "http://localhost:{port}"
        insecure_plain_http_for_development = true
        keyring = ["1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"]
        store.path = {path:?}
        metrics.listen = "{metrics}"
        provider.client_id = "{DEMO_CLIENT_ID}"
        provider.client_secret = "{DEMO_CLIENT_SECRET}"
        provider.mock_url_for_development = "http://{nobody}"
        "#,
        port = address.port(),
        path = directory.path().join("claviger.db"),
    );
    std::fs::write(&config, text).unwrap();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_claviger"));
    serve.arg("serve").arg("--config").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
    let _running = Process(serve.spawn().unwrap());

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let shown = patiently(async {
        loop {
            ticks.tick().await;
            let Ok(answer) = client.get(format!("http://{metrics}/metrics")).send().await else { continue };
            let shown = answer.text().await.unwrap();
            if shown.contains("claviger_claims{state=\"ambiguous\"}") {
                return shown;
            }
        }
    })
    .await;
    assert!(shown.contains("claviger_claims{state=\"ambiguous\"} 1\n"), "visibly\n{shown}");
    assert!(shown.contains("claviger_claims{state=\"in_flight\"} 0\n"), "{shown}");
}
