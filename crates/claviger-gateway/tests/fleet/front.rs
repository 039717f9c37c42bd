//! A round-robin proxy in front of the gateways, as load balancers are. It skips an instance that
//! refuses connections, and gives up one that does not answer in time. A request that an instance
//! may have received is never sent to another one.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{StatusCode, header, request::Parts};
use tokio::sync::RwLock;

use crate::common::{
    process,
    users::{ANSWERED_BY, NO_ANSWER},
};

/// Number of requests to others for which a given-up instance is skipped.
const ASIDE: usize = 150;
const BODY_BYTES: usize = 64 * 1024;

pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    instances: Vec<Behind>,
    client: reqwest::Client,
    requests: AtomicUsize,
    patience_ms: AtomicU64,
}

struct Behind {
    address: SocketAddr,
    /// The request until which it is skipped.
    aside_until: AtomicUsize,
    /// Whether nothing is sent to it. Each request in progress holds a read lock.
    spared: RwLock<bool>,
}

/// Why an instance gave no answer.
enum Failed {
    /// It did not receive the request.
    NotReceived,
    /// Unknown.
    Unknown,
}

impl Front {
    /// Begins to serve.
    pub(crate) fn before(instances: &[SocketAddr]) -> Arc<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let behind = |address: &SocketAddr| Behind {
            address: *address,
            aside_until: AtomicUsize::new(0),
            spared: RwLock::new(false),
        };
        let front = Arc::new(Self {
            address,
            instances: instances.iter().map(behind).collect(),
            client: process::client(process::PATIENCE),
            requests: AtomicUsize::new(0),
            patience_ms: AtomicU64::new(30_000),
        });
        let app = Router::new().fallback(pass).with_state(Arc::clone(&front));
        let server = axum_server::from_tcp(listener).unwrap();
        tokio::spawn(async move { server.serve(app.into_make_service()).await });
        front
    }

    /// Sets the time after which an instance is given up.
    pub(crate) fn give_up_after(&self, patience: Duration) {
        self.patience_ms.store(patience.as_millis().try_into().unwrap(), Ordering::SeqCst);
    }

    /// Drains an instance: sends it nothing, and waits for its answers. Or sends it requests again.
    pub(crate) async fn spare(&self, address: SocketAddr, spared: bool) {
        let behind = self.instances.iter().find(|behind| behind.address == address).unwrap();
        *behind.spared.write().await = spared;
        behind.aside_until.store(0, Ordering::SeqCst);
    }

    /// Returns the instances in the order to try. Skipped ones come last.
    fn order(&self, request: usize) -> Vec<&Behind> {
        let count = self.instances.len();
        let turn = (0..count).map(|n| &self.instances[(request + n) % count]);
        let (well, aside): (Vec<_>, Vec<_>) =
            turn.partition(|behind| behind.aside_until.load(Ordering::SeqCst) <= request);
        well.into_iter().chain(aside).collect()
    }

    async fn send(&self, to: &Behind, parts: &Parts, body: Bytes) -> Result<Response, Failed> {
        let spared = to.spared.read().await;
        if *spared {
            return Err(Failed::NotReceived);
        }
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let request = self.client.request(parts.method.clone(), format!("http://{}{target}", to.address));
        let patience = Duration::from_millis(self.patience_ms.load(Ordering::SeqCst));
        let sent = request.headers(parts.headers.clone()).body(body).timeout(patience).send().await;
        let answer =
            sent.map_err(|error| if error.is_connect() { Failed::NotReceived } else { Failed::Unknown })?;
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        headers.remove(header::TRANSFER_ENCODING);
        headers.remove(header::CONNECTION);
        headers.insert(ANSWERED_BY, to.address.port().into());
        let body = answer.bytes().await.map_err(|_| Failed::Unknown)?;
        let mut response = Response::new(Body::from(body));
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }
}

async fn pass(State(front): State<Arc<Front>>, request: Request) -> Response {
    let number = front.requests.fetch_add(1, Ordering::SeqCst);
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY_BYTES).await.unwrap_or_default();
    for behind in front.order(number) {
        match front.send(behind, &parts, body.clone()).await {
            Ok(answer) => return answer,
            Err(failed) => {
                behind.aside_until.store(number + ASIDE, Ordering::SeqCst);
                if matches!(failed, Failed::Unknown) {
                    break;
                }
            }
        }
    }
    (StatusCode::BAD_GATEWAY, [(NO_ANSWER, "true")]).into_response()
}
