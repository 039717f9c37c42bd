//! The example app: a sign-in over real sockets, with its own mock provider.

#[path = "../../../claviger/examples/hello.rs"]
#[allow(unreachable_pub, reason = "the example is a whole program")]
mod hello;

use claviger_mock::{Config, MockTwitch, Server};
use http::{StatusCode, header};
use reqwest::{Client, Response, redirect::Policy};

struct Visitor {
    client: Client,
    cookies: Vec<(String, String)>,
}

impl Visitor {
    async fn opens(&mut self, address: &str) -> Response {
        let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request =
            self.client.get(address).header("accept", "text/html").header("cookie", pairs.join("; "));
        let answer = request.send().await.unwrap();
        for line in answer.headers().get_all(header::SET_COOKIE) {
            let (name, rest) = line.to_str().unwrap().split_once('=').unwrap();
            let (value, attributes) = rest.split_once(';').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            if !attributes.contains("Max-Age=0") {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        answer
    }
}

fn location(answer: &Response) -> String {
    assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{answer:?}");
    answer.headers()[header::LOCATION].to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_signs_a_visitor_in() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://localhost:{}", listener.local_addr().unwrap().port());
    let config =
        Config::demo().settings(|settings| settings.authorize_at_once_as = Some("100000001".to_owned()));
    let mock = Server::local(MockTwitch::new(config, 1)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (app, _engine) = hello::app(&origin, &mock, directory.path()).await.unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let client = Client::builder()
        .redirect(Policy::none())
        .resolve("localhost", ([127, 0, 0, 1], 0).into())
        .no_proxy()
        .build()
        .unwrap();
    let mut visitor = Visitor { client, cookies: Vec::new() };

    let front = visitor.opens(&origin).await;
    assert!(front.text().await.unwrap().contains("Hello stranger"));
    let sign_in = location(&visitor.opens(&format!("{origin}/private")).await);
    assert_eq!(sign_in, "/auth/sign-in?return_to=%2Fprivate");
    let page = visitor.opens(&format!("{origin}{sign_in}")).await.text().await.unwrap();
    let login = page.split_once("href=\"/auth/login").unwrap().1.split('"').next().unwrap().to_owned();
    let provider = location(&visitor.opens(&format!("{origin}/auth/login{login}")).await);
    assert!(provider.starts_with(&mock.url()), "{provider}");
    let consent = visitor.client.get(&provider).send().await.unwrap();
    let callback = consent.headers()[header::LOCATION].to_str().unwrap().to_owned();
    assert_eq!(location(&visitor.opens(&callback).await), "/private");
    let private = visitor.opens(&format!("{origin}/private")).await;
    assert!(private.text().await.unwrap().contains("You are user 100000001"));
    let devices = visitor.opens(&format!("{origin}/auth/devices")).await.text().await.unwrap();
    assert!(devices.contains("ada_builds"), "{devices}");
    server.abort();
}
