//! The gateway on a PostgreSQL database.

use std::{
    process::{Command, Output},
    time::Duration,
};

use claviger_mock::{Endpoint, Fault, FaultKind};
use http::StatusCode;
use server::Server;

use crate::{
    relay::Relay,
    world::{ADA, World, echo},
};

#[allow(dead_code, unreachable_pub, reason = "each test uses its part")]
#[path = "../../../claviger-store-postgres/tests/common/server.rs"]
pub(crate) mod server;

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a command with a complete configuration, and returns its output.
fn run(arguments: &[&str], database: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    let settings = [
        ("PUBLIC_URL", "https://app.example"),
        ("KEYRING", "1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"),
        ("PROVIDER__CLIENT_ID", "abc"),
        ("PROVIDER__CLIENT_SECRET", "canary-client-secret"),
        ("STORE__URL", database),
    ];
    command.env_clear().args(arguments);
    let output =
        command.envs(settings.map(|(key, value)| (format!("CLAVIGER_{key}"), value))).output().unwrap();
    let told = text(&output);
    assert!(!told.contains("canary"), "SECRET: {told}");
    (output.status.success(), told)
}

#[tokio::test]
async fn migrate_changes_the_schema_and_a_dry_run_only_shows_it() {
    let server = Server::start("");
    let database = server.database().await;
    let address = format!("{} password=canary-of-database", server.text(&database));
    for _ in 0..2 {
        let (worked, told) = run(&["migrate", "--dry-run"], &address);
        assert!(worked && told.contains("has schema 0"), "{told}");
        assert!(told.contains("would be taken:\n  1  sessions (expand"), "{told}");
    }
    let (worked, told) = run(&["migrate"], &address);
    assert!(worked && told.contains("were taken:\n  1  sessions"), "{told}");
    let steps = told.lines().filter(|line| line.contains("(expand") || line.contains("(contract")).count();
    for arguments in [&["migrate"][..], &["migrate", "--dry-run"]] {
        let (worked, told) = run(arguments, &address);
        assert!(worked && told.contains(&format!("has schema {steps}. There is nothing to do.")), "{told}");
    }
    let (worked, told) = run(&["check-config"], &address);
    assert!(worked && told.contains("the sessions are in PostgreSQL"), "{told}");
    let (worked, told) = run(&["migrate"], "postgres://claviger:canary@127.0.0.1:1/claviger");
    assert!(!worked && told.contains("unavailable"), "{told}");
}

#[tokio::test]
async fn instances_share_sessions_in_a_database() {
    let server = Server::start("");
    let database = server.database().await;
    let settings = format!("store.url = \"{}\"", server.text(&database));
    let app = World::echoing().await;
    let (one, other) =
        (World::before_url(&app.url(""), &settings).await, World::before_url(&app.url(""), &settings).await);
    let cookie = one.sign_in(ADA).await;
    let get =
        async |world: &World| world.get("/auth/session").header("cookie", &cookie).send().await.unwrap();
    for world in [&one, &other] {
        assert_eq!(get(world).await.status(), StatusCode::OK);
    }
    let out = one.post("/auth/logout").header("cookie", &cookie).send().await.unwrap();
    assert!(out.status().is_success() || out.status().is_redirection(), "{}", out.status());
    assert_eq!(get(&one).await.status(), StatusCode::UNAUTHORIZED);
    let fresh = World::before_url(&app.url(""), &settings).await;
    assert_eq!(get(&fresh).await.status(), StatusCode::UNAUTHORIZED, "the end is in the database");
}

async fn status(world: &World, cookie: &str) -> StatusCode {
    world.get("/auth/session").header("cookie", cookie).send().await.unwrap().status()
}

/// A session that both instances have served from memory, and that one of them then ends.
async fn signed_out_at(one: &World, other: &World) -> String {
    let cookie = one.sign_in(ADA).await;
    for world in [one, other, other] {
        assert_eq!(status(world, &cookie).await, StatusCode::OK);
    }
    one.sign_out(&cookie).await;
    cookie
}

/// `--nocapture` shows how long it takes. `CLAVIGER_TRIALS=1000` tries more often.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "it tells how long something takes between real programs")]
async fn a_sign_out_at_one_instance_is_refused_at_the_others() {
    let server = Server::start("");
    let database = server.database().await;
    let settings = format!("store.url = \"{}\"", server.text(&database));
    let app = World::echoing().await;
    let (one, other) =
        (World::before_url(&app.url(""), &settings).await, World::before_url(&app.url(""), &settings).await);
    let trials = std::env::var("CLAVIGER_TRIALS").ok().and_then(|trials| trials.parse().ok()).unwrap_or(20);
    let mut took = Vec::new();
    for _ in 0..trials {
        let cookie = signed_out_at(&one, &other).await;
        let begun = std::time::Instant::now();
        let refused = async { while status(&other, &cookie).await == StatusCode::OK {} };
        tokio::time::timeout(STALE_AT_MOST, refused).await.expect("ENDED: refused within the bound");
        took.push(begun.elapsed());
    }
    took.sort();
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    println!("{trials} sign-outs were refused elsewhere after {:?} (p50), {:?} (p99)", at(50), at(99));
}

/// While the change feed is broken, no session is served from memory.
#[tokio::test]
async fn without_the_feed_every_request_reads_the_database() {
    let server = Server::start("");
    let database = server.database().await;
    let link = Relay::to(server.port).await;
    let by_socket = format!("store.url = \"{}\"", server.text(&database));
    let listening = format!(
        "{by_socket}\nstore.insecure_plaintext_to_database = true\nstore.listen_url = \"host=127.0.0.1 port={} user=claviger dbname={database}\"",
        link.port
    );
    let app = World::echoing().await;
    let (one, other) = (
        World::before_url(&app.url(""), &by_socket).await,
        World::before_url(&app.url(""), &listening).await,
    );
    link.close();
    let first = signed_out_at(&one, &other).await;
    let noticed = async { while status(&other, &first).await == StatusCode::OK {} };
    tokio::time::timeout(STALE_AT_MOST, noticed).await.expect("the link's loss is noticed within the bound");
    for _ in 0..20 {
        let cookie = signed_out_at(&one, &other).await;
        assert_eq!(status(&other, &cookie).await, StatusCode::UNAUTHORIZED, "ENDED: never from memory");
    }
}

/// Without the feed, ended sessions and sessions with a dead token look alike until their rows are
/// read.
#[tokio::test]
async fn a_call_during_a_broken_feed_is_not_reported_as_signed_out() {
    let server = Server::start("");
    let database = server.database().await;
    let world = World::new(echo(), &format!("store.url = \"{}\"", server.text(&database))).await;
    let cookie = world.sign_in(ADA).await;
    world.mock.with(|mock| {
        mock.expire_access_tokens(ADA);
        mock.add_fault(Fault::once(Endpoint::Token, FaultKind::delay(Duration::from_secs(3))));
    });
    let call = tokio::spawn(world.get("/api/twitch/users").header("cookie", &cookie).send());
    world.until(|mock| mock.token_calls("refresh_token") == 1).await;
    let client = server.client(&database).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    client.simple_query(cut).await.unwrap();
    let answer = call.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "TRANSIENT");
    assert!(answer.text().await.unwrap().contains("call_broken_off"));
    assert_eq!(status(&world, &cookie).await, StatusCode::OK);
}

/// A feed has a beat every two seconds, and counts as broken after three more.
const STALE_AT_MOST: Duration = Duration::from_secs(5);
