//! A gateway with everything around it, and a user who signs in.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::Child,
    time::Duration,
};

use axum::{Json, Router, extract::Request, response::IntoResponse as _};
use claviger_gateway::{
    config::{Config, Layers, ListenAt, secrets::Secrets},
    gateway::Gateway,
    metrics,
    server::{self, Listeners},
};
use claviger_mock::{
    Change, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Endpoint, Fault, FaultKind, MockTwitch, Server,
};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// The default user.
pub(crate) const ADA: &str = "100000001";

/// A wait of this length is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway and everything around it.
pub(crate) struct World {
    pub(crate) mock: Server,
    pub(crate) address: SocketAddr,
    /// Address of the metrics, if they are served.
    pub(crate) metrics: Option<SocketAddr>,
    /// Address of the private listener, if there is one.
    pub(crate) private_at: Option<String>,
    pub(crate) client: reqwest::Client,
    stop: CancellationToken,
    served: JoinHandle<anyhow::Result<()>>,
    directory: tempfile::TempDir,
}

impl World {
    /// Starts a gateway in front of an app that echoes its requests.
    pub(crate) async fn echoing() -> Self {
        Self::new(echo(), "").await
    }

    /// Starts a gateway in front of this app, with these additional settings. `{port}` is the
    /// gateway's own.
    pub(crate) async fn new(app: Router, settings: &str) -> Self {
        Self::before(serve_app(app), settings).await
    }

    /// Starts a gateway in front of this address, at which something may or may not listen.
    pub(crate) async fn before(app: SocketAddr, settings: &str) -> Self {
        Self::before_url(&format!("http://{app}"), settings).await
    }

    /// Starts a gateway in front of the app at this address, http or https.
    pub(crate) async fn before_url(app: &str, settings: &str) -> Self {
        let config = claviger_mock::Config::demo()
            .settings(|settings| settings.rotation = claviger_mock::Rotation::OneTime);
        let mock = Server::local(MockTwitch::new(config, 7)).unwrap();
        Self::with(mock, tempfile::tempdir().unwrap(), app, settings).await
    }

    /// Starts a gateway at a Unix socket, which is `claviger.sock` in its directory, in front of an
    /// app that echoes its requests.
    #[cfg(unix)]
    pub(crate) async fn at_unix_socket(settings: &str) -> Self {
        let mock = Server::local(MockTwitch::new(claviger_mock::Config::demo(), 7)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let at = ListenAt::Unix(directory.path().join("claviger.sock"));
        let listener = server::Listener::open(&at, "listen").await.unwrap();
        let port = listen().local_addr().unwrap();
        let app = format!("http://{}", serve_app(echo()));
        Self::start(mock, directory, &app, settings, (listener, port)).await
    }

    /// Starts a gateway with this provider and the files in this directory.
    pub(crate) async fn with(mock: Server, directory: tempfile::TempDir, app: &str, settings: &str) -> Self {
        let listener = listen();
        let address = listener.local_addr().unwrap();
        Self::start(mock, directory, app, settings, (listener.try_into().unwrap(), address)).await
    }

    async fn start(
        mock: Server,
        directory: tempfile::TempDir,
        app: &str,
        settings: &str,
        (listener, address): (server::Listener, SocketAddr),
    ) -> Self {
        claviger_gateway::choose_tls();
        let text = format!(
            r#"
            listen = "{address}"
            public_url = "http://localhost:{port}"
            upstream = "{app}"
            insecure_plain_http_for_development = true
            keyring = ["1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"]
            store.path = {path:?}
            provider.client_id = "{DEMO_CLIENT_ID}"
            provider.client_secret = "{DEMO_CLIENT_SECRET}"
            provider.scopes = ["user:read:email"]
            provider.mock_url_for_development = "{mock}"
            {settings}
            "#,
            port = address.port(),
            settings = settings.replace("{port}", &address.port().to_string()),
            path = directory.path().join("claviger.db"),
            mock = mock.url(),
        );
        let layers = Layers::defaults().text(&text, "the test").unwrap();
        let config = Config::new(&layers).unwrap();
        let stop = CancellationToken::new();
        let secrets = Secrets::load(&config, &layers).unwrap();
        let gateway = Gateway::open(&config, secrets).await.unwrap();
        let metrics = config.metrics.listen.map(|claviger_gateway::config::Listen(address)| {
            let listener = TcpListener::bind(address).unwrap();
            let address = listener.local_addr().unwrap();
            let hosts = config.metrics.hosts.iter().map(|host| host.0.clone()).collect();
            let shown = metrics::record(stop.clone()).unwrap();
            let engine = gateway.claviger().engine().clone();
            metrics::serve(listener, hosts, engine, shown, stop.clone()).unwrap();
            address
        });
        let private = match &config.private.listen {
            Some(at) => {
                let listener = server::Listener::open(at, "private.listen").await.unwrap();
                Some((listener, metrics::record(stop.clone()).unwrap()))
            }
            None => None,
        };
        let private_at = private.as_ref().map(|(listener, _)| listener.shown());
        let listeners = Listeners { public: listener, private };
        let served = tokio::spawn({
            let stop = stop.clone();
            async move { server::serve(gateway, listeners, &config, stop).await }
        });
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .resolve("localhost", address)
            .no_proxy()
            .build()
            .unwrap();
        Self { mock, address, metrics, private_at, client, stop, served, directory }
    }

    /// Returns the path of its store, the file `claviger.db`.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Returns the address of a path, as clients call it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin())
    }

    /// Returns the origin that the gateway is configured with.
    pub(crate) fn origin(&self) -> String {
        format!("http://localhost:{}", self.address.port())
    }

    pub(crate) fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(self.url(path))
    }

    pub(crate) fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(self.url(path)).header(header::ORIGIN, self.origin())
    }

    /// Signs a user in on a new device, and returns its Cookie header.
    pub(crate) async fn sign_in(&self, user: &str) -> String {
        self.mock.with(|mock| mock.settings_mut().authorize_at_once_as = Some(user.to_owned()));
        let begun = self.get("/auth/login").send().await.unwrap();
        assert_eq!(begun.status(), StatusCode::SEE_OTHER);
        let login = cookies_of(begun.headers());
        let agreed = self.client.get(location(&begun)).send().await.unwrap();
        let done = self.client.get(location(&agreed)).header(header::COOKIE, login).send().await.unwrap();
        assert!(done.status().is_redirection() || done.status().is_success(), "{}", done.status());
        let cookies = cookies_of(done.headers());
        let session = cookies.split("; ").find(|cookie| cookie.starts_with("claviger-insecure=")).unwrap();
        session.to_owned()
    }

    /// Signs the device with this cookie out.
    pub(crate) async fn sign_out(&self, cookie: &str) {
        let done = self.post("/auth/logout").header(header::COOKIE, cookie).send().await.unwrap();
        assert!(done.status().is_success() || done.status().is_redirection(), "{}", done.status());
    }

    /// Sends these bytes on a new connection, and returns everything that comes back.
    pub(crate) async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_ref()).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is a close as well.
        let _closed = patiently(stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Sends a GET with exactly this path, and returns the status.
    pub(crate) async fn raw_status(&self, path: &str, cookie: &str) -> u16 {
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\ncookie: {cookie}\r\nconnection: close\r\n\r\n"
        );
        status_of(&self.raw(head).await)
    }

    /// Waits until this holds.
    pub(crate) async fn until(&self, holds: impl Fn(&mut MockTwitch) -> bool) {
        patiently(async {
            while !self.mock.with(|mock| holds(mock)) {
                self.get("/healthz").send().await.unwrap();
            }
        })
        .await;
    }

    /// Asks the gateway to stop.
    pub(crate) fn tell_to_stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the gateway has stopped, and returns the directory with its store.
    pub(crate) async fn stopped(self) -> tempfile::TempDir {
        self.left().await.1
    }

    /// Lets the provider say that a token lives for a second, although it accepts it for longer.
    pub(crate) fn shorten_lives(&self) {
        self.mock.with(|mock| {
            for endpoint in [Endpoint::Token, Endpoint::Validate] {
                mock.add_fault(Fault::always(endpoint, FaultKind::Change(Change::set("expires_in", 1))));
            }
        });
    }

    /// Ends [`World::shorten_lives`], and waits until all tokens count as expired.
    pub(crate) async fn outlive_tokens(&self) {
        self.mock.with(MockTwitch::clear_faults);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// Waits until the gateway has stopped, and returns the provider and the directory with its
    /// store.
    pub(crate) async fn left(self) -> (Server, tempfile::TempDir) {
        patiently(self.served).await.unwrap().unwrap();
        (self.mock, self.directory)
    }
}

/// Waits with a timeout.
pub(crate) async fn patiently<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it takes too long")
}

/// Returns the status in the first line of an answer.
pub(crate) fn status_of(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}

pub(crate) fn location(answer: &reqwest::Response) -> String {
    answer.headers()[header::LOCATION].to_str().unwrap().to_owned()
}

/// Returns the cookies that an answer sets, as a browser sends them back.
pub(crate) fn cookies_of(headers: &HeaderMap) -> String {
    let set = headers.get_all(header::SET_COOKIE).iter().map(|value| value.to_str().unwrap());
    let kept = set.filter(|cookie| !cookie.contains("Max-Age=0"));
    kept.map(|cookie| cookie.split(';').next().unwrap()).collect::<Vec<_>>().join("; ")
}

pub(crate) fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// Serves an app on a free port.
pub(crate) fn serve_app(app: Router) -> SocketAddr {
    let listener = listen();
    let address = listener.local_addr().unwrap();
    let server = axum_server::from_tcp(listener).unwrap();
    tokio::spawn(async move { server.serve(app.into_make_service()).await });
    address
}

/// An app that echoes its requests: method, target, headers in order, body.
pub(crate) fn echo() -> Router {
    Router::new().fallback(|request: Request| async move {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let headers: Vec<Value> = parts
            .headers
            .iter()
            .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
            .collect();
        let told = json!({
            "method": parts.method.as_str(),
            "target": parts.uri.to_string(),
            "headers": headers,
            "body": String::from_utf8_lossy(&body),
        });
        Json(told).into_response()
    })
}

/// A request as the app received it, from the answer of [`echo`].
pub(crate) struct Told(pub(crate) Value);

impl Told {
    pub(crate) fn parse(answer: &str) -> Self {
        let body = answer.split_once("\r\n\r\n").map_or(answer, |(_, body)| body);
        Self(serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
    }

    /// Returns all values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let headers = self.0["headers"].as_array().unwrap().iter();
        headers.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap()).collect()
    }

    /// Returns the names of all headers.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.0["headers"].as_array().unwrap().iter().map(|pair| pair[0].as_str().unwrap()).collect()
    }
}

/// A gateway as a process of its own, for what counts in a whole process or only the command does.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
