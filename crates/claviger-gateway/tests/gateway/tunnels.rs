//! WebSockets through the gateway.

use axum::{Router, body::Body, extract::Request, response::Response, routing::get};
use http::{StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::world::{ADA, World, patiently, status_of};

/// An app that accepts any upgrade and then echoes.
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

/// Asks for an upgrade, and returns the connection and the head of the answer.
async fn ask(world: &World, cookie: &str, origin: &str, protocol: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = format!(
        "GET /socket HTTP/1.1\r\nhost: localhost\r\nconnection: keep-alive, Upgrade\r\nupgrade: {protocol}\r\n\
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

async fn receives_echo(stream: &mut TcpStream, words: &[u8]) {
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
async fn a_tunnel_ends_with_its_session() {
    let world = World::new(parrot(), "").await;
    let (cookie, other) = (world.sign_in(ADA).await, world.sign_in(ADA).await);
    let origin = world.origin();
    let (mut tunnel, head) = ask(&world, &cookie, &origin, "websocket").await;
    assert_eq!(status_of(&head), 101, "{head}");
    assert!(head.contains(&format!("x-user: {ADA}")), "{head}");
    let (mut kept, _) = ask(&world, &other, &origin, "WebSocket").await;
    receives_echo(&mut tunnel, b"one").await;
    receives_echo(&mut kept, b"two").await;

    world.sign_out(&cookie).await;
    is_closed(&mut tunnel).await;
    receives_echo(&mut kept, b"three").await;

    world.tell_to_stop();
    is_closed(&mut kept).await;
    world.stopped().await;
}

#[tokio::test]
async fn a_tunnel_needs_a_session_and_this_site() {
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
            "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close, upgrade, http2-settings\r\nupgrade: h2c\r\n\
             http2-settings: AAMAAABkAAQAAP__\r\norigin: {origin}\r\ncookie: {cookie}\r\n\r\n"
        ))
        .await;
    let told = crate::world::Told::parse(&answer);
    assert!(!told.names().contains(&"upgrade") && !told.names().contains(&"http2-settings"), "{answer}");
}

/// A frame of a server that ends with this code.
fn close(code: u16) -> Vec<u8> {
    [&[0x88, 2][..], &code.to_be_bytes()].concat()
}

#[tokio::test]
async fn a_tunnel_ends_with_a_close_frame_between_two_others() {
    for stops in [true, false] {
        let world = World::new(parrot(), "limits.shutdown = \"10m\"").await;
        let cookie = world.sign_in(ADA).await;
        let (mut idle, _) = ask(&world, &cookie, &world.origin(), "websocket").await;
        let (mut within, _) = ask(&world, &cookie, &world.origin(), "websocket").await;
        let (mut closed, _) = ask(&world, &cookie, &world.origin(), "websocket").await;
        // What the app echoes is the frame of a server.
        receives_echo(&mut idle, &[0x82, 3, 1, 2, 3]).await;
        receives_echo(&mut within, &[0x82, 3, 1, 2]).await;
        receives_echo(&mut closed, &close(1000)).await;
        let code = if stops {
            world.tell_to_stop();
            1001
        } else {
            world.sign_out(&cookie).await;
            1008
        };
        let mut heard = Vec::new();
        let _closed = patiently(idle.read_to_end(&mut heard)).await;
        assert_eq!(heard, close(code));
        is_closed(&mut within).await;
        is_closed(&mut closed).await;
        if stops {
            drop((idle, within, closed));
            world.stopped().await;
        }
    }
}
