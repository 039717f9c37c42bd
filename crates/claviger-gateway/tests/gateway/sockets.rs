//! Unix sockets in front and behind, and an app that speaks HTTP/2.

#![cfg(unix)]

use std::{
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use axum::body::Body;
use bytes::Bytes;
use claviger_gateway::{config::ListenAt, server::Listener};
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::StreamBody;
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::world::{Told, World, echo, listen, patiently, status_of};

const OPEN: &str = "routes = [{ path = \"/\", assurance = \"none\" }]\n";

async fn ask(socket: &Path, fields: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let head = format!("GET /x HTTP/1.1\r\nhost: localhost\r\n{fields}connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    patiently(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn a_proxy_at_a_unix_socket_is_trusted_if_it_is_listed() {
    for (settings, expected) in [("", &[][..]), ("trusted_proxies = [\"unix:\"]\n", &["6.6.6.6"])] {
        let world = World::at_unix_socket(&format!("{settings}{OPEN}")).await;
        let socket = world.directory().join("claviger.sock");
        let told = Told::parse(&ask(&socket, "x-forwarded-for: 1.1.1.1, 6.6.6.6\r\n").await);
        assert_eq!(told.all("x-forwarded-for"), expected, "{settings}");
    }
}

#[tokio::test]
async fn a_proxy_at_a_unix_socket_has_the_places_of_one_client_unless_it_is_listed() {
    for (settings, expected) in [("", ""), ("trusted_proxies = [\"unix:\"]\n", "HTTP/1.1 200")] {
        let limit = "limits.connections_per_address = 1\n";
        let world = World::at_unix_socket(&format!("{limit}{settings}{OPEN}")).await;
        let socket = world.directory().join("claviger.sock");
        let _first = UnixStream::connect(&socket).await.unwrap();
        let mut second = UnixStream::connect(&socket).await.unwrap();
        // The gateway may have closed it already.
        let _refused = second.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let mut answer = [0; 12];
        let read = patiently(second.read(&mut answer)).await.unwrap_or(0);
        assert_eq!(&answer[..read], expected.as_bytes(), "{settings}");
    }
}

#[tokio::test]
async fn a_successor_takes_the_socket_that_a_gateway_left_and_no_other_file() {
    let world = World::at_unix_socket(OPEN).await;
    let socket = world.directory().join("claviger.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let at = ListenAt::Unix(socket.clone());
    let refused = Listener::open(&at, "listen").await.unwrap_err().to_string();
    assert!(refused.contains("in use by another program") && refused.contains("listen"), "{refused}");
    assert_eq!(status_of(&ask(&socket, "").await), 200, "it still serves");

    world.tell_to_stop();
    let directory = world.stopped().await;
    let successor = Listener::open(&at, "listen").await.unwrap();
    assert!(UnixStream::connect(&socket).await.is_ok());
    assert_eq!(successor.shown(), format!("unix:{}", socket.display()));

    let file = directory.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let refused = Listener::open(&ListenAt::Unix(file.clone()), "listen").await.unwrap_err().to_string();
    assert!(refused.contains("is a file and not a socket"), "{refused}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "mine");
    let nowhere = ListenAt::Unix(directory.path().join("no/claviger.sock"));
    let refused = Listener::open(&nowhere, "listen").await.unwrap_err().to_string();
    assert!(refused.contains("the directory of unix:"), "{refused}");
}

#[tokio::test]
async fn the_app_may_be_at_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("app.sock");
    let world = World::before_url(&format!("unix:{}", socket.display()), OPEN).await;
    let answer = world.get("/x").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert!(answer.text().await.unwrap().contains("app_unreachable"));

    let app = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = app.accept().await {
            let service = TowerToHyperService::new(echo());
            let builder = Builder::new(TokioExecutor::new());
            tokio::spawn(async move {
                let _closed = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let answer = world.client.post(world.url("/x?y")).body("body").send().await.unwrap();
    let told = Told::parse(&answer.text().await.unwrap());
    assert_eq!((&told.0["target"], &told.0["body"]), (&Value::from("/x?y"), &Value::from("body")));
    assert_eq!(told.all("host"), [format!("localhost:{}", world.address.port())]);
}

/// An app that speaks HTTP/2 only. It sends a body back and then trailers, as gRPC does.
fn grpc_app() -> std::net::SocketAddr {
    let listener = listen();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let answer = |request: Request<Incoming>| async {
        let (parts, body) = request.into_parts();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.insert("x-te", parts.headers.get("te").cloned().unwrap_or(HeaderValue::from_static("none")));
        trailers.insert("x-host", parts.uri.authority().unwrap().as_str().parse().unwrap());
        let mut fields: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
        fields.sort_unstable();
        trailers.insert("x-fields", fields.join(" ").parse().unwrap());
        trailers.append("set-cookie", HeaderValue::from_static("claviger-insecure=evil"));
        let end = futures_util::stream::iter([Ok(Frame::trailers(trailers))]);
        let pieces = http_body_util::BodyStream::new(body).chain(end);
        let mut answer = Response::new(StreamBody::new(pieces));
        answer.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        Ok::<_, Infallible>(answer)
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    });
    address
}

#[tokio::test]
async fn grpc_passes_to_an_app_that_speaks_http2_and_its_trailers_come_back() {
    let world = World::before_url(&format!("h2c://{}", grpc_app()), OPEN).await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(world.url("/package.Service/Method"))
        .header("te", "trailers")
        .header("content-type", "application/grpc");
    let (answer, mut upload) = client.send_request(request.body(()).unwrap(), false).unwrap();
    upload.send_data(Bytes::from_static(b"one"), false).unwrap();
    let answer = patiently(answer).await.unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    let mut body = answer.into_body();
    assert_eq!(patiently(body.data()).await.unwrap().unwrap(), "one", "while the call goes on");
    upload.send_data(Bytes::from_static(b"two"), true).unwrap();
    assert_eq!(patiently(body.data()).await.unwrap().unwrap(), "two");
    let trailers = patiently(body.trailers()).await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["x-te"], "trailers");
    assert_eq!(trailers["x-host"], format!("localhost:{}", world.address.port()).as_str());
    assert_eq!(
        trailers["x-fields"], "content-type te x-forwarded-for x-forwarded-host x-forwarded-proto",
        "nothing that belongs to HTTP/1.1"
    );
    assert!(!trailers.contains_key("set-cookie"), "ours");
}

#[tokio::test]
async fn http1_clients_reach_an_app_that_speaks_http2_too() {
    let world = World::before_url(&format!("h2c://{}", grpc_app()), OPEN).await;
    let post = "POST /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbody";
    let answer = world.raw(post).await;
    assert!(status_of(&answer) == 200 && answer.contains("body"), "{answer}");
    let upgrade =
        "GET /x HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n";
    let answer = world.raw(upgrade).await;
    assert_eq!(status_of(&answer), 200, "no WebSocket: {answer}");
    let long = axum::body::to_bytes(Body::from(vec![7; 1 << 20]), usize::MAX).await.unwrap();
    let answer = world.client.post(world.url("/x")).body(long.clone()).send().await.unwrap();
    assert_eq!(answer.bytes().await.unwrap(), long);
}

/// An app that speaks HTTP/2 and never answers `/slow`.
struct SlowApp {
    /// Number of `/slow` requests under way, in all.
    slow: watch::Receiver<usize>,
    /// The same, for each connection that there has been.
    by_connection: watch::Receiver<Vec<Arc<AtomicUsize>>>,
    /// Ends the app and all its connections.
    running: JoinHandle<()>,
}

impl SlowApp {
    async fn start(address: SocketAddr) -> (SocketAddr, Self) {
        let listener = TcpListener::bind(address).await.unwrap();
        let (in_all, slow) = watch::channel(0);
        let (connections, by_connection) = watch::channel(Vec::new());
        let address = listener.local_addr().unwrap();
        let running = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let of_connection = Arc::<AtomicUsize>::default();
                connections.send_modify(|all| all.push(Arc::clone(&of_connection)));
                let in_all = in_all.clone();
                let answer = service_fn(move |request: Request<Incoming>| {
                    let (in_all, of_connection) = (in_all.clone(), Arc::clone(&of_connection));
                    async move {
                        if request.uri().path() == "/slow" {
                            of_connection.fetch_add(1, SeqCst);
                            in_all.send_modify(|slow| *slow += 1);
                            pending::<()>().await;
                        }
                        Ok::<_, Infallible>(Response::new(Body::from("at once")))
                    }
                });
                let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                builder.max_concurrent_streams(200);
                open.spawn(builder.serve_connection(TokioIo::new(stream), answer));
            }
        });
        (address, Self { slow, by_connection, running })
    }
}

#[tokio::test]
async fn slow_requests_do_not_hold_up_others_at_an_app_that_speaks_http2() {
    let (address, mut app) = SlowApp::start((std::net::Ipv4Addr::LOCALHOST, 0).into()).await;
    let world = World::before_url(&format!("h2c://{address}"), OPEN).await;
    let mut slow = JoinSet::new();
    for _ in 0..250 {
        slow.spawn(world.get("/slow").send());
    }
    patiently(app.slow.wait_for(|slow| *slow == 250)).await.unwrap();
    let counts: Vec<_> = app.by_connection.borrow().iter().map(|slow| slow.load(SeqCst)).collect();
    assert!(counts.iter().all(|slow| *slow <= 100), "{counts:?}");
    let ask = async || patiently(world.get("/").send()).await.unwrap();
    assert_eq!(ask().await.text().await.unwrap(), "at once");

    app.running.abort();
    assert!(app.running.await.unwrap_err().is_cancelled());
    while let Some(answer) = patiently(slow.join_next()).await {
        assert_eq!(answer.unwrap().unwrap().status(), StatusCode::BAD_GATEWAY);
    }
    let (_, _app) = SlowApp::start(address).await;
    assert_eq!(ask().await.text().await.unwrap(), "at once");
}
