//! Bodies pass as they come, and stop when their session ends.

use std::convert::Infallible;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    routing::{get, post},
};
use futures_util::{StreamExt as _, stream};
use http::{StatusCode, header};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::world::{ADA, World, location, patiently};

type Chunks = mpsc::Receiver<Result<Bytes, Infallible>>;

/// An app whose answer to `/feed` is what the test sends.
pub(crate) fn feed() -> (Router, mpsc::Sender<Result<Bytes, Infallible>>) {
    let (sender, receiver) = mpsc::channel(8);
    let receiver: &'static Mutex<Chunks> = Box::leak(Box::new(Mutex::new(receiver)));
    let app = Router::new()
        .route(
            "/feed",
            get(|State(chunks): State<&'static Mutex<Chunks>>| async move {
                Body::from_stream(stream::unfold(chunks, |chunks| async move {
                    let chunk = chunks.lock().await.recv().await?;
                    Some((chunk, chunks))
                }))
            }),
        )
        .with_state(receiver);
    (app, sender)
}

#[tokio::test]
async fn an_answer_arrives_piece_by_piece() {
    let (app, sender) = feed();
    let world = World::new(app, "").await;
    let cookie = world.sign_in(ADA).await;
    sender.send(Ok("first".into())).await.unwrap();
    let mut answer = patiently(world.get("/feed").header(header::COOKIE, cookie).send()).await.unwrap();
    assert_eq!(patiently(answer.chunk()).await.unwrap().unwrap(), "first");
    sender.send(Ok("second".into())).await.unwrap();
    assert_eq!(patiently(answer.chunk()).await.unwrap().unwrap(), "second");
    drop(sender);
    assert_eq!(patiently(answer.chunk()).await.unwrap(), None);
}

#[tokio::test]
async fn an_upload_arrives_piece_by_piece() {
    let (seen, first_seen) = oneshot::channel::<Bytes>();
    let seen: &'static Mutex<Option<oneshot::Sender<Bytes>>> = Box::leak(Box::new(Mutex::new(Some(seen))));
    let app = Router::new().route(
        "/upload",
        post(move |request: Request| async move {
            let mut body = request.into_body().into_data_stream();
            let first = body.next().await.unwrap().unwrap();
            let mut length = first.len();
            seen.lock().await.take().unwrap().send(first).unwrap();
            while let Some(chunk) = body.next().await {
                length += chunk.unwrap().len();
            }
            length.to_string()
        }),
    );
    let world = World::new(app, "").await;
    let cookie = world.sign_in(ADA).await;
    let (sender, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(1);
    let body = stream::unfold(receiver, |mut chunks| async move { Some((chunks.recv().await?, chunks)) });
    let request = world.post("/upload").header(header::COOKIE, cookie).body(reqwest::Body::wrap_stream(body));
    let answer = tokio::spawn(request.send());
    sender.send(Ok("first".into())).await.unwrap();
    assert_eq!(patiently(first_seen).await.unwrap(), "first");
    sender.send(Ok("second".into())).await.unwrap();
    drop(sender);
    assert_eq!(patiently(answer).await.unwrap().unwrap().text().await.unwrap(), "11");
}

#[tokio::test]
async fn a_stream_ends_with_its_session() {
    let (app, sender) = feed();
    let (other_app, other_sender) = feed();
    let app = app.nest("/other", other_app);
    let world = World::new(app, "").await;
    let (cookie, other) = (world.sign_in(ADA).await, world.sign_in(ADA).await);
    sender.send(Ok("hello".into())).await.unwrap();
    other_sender.send(Ok("hello".into())).await.unwrap();
    let mut stream = world.get("/feed").header(header::COOKIE, &cookie).send().await.unwrap();
    let mut kept = world.get("/other/feed").header(header::COOKIE, &other).send().await.unwrap();
    assert_eq!(patiently(stream.chunk()).await.unwrap().unwrap(), "hello");
    assert_eq!(patiently(kept.chunk()).await.unwrap().unwrap(), "hello");

    world.sign_out(&cookie).await;
    assert!(patiently(stream.chunk()).await.is_err(), "a cut answer must not look like a whole one");
    other_sender.send(Ok("still here".into())).await.unwrap();
    assert_eq!(patiently(kept.chunk()).await.unwrap().unwrap(), "still here");
}

#[tokio::test]
async fn a_request_in_flight_learns_that_its_session_ended() {
    let (arrived, mut arrivals) = mpsc::channel::<()>(4);
    let app = Router::new().fallback(move || {
        let arrived = arrived.clone();
        async move {
            arrived.send(()).await.unwrap();
            std::future::pending::<()>().await;
        }
    });
    let world = World::new(app, "").await;
    let cookie = world.sign_in(ADA).await;
    let program = world.get("/slow?x=1").header(header::COOKIE, &cookie);
    let window = world.get("/slow?x=1").header(header::COOKIE, &cookie).header(header::ACCEPT, "text/html");
    let form = world.post("/slow").header(header::COOKIE, &cookie).header(header::ACCEPT, "text/html");
    let (program, window) = (tokio::spawn(program.send()), tokio::spawn(window.send()));
    let form = tokio::spawn(form.body("amount=5").send());
    for _ in 0..3 {
        patiently(arrivals.recv()).await.unwrap();
    }
    world.sign_out(&cookie).await;
    let program = patiently(program).await.unwrap().unwrap();
    assert_eq!(program.status(), StatusCode::UNAUTHORIZED);
    assert!(program.text().await.unwrap().contains("\"reason\":\"signed_out\""));
    let window = patiently(window).await.unwrap().unwrap();
    assert_eq!(location(&window), "/auth/sign-in?return_to=%2Fslow%3Fx%3D1");
    let form = patiently(form).await.unwrap().unwrap().text().await.unwrap();
    assert!(form.contains("It is not known whether the app got your form."), "{form}");
}

#[tokio::test]
async fn what_a_session_sees_is_private_unless_the_app_says_otherwise() {
    let kept = |value: &'static str| get(move || async move { [(header::CACHE_CONTROL, value)] });
    let app = Router::new()
        .route("/page", get(|| async { "for Ada" }))
        .route("/open", get(|| async { "for all" }))
        .route("/asset", kept("public, max-age=60"))
        .route("/secret", kept("no-store"));
    let world = World::new(app, "routes = [{ path = \"/open\", assurance = \"none\" }]").await;
    let cookie = world.sign_in(ADA).await;
    for (path, expected) in [
        ("/page", Some("private")),
        ("/open", None),
        ("/asset", Some("public, max-age=60")),
        ("/secret", Some("no-store")),
    ] {
        let answer = world.get(path).header(header::COOKIE, &cookie).send().await.unwrap();
        let said = answer.headers().get(header::CACHE_CONTROL).map(|value| value.to_str().unwrap());
        assert_eq!(said, expected, "{path}");
    }
}

#[tokio::test]
async fn trailers_of_a_request_do_not_reach_the_app() {
    let world = World::echoing().await;
    let cookie = world.sign_in(ADA).await;
    let origin = world.origin();
    let answer = world
        .raw(format!(
            "POST /x HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\ncookie: {cookie}\r\nconnection: close\r\n\
             trailer: x-auth-user\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-auth-user: evil\r\n\r\n"
        ))
        .await;
    let told = crate::world::Told::parse(&answer);
    assert_eq!(told.0["body"], "body");
    assert_eq!(told.all("x-auth-user"), [ADA]);
    assert!(!told.names().contains(&"trailer"));
}

#[tokio::test]
async fn a_stalled_upload_gets_400() {
    let world = World::new(crate::world::echo(), "limits.body_pause = \"50ms\"").await;
    let cookie = world.sign_in(ADA).await;
    let origin = world.origin();
    let head = format!(
        "POST /x HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\ncookie: {cookie}\r\nconnection: close\r\n\
         content-length: 10\r\n\r\nhalf"
    );
    let answer = world.raw(head).await;
    assert_eq!(crate::world::status_of(&answer), 400, "{answer}");
    assert!(answer.contains("body_incomplete"), "{answer}");
}
