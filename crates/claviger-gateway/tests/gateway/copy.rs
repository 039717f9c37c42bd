//! `claviger store copy`: from a file to a database, with real gateways before and after.

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use claviger_core::{
    ActiveState, Custody, DeviceLabel, Expiry, ProviderName, SealedBlob, SealedPair, Session, SessionId,
    SessionSecret, State, Subject, Timestamp, Version,
};
use claviger_mock::Endpoint;
use claviger_store::{
    Placement, Store as _,
    archive::{Archive as _, CopyOptions, Record, Side, verify},
};
use claviger_store_postgres::{Options, PostgresStore};
use claviger_store_sqlite::SqliteStore;
use http::{StatusCode, header};
use serde_json::Value;

use crate::{
    postgres::server::{Server, eventually},
    world::{ADA, World},
};

const GRACE: &str = "100000002";

/// `claviger` in a directory with a complete configuration, whose store is `claviger.db` there.
fn claviger(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    command.current_dir(directory).env_clear().args(arguments);
    for (key, value) in [
        ("PUBLIC_URL", "https://app.example"),
        ("KEYRING", "1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"),
        ("PROVIDER__CLIENT_ID", "abc"),
        ("PROVIDER__CLIENT_SECRET", "canary-client-secret"),
        ("LISTEN", "127.0.0.1:0"),
    ] {
        command.env(format!("CLAVIGER_{key}"), value);
    }
    command
}

/// Returns the exit code and the whole output of a command.
fn told(output: &Output) -> (Option<i32>, String) {
    let told =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!told.contains("canary"), "SECRET: {told}");
    (output.status.code(), told)
}

fn copy(directory: &Path, database: &str, more: &[&str]) -> (Option<i32>, String) {
    let arguments = [&["store", "copy"], more].concat();
    told(&claviger(directory, &arguments).env("CLAVIGER_STORE__URL", database).output().unwrap())
}

/// A session with a pair, of one of many users.
fn session(tag: u32) -> Session {
    let mut random = [0; 10];
    random[..4].copy_from_slice(&tag.to_be_bytes());
    random[6..].copy_from_slice(&tag.wrapping_mul(0x9e37_79b9).to_be_bytes());
    let at = Timestamp::from_millis(1_790_000_000_000 + i64::from(tag));
    let pair = SealedPair {
        generation: Version::FIRST,
        access: SealedBlob(vec![0xac; 230]),
        refresh: Some(SealedBlob(vec![0x4e; 120])),
        expiry: Expiry::At(at),
    };
    Session {
        id: SessionId::new(at, random),
        version: Version::FIRST,
        subject: Subject { provider: ProviderName("twitch".to_owned()), id: (tag / 3).to_string() },
        display_name: format!("user {tag}"),
        secret_hash: SessionSecret::new([7; 32]).hash(),
        custody: Custody::Device,
        device: DeviceLabel::new("Firefox on Linux"),
        created_at: at,
        last_seen_at: at,
        state: State::Live(ActiveState { pair: Some(pair), proven_at: at, claim: None }),
    }
}

async fn fill(path: &Path, rows: u32) {
    let store = SqliteStore::open(path).unwrap();
    let tags: Vec<u32> = (0..rows).collect();
    for tags in tags.chunks(2000) {
        store.add(tags.iter().map(|tag| Record::Session(session(*tag))).collect()).await.unwrap();
    }
}

struct Kept {
    cookie: String,
    session: Value,
    devices: Value,
}

async fn json(world: &World, path: &str, cookie: &str) -> (StatusCode, Value) {
    let request = world.get(path).header(header::COOKIE, cookie).header(header::ACCEPT, "application/json");
    let answer = request.send().await.unwrap();
    let status = answer.status();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

async fn look(world: &World, cookie: &str) -> Kept {
    let (status, mut session) = json(world, "/auth/session", cookie).await;
    assert_eq!(status, StatusCode::OK, "TRANSIENT: nobody is signed out: {session}");
    let (status, mut devices) = json(world, "/auth/devices", cookie).await;
    assert_eq!(status, StatusCode::OK);
    // Reading the identity is a use.
    assert!(session.as_object_mut().unwrap().remove("idle_ends_at").is_some());
    for device in devices["devices"].as_array_mut().unwrap() {
        assert!(device.as_object_mut().unwrap().remove("last_seen").is_some());
    }
    Kept { cookie: cookie.to_owned(), session, devices }
}

async fn call(world: &World, cookie: &str) -> StatusCode {
    world.get("/api/twitch/users").header(header::COOKIE, cookie).send().await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_to_a_database_keeps_every_session() {
    let server = Server::start("");
    let database = server.text(&server.database().await);
    let app = World::echoing().await;
    let before = World::before_url(&app.url(""), "").await;
    let mut kept = Vec::new();
    for user in [ADA, ADA, GRACE] {
        let cookie = before.sign_in(user).await;
        kept.push(cookie);
    }
    let out = before.sign_in(ADA).await;
    before.sign_out(&out).await;
    let (_, refused) = json(&before, "/auth/session", &out).await;
    let (early, told) = copy(before.directory(), &database, &[]);
    assert!(early == Some(1) && told.contains("stop the gateway first"), "{told}");
    let mut seen = Vec::new();
    for cookie in &kept {
        seen.push(look(&before, cookie).await);
    }
    before.tell_to_stop();
    let (mock, directory) = before.left().await;

    // A gateway in this process releases its file when its last task has ended.
    let (done, told) = eventually("the gateway has let go of its file", async || {
        let (code, told) = copy(directory.path(), &database, &[]);
        (!told.contains("stop the gateway first")).then_some((code, told))
    })
    .await;
    assert_eq!(done, Some(0), "{told}");
    for words in
        ["sessions                      4 rows, SHA-256 ", "are equal", "set store.url_file", "same keys"]
    {
        assert!(told.contains(words), "{words:?} is not told:\n{told}");
    }

    let after = World::with(mock, directory, &app.url(""), &format!("store.url = \"{database}\"")).await;
    for Kept { cookie, session, devices } in &seen {
        let now = look(&after, cookie).await;
        assert_eq!((&now.session, &now.devices), (session, devices));
    }
    let (status, still_refused) = json(&after, "/auth/session", &out).await;
    assert_eq!((status, still_refused), (StatusCode::UNAUTHORIZED, refused), "ENDED");
    let refreshes = |world: &World| world.mock.with(|mock| mock.token_calls("refresh_token"));
    let (calls, signed_in) = (refreshes(&after), after.mock.with(|mock| mock.calls(Endpoint::Authorize)));
    for user in [ADA, GRACE] {
        after.mock.with(|mock| mock.expire_access_tokens(user));
    }
    for Kept { cookie, .. } in &seen {
        assert_eq!(call(&after, cookie).await, StatusCode::OK, "LIVE: a dead access token is refreshed");
    }
    assert_eq!(refreshes(&after) - calls, 3, "every device refreshed with the token that it brought along");
    assert_eq!(after.mock.with(|mock| mock.calls(Endpoint::Authorize)), signed_in);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("claviger.db");
    fill(&path, 1).await;
    let (again, told) = copy(directory.path(), &database, &[]);
    assert!(again == Some(1) && told.contains("stop the gateway first"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_copy_ends_with_the_same_rows() {
    const ROWS: u32 = 6000;
    let server = Server::start("");
    let name = server.database().await;
    let database = server.text(&name);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("claviger.db");
    fill(&path, ROWS).await;
    let client = server.client(&name).await;
    let rows = async || -> i64 {
        let counted = client.query_one("SELECT count(*) FROM claviger.session", &[]).await;
        counted.map_or(-1, |row| row.get(0))
    };
    let begin = || -> Child {
        let mut command = claviger(directory.path(), &["store", "copy"]);
        let command = command.env("CLAVIGER_STORE__URL", &database);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut before = -1;
    for until in [-1, 0, 1, 1500, 3000, 4100, i64::from(ROWS)] {
        let mut copying = begin();
        while rows().await < until {
            assert!(copying.try_wait().unwrap().is_none_or(|ended| ended.success()), "it ended too soon");
        }
        copying.kill().unwrap();
        copying.wait().unwrap();
        let now = rows().await;
        assert!(now >= before, "it goes on where it stood: {before} rows, then {now}");
        before = now;
    }
    let (done, told) = copy(directory.path(), &database, &[]);
    assert_eq!(done, Some(0), "{told}");
    let (verified, told_again) = copy(directory.path(), &database, &["--verify-only"]);
    assert_eq!(verified, Some(0), "{told_again}");
    let sums = |told: &str| {
        told.lines().filter(|line| line.contains("SHA-256")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(sums(&told), sums(&told_again));
    let file = SqliteStore::open_archive(&path, Side::Source).unwrap();
    let copied = PostgresStore::open_archive(&server.address(&name), &Options::default()).await.unwrap();
    let report = verify(&file, &copied, CopyOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!(report.sums[0].rows, u64::from(ROWS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_gateway_serves_from_an_unfinished_copy() {
    let server = Server::start("");
    let name = server.database().await;
    let database = server.text(&name);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("claviger.db");
    fill(&path, 10).await;
    let file = SqliteStore::open(&path).unwrap();
    assert!(file.spend_login([1; 32], session(0).created_at).await.unwrap());
    drop(file);
    let on_database = |arguments: &[&str]| {
        let mut command = claviger(directory.path(), arguments);
        command.env("CLAVIGER_STORE__URL", &database);
        command
    };
    let (code, migrated) = told(&on_database(&["migrate"]).output().unwrap());
    assert_eq!(code, Some(0), "{migrated}");
    // Another transaction blocks the table that comes after the sessions.
    let client = server.client(&name).await;
    client.batch_execute("BEGIN; LOCK TABLE claviger.spent_login IN SHARE MODE").await.unwrap();
    let mut copying = on_database(&["store", "copy"]).stderr(Stdio::null()).spawn().unwrap();
    eventually("the sessions are there", async || {
        let counted = client.query_one("SELECT count(*) FROM claviger.session", &[]).await.unwrap();
        (counted.get::<_, i64>(0) == 10).then_some(())
    })
    .await;
    copying.kill().unwrap();
    copying.wait().unwrap();
    let (code, refused) = told(&on_database(&["serve"]).output().unwrap());
    assert!(code == Some(1) && refused.contains("run `claviger store copy` again"), "{refused}");
    client.batch_execute("ROLLBACK").await.unwrap();
    let (code, done) = copy(directory.path(), &database, &[]);
    assert_eq!(code, Some(0), "what the killed one had sent is awaited, and it goes on: {done}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_destination_has_its_own_exit_code() {
    let server = Server::start("");
    let name = server.database().await;
    let database = server.text(&name);
    let directory = tempfile::tempdir().unwrap();
    fill(&directory.path().join("claviger.db"), 10).await;
    let other = session(77);
    let store = PostgresStore::open(&server.address(&name), &Options::default()).await.unwrap();
    store.insert(other.clone(), Placement { limit: 9, replaces: None }).await.unwrap();
    drop(store);
    let refused = async || {
        let (code, told) = copy(directory.path(), &database, &[]);
        (!told.contains("stop the gateway first")).then_some((code, told))
    };
    let (code, told) = eventually("the gateway's connections are closed", refused).await;
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains(&other.id.to_string()) && told.contains("Nothing was changed"), "{told}");
    let (code, told) = copy(directory.path(), &database, &["--verify-only"]);
    assert!(code == Some(4) && told.contains("among the sessions"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_on_the_command_line_is_refused() {
    let server = Server::start("");
    let name = server.database().await;
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let arguments = [&["store", "copy"], arguments].concat();
        told(&claviger(directory.path(), &arguments).output().unwrap())
    };
    let (code, told) = run(&["--to", "new.db"]);
    assert!(code == Some(1) && told.contains("there is no session store at claviger.db"), "{told}");
    fill(&directory.path().join("claviger.db"), 10).await;
    let (code, told) = run(&[]);
    assert!(code == Some(1) && told.contains("--to-url-file"), "{told}");
    let (code, told) = run(&["--to", "./claviger.db"]);
    assert!(code == Some(1) && told.contains("both the source and the destination"), "{told}");
    let (code, told) = run(&["--to", "postgres://claviger:canary@db.example/claviger"]);
    assert!(
        code == Some(1) && told.contains("every user of this computer can read a command line"),
        "{told}"
    );
    let (code, told) = run(&["--to", "a.db", "--to-url-file", "b"]);
    assert!(code == Some(2) && told.contains("cannot be used with"), "{told}");

    let address = format!("{} password=canary-of-database\n", server.text(&name));
    std::fs::write(directory.path().join("url"), address).unwrap();
    let (code, told) = run(&["--to-url-file", "url"]);
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = run(&["--from-url-file", "url", "--to", "back.db"]);
    assert!(code == Some(0) && told.contains("store.path = \"back.db\""), "{told}");
    let (code, told) = run(&["--from", "claviger.db", "--to", "back.db"]);
    assert!(code == Some(0) && told.contains("The copy was already finished."), "{told}");
    let (code, told) = run(&["--from", &server.text(&name), "--to", &server.text(&name)]);
    assert!(code == Some(1) && told.contains("both the source and the destination"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_url_is_never_taken_for_a_file() {
    let directory = tempfile::tempdir().unwrap();
    fill(&directory.path().join("claviger.db"), 1).await;
    let files = || {
        let mut names: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = files();
    for store in [
        "hostaddr=10.0.0.1 user=ada password=canary1 dbname=x",
        "Postgres://ada:canary@db.example/claviger",
        "pgsql://ada:canary@db.example/claviger",
        "pgsql:dbname=claviger;password=canary",
        "user = ada password = canary",
    ] {
        for option in ["--to", "--from"] {
            let other = if option == "--to" { ["--from", "claviger.db"] } else { ["--to", "new.db"] };
            let arguments = [&["store", "copy", option, store], &other[..]].concat();
            let (code, told) = told(&claviger(directory.path(), &arguments).output().unwrap());
            assert!(code == Some(1) && told.contains(option), "{store}: {told}");
        }
    }
    assert_eq!(files(), before, "SECRET: nothing is named after it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configured_database_is_not_copied_from_the_old_file() {
    let directory = tempfile::tempdir().unwrap();
    fill(&directory.path().join("claviger.db"), 1).await;
    std::fs::write(directory.path().join("url"), "postgres://claviger@127.0.0.1:1/claviger").unwrap();
    for to in [["--to", "new.db"], ["--to-url-file", "url"]] {
        let (code, told) = copy(directory.path(), "postgres://claviger@127.0.0.1:1/claviger", &to);
        assert!(code == Some(1) && told.contains("--from or --from-url-file"), "{told}");
        assert!(!directory.path().join("new.db").exists(), "nothing is made");
    }
    let (code, told) = copy(directory.path(), "host=127.0.0.1", &["--from", "claviger.db", "--to", "new.db"]);
    assert_eq!(code, Some(0), "what is named is copied: {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_creates_nothing() {
    let server = Server::start("");
    let name = server.database().await;
    let directory = tempfile::tempdir().unwrap();
    fill(&directory.path().join("claviger.db"), 0).await;
    let (code, told) = copy(directory.path(), &server.text(&name), &["--verify-only"]);
    assert!(code == Some(1) && told.contains("has schema 0"), "{told}");
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'claviger'";
    let schemas: i64 = server.client(&name).await.query_one(schemas, &[]).await.unwrap().get(0);
    assert_eq!(schemas, 0, "no schema was made");
    let mistyped = ["--verify-only", "--from", "claviger.db", "--to", "mistyped.db"];
    let (code, told) = copy(directory.path(), &server.text(&name), &mistyped);
    assert!(code == Some(1) && told.contains("there is no session store at mistyped.db"), "{told}");
    for made in ["mistyped.db", "mistyped.db.lock"] {
        assert!(!directory.path().join(made).exists(), "{made}");
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_not_copied_onto_itself_under_another_name() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name| directory.path().join(name);
    fill(&place("claviger.db"), 1).await;
    std::os::unix::fs::symlink("claviger.db", place("symbolic.db")).unwrap();
    std::fs::hard_link(place("claviger.db"), place("hard.db")).unwrap();
    for link in ["symbolic.db", "hard.db"] {
        let arguments = ["--from", "claviger.db", "--to", link];
        let (code, told) = copy(directory.path(), "host=127.0.0.1", &arguments);
        assert!(code == Some(1) && told.contains("both the source and the destination"), "{told}");
    }
    let (code, told) = copy(directory.path(), "host=127.0.0.1", &["--from", "hard.db", "--to", "new.db"]);
    assert!(code == Some(1) && told.contains("hard links"), "{told}");
}
