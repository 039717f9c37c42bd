//! The limits of what anybody can send without a session: made-up codes to `GET /auth/callback`,
//! and references to `GET /auth/return`.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use claviger_core::limits;
use claviger_store::Method as Call;
use http::{Method, StatusCode};

use crate::{
    answer::Answer,
    browser::{Browser, path_of},
    site::{App, MINUTE},
    twitch::ADA,
};

const PROXY: &str = "10.0.0.1:4000";

async fn behind_proxy() -> App {
    App::with(|setup| setup.site.trusted_proxies = vec!["10.0.0.1".parse().unwrap()]).await
}

/// A client behind the proxy, which knows its address or not.
#[derive(Clone, Copy)]
struct Client(Option<&'static str>);

impl Client {
    async fn opens(self, app: &App, browser: &mut Browser, path: &str) -> Answer {
        let request = browser.bare(app, Method::GET, path).header("sec-fetch-site", "none");
        let mut request = request.extension(ConnectInfo(PROXY.parse::<SocketAddr>().unwrap()));
        if let Some(address) = self.0 {
            request = request.header("x-forwarded-for", address);
        }
        browser.send(app, request).await
    }

    /// Begins a sign-in and comes back with a made-up code.
    async fn makes_up_a_code(self, app: &App) -> Answer {
        let mut browser = Browser::new();
        let started = self.opens(app, &mut browser, "/auth/login").await;
        let state =
            started.location().split_once("state=").unwrap().1.split(['&', '#']).next().unwrap().to_owned();
        self.opens(app, &mut browser, &format!("/auth/callback?code=bogus&state={state}")).await
    }

    async fn signs_in(self, app: &App, browser: &mut Browser) -> Answer {
        let started = self.opens(app, browser, "/auth/login").await;
        let callback = path_of(&app.twitch.agree(ADA, started.location()));
        self.opens(app, browser, &callback).await
    }
}

fn exchanges(app: &App) -> usize {
    usize::try_from(app.twitch.mock().token_calls("authorization_code")).unwrap()
}

/// S5: one client neither drives the token endpoint nor keeps others from signing in.
#[tokio::test(start_paused = true)]
async fn made_up_codes_of_one_client_concern_nobody_else() {
    let app = behind_proxy().await;
    let attacker = Client(Some("6.6.6.6"));
    let most = limits::EXCHANGES.address.count as usize;
    for _ in 0..10 * most {
        attacker.makes_up_a_code(&app).await;
    }
    assert_eq!(exchanges(&app), most);
    let refused = attacker.makes_up_a_code(&app).await;
    refused.assert_error(StatusCode::SERVICE_UNAVAILABLE, "too_many_sign_ins");
    refused.assert_passing_failure();

    for other in [Client(Some("7.7.7.7")), Client(None)] {
        assert!(other.signs_in(&app, &mut Browser::new()).await.touches_session());
    }
    app.pass(MINUTE);
    assert!(attacker.signs_in(&app, &mut Browser::new()).await.touches_session(), "later");
}

/// S5: where no address is known, a browser that signed in before has a share of its own.
#[tokio::test(start_paused = true)]
async fn strangers_leave_places_to_browsers_that_signed_in_before() {
    let app = behind_proxy().await;
    let (nobody, mut browser) = (Client(None), Browser::new());
    nobody.signs_in(&app, &mut browser).await;
    let before = exchanges(&app);
    let most = limits::EXCHANGES.strangers as usize;
    for _ in 0..2 * most {
        nobody.makes_up_a_code(&app).await;
    }
    assert_eq!(exchanges(&app) - before, most);
    let refused = nobody.signs_in(&app, &mut Browser::new()).await;
    refused.assert_error(StatusCode::SERVICE_UNAVAILABLE, "too_many_sign_ins");
    assert!(nobody.signs_in(&app, &mut browser).await.touches_session());
}

/// S5: a place that was refused uses nothing up.
#[tokio::test(start_paused = true)]
async fn a_callback_without_a_place_may_come_again() {
    let app = behind_proxy().await;
    let client = Client(Some("6.6.6.6"));
    for _ in 0..limits::EXCHANGES.address.count {
        client.makes_up_a_code(&app).await;
    }
    let mut browser = Browser::new();
    let started = client.opens(&app, &mut browser, "/auth/login").await;
    let callback = path_of(&app.twitch.agree(ADA, started.location()));
    client.opens(&app, &mut browser, &callback).await.assert_passing_failure();
    app.pass(limits::EXCHANGES.address.back_after);
    assert!(client.opens(&app, &mut browser, &callback).await.touches_session());
}

/// Each of them reads the store, so no client may have it read at any rate.
#[tokio::test(start_paused = true)]
async fn look_ups_of_one_client_concern_nobody_else() {
    let app = behind_proxy().await;
    let attacker = Client(Some("6.6.6.6"));
    let reference = format!("/auth/return?to={}", "A".repeat(43));
    let most = u64::from(limits::DESTINATION_READS.address.count);
    let reads = || app.store.calls(Call::SharedEntry);
    let before = reads();
    for _ in 0..10 * most {
        attacker.opens(&app, &mut Browser::new(), &reference).await;
    }
    assert_eq!(reads() - before, most);
    let refused = attacker.opens(&app, &mut Browser::new(), &reference).await;
    refused.assert_error(StatusCode::SERVICE_UNAVAILABLE, "too_many_destinations");
    refused.assert_passing_failure();
    for other in [Client(Some("7.7.7.7")), Client(None)] {
        let answer = other.opens(&app, &mut Browser::new(), &reference).await;
        answer.assert_error(StatusCode::NOT_FOUND, "destination_unknown");
    }
    app.pass(MINUTE);
    let later = attacker.opens(&app, &mut Browser::new(), &reference).await;
    later.assert_error(StatusCode::NOT_FOUND, "destination_unknown");
}

/// While the store is away look-ups wait for it, but not all of them.
#[tokio::test(start_paused = true)]
async fn look_ups_leave_room_to_those_who_wait_for_the_store() {
    let app = behind_proxy().await;
    app.store_fails(true);
    let reference = format!("/auth/return?to={}", "A".repeat(43));
    let one = async || Client(None).opens(&app, &mut Browser::new(), &reference).await;
    let answers = futures_util::future::join_all((0..limits::STORE_WAITERS).map(|_| one())).await;
    let waited = answers.iter().filter(|answer| answer.body.contains("\"store_unavailable\"")).count();
    assert_eq!(waited, limits::DESTINATION_READS.strangers as usize);
}
