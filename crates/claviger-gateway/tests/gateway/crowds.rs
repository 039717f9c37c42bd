//! Many concurrent requests, with a provider that accepts a refresh token once and kills the whole
//! connection at a second use.

use claviger_mock::{LiveTokenLimit, Rotation, User};
use futures_util::{StreamExt as _, stream};
use http::{StatusCode, header};

use crate::world::{ADA, World, echo};

const TABS: usize = 20;
const REQUESTS_OF_A_TAB: usize = 10;

/// A gateway and a strict provider.
async fn strict() -> World {
    let world = World::new(echo(), "provider.refreshes_per_second = 5000\nprovider.rotation = \"one_time\"\nprovider.replay_window = \"0s\"\nprovider.reuse_kills_connection = true").await;
    world.mock.with(|mock| {
        let settings = mock.settings_mut();
        settings.rotation = Rotation::OneTimeKillsConnection;
        settings.refresh_kills_old_access_token = true;
        settings.live_token_limit = LiveTokenLimit::Off;
        settings.helix_points_per_minute = 1_000_000;
    });
    world
}

/// Checks that every answer is good and touches no cookie.
fn assert_served(answer: &reqwest::Response) {
    assert_eq!(answer.status(), StatusCode::OK, "LOSER");
    assert!(!answer.headers().contains_key(header::SET_COOKIE), "LOSER");
}

fn assert_refreshed_once_each(world: &World, sessions: usize) {
    let (refreshes, reused) =
        world.mock.with(|mock| (mock.token_calls("refresh_token"), mock.counters().reused_refresh_tokens));
    assert_eq!(refreshes, u64::try_from(sessions).unwrap(), "one refresh a session");
    assert_eq!(reused, 0, "SPENT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_requests_share_one_refresh() {
    let paths = ["/app", "/auth/check", "/auth/session", "/api/twitch/users"];
    let world = strict().await;
    world.shorten_lives();
    let cookie = world.sign_in(ADA).await;
    world.outlive_tokens().await;
    let requests = (0..TABS * REQUESTS_OF_A_TAB).map(|n| {
        let path = paths.get(n % paths.len()).copied().unwrap();
        world.get(path).header(header::COOKIE, &cookie).send()
    });
    for answer in futures_util::future::join_all(requests).await {
        assert_served(&answer.unwrap());
    }
    assert_refreshed_once_each(&world, 1);
}

/// As above where only the provider knows that the token is dead: each call is refused, and one
/// refresh serves all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_refused_calls_share_one_refresh() {
    let world = strict().await;
    let cookie = world.sign_in(ADA).await;
    world.mock.with(|mock| mock.expire_access_tokens(ADA));
    let requests = (0..TABS * REQUESTS_OF_A_TAB)
        .map(|_| world.get("/api/twitch/users").header(header::COOKIE, &cookie).send());
    for answer in futures_util::future::join_all(requests).await {
        assert_served(&answer.unwrap());
    }
    assert_refreshed_once_each(&world, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sessions_refresh_once_each() {
    const SESSIONS: usize = 1000;
    let world = strict().await;
    world.shorten_lives();
    let mut cookies = Vec::new();
    for n in 0..SESSIONS {
        let user = format!("{}", 500_000_000 + n);
        world.mock.with(|mock| mock.add_user(User::new(user.as_str(), format!("user_{n}"))));
        cookies.push(world.sign_in(&user).await);
    }
    world.outlive_tokens().await;
    let tabs = cookies.iter().flat_map(|cookie| [cookie; 2]);
    let requests = tabs.map(|cookie| world.get("/auth/check").header(header::COOKIE, cookie).send());
    // Limits the concurrent connections. All of them wait for refreshes at once.
    let mut answers = stream::iter(requests.collect::<Vec<_>>()).buffer_unordered(500);
    while let Some(answer) = answers.next().await {
        assert_served(&answer.unwrap());
    }
    assert_refreshed_once_each(&world, SESSIONS);
}
