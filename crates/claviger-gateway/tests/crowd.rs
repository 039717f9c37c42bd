//! Many hostile clients at once: slow, silent, pinging and never reading. Memory and open files of
//! the gateway stay within bounds, and a normal client is served meanwhile.
//!
//! `cargo xtask crowd` runs it with thousands of clients.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a helper of a test may fail as a test does, and this one measures real time"
)]

#[path = "common/mod.rs"]
mod common;

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use claviger_gateway::server;
use claviger_mock::{Config, DEMO_CLIENT_SECRET, MockTwitch, Server};
use futures_util::stream;
use http::{Request, StatusCode};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    time::sleep,
};

use crate::common::process::{self, Program, until};

/// Number of hostile clients, unless `CROWD_TEST_CLIENTS` says otherwise.
const CLIENTS: usize = 280;
/// Number of addresses that they come from.
const ADDRESSES: usize = 8;
/// Number of places that the hostile addresses cannot take.
const NORMAL: usize = 64;
/// Number of requests over HTTP/2 that a client leaves unfinished.
const STREAMS: usize = 100;
/// Number of requests of the normal client, before and meanwhile.
const REQUESTS: usize = 100;
/// How long a hostile client waits between two octets or two pings.
const DRIP: Duration = Duration::from_secs(1);

/// Maximum growth of memory for each place that may be taken, in bytes.
const BYTES_PER_PLACE: usize = 128 * 1024;
/// Maximum number of open files for each place: its connection, and one to the app.
const FILES_PER_PLACE: usize = 2;
/// Maximum number of other open files.
const OTHER_FILES: usize = 100;

#[derive(Clone, Copy, Debug)]
enum Hostile {
    Silent,
    SlowHead,
    SlowBody,
    NeverReads,
    PingsOnly,
    UnfinishedStreams,
    /// Takes this many octets of each answer.
    Window(u32),
}

const KINDS: [Hostile; 9] = [
    Hostile::Silent,
    Hostile::SlowHead,
    Hostile::SlowBody,
    Hostile::NeverReads,
    Hostile::PingsOnly,
    Hostile::UnfinishedStreams,
    Hostile::Window(0),
    Hostile::Window(1),
    Hostile::Window(100),
];

impl Hostile {
    /// Holds a connection for as long as it can.
    async fn hold(self, mut socket: TcpStream) -> io::Result<()> {
        match self {
            Self::Silent => drip(&mut socket, b"", b"").await,
            Self::SlowHead => drip(&mut socket, b"GET / HTTP/1.1\r\nx: ", b"x").await,
            Self::SlowBody => {
                let head = b"POST /hello HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n";
                drip(&mut socket, head, b"x").await
            }
            Self::NeverReads => {
                drip(&mut socket, b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n", b"").await
            }
            Self::PingsOnly => over_http2(socket, 1, "/hello", true, 65_535).await,
            Self::UnfinishedStreams => over_http2(socket, STREAMS, "/hello", false, 65_535).await,
            Self::Window(0) => over_http2(socket, STREAMS, "/endless", true, 0).await,
            Self::Window(octets) => over_http2(socket, STREAMS, "/page", true, octets).await,
        }
    }
}

/// Sends the head, and then these octets again and again.
async fn drip(socket: &mut TcpStream, head: &[u8], octets: &[u8]) -> io::Result<()> {
    socket.write_all(head).await?;
    loop {
        sleep(DRIP).await;
        socket.write_all(octets).await?;
        // Looks whether the gateway closed the connection, and reads nothing of an answer.
        let looked = tokio::time::timeout(Duration::from_millis(1), socket.peek(&mut [0])).await;
        if matches!(looked, Ok(Ok(0) | Err(_))) {
            return Ok(());
        }
    }
}

/// Asks this many times, ends the requests or not, answers pings and sends some.
async fn over_http2(
    socket: TcpStream,
    requests: usize,
    path: &str,
    ends: bool,
    window: u32,
) -> io::Result<()> {
    let mut builder = h2::client::Builder::new();
    let built = builder.initial_window_size(window).handshake::<_, Bytes>(socket).await;
    let (client, mut connection) = built.map_err(io::Error::other)?;
    let mut pings = connection.ping_pong().unwrap();
    let driving = tokio::spawn(connection);
    let _kept = ask(client, requests, path, ends).await;
    while pings.ping(h2::Ping::opaque()).await.is_ok() {
        sleep(DRIP).await;
    }
    driving.abort();
    Ok(())
}

/// Asks this many times, and ends the requests or not.
async fn ask(
    mut client: h2::client::SendRequest<Bytes>,
    requests: usize,
    path: &str,
    ends: bool,
) -> Vec<(h2::client::ResponseFuture, h2::SendStream<Bytes>)> {
    let mut asked = Vec::new();
    for _ in 0..requests {
        let method = if ends { "GET" } else { "POST" };
        let request = Request::builder().method(method).uri(format!("http://localhost{path}"));
        let Ok(ready) = client.ready().await else { break };
        client = ready;
        let Ok((answer, mut body)) = client.send_request(request.body(()).unwrap(), ends) else { break };
        if !ends {
            // More than the windows take.
            let _sent = body.send_data(Bytes::from(vec![0; 64 * 1024]), false);
        }
        asked.push((answer, body));
    }
    asked
}

/// An app with an endless answer, and two that come at once.
fn app() -> SocketAddr {
    let listener = server::bind((Ipv4Addr::LOCALHOST, 0).into(), "the test").unwrap();
    let address = listener.local_addr().unwrap();
    let endless = || async {
        Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 16 * 1024]))))
    };
    let hello = |body: Body| async {
        axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        "hello"
    };
    let app = Router::new()
        .route("/endless", get(endless))
        .route("/page", get(|| async { vec![b'x'; 6 * 1024] }))
        .route("/hello", get(|| async { "hello" }).post(hello));
    let server = axum_server::from_tcp(listener).unwrap();
    tokio::spawn(async move { server.serve(app.into_make_service()).await });
    address
}

/// What a process uses.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    bytes: usize,
    files: usize,
}

impl Usage {
    fn of(process: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: usize = resident.split_whitespace().next().unwrap().parse().unwrap();
        let files = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
        Self { bytes: kib * 1024, files }
    }

    fn or_more(self, other: Self) -> Self {
        Self { bytes: self.bytes.max(other.bytes), files: self.files.max(other.files) }
    }
}

fn program(directory: &Path, address: SocketAddr, mock: &Server, places: usize) -> Program {
    let program = Program::ours(directory);
    let further = format!(
        r#"
        upstream = "http://{app}"
        keyring = ["1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"]
        store.path = {store:?}
        provider.client_secret = "{DEMO_CLIENT_SECRET}"
        routes = [{{ path = "/", assurance = "none" }}]
        limits.connections = {all}
        limits.connections_per_address = {each}
        limits.header_read = "4s"
        "#,
        app = app(),
        store = directory.join("claviger.db"),
        all = places + NORMAL,
        each = places / ADDRESSES,
    );
    program.configure(&process::settings(address, address.port(), mock, &further));
    program
}

/// Sends requests one after the other, and returns the 99th percentile of their durations.
async fn p99(client: &reqwest::Client, url: &str, mut between: impl FnMut()) -> Duration {
    let mut durations = Vec::new();
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        let answer = client.get(url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.text().await.unwrap(), "hello");
        durations.push(begun.elapsed());
        between();
    }
    durations.sort_unstable();
    durations[durations.len() * 99 / 100]
}

/// Connects from one of the hostile addresses.
async fn connect(number: usize, address: SocketAddr) -> io::Result<TcpStream> {
    let local = Ipv4Addr::new(127, 0, 2, u8::try_from(number % ADDRESSES + 1).unwrap());
    let socket = TcpSocket::new_v4()?;
    socket.bind((local, 0).into())?;
    socket.connect(address).await
}

/// An answer in one piece keeps its place until the client has taken it, although the app's answer
/// is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_taken_an_octet_at_a_time_keep_their_places() {
    const PLACES: usize = 400;
    let mock = Server::local(MockTwitch::new(Config::demo(), 7)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let address = process::free();
    let program = program(directory.path(), address, &mock, PLACES);
    let _gateway = program.start();
    let client = process::client(Duration::from_secs(20));
    let ready = || process::is_ready(&client, address);
    until("the gateway is ready", || program.last_words(), ready).await;
    let (mut kept, mut served, mut refused) = (Vec::new(), 0, 0);
    let mut connections = Vec::new();
    for (number, window) in (0..ADDRESSES).zip([1, 100].into_iter().cycle()) {
        let socket = connect(number, address).await.unwrap();
        let built = h2::client::Builder::new().initial_window_size(window).handshake(socket).await;
        let (client, connection) = built.unwrap();
        let driving = tokio::spawn(connection);
        for _ in 0..STREAMS {
            let (answer, _) = ask(client.clone(), 1, "/page", true).await.remove(0);
            let answer = tokio::time::timeout(process::PATIENCE, answer).await.unwrap().unwrap();
            match answer.status() {
                StatusCode::OK => served += 1,
                StatusCode::SERVICE_UNAVAILABLE => refused += 1,
                other => panic!("{other}"),
            }
            kept.push(answer);
        }
        connections.push(driving);
    }
    assert_eq!(served + refused, ADDRESSES * STREAMS);
    assert!(served <= PLACES, "{served} answers of which most is not taken, {refused} refused");
    assert!(served >= PLACES / 2, "{served} answers, {refused} refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_crowd_takes_a_bounded_share() {
    let clients = std::env::var("CROWD_TEST_CLIENTS").map_or(CLIENTS, |text| text.parse().unwrap());
    // Each address gets as many places for requests as it has connections. The ninth is normal.
    let places = clients * 2;
    let mock = Server::local(MockTwitch::new(Config::demo(), 7)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let address = process::free();
    let program = program(directory.path(), address, &mock, places);
    let gateway = program.start();
    let client = process::client(Duration::from_secs(20));
    until("the gateway is ready", || program.last_words(), || process::is_ready(&client, address)).await;
    let url = format!("http://localhost:{}/hello", address.port());
    let client = reqwest::Client::builder().no_proxy().resolve("localhost", address).build().unwrap();
    let quiet = p99(&client, &url, || ()).await;
    let before = Usage::of(gateway.id());

    let held: Arc<[AtomicUsize]> = KINDS.iter().map(|_| AtomicUsize::new(0)).collect();
    let crowd: Vec<_> = (0..clients)
        .map(|number| {
            let (kind, held) = (number % KINDS.len(), Arc::clone(&held));
            tokio::spawn(async move {
                loop {
                    if let Ok(socket) = connect(number, address).await {
                        held[kind].fetch_add(1, Relaxed);
                        // It ends when the gateway closes the connection.
                        let _closed = KINDS[kind].hold(socket).await;
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            })
        })
        .collect();
    let share = clients / KINDS.len();
    until(
        "all hostile clients are connected",
        || program.last_words(),
        || {
            let all = held.iter().all(|count| count.load(Relaxed) >= share);
            async move { all }
        },
    )
    .await;
    // Until the gateway has closed silent connections, and they came again.
    let (mut most, mut busy) = (Usage::default(), Duration::ZERO);
    let deadline = Instant::now() + process::PATIENCE;
    while [0, 1].iter().any(|kind| held[*kind].load(Relaxed) < 2 * share) {
        assert!(Instant::now() < deadline, "silent connections stay open: {held:?}");
        let slowest = p99(&client, &url, || most = most.or_more(Usage::of(gateway.id()))).await;
        busy = busy.max(slowest);
    }
    crowd.iter().for_each(tokio::task::JoinHandle::abort);
    let grown = most.bytes.saturating_sub(before.bytes);
    println!(
        "{clients} hostile clients: memory grew from {} to {} MiB, {} open files; p99 {busy:?}, quiet {quiet:?}; \
         connections by kind {held:?}",
        before.bytes >> 20,
        most.bytes >> 20,
        most.files,
    );
    assert!(grown <= places * BYTES_PER_PLACE, "{grown} bytes");
    assert!(most.files <= places * FILES_PER_PLACE + OTHER_FILES, "{} files", most.files);
}
