//! Runs of the engine, drawn call by call. `cargo xtask diagrams` puts the drawings into
//! docs/diagrams.md.
//!
//! Each test records one run and compares it with its file in `recorded/`. A run that differs
//! rewrites the file and fails: read the difference, run `cargo xtask diagrams` and commit both.

use std::{cell::RefCell, fs, path::Path};

use bytes::Bytes;
use claviger_core::{Change, ChangeKind, EndReason, ReturnTo};
use claviger_store::{Method, Queue};
use http::{Request, Response};

use crate::{
    crowd::slot,
    webhook_events::subscribed,
    world::{ADA, HOUR, MINUTE, SECOND, TOKEN_LIFE, World},
};

thread_local! {
    /// The lines so far; None while nothing is recorded. A test's runtime has one thread.
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
    /// What the next call of the store is about.
    static SUBJECT: RefCell<Option<&'static str>> = const { RefCell::new(None) };
}

/// Records a call of the store.
pub(crate) fn store_call(method: Method) {
    let of_queue = match method {
        Method::Enqueue(queue) => Some(format!("enqueue: the {}", item(queue))),
        Method::Take(queue) => Some(format!("take: lease each {} that is due", item(queue))),
        Method::Extend(queue) => Some(format!("update_lease: extend the lease of the {}", item(queue))),
        Method::Reschedule(queue) => Some(format!("update_lease: put the {} off", item(queue))),
        Method::Acknowledge(queue) => Some(format!("update_lease: acknowledge the {}", item(queue))),
        _ => None,
    };
    if let Some(call) = of_queue {
        return draw(&format!("Engine->>Store: {call}"));
    }
    let name = snake_case(&format!("{method:?}"));
    let line = match SUBJECT.take().or_else(|| meaning(&name)) {
        Some(meaning) => format!("Engine->>Store: {name}: {meaning}"),
        None => format!("Engine->>Store: {name}"),
    };
    draw(&line);
}

/// What an item of a queue is called.
fn item(queue: Queue) -> &'static str {
    match queue {
        Queue::Revocations => "pending revocation",
        Queue::Suspicions => "suspicion",
        Queue::Slots(_) => "slot",
    }
}

/// Says which shared entry the next call of the store is about.
pub(crate) fn shared_entry(name: &str) {
    SUBJECT.set(Some(match name {
        "pace" => "the rate limit of validations",
        "witness" => "the control user",
        "app-token" => "the app's own token",
        _ => "a shared entry",
    }));
}

/// Says which change the next call of the store writes.
pub(crate) fn change(change: &Change) {
    SUBJECT.set(Some(match change.kind() {
        ChangeKind::Claim => "the claim",
        ChangeKind::Pair => "the new pair",
        ChangeKind::Proof => "the proof",
        ChangeKind::State => "the new state",
        ChangeKind::Name => "the new name",
        ChangeKind::End { revocation: Some(_) } => "the end, and the revocation in the outbox",
        ChangeKind::End { revocation: None } => "the end",
    }));
}

/// Records a request to the provider and the status of its answer.
pub(crate) fn provider_call(request: &Request<Bytes>, answer: &Response<Bytes>) {
    let form = url::form_urlencoded::parse(request.body());
    let grant = form.filter(|(name, _)| name == "grant_type").map(|(_, grant)| format!(" ({grant})"));
    let (method, path) = (request.method(), request.uri().path());
    draw(&format!("Engine->>Provider: {method} {path}{}", grant.collect::<String>()));
    draw(&format!("Provider-->>Engine: {}", answer.status().as_u16()));
}

fn snake_case(name: &str) -> String {
    let parts = name.char_indices().map(|(index, letter)| {
        let first_of_word = letter.is_ascii_uppercase() && index > 0;
        format!("{}{}", if first_of_word { "_" } else { "" }, letter.to_ascii_lowercase())
    });
    parts.collect()
}

/// What a call of the store does in these runs, where its name does not say it.
fn meaning(name: &str) -> Option<&'static str> {
    let meaning = match name {
        "spend_login" => "use up the state",
        "insert" => "the new row",
        "load" => "read the row",
        "devices" => "read the user's rows",
        "end_sessions" => "end the user's older rows, add their revocations to the outbox",
        "apply_all" => "the proofs of several rows",
        "in_slot" => "read the live rows of the slot",
        _ => return None,
    };
    Some(meaning)
}

/// Draws one line, if a run is being recorded. A line that repeats the last one is drawn once.
fn draw(line: &str) {
    LINES.with_borrow_mut(|lines| {
        if let Some(lines) = lines
            && lines.last().is_none_or(|last| last != line)
        {
            lines.push(line.to_owned());
        }
    });
}

fn begin() {
    LINES.set(Some(Vec::new()));
}

/// Compares the run with the committed drawing of this name.
fn compare(name: &str) {
    let lines = LINES.take().expect("a run was recorded");
    let drawn = format!("sequenceDiagram\n    {}\n", lines.join("\n    "));
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engine/recorded").join(format!("{name}.mmd"));
    if fs::read_to_string(&path).unwrap_or_default() != drawn {
        fs::write(&path, &drawn).unwrap();
        panic!("{} was out of date and has been rewritten: run `cargo xtask diagrams`", path.display());
    }
}

#[tokio::test(start_paused = true)]
async fn sign_in() {
    let (world, app) = World::start().await;
    begin();
    draw("Browser->>Engine: GET /auth/login: begin_login");
    let started = app.begin_login(ReturnTo::root(), false);
    draw("Engine-->>Browser: 303 to the provider, with the sealed cookie of this sign-in");
    draw("Browser->>Provider: GET /oauth2/authorize");
    let callback = world.agree(ADA, &started);
    draw("Provider-->>Browser: 302 to /auth/callback, with the code and the state");
    draw("Browser->>Engine: GET /auth/callback: finish_login");
    draw("Note over Engine: open the cookie of this sign-in, compare the state");
    app.finish_login(callback, Some(&started.cookie), None, "curl/8").await.unwrap();
    draw("Engine-->>Browser: 303, with the cookie of the session");
    compare("sign-in");
}

#[tokio::test(start_paused = true)]
async fn requests() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let restarted = world.instance().await;
    // The first purge has confirmed the clock.
    restarted.purge().await.unwrap();
    begin();
    draw("Note over Browser,Store: the first request after a restart");
    draw("Browser->>Engine: authenticate");
    browser.asks(&restarted).await.unwrap();
    draw("Engine-->>Browser: served");
    draw("Note over Browser,Store: the next one is answered from memory");
    draw("Browser->>Engine: authenticate");
    browser.asks(&restarted).await.unwrap();
    draw("Engine-->>Browser: served");
    draw("Note over Browser,Store: the access token has expired");
    world.pass(TOKEN_LIFE);
    draw("Browser->>Engine: authenticate");
    browser.asks(&restarted).await.unwrap();
    draw("Engine-->>Browser: served with the new pair");
    compare("request");
}

#[tokio::test(start_paused = true)]
async fn sweep() {
    let (world, app) = World::start().await;
    world.plant_in(slot(0), ADA, |_| {}).await;
    let dead = world.plant_in(slot(0), ADA, |_| {}).await;
    let token = world.access_token(dead).await;
    world.pass(HOUR);
    assert!(world.twitch.mock().kill_token(&token));
    begin();
    app.sweep_due().await.unwrap();
    compare("sweep");
}

#[tokio::test(start_paused = true)]
async fn disconnect() {
    let (world, app, running) = subscribed(|_| {}).await;
    world.sign_in_on(&app, 2).await;
    running.stop().await;
    world.pass(MINUTE);
    world.disconnect(ADA);
    begin();
    draw("Provider->>Engine: POST /auth/webhook: take_webhook_event");
    draw("Note over Engine: check the length, the signature, the time, then the body");
    world.deliver(&app).await;
    draw("Engine-->>Provider: 204");
    draw("Note over Engine,Provider: at once, by the job that investigates suspicions");
    world.look_into_suspicions(&app).await;
    draw("Note over Engine: forget the rows, close their streams");
    draw("Note over Engine,Provider: later, until the provider confirms it or the tokens must have expired");
    app.carry_out_revocations().await.unwrap();
    compare("disconnect");
}

#[tokio::test(start_paused = true)]
async fn sign_out() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    begin();
    draw("Browser->>Engine: POST /auth/logout: end_own");
    app.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
    draw("Note over Engine: forget the row, close its streams");
    draw("Engine-->>Browser: 303, and the cookie is removed");
    draw("Note over Engine,Provider: later, until the provider confirms it or the token must have expired");
    world.run_for(SECOND).await;
    app.carry_out_revocations().await.unwrap();
    compare("sign-out");
}
