//! Deliveries through real sockets, to a receiver that answers when the test lets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use super::{NOW, PATH, REVOKE, body, header, is_signed, order};
use crate::tests::{ADA, GRACE};
use crate::{
    Config, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, DeliveryState, EventsubSettings, MockTwitch, ReleaseOrder,
    RevocationReason, Server, SubscriptionStatus,
};

/// A webhook: hands each request to the test and gives the answer that the test sends back.
struct Receiver {
    url: String,
    requests: mpsc::UnboundedReceiver<Received>,
}

struct Received {
    request: Request<Bytes>,
    reply: oneshot::Sender<Response<Full<Bytes>>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?of=ada", listener.local_addr().unwrap());
        let (sender, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(receive(stream, sender.clone()));
            }
        });
        Self { url, requests }
    }

    async fn next(&mut self) -> Received {
        self.requests.recv().await.unwrap()
    }

    async fn answer_challenge(&mut self) {
        let received = self.next().await;
        let challenge = body(&received.request)["challenge"].as_str().unwrap().to_owned();
        received.answer(200, challenge);
    }
}

async fn receive(stream: TcpStream, sender: mpsc::UnboundedSender<Received>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let sender = sender.clone();
        async move {
            let (parts, body) = request.into_parts();
            let request = Request::from_parts(parts, body.collect().await.unwrap().to_bytes());
            let (reply, answer) = oneshot::channel();
            sender.send(Received { request, reply }).unwrap();
            answer.await
        }
    });
    let _ended =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Received {
    fn answer(self, status: u16, body: impl Into<Bytes>) {
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        self.reply.send(response).unwrap();
    }

    fn user(&self) -> String {
        body(&self.request)["event"]["user_id"].as_str().unwrap().to_owned()
    }
}

fn started(change: impl FnOnce(&mut EventsubSettings)) -> Server {
    let config = Config::demo().settings(|settings| change(&mut settings.eventsub));
    Server::local(MockTwitch::new(config, 5)).unwrap()
}

/// Sends a request by hand; returns status and body.
async fn call(server: &Server, head: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let text = format!("{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

async fn subscribe(server: &Server, callback: &str) -> String {
    let credentials = format!(
        "grant_type=client_credentials&client_id={DEMO_CLIENT_ID}&client_secret={DEMO_CLIENT_SECRET}"
    );
    let (_, token) = call(server, "POST /oauth2/token HTTP/1.1", &credentials).await;
    let token: serde_json::Value = serde_json::from_str(&token).unwrap();
    let token = token["access_token"].as_str().unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nauthorization: Bearer {token}\r\nclient-id: {DEMO_CLIENT_ID}\r\n\
         content-type: application/json"
    );
    let (status, answer) = call(server, &head, &order(REVOKE, callback).to_string()).await;
    assert_eq!(status, 202, "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    answer["data"][0]["id"].as_str().unwrap().to_owned()
}

/// Lets other tasks run until the condition holds.
async fn until(server: &Server, holds: impl Fn(&MockTwitch) -> bool) {
    while !server.with(|mock| holds(mock)) {
        tokio::task::yield_now().await;
    }
}

fn has_status(status: SubscriptionStatus) -> impl Fn(&MockTwitch) -> bool {
    move |mock| mock.subscriptions().all(|subscription| subscription.status == status)
}

fn last_state(mock: &MockTwitch) -> DeliveryState {
    mock.deliveries().next_back().unwrap().state
}

/// A server with an enabled subscription, and its webhook.
async fn connected(change: impl FnOnce(&mut EventsubSettings)) -> (Server, Receiver, String) {
    let (server, mut receiver) = (started(change), Receiver::start().await);
    let id = subscribe(&server, &receiver.url).await;
    receiver.answer_challenge().await;
    until(&server, has_status(SubscriptionStatus::Enabled)).await;
    (server, receiver, id)
}

/// A user connects and then disconnects, the latter by the server's clock.
fn disconnect(server: &Server, user: &str) {
    server.with(|mock| mock.sign_in(user, DEMO_CLIENT_ID, &[], NOW).unwrap());
    assert!(server.with(|mock| mock.disconnect(user, DEMO_CLIENT_ID)));
}

#[tokio::test]
async fn a_disconnect_over_the_wire_reaches_the_webhook() {
    let (server, mut receiver, id) = connected(|_| {}).await;
    server.with(|mock| mock.sign_in(ADA, DEMO_CLIENT_ID, &[], NOW).unwrap());
    let head = format!("POST /mock/users/{ADA}/disconnect HTTP/1.1");
    assert_eq!(call(&server, &head, "").await.0, 200);
    let received = receiver.next().await;
    assert!(is_signed(&received.request));
    assert_eq!(received.request.method(), "POST");
    assert_eq!(received.request.uri(), "/hook?of=ada");
    let host = receiver.url.strip_prefix("http://").unwrap().split_once('/').unwrap().0;
    assert_eq!(header(&received.request, "host"), host);
    assert_eq!(header(&received.request, "content-type"), "application/json");
    let length = received.request.body().len().to_string();
    assert_eq!(header(&received.request, "content-length"), length);
    assert_eq!(body(&received.request)["subscription"]["id"], id);
    assert_eq!(received.user(), ADA);
    received.answer(204, "");
    until(&server, |mock| last_state(mock) == DeliveryState::Answered(204)).await;
    server.stop().await;
}

#[tokio::test]
async fn a_callback_that_cannot_be_reached_or_is_https_fails_its_verification() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for callback in [format!("http://{closed}/hook"), "https://127.0.0.1/hook".to_owned()] {
        let server = started(|_| {});
        subscribe(&server, &callback).await;
        until(&server, has_status(SubscriptionStatus::WebhookCallbackVerificationFailed)).await;
        assert_eq!(server.with(|mock| last_state(mock)), DeliveryState::NoAnswer);
    }
}

#[tokio::test]
async fn a_failed_message_is_sent_again() {
    let (server, mut receiver, _) = connected(|settings| settings.retry_after_ms = vec![1, 1]).await;
    disconnect(&server, ADA);
    let first = receiver.next().await;
    let id = header(&first.request, "twitch-eventsub-message-id").to_owned();
    first.answer(500, "");
    let second = receiver.next().await;
    drop(second.reply);
    let third = receiver.next().await;
    assert_eq!(header(&third.request, "twitch-eventsub-message-id"), id);
    assert_eq!(header(&third.request, "twitch-eventsub-message-retry"), "2");
    third.answer(200, "");
    until(&server, |mock| last_state(mock) == DeliveryState::Answered(200)).await;
}

#[tokio::test]
async fn a_late_answer_counts_as_none() {
    let (server, mut receiver, _) = connected(|settings| settings.retry_after_ms = Vec::new()).await;
    disconnect(&server, ADA);
    let received = receiver.next().await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(crate::limits::WEBHOOK_ANSWER_SECS - 1)).await;
    assert_eq!(server.with(|mock| last_state(mock)), DeliveryState::UnderWay);
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    until(&server, |mock| last_state(mock) == DeliveryState::NoAnswer).await;
    drop(received);
}

#[tokio::test]
async fn a_long_answer_counts_by_its_status() {
    let long = || "x".repeat(crate::limits::WEBHOOK_ANSWER_BYTES + 1);
    let (server, mut receiver, _) = connected(|_| {}).await;
    disconnect(&server, ADA);
    receiver.next().await.answer(200, long());
    until(&server, |mock| last_state(mock) == DeliveryState::Answered(200)).await;
    server.with(MockTwitch::reset);
    subscribe(&server, &receiver.url).await;
    receiver.next().await.answer(200, long());
    until(&server, has_status(SubscriptionStatus::WebhookCallbackVerificationFailed)).await;
}

#[tokio::test]
async fn a_slow_webhook_delays_others_only_in_one_at_a_time_mode() {
    let (server, mut receiver, id) = connected(|_| {}).await;
    disconnect(&server, ADA);
    let slow = receiver.next().await;
    disconnect(&server, GRACE);
    let fast = receiver.next().await;
    assert_eq!((slow.user().as_str(), fast.user().as_str()), (ADA, GRACE));
    server.with(|mock| mock.revoke_subscription(&id, RevocationReason::UserRemoved));
    let told = receiver.next().await;
    assert_eq!(body(&told.request)["subscription"]["status"], json!("user_removed"));
    for received in [slow, fast, told] {
        received.answer(200, "");
    }

    let (server, mut receiver, _) = connected(|settings| {
        settings.hold = true;
        settings.one_at_a_time = true;
    })
    .await;
    disconnect(&server, ADA);
    disconnect(&server, GRACE);
    server.with(|mock| mock.release_deliveries(ReleaseOrder::NewestFirst));
    for user in [GRACE, ADA] {
        let received = receiver.next().await;
        assert_eq!(received.user(), user);
        received.answer(200, "");
    }
}

#[tokio::test]
async fn more_copies_than_the_limit_in_flight_all_arrive() {
    let (server, mut receiver, _) = connected(|settings| settings.copies = 100).await;
    disconnect(&server, ADA);
    for _ in 0..100 {
        receiver.next().await.answer(200, "");
    }
    let taken = |mock: &MockTwitch| {
        mock.deliveries().filter(|entry| entry.state == DeliveryState::Answered(200)).count() == 101
    };
    until(&server, taken).await;
}

#[tokio::test]
async fn the_callers_clock_decides_when_a_delivery_is_due() {
    let clock = Arc::new(AtomicI64::new(NOW));
    let config = Config::demo().settings(|settings| settings.eventsub.delay_ms = 3_600_000);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let read = Arc::clone(&clock);
    let mock = MockTwitch::new(config, 5);
    let server = Server::start_with_clock(mock, listener, move || read.load(Ordering::SeqCst)).unwrap();
    let mut receiver = Receiver::start().await;
    subscribe(&server, &receiver.url).await;
    receiver.answer_challenge().await;
    until(&server, has_status(SubscriptionStatus::Enabled)).await;
    disconnect(&server, ADA);
    assert_eq!(server.with(|mock| last_state(mock)), DeliveryState::Waiting);
    clock.fetch_add(3_600_000, Ordering::SeqCst);
    server.with(|_| {});
    let received = receiver.next().await;
    assert!(
        header(&received.request, "twitch-eventsub-message-timestamp").starts_with("2027-01-15T08:00:00")
    );
    received.answer(200, "");
}

#[tokio::test]
async fn a_stopped_server_aborts_deliveries_in_flight() {
    let (server, mut receiver, _) = connected(|_| {}).await;
    disconnect(&server, ADA);
    let mut received = receiver.next().await;
    server.stop().await;
    received.reply.closed().await;
}
