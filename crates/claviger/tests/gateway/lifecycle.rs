//! Starting and stopping.

use axum::{Router, routing::get};
use claviger::server;
use http::{StatusCode, header};
use tokio::sync::{Mutex, oneshot};

use crate::world::{ADA, World, patiently};

#[tokio::test]
async fn a_request_in_flight_is_finished_when_the_gateway_stops() {
    let (arrived, has_arrived) = oneshot::channel::<()>();
    let (go_on, may_go_on) = oneshot::channel::<()>();
    let hooks: &'static Mutex<Option<_>> = Box::leak(Box::new(Mutex::new(Some((arrived, may_go_on)))));
    let app = Router::new().route(
        "/slow",
        get(move || async move {
            let (arrived, may_go_on) = hooks.lock().await.take().unwrap();
            arrived.send(()).unwrap();
            may_go_on.await.unwrap();
            "done"
        }),
    );
    let world = World::new(app, "").await;
    let cookie = world.sign_in(ADA).await;
    let answer = tokio::spawn(world.get("/slow").header(header::COOKIE, cookie).send());
    patiently(has_arrived).await.unwrap();
    world.tell_to_stop();
    go_on.send(()).unwrap();
    assert_eq!(patiently(answer).await.unwrap().unwrap().text().await.unwrap(), "done");
    let address = world.address;
    let directory = world.stopped().await;
    assert!(directory.path().join("claviger.db").exists());
    // The socket is free again.
    drop(server::bind(address, "listen").unwrap());
}

#[tokio::test]
async fn health_is_told_to_anyone() {
    let world = World::echoing().await;
    for path in ["/healthz", "/readyz"] {
        let answer = world.get(path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_in_a_sentence() {
    let taken = crate::world::listen();
    let told = server::bind(taken.local_addr().unwrap(), "listen").unwrap_err().to_string();
    assert!(told.contains("is in use by another program") && told.contains("with listen"), "{told}");
}

#[tokio::test]
async fn a_connection_that_sends_nothing_is_closed() {
    let world = World::new(crate::world::echo(), "limits.header_read = \"50ms\"").await;
    assert_eq!(world.raw("").await, "");
    assert_eq!(world.raw("GET / HTTP/1.1\r\nhost:").await, "");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let world = World::new(crate::world::echo(), "limits.connections = 1\nlimits.header_read = \"1h\"").await;
    let first = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let second = world.raw("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut second = Box::pin(second);
    let waits = futures_util::poll!(&mut second).is_pending();
    drop(first);
    assert!(waits && patiently(second).await.starts_with("HTTP/1.1 200"));
}
