//! Through a real socket.

use std::time::Duration;

use clap::Parser as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{ADA, encode};
use crate::cli::{self, CliError};
use crate::{
    Config, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Endpoint, Fault, FaultKind, MockTwitch, Server, SignedIn,
};

fn started() -> (Server, SignedIn) {
    let server = Server::local(MockTwitch::new(
        Config::demo().settings(|settings| settings.rotation = crate::Rotation::OneTime),
        3,
    ))
    .unwrap();
    let tokens = server.with(|mock| mock.sign_in(ADA, DEMO_CLIENT_ID, &[], i64::MAX / 2).unwrap());
    (server, tokens)
}

/// Sends a refresh by hand and returns all bytes until the connection closes.
async fn refresh(server: &Server, token: &str) -> String {
    let body = encode(&[
        ("client_id", DEMO_CLIENT_ID),
        ("client_secret", DEMO_CLIENT_SECRET),
        ("grant_type", "refresh_token"),
        ("refresh_token", token),
    ]);
    post_token(server, &body).await
}

async fn post_token(server: &Server, body: &str) -> String {
    let head = format!(
        "POST /oauth2/token HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_refresh_works_over_the_wire() {
    let (server, tokens) = started();
    assert!(refresh(&server, &tokens.refresh_token).await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(server.with(|mock| mock.token_calls("refresh_token")), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_closed_connection_carries_no_byte() {
    let (server, tokens) = started();
    server.with(|mock| mock.add_fault(Fault::once(Endpoint::Token, FaultKind::CloseBefore)));
    assert_eq!(refresh(&server, &tokens.refresh_token).await, "");
    assert_eq!(server.with(|mock| mock.live_refresh_tokens(ADA)), 1);
    server.with(|mock| mock.add_fault(Fault::once(Endpoint::Token, FaultKind::CloseAfter)));
    assert_eq!(refresh(&server, &tokens.refresh_token).await, "");
    assert!(refresh(&server, &tokens.refresh_token).await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn a_delayed_answer_comes_late_and_only_its_own_connection_waits() {
    let (server, tokens) = started();
    let delay = Duration::from_secs(600);
    server.with(|mock| mock.add_fault(Fault::once(Endpoint::Token, FaultKind::delay(delay))));
    let late = refresh(&server, &tokens.refresh_token);
    tokio::pin!(late);
    loop {
        tokio::select! {
            _ = &mut late => panic!("the answer was not delayed"),
            () = tokio::task::yield_now() => {}
        }
        if server.with(|mock| mock.calls(Endpoint::Token)) == 1 {
            break;
        }
    }
    assert!(
        refresh(&server, &tokens.refresh_token).await.starts_with("HTTP/1.1 400"),
        "the effect is not delayed"
    );
}

#[tokio::test]
async fn an_oversized_body_is_refused_over_the_wire() {
    let (server, _) = started();
    let answer = post_token(&server, &"x".repeat(crate::limits::BODY_BYTES + 1)).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_stopped_server_accepts_nothing() {
    let (server, _) = started();
    let address = server.address();
    server.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    args: cli::Args,
}

#[tokio::test]
async fn the_banner_shows_what_an_app_needs() {
    let words = ["mock", "--listen", "127.0.0.1:0", "--user", "7:zoe", "--client-secret", "s3cret"];
    let args = Command::parse_from(words).args;
    assert!(!format!("{args:?}").contains("s3cret"));
    let mut out = Vec::new();
    let server = cli::start(&args, &mut out).unwrap();
    let banner = String::from_utf8(out).unwrap();
    let authorize = format!("{}/oauth2/authorize", server.url());
    for part in [authorize.as_str(), DEMO_CLIENT_ID, "s3cret", crate::DEMO_REDIRECT_URI, "zoe (7)"] {
        assert!(banner.contains(part), "{part} is missing in {banner}");
    }
}

#[tokio::test]
async fn an_address_reachable_from_outside_needs_an_option() {
    let args = Command::parse_from(["mock", "--listen", "0.0.0.0:0"]).args;
    assert!(matches!(cli::start(&args, &mut Vec::new()), Err(CliError::ReachableByOthers(_))));
    let args = Command::parse_from(["mock", "--listen", "0.0.0.0:0", "--allow-anyone-on-the-network"]).args;
    assert!(cli::start(&args, &mut Vec::new()).is_ok());
}
