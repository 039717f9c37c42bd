//! The gateway on a PostgreSQL database.

use std::process::{Command, Output};

use http::StatusCode;
use server::Server;

use crate::world::{ADA, World};

#[allow(dead_code, unreachable_pub, reason = "each test uses its part")]
#[path = "../../../claviger-store-postgres/tests/common/server.rs"]
mod server;

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a command with a whole configuration, and gives what it says.
fn run(arguments: &[&str], database: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    let settings = [
        ("PUBLIC_URL", "https://app.example"),
        ("KEYRING", "1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
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
async fn a_database_is_migrated_by_command_and_a_dry_run_only_says_how() {
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
    for arguments in [&["migrate"][..], &["migrate", "--dry-run"]] {
        let (worked, told) = run(arguments, &address);
        assert!(worked && told.contains("has schema 1. There is nothing to do."), "{told}");
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
