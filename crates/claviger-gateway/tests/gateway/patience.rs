//! Clients that are slow, silent or never read: they are cut, and others are served meanwhile.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::stream;
use http::{Request, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
};

use crate::world::{World, echo, patiently};

/// Tells when it is dropped.
struct Told(mpsc::UnboundedSender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
    }
}

/// An app with an endless answer at `/endless`, and what tells that such an answer was dropped.
fn endless() -> (Router, mpsc::UnboundedReceiver<()>) {
    let (sender, dropped) = mpsc::unbounded_channel();
    let answer = move || {
        let told = Told(sender.clone());
        async move {
            Body::from_stream(stream::repeat_with(move || {
                let _kept = &told;
                Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 16 * 1024]))
            }))
        }
    };
    (Router::new().route("/endless", get(answer)), dropped)
}

const OPEN: &str = "routes = [{ path = \"/\", assurance = \"none\" }]\n";

/// A connection from this local address.
async fn connect_from(local: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((local, 0).into()).unwrap();
    patiently(socket.connect(to)).await.unwrap()
}

/// Waits until the other side has closed the connection.
async fn closes(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _closed = patiently(stream.read_to_end(&mut rest)).await;
}

async fn http2(stream: TcpStream) -> (h2::client::SendRequest<Bytes>, h2::client::Connection<TcpStream>) {
    h2::client::handshake(stream).await.unwrap()
}

#[tokio::test]
async fn an_http2_client_that_only_pings_gets_goaway() {
    let world = World::new(echo(), "limits.keep_alive = \"100ms\"").await;
    let (mut client, mut connection) = http2(TcpStream::connect(world.address).await.unwrap()).await;
    let mut pings = connection.ping_pong().unwrap();
    let over = tokio::spawn(connection);
    let request = Request::get(world.url("/healthz")).body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    assert_eq!(patiently(answer).await.unwrap().status(), StatusCode::OK);
    let pinging = tokio::spawn(async move { while pings.ping(h2::Ping::opaque()).await.is_ok() {} });
    patiently(over).await.unwrap().expect("GOAWAY without an error");
    patiently(pinging).await.unwrap();
}

#[tokio::test]
async fn an_http2_client_that_asks_for_nothing_gets_goaway() {
    let world = World::new(echo(), "limits.header_read = \"100ms\"").await;
    let (_client, mut connection) = http2(TcpStream::connect(world.address).await.unwrap()).await;
    let mut pings = connection.ping_pong().unwrap();
    let over = tokio::spawn(connection);
    let pinging = tokio::spawn(async move { while pings.ping(h2::Ping::opaque()).await.is_ok() {} });
    patiently(over).await.unwrap().expect("GOAWAY without an error");
    patiently(pinging).await.unwrap();
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut() {
    for by_http2 in [false, true] {
        let (app, mut dropped) = endless();
        let world = World::new(app, &format!("{OPEN}limits.answer_pause = \"100ms\"")).await;
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        // What keeps the connection open, and never reads an octet of the answer.
        let _kept = if by_http2 {
            let (mut client, connection) = http2(stream).await;
            tokio::spawn(connection);
            let (answer, _) =
                client.send_request(Request::get(world.url("/endless")).body(()).unwrap(), true).unwrap();
            (Some((patiently(answer).await.unwrap(), client)), None)
        } else {
            stream.write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            (None, Some(stream))
        };
        assert_eq!(patiently(dropped.recv()).await, Some(()), "HTTP/2: {by_http2}");
    }
}

/// The end of the answer that is not read is in the gateway's hands, or still in the app's.
#[tokio::test]
async fn an_answer_that_is_never_read_ends_without_the_others_of_its_connection() {
    for path in ["/short", "/endless"] {
        let (app, _dropped) = endless();
        let app = app.route("/short", get(async || "x".repeat(2000)));
        let limits = "limits.answer_pause = \"200ms\"\nlimits.connections_per_address = 3";
        let world = World::new(app, &format!("{OPEN}{limits}")).await;
        let stream = TcpStream::connect(world.address).await.unwrap();
        let handshake = h2::client::Builder::new().initial_window_size(1000).handshake::<_, Bytes>(stream);
        let (mut client, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        let mut ask = |path: &str| {
            client.send_request(Request::get(world.url(path)).body(()).unwrap(), true).unwrap().0
        };
        let mut read = patiently(ask("/endless")).await.unwrap().into_body();
        let mut unread = patiently(ask(path)).await.unwrap().into_body();
        let full = patiently(ask("/healthz")).await.unwrap();
        assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE, "two requests and the connection");
        let mut read_on = async || {
            let piece = read.data().await.unwrap().unwrap();
            read.flow_control().release_capacity(piece.len()).unwrap();
        };
        // The window never opens again for this one.
        let ends = async {
            loop {
                match unread.data().await.expect("the answer is not complete") {
                    Ok(_) => {}
                    Err(error) => return error.reason(),
                }
            }
        };
        let reason = tokio::select! {
            reason = patiently(ends) => reason,
            () = async { loop { read_on().await } } => unreachable!(),
        };
        assert_eq!(reason, Some(h2::Reason::CANCEL), "{path}");
        patiently(async { while ask("/healthz").await.unwrap().status() != StatusCode::OK {} }).await;
        for _ in 0..100 {
            patiently(read_on()).await;
        }
    }
}

/// The system holds more for a client than this one reads in the whole time that it may pause.
#[tokio::test]
async fn a_client_that_reads_slowly_and_steadily_is_not_cut() {
    let (app, mut dropped) = endless();
    let world = World::new(app, &format!("{OPEN}limits.answer_pause = \"1s\"")).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut stream = patiently(socket.connect(world.address)).await.unwrap();
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut piece = vec![0; 16 * 1024];
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..60 {
        ticks.tick().await;
        patiently(stream.read_exact(&mut piece)).await.unwrap();
        assert!(dropped.try_recv().is_err(), "the gateway cut the connection");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_nobody_reads_do_not_hold_up_others() {
    let unread = async |body: Body| {
        let _kept = body;
        std::future::pending::<()>().await;
    };
    let app = Router::new()
        .route("/unread", post(unread))
        .route("/read", post(async |body: Bytes| body.len().to_string()));
    let world = World::new(app, OPEN).await;
    let (mut client, connection) = http2(TcpStream::connect(world.address).await.unwrap()).await;
    tokio::spawn(connection);
    let mut upload = |path: &str| {
        let request = Request::post(world.url(path)).header("origin", world.origin());
        client.send_request(request.body(()).unwrap(), false).unwrap()
    };
    let mut kept = Vec::new();
    for _ in 0..4 {
        let (answer, mut body) = upload("/unread");
        // Sends until there is no more room on the whole way to the app.
        loop {
            body.reserve_capacity(64 * 1024);
            let room = std::future::poll_fn(|context| body.poll_capacity(context));
            match tokio::time::timeout(Duration::from_millis(300), room).await {
                Ok(room) => body.send_data(vec![0; room.unwrap().unwrap()].into(), false).unwrap(),
                Err(_) => break,
            }
        }
        kept.push((answer, body));
    }
    let (answer, mut body) = upload("/read");
    body.send_data(Bytes::from_static(b"whole"), true).unwrap();
    assert_eq!(patiently(answer).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_address_has_at_most_as_many_connections_as_it_may() {
    let limit = "limits.connections_per_address = 2\n";
    let world = World::new(echo(), limit).await;
    let (one, other) = (Ipv4Addr::new(127, 0, 1, 1), Ipv4Addr::new(127, 0, 1, 2));
    let (first, _second) = (connect_from(one, world.address).await, connect_from(one, world.address).await);
    closes(&mut connect_from(one, world.address).await).await;
    let ask = async |from| {
        let mut stream = connect_from(from, world.address).await;
        // A connection that is refused may be reset while this is sent.
        let _refused =
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
        let mut answer = String::new();
        let _closed = patiently(stream.read_to_string(&mut answer)).await;
        answer.starts_with("HTTP/1.1 200")
    };
    assert!(ask(other).await && !ask(one).await);
    drop(first);
    patiently(async { while !ask(one).await {} }).await;

    let trusted = World::new(echo(), &format!("{limit}trusted_proxies = [\"127.0.1.0/24\"]")).await;
    let mut connections = Vec::new();
    for _ in 0..10 {
        connections.push(connect_from(one, trusted.address).await);
    }
    for stream in &mut connections {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        patiently(stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}

#[tokio::test]
async fn a_slow_body_of_a_call_is_not_read_before_its_cookie() {
    let world = World::echoing().await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = "GET /api/twitch/users HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    patiently(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401", "nothing of the body was sent");
}

#[tokio::test]
async fn an_open_request_over_http2_counts_like_a_connection() {
    let app = Router::new().fallback(std::future::pending::<()>);
    let world = World::new(app, &format!("{OPEN}limits.connections_per_address = 3")).await;
    let (mut client, connection) = http2(TcpStream::connect(world.address).await.unwrap()).await;
    tokio::spawn(connection);
    let mut ask = |path: &str| {
        let request = Request::get(world.url(path)).body(()).unwrap();
        client.send_request(request, true).unwrap().0
    };
    let (first, _second) = (ask("/waits"), ask("/waits"));
    let third = patiently(ask("/healthz")).await.unwrap();
    assert_eq!(third.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(first);
    patiently(async { while ask("/healthz").await.unwrap().status() != StatusCode::OK {} }).await;
}

#[tokio::test]
async fn the_last_place_is_for_a_request_and_not_for_a_connection_to_come() {
    let world = World::new(echo(), "limits.connections = 2").await;
    let (mut client, connection) = http2(TcpStream::connect(world.address).await.unwrap()).await;
    tokio::spawn(connection);
    let request = Request::get(world.url("/healthz")).body(()).unwrap();
    let answer = client.send_request(request, true).unwrap().0;
    assert_eq!(patiently(answer).await.unwrap().status(), StatusCode::OK);
}
