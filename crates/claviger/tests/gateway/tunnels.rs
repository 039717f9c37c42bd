//! WebSockets through the gateway.

use axum::{Router, body::Body, extract::Request, response::Response, routing::get};
use http::{StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::world::{ADA, World, patiently, status_of};

/// An app that agrees to any upgrade, and then says back what it is told.
fn parrot() -> Router {
    Router::new().route(
        "/socket",
        get(|mut request: Request| async move {
            let upgrade = hyper::upgrade::on(&mut request);
            let protocol = request.headers().get(header::UPGRADE).cloned();
            let user = request.headers().get("x-auth-user").cloned();
            tokio::spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
                let _closed = tokio::io::copy(&mut reader, &mut writer).await;
            });
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
            response.headers_mut().insert(header::UPGRADE, protocol.unwrap());
            response.headers_mut().insert("x-user", user.unwrap());
            response
        }),
    )
}

/// Asks for an upgrade, and gives the connection and the head of the answer.
async fn ask(world: &World, cookie: &str, origin: &str, protocol: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = format!(
        "GET /socket HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, Upgrade\r\nupgrade: {protocol}\r\n\
         origin: {origin}\r\ncookie: {cookie}\r\nsec-websocket-key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\
         sec-websocket-version: 13\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(patiently(stream.read_u8()).await.unwrap());
    }
    (stream, String::from_utf8(answer).unwrap())
}

async fn hears_back(stream: &mut TcpStream, words: &[u8]) {
    stream.write_all(words).await.unwrap();
    let mut heard = vec![0; words.len()];
    patiently(stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, words);
}

/// Waits for the end of a connection.
async fn is_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _closed = patiently(stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_tunnel_passes_bytes_and_closes_when_its_session_ends() {
    let world = World::new(parrot(), "").await;
    let (cookie, other) = (world.sign_in(ADA).await, world.sign_in(ADA).await);
    let origin = world.origin();
    let (mut tunnel, head) = ask(&world, &cookie, &origin, "websocket").await;
    assert_eq!(status_of(&head), 101, "{head}");
    assert!(head.contains(&format!("x-user: {ADA}")), "{head}");
    let (mut kept, _) = ask(&world, &other, &origin, "WebSocket").await;
    hears_back(&mut tunnel, b"one").await;
    hears_back(&mut kept, b"two").await;

    world.sign_out(&cookie).await;
    is_closed(&mut tunnel).await;
    hears_back(&mut kept, b"three").await;

    world.tell_to_stop();
    is_closed(&mut kept).await;
    world.stopped().await;
}

#[tokio::test]
async fn a_tunnel_of_another_site_or_of_nobody_does_not_come_to_stand() {
    let world = World::new(parrot(), "").await;
    let cookie = world.sign_in(ADA).await;
    let origin = world.origin();
    let table = [
        (cookie.as_str(), "https://evil.example", 403),
        ("", origin.as_str(), 401),
        ("claviger-insecure=nonsense", origin.as_str(), 401),
    ];
    for (cookie, origin, expected) in table {
        let (_, head) = ask(&world, cookie, origin, "websocket").await;
        assert_eq!(status_of(&head), expected, "{origin}");
    }
}

#[tokio::test]
async fn only_websockets_are_tunnelled() {
    let world = World::echoing().await;
    let cookie = world.sign_in(ADA).await;
    let origin = world.origin();
    let answer = world
        .raw(format!(
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: close, upgrade, http2-settings\r\nupgrade: h2c\r\n\
             http2-settings: AAMAAABkAAQAAP__\r\norigin: {origin}\r\ncookie: {cookie}\r\n\r\n"
        ))
        .await;
    let told = crate::world::Told::parse(&answer);
    assert!(!told.names().contains(&"upgrade") && !told.names().contains(&"http2-settings"), "{answer}");
}
