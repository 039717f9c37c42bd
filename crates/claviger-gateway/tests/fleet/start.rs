//! A gateway starts while its database is away, or is not the one that was meant.

use std::sync::Arc;

use claviger_mock::Rotation;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    STRICT, alone,
    common::process::{self, Running},
    instances::{Fleet, ours},
};

/// The status of the answer to a request on this connection.
async fn status(stream: &mut TcpStream, host: &str, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer").into());
    }
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    head[9..12].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_waits_for_a_database_that_is_away_and_says_so() {
    let _alone = alone().await;
    let fleet = Fleet::of(&[ours()], Rotation::OneTimeKillsConnection, STRICT).await;
    let instance = &fleet.instances[0];
    let server = Arc::clone(&fleet.server);
    tokio::task::spawn_blocking(move || server.kill()).await.unwrap();
    instance.keep_up();
    let host = format!("localhost:{}", fleet.front.address.port());
    let lives = || async {
        match TcpStream::connect(instance.address).await {
            Ok(mut stream) => status(&mut stream, &host, "/healthz").await == 200,
            Err(_) => false,
        }
    };
    process::until("the health check answers", || fleet.logs(), lives).await;
    let mut kept = TcpStream::connect(instance.address).await.unwrap();
    for path in ["/readyz", "/", "/auth/session"] {
        assert_eq!(status(&mut kept, &host, path).await, 503, "{path}");
    }
    assert!(fleet.logs().contains("waiting for the session store before the start"), "{}", fleet.logs());
    let server = Arc::clone(&fleet.server);
    let resuming = tokio::task::spawn_blocking(move || server.resume());
    let until_ready = async {
        loop {
            let mut stream = TcpStream::connect(instance.address).await.expect("nobody is refused");
            match status(&mut stream, &host, "/readyz").await {
                200 => break,
                status => assert_eq!(status, 503),
            }
        }
    };
    let ready = tokio::time::timeout(process::PATIENCE, until_ready).await;
    assert!(ready.is_ok(), "it never became ready\n{}", fleet.logs());
    resuming.await.unwrap();
    assert_eq!(status(&mut kept, &host, "/readyz").await, 200, "a connection from before");
    instance.require_running();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_does_not_wait_for_a_database_that_does_not_exist() {
    let _alone = alone().await;
    let fleet = Fleet::of(&[ours()], Rotation::OneTimeKillsConnection, STRICT).await;
    let program = &fleet.instances[0].program;
    let settings = std::fs::read_to_string(program.config()).unwrap();
    program.configure(&settings.replace(&format!("dbname={}", fleet.database), "dbname=mistyped"));
    let mut running: Running = program.start();
    process::until("it ends", || program.log(), || std::future::ready(running.has_ended())).await;
    let log = program.log();
    assert!(log.contains("there is no such database") && !log.contains("the start waits"), "{log}");
}
