//! What the app answers arrives as the app sent it, or the error says what is wrong.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::world::{World, listen, status_of};

const OPEN: &str = "routes = [{ path = \"/\", assurance = \"none\" }]";

/// An app that answers every request with these octets. It sends back the head of the request.
fn answering(answer: impl Into<Vec<u8>>) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let (answer, (sender, heads)) = (answer.into(), tokio::sync::mpsc::unbounded_channel());
    let listener = listen();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut head, answer, sender) = (Vec::new(), answer.clone(), sender.clone());
            tokio::spawn(async move {
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let _gone = sender.send(String::from_utf8(head).unwrap());
                // The gateway may close before the end.
                let _closed = stream.write_all(&answer).await;
            });
        }
    });
    (address, heads)
}

async fn ask(app: SocketAddr, method: &str, fields: &str) -> String {
    let world = World::before(app, OPEN).await;
    world.raw(format!("{method} /x HTTP/1.1\r\nhost: localhost\r\n{fields}connection: close\r\n\r\n")).await
}

#[tokio::test]
async fn an_answer_to_head_has_the_length_that_the_app_gave_or_none() {
    for (fields, expected) in
        [("", None), ("content-length: 42\r\n", Some("42")), ("content-length: 0\r\n", Some("0"))]
    {
        let (app, _) = answering(format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
        let answer = ask(app, "HEAD", "").await;
        let length = answer.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        assert_eq!(length, expected, "{answer}");
        assert!(!answer.contains("transfer-encoding"), "{answer}");
    }
}

#[tokio::test]
async fn trailers_of_an_answer_arrive_if_the_client_takes_them() {
    let answer = "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 7\r\n\r\n";
    for (fields, expected) in [("te: trailers\r\n", true), ("te: gzip, Trailers\r\n", true), ("", false)] {
        let (app, mut heads) = answering(answer);
        let arrived = ask(app, "GET", fields).await;
        assert_eq!(arrived.contains("x-sum: 7\r\n"), expected, "{arrived}");
        let head = heads.recv().await.unwrap();
        assert_eq!(
            head.contains("te: trailers\r\n") && head.contains("connection: te\r\n"),
            expected,
            "{head}"
        );
    }
}

#[tokio::test]
async fn trailers_set_none_of_our_cookies() {
    let answer = "HTTP/1.1 200 OK\r\ntrailer: x-sum, set-cookie\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\
                  x-sum: 7\r\nset-cookie: claviger-insecure=evil\r\nset-cookie: own=1\r\n\r\n";
    let world = World::before(answering(answer).0, OPEN).await;
    let (mut client, connection) =
        h2::client::handshake(TcpStream::connect(world.address).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(world.url("/x")).header("te", "trailers").body(()).unwrap();
    let mut body = client.send_request(request, true).unwrap().0.await.unwrap().into_body();
    while let Some(octets) = body.data().await {
        body.flow_control().release_capacity(octets.unwrap().len()).unwrap();
    }
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["x-sum"], "7");
    assert_eq!(trailers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["own=1"]);
}

#[tokio::test]
async fn a_folded_field_is_unfolded() {
    let (app, _) = answering("HTTP/1.1 200 OK\r\nx-folded: one,\r\n  two\r\ncontent-length: 2\r\n\r\nok");
    let answer = ask(app, "GET", "").await;
    assert_eq!(status_of(&answer), 200, "{answer}");
    let folded = answer.split("x-folded: ").nth(1).unwrap().lines().next().unwrap();
    assert_eq!(folded.split_whitespace().collect::<Vec<_>>(), ["one,", "two"]);
}

#[tokio::test]
async fn an_answer_that_is_not_http_or_too_large_is_named() {
    let many: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    let long = "x".repeat(400_000);
    for (answer, code) in [
        (format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n"), "app_head_too_large"),
        (format!("HTTP/1.1 200 OK\r\nx: {long}\r\ncontent-length: 0\r\n\r\n"), "app_head_too_large"),
        ("SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned(), "app_answer_invalid"),
        ("HTTP/1.1 200 OK\r\nno field\r\n\r\n".to_owned(), "app_answer_invalid"),
        (String::new(), "app_unreachable"),
    ] {
        let (app, _) = answering(answer);
        let arrived = ask(app, "GET", "").await;
        assert!(status_of(&arrived) == 502 && arrived.contains(code), "{code}: {arrived}");
    }
}
