//! Clients that hang up while the provider handles their session's refresh.

use std::time::Duration;

use claviger_mock::{Endpoint, Fault, FaultKind};
use http::{StatusCode, header};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::world::{ADA, World, echo, patiently};

/// The provider spends the refresh token at once, and delays its answer by this much.
const HELD: Duration = Duration::from_millis(700);

const STRICT: &str = "provider.rotation = \"one_time\"\nprovider.replay_window = \"0s\"\nprovider.reuse_kills_connection = true";

impl World {
    fn sent(&self) -> u64 {
        self.mock.with(|mock| mock.token_calls("refresh_token"))
    }

    /// Sends a request, and hangs up as soon as the provider has received its refresh.
    async fn hang_up_in_a_refresh(&self, path: &str, cookie: &str) {
        let before = self.sent();
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\ncookie: {cookie}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        patiently(async {
            while self.sent() == before {
                ticks.tick().await;
            }
        })
        .await;
        // A reset, so that the gateway notices at once.
        stream.set_zero_linger().unwrap();
        drop(stream);
    }
}

/// STRAND over real HTTP: the pair is stored, and the next request needs no refresh.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_is_finished_after_the_client_hung_up() {
    for path in ["/app", "/auth/check", "/api/twitch/users"] {
        let world = World::new(echo(), STRICT).await;
        let strict = claviger_mock::Rotation::OneTimeKillsConnection;
        world.mock.with(|mock| mock.settings_mut().rotation = strict);
        world.shorten_lives();
        let cookie = world.sign_in(ADA).await;
        world.outlive_tokens().await;
        world.mock.with(|mock| {
            mock.add_fault(Fault::once(Endpoint::Token, FaultKind::delay(HELD)).grant_type("refresh_token"));
        });
        world.hang_up_in_a_refresh(path, &cookie).await;
        // While it is held no other request sends the token, and afterwards none needs to.
        let meanwhile = tokio::spawn(world.get(path).header(header::COOKIE, &cookie).send());
        tokio::time::sleep(HELD * 2).await;
        assert_eq!(meanwhile.await.unwrap().unwrap().status(), StatusCode::OK, "{path}");
        let answer = world.get(path).header(header::COOKIE, &cookie).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "STRAND {path}");
        assert!(!answer.headers().contains_key(header::SET_COOKIE), "{path}");
        let reused = world.mock.with(|mock| mock.counters().reused_refresh_tokens);
        assert_eq!((world.sent(), reused), (1, 0), "SPENT {path}");
    }
}
