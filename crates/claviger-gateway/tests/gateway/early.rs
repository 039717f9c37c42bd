//! Answers that are given before the request's body was read, and uploads that take long.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{Router, extract::Request, routing::post};
use bytes::Bytes;
use claviger_core::limits;
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::world::{ADA, World, echo, patiently, status_of};

/// More than the buffers of two sockets hold.
const LARGE: usize = 24 * 1024 * 1024;

/// How a body is framed.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Length,
    Chunked,
}

impl Framing {
    fn field(self, length: usize) -> String {
        match self {
            Self::Length => format!("content-length: {length}\r\n"),
            Self::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
        }
    }

    fn frame(self, length: usize) -> Vec<u8> {
        let body = vec![b'x'; length];
        match self {
            Self::Length => body,
            Self::Chunked => [format!("{length:x}\r\n").as_bytes(), &body, b"\r\n0\r\n\r\n"].concat(),
        }
    }
}

/// So that a call of the API is too large.
const SMALL_CALLS: &str = "api.max_body_bytes = 1000\n";

/// Requests that are answered without a look at their body, with the status of the answer.
fn early(world: &World, cookie: &str) -> Vec<(String, u16)> {
    let ours = format!("host: localhost\r\norigin: {}\r\n", world.origin());
    let signed_in = format!("{ours}cookie: {cookie}\r\n");
    let foreign = format!("host: localhost\r\norigin: https://evil.example\r\ncookie: {cookie}\r\n");
    let cookies = "x=1; ".repeat(limits::COOKIE_HEADER_BYTES / 5 + 1);
    let table = [
        ("POST /app", ours.clone(), 401),
        ("POST /app", foreign.clone(), 403),
        ("POST /a/../b", ours.clone(), 400),
        ("POST /app", "host: evil.example\r\n".to_owned(), 421),
        ("POST /app", format!("{ours}cookie: {cookies}\r\n"), 431),
        ("POST /auth/nothing", ours.clone(), 404),
        ("POST /auth/session", ours.clone(), 405),
        ("POST /auth/logout", foreign, 403),
        ("POST /auth/devices/end-others", ours.clone(), 401),
        ("POST /auth/check", ours.clone(), 401),
        ("POST /auth/webhook", ours.clone(), 404),
        ("POST /healthz", ours.clone(), 405),
        ("GET /api/twitch/users", ours.clone(), 401),
        ("POST /api/twitch/users", signed_in.clone(), 403),
        ("GET /api/twitch/users", signed_in.clone(), 413),
        ("POST /refused", signed_in, 413),
    ];
    table.into_iter().map(|(line, fields, status)| (format!("{line} HTTP/1.1\r\n{fields}"), status)).collect()
}

/// An app that echoes. One path refuses a body before it was read, and reads on as a good server
/// does.
fn app() -> Router {
    let refuse = |request: Request| async {
        tokio::spawn(axum::body::to_bytes(request.into_body(), usize::MAX));
        StatusCode::PAYLOAD_TOO_LARGE
    };
    Router::new().route("/refused", post(refuse)).merge(echo())
}

/// Reads the head of an answer, and its body by its length.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(patiently(stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(answer).unwrap();
    let length =
        head.split("content-length: ").nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    patiently(stream.read_exact(&mut body)).await.unwrap();
    head + &String::from_utf8(body).unwrap()
}

/// A client that reads nothing before it has sent everything, as Apache does.
async fn send_then_read(stream: &mut TcpStream, head: &str, body: &[u8]) -> String {
    stream.write_all(head.as_bytes()).await.unwrap();
    patiently(stream.write_all(body)).await.unwrap_or_else(|error| panic!("{error}: {head}"));
    read_answer(stream).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_arrives_and_the_connection_stays() {
    let world = World::new(app(), SMALL_CALLS).await;
    let cookie = world.sign_in(ADA).await;
    for (head, status) in early(&world, &cookie) {
        for framing in [Framing::Length, Framing::Chunked] {
            let mut stream = TcpStream::connect(world.address).await.unwrap();
            let whole = format!("{head}{}\r\n", framing.field(LARGE));
            let answer = send_then_read(&mut stream, &whole, &framing.frame(LARGE)).await;
            assert_eq!(status_of(&answer), status, "{framing:?} {head}: {answer}");
            assert!(!answer.contains("connection: close"), "{framing:?} {head}: {answer}");
            let next =
                send_then_read(&mut stream, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n", b"").await;
            assert_eq!(status_of(&next), 200, "{framing:?} {head}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_arrives_although_the_body_is_too_long_to_be_discarded() {
    let world = World::new(app(), &format!("{SMALL_CALLS}limits.discard_bytes = 1000")).await;
    let cookie = world.sign_in(ADA).await;
    // The app may read all of a body.
    for (head, status) in early(&world, &cookie).into_iter().filter(|(head, _)| !head.contains("/refused")) {
        for framing in [Framing::Length, Framing::Chunked] {
            let mut stream = TcpStream::connect(world.address).await.unwrap();
            let whole = format!("{head}{}\r\n", framing.field(LARGE));
            let answer = send_then_read(&mut stream, &whole, &framing.frame(LARGE)).await;
            assert_eq!(status_of(&answer), status, "{framing:?} {head}: {answer}");
            let announced = answer.contains("connection: close");
            assert_eq!(announced, matches!(framing, Framing::Length), "{framing:?} {head}: {answer}");
            assert_eq!(patiently(stream.read(&mut [0])).await.unwrap(), 0, "a clean end: {framing:?} {head}");
        }
    }
}

/// What hyper itself answers, and bodies of which the end is unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_head_is_answered_although_more_follows() {
    let world = World::new(app(), "").await;
    let long = "x".repeat(100_000);
    for (head, status) in [
        ("nonsense\r\n\r\n".to_owned(), 400),
        (format!("POST / HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n"), 431),
        (format!("POST /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n"), 431),
        ("POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip, chunked\r\n\r\n".to_owned(), 400),
    ] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let answer = send_then_read(&mut stream, &head, &vec![b'x'; LARGE]).await;
        assert_eq!(status_of(&answer), status, "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        assert_eq!(patiently(stream.read(&mut [0])).await.unwrap(), 0, "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_waits_for_100_sends_no_body_in_vain() {
    let world = World::new(app(), SMALL_CALLS).await;
    let cookie = world.sign_in(ADA).await;
    // The app may ask for any body.
    for (head, status) in early(&world, &cookie).into_iter().filter(|(head, _)| !head.contains("/refused")) {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let whole = format!("{head}content-length: {LARGE}\r\nexpect: 100-continue\r\n\r\n");
        let answer = send_then_read(&mut stream, &whole, b"").await;
        assert_eq!(status_of(&answer), status, "{head}: {answer}");
        assert!(answer.contains("connection: close"), "{head}: {answer}");
    }
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let origin = world.origin();
    let head = format!(
        "POST /app HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\ncookie: {cookie}\r\ncontent-length: 4\r\n\
         expect: 100-continue\r\n\r\n"
    );
    assert_eq!(status_of(&send_then_read(&mut stream, &head, b"").await), 100);
    let answer = send_then_read(&mut stream, "", b"body").await;
    assert!(status_of(&answer) == 200 && !answer.contains("connection: close"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_over_http2_ends_its_stream_only() {
    for (settings, expected) in [("", None), ("limits.discard_bytes = 1000", Some(h2::Reason::NO_ERROR))] {
        let world = World::new(app(), settings).await;
        let stream = TcpStream::connect(world.address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for path in ["/app", "/auth/nothing", "/api/twitch/users"] {
            let request = http::Request::post(format!("http://localhost{path}")).body(()).unwrap();
            let (answer, mut body) = client.send_request(request, false).unwrap();
            let status = patiently(answer).await.unwrap().status();
            assert!(status.is_client_error(), "{path}: {status}");
            let mut left = 1024 * 1024;
            let reset = patiently(async {
                while left > 0 {
                    body.reserve_capacity(left);
                    match std::future::poll_fn(|context| body.poll_capacity(context)).await {
                        Some(Ok(room)) => {
                            left -= room;
                            body.send_data(Bytes::from(vec![0; room]), left == 0).unwrap();
                        }
                        _ => return std::future::poll_fn(|context| body.poll_reset(context)).await.ok(),
                    }
                }
                None
            })
            .await;
            assert_eq!(reset, expected, "{path}");
        }
        let request = http::Request::get("http://localhost/healthz").body(()).unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        assert_eq!(patiently(answer).await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_body_that_is_discarded_over_http2_keeps_the_place_of_its_request() {
    let world = World::new(app(), "limits.connections_per_address = 3").await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut begin = || {
        let request = http::Request::post("http://localhost/app").body(()).unwrap();
        client.send_request(request, false).unwrap()
    };
    let mut bodies = Vec::new();
    for expected in [401, 401, 503] {
        let (answer, body) = begin();
        assert_eq!(patiently(answer).await.unwrap().status(), expected);
        bodies.push(body);
    }
    bodies[0].send_data(Bytes::new(), true).unwrap();
    patiently(async { while begin().0.await.unwrap().status() != StatusCode::UNAUTHORIZED {} }).await;
}

/// An app that answers each upload at once, and neither reads on nor closes.
async fn app_that_never_reads() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            kept.push(stream);
        }
    });
    address
}

const OPEN: &str = "routes = [{ path = \"/\", assurance = \"none\" }]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_the_app_leaves_unread_over_http2_keeps_no_place() {
    let settings = format!("{OPEN}limits.connections_per_address = 2\nlimits.discard_time = \"100ms\"");
    let world = World::before(app_that_never_reads().await, &settings).await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post("http://localhost/upload").body(()).unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    body.send_data(Bytes::from(vec![0; LARGE]), false).unwrap();
    assert_eq!(patiently(answer).await.unwrap().status(), StatusCode::OK);
    let reset = patiently(std::future::poll_fn(|context| body.poll_reset(context))).await.unwrap();
    assert_eq!(reset, h2::Reason::NO_ERROR);
    let mut status = async || {
        let request = http::Request::get("http://localhost/healthz").body(()).unwrap();
        client.send_request(request, true).unwrap().0.await.unwrap().status()
    };
    patiently(async { while status().await != StatusCode::OK {} }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_upload_the_app_leaves_unread_is_idle() {
    let settings = format!("{OPEN}limits.keep_alive = \"100ms\"\nlimits.header_read = \"1s\"");
    let world = World::before(app_that_never_reads().await, &settings).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = format!("POST /upload HTTP/1.1\r\nhost: localhost\r\ncontent-length: {LARGE}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let upload = async { drop(writing.write_all(&vec![0; LARGE]).await) };
    let answered = async {
        let mut answer = Vec::new();
        // A reset is an end as well.
        drop(reading.read_to_end(&mut answer).await);
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    };
    patiently(async { tokio::join!(upload, answered) }).await;
}

/// The upload takes twice as long as the app may be silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_flows_is_not_cut() {
    const PIECES: usize = 10;
    let app = Router::new().route(
        "/upload",
        post(|request: Request| async move {
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
            body.len().to_string()
        }),
    );
    let world = World::new(app, "proxy.answer_timeout = \"1s\"").await;
    let cookie = world.sign_in(ADA).await;
    let pause = || tokio::time::sleep(Duration::from_millis(200));
    let by_http1 = async |framing: Framing| {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let fields = format!("host: localhost\r\norigin: {}\r\ncookie: {cookie}\r\n", world.origin());
        let head = format!("POST /upload HTTP/1.1\r\n{fields}{}\r\n", framing.field(PIECES));
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..PIECES {
            pause().await;
            let piece: &[u8] = if matches!(framing, Framing::Length) { b"x" } else { b"1\r\nx\r\n" };
            stream.write_all(piece).await.unwrap();
        }
        if matches!(framing, Framing::Chunked) {
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        }
        let answer = read_answer(&mut stream).await;
        assert!(status_of(&answer) == 200 && answer.ends_with("10"), "{framing:?}: {answer}");
    };
    let by_http2 = async {
        let stream = TcpStream::connect(world.address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post(format!("{}/upload", world.origin()));
        let request = request.header("origin", world.origin()).header("cookie", &cookie);
        let (answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
        for piece in 1..=PIECES {
            pause().await;
            body.send_data(Bytes::from_static(b"x"), piece == PIECES).unwrap();
        }
        assert_eq!(patiently(answer).await.unwrap().status(), StatusCode::OK);
    };
    tokio::join!(by_http1(Framing::Length), by_http1(Framing::Chunked), by_http2);
}

#[tokio::test]
async fn an_app_that_is_silent_after_an_upload_is_too_slow() {
    let app = Router::new().fallback(async |_: Request| {
        std::future::pending::<()>().await;
    });
    let world = World::new(app, "proxy.answer_timeout = \"50ms\"").await;
    let cookie = world.sign_in(ADA).await;
    let answer = world.post("/upload").header("cookie", cookie).body("all of it").send();
    assert_eq!(patiently(answer).await.unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
}
