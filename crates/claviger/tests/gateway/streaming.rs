//! Bodies pass as they come, and stop when their session does.

use std::convert::Infallible;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    routing::{get, post},
};
use futures_util::{StreamExt as _, stream};
use http::header;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::world::{ADA, World, patiently};

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
async fn a_stream_breaks_off_when_its_session_ends_and_others_go_on() {
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
async fn trailers_of_a_request_do_not_reach_the_app() {
    let world = World::echoing().await;
    let cookie = world.sign_in(ADA).await;
    let origin = world.origin();
    let answer = world
        .raw(format!(
            "POST /x HTTP/1.1\r\nhost: x\r\norigin: {origin}\r\ncookie: {cookie}\r\nconnection: close\r\n\
             trailer: x-auth-user\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-auth-user: evil\r\n\r\n"
        ))
        .await;
    let told = crate::world::Told::parse(&answer);
    assert_eq!(told.0["body"], "body");
    assert_eq!(told.all("x-auth-user"), [ADA]);
    assert!(!told.names().contains(&"trailer"));
}

#[tokio::test]
async fn an_upload_that_pauses_for_too_long_is_given_up_and_is_not_blamed_on_the_app() {
    let world = World::new(crate::world::echo(), "limits.body_pause = \"50ms\"").await;
    let cookie = world.sign_in(ADA).await;
    let origin = world.origin();
    let head = format!(
        "POST /x HTTP/1.1\r\nhost: x\r\norigin: {origin}\r\ncookie: {cookie}\r\nconnection: close\r\n\
         content-length: 10\r\n\r\nhalf"
    );
    let answer = world.raw(head).await;
    assert_eq!(crate::world::status_of(&answer), 400, "{answer}");
    assert!(answer.contains("body_incomplete"), "{answer}");
}
