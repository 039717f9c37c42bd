//! Start and stop.

use axum::{Router, response::Response, routing::get};
use claviger_gateway::server;
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
async fn a_gateway_that_stops_says_so_before_it_closes() {
    let world = World::new(crate::world::echo(), "limits.shutdown_notice = \"10m\"").await;
    let cookie = world.sign_in(ADA).await;
    world.tell_to_stop();
    let ready = async || world.get("/readyz").send().await.unwrap();
    patiently(async { while ready().await.status() != StatusCode::SERVICE_UNAVAILABLE {} }).await;
    assert!(ready().await.text().await.unwrap().contains("\"stopping\":true"));
    let served = world.get("/app").header(header::COOKIE, cookie).send().await.unwrap();
    assert_eq!(served.status(), StatusCode::OK, "requests are still served");
    assert_eq!(world.get("/healthz").send().await.unwrap().status(), StatusCode::OK);
}

async fn as_events(mut answer: Response) -> Response {
    answer.headers_mut().insert(header::CONTENT_TYPE, "text/event-stream; charset=utf-8".parse().unwrap());
    answer
}

#[tokio::test]
async fn open_streams_of_events_do_not_keep_a_successor_waiting() {
    let (app, sender) = crate::streaming::feed();
    let (open, open_sender) = crate::streaming::feed();
    let app = app.nest("/open", open).layer(axum::middleware::map_response(as_events));
    let settings = "limits.shutdown = \"10m\"\nroutes = [{ path = \"/open\", assurance = \"none\" }]";
    let world = World::new(app, settings).await;
    let cookie = world.sign_in(ADA).await;
    sender.send(Ok("data: 1\n\n".into())).await.unwrap();
    open_sender.send(Ok("data: 1\n\n".into())).await.unwrap();
    let mut own = world.get("/feed").header(header::COOKIE, &cookie).send().await.unwrap();
    let mut public = world.get("/open/feed").send().await.unwrap();
    for stream in [&mut own, &mut public] {
        assert_eq!(patiently(stream.chunk()).await.unwrap().unwrap(), "data: 1\n\n");
    }
    world.tell_to_stop();
    for stream in [&mut own, &mut public] {
        assert_eq!(patiently(stream.chunk()).await.unwrap(), None, "it ends, and is not cut");
    }
    let (mock, directory) = world.left().await;
    let app = crate::world::serve_app(crate::world::echo());
    let successor = World::with(mock, directory, &format!("http://{app}"), "").await;
    let served = successor.get("/app").header(header::COOKIE, cookie).send().await.unwrap();
    assert_eq!(served.status(), StatusCode::OK);
}

#[tokio::test]
async fn health_is_public() {
    let world = World::echoing().await;
    for path in ["/healthz", "/readyz"] {
        let answer = world.get(path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
    }
}

#[tokio::test]
async fn a_taken_port_is_explained() {
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
async fn connections_over_the_limit_wait() {
    let world = World::new(crate::world::echo(), "limits.connections = 1\nlimits.header_read = \"1h\"").await;
    let first = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let second = world.raw("GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let mut second = Box::pin(second);
    let waits = futures_util::poll!(&mut second).is_pending();
    drop(first);
    assert!(waits && patiently(second).await.starts_with("HTTP/1.1 200"));
}
