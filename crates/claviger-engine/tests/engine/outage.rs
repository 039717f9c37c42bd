//! The provider is away for four hours, in every way that providers fail. No session ends, a
//! session with a living token is served, and after the outage everybody is served again within a
//! minute and within the budget.

use std::time::Duration;

use claviger_core::{Expiry, ProviderHabits, ReturnTo, State, limits};
use claviger_engine::Denied;
use claviger_mock::{Endpoint, FaultKind, LiveTokenLimit, LogEntry, RetryAfter, Rotation};
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::world::{
    ADA, Browser, GRACE, HOUR, Instance, MINUTE, ONE_TIME, ROTATES, SECOND, TOKEN_LIFE, World,
};

const SESSIONS: usize = 40;
const REFRESHES_PER_SECOND: u32 = 4;
const VALIDATIONS_PER_SECOND: u32 = 4;
/// Duration of each kind of failure; together they last four hours.
const STAGE: Duration = Duration::from_secs(27 * 60);

/// The kinds of failure, and whether a refresh that meets one may have spent its token: with
/// Twitch's habits, and where reuse is harmful.
fn stages() -> [(FaultKind, bool, bool); 9] {
    let wait = Some(RetryAfter::Seconds(20));
    [
        (FaultKind::status(500), true, true),
        (FaultKind::status(502), true, true),
        (FaultKind::status(503), false, true),
        (FaultKind::Status { status: 503, body: String::new(), retry_after: wait }, false, false),
        // It takes effect, and no client waits for the answer.
        (FaultKind::delay(MINUTE), true, true),
        (FaultKind::CloseBefore, true, true),
        (FaultKind::CloseAfter, true, true),
        (FaultKind::too_many_requests(None), false, false),
        (FaultKind::too_many_requests(wait), false, false),
    ]
}

/// Sign-ins over four hours, so that tokens expire throughout the next four.
async fn sign_ins_over_four_hours(
    habits: ProviderHabits,
    rotation: Rotation,
) -> (World, Instance, Vec<Browser>) {
    let (world, app) = World::with(|setup| {
        setup.provider.habits = habits;
        setup.mock.rotation = rotation;
        setup.mock.live_token_limit = LiveTokenLimit::Off;
        setup.settings.devices_per_user = 1000;
        setup.settings.refreshes_per_second = REFRESHES_PER_SECOND;
        setup.settings.sweep.validations_per_second = VALIDATIONS_PER_SECOND;
    })
    .await;
    let mut browsers = Vec::new();
    for n in 0..SESSIONS {
        browsers.push(world.sign_in(&app, if n % 2 == 0 { ADA } else { GRACE }).await);
        world.pass(4 * HOUR / u32::try_from(SESSIONS).unwrap());
    }
    for browser in &browsers {
        browser.grant(&app).await.expect("all is well");
        world.run_for(SECOND / 4).await;
    }
    let background = app.engine.clone();
    tokio::spawn(async move { background.run(CancellationToken::new()).await });
    (world, app, browsers)
}

/// The answers to the callers in one round.
#[derive(Default, Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    served: usize,
    to_come_back: usize,
    to_renew: usize,
}

/// Every device sends a request, one second apart. Those with a living token are served, and no
/// others.
async fn everybody_asks(world: &World, app: &Instance, browsers: &[Browser]) -> Told {
    let mut told = Told::default();
    for browser in browsers {
        let before = world.row(browser.session).await;
        let Expiry::At(expires_at) = before.pair().unwrap().expiry else { panic!("the mock says when") };
        let expired = expires_at <= world.now();
        match browser.grant(app).await {
            Ok(grant) => {
                assert!(!expired, "nobody gets a new token, and none is handed out that expired");
                assert_eq!(grant.token.expose(), world.token_of(&before));
                told.served += 1;
            }
            Err(denied) => {
                // It may expire while the request waits for the provider.
                assert!(expires_at <= world.now(), "served while the token lives, not {denied}");
                match denied {
                    Denied::ProviderUnavailable { retry_after } => {
                        assert!(retry_after > Duration::ZERO && retry_after <= limits::RETRY_AFTER_MAX);
                        told.to_come_back += 1;
                    }
                    Denied::SignInAgain => {
                        let row = world.row(browser.session).await;
                        assert!(row.beyond_refresh(world.now(), &world.provider.habits), "LOSER");
                        told.to_renew += 1;
                    }
                    denied => panic!("TRANSIENT: {denied}"),
                }
            }
        }
        world.run_for(SECOND).await;
    }
    told
}

/// Counts the rows whose refresh token may or may not be spent.
async fn ambiguous(world: &World, browsers: &[Browser]) -> usize {
    let mut count = 0;
    for browser in browsers {
        let row = world.row(browser.session).await;
        assert!(!matches!(row.state, State::Ended { .. }), "TRANSIENT");
        count += usize::from(row.ambiguous(world.now()));
    }
    count
}

/// Lets the provider fail in every way, one after the other.
async fn four_hours_of_trouble(world: &World, app: &Instance, browsers: &[Browser], harmful: bool) {
    let begun = world.now();
    for (kind, may_spend, may_spend_harmfully) in stages() {
        world.twitch.mend();
        for endpoint in [Endpoint::Token, Endpoint::Validate, Endpoint::HelixAuthorizationUsers] {
            world.twitch.always(endpoint, kind.clone());
        }
        let (before, refreshes) = (ambiguous(world, browsers).await, world.twitch.refreshes());
        let until = world.now().after(STAGE);
        while world.now() < until {
            everybody_asks(world, app, browsers).await;
            let rest = until.since(world.now()).min(20 * SECOND);
            world.run_for(rest).await;
        }
        let (after, tried) = (ambiguous(world, browsers).await, world.twitch.refreshes() - refreshes);
        assert!(tried > 0, "refreshes fall into {kind:?}");
        let grows = if harmful { may_spend_harmfully } else { may_spend };
        assert_eq!(after > before, grows, "{kind:?} makes {} rows ambiguous", after - before);
    }
    assert!(world.now().since(begun) >= 4 * HOUR);
}

/// Returns the greatest number of these calls in any window of this length.
fn most_in(world: &World, secs: u32, which: impl Fn(&LogEntry) -> bool) -> usize {
    let times: Vec<i64> =
        world.twitch.mock().log().filter(|entry| which(entry)).map(|entry| entry.at_ms).collect();
    let until = |from: &i64| *from..*from + 1000 * i64::from(secs);
    times.iter().map(|from| times.iter().filter(|at| until(from).contains(at)).count()).max().unwrap_or(0)
}

fn refresh(entry: &LogEntry) -> bool {
    entry.grant_type.as_deref() == Some("refresh_token")
}

fn validation(entry: &LogEntry) -> bool {
    entry.endpoint == Endpoint::Validate
}

/// LIVE: each of these devices is served within a minute with a token that the provider accepts,
/// within every budget.
async fn everybody_recovers(world: &World, app: &Instance, browsers: &[&Browser]) {
    world.twitch.mend();
    world.twitch.mock().clear_log();
    let back = world.now();
    let mut waiting = browsers.to_vec();
    while !waiting.is_empty() {
        let outcomes = join_all(waiting.iter().map(|browser| browser.grant(app))).await;
        let mut still = outcomes.iter().map(|outcome| match outcome {
            Ok(grant) => !world.twitch.lives(grant.token.expose()),
            Err(Denied::ProviderUnavailable { .. }) => true,
            Err(denied) => panic!("TRANSIENT: {denied}"),
        });
        waiting.retain(|_| still.next().unwrap_or(false));
        world.run_for(SECOND).await;
        assert!(world.now().since(back) <= MINUTE, "LIVE: {} are not served", waiting.len());
    }
    for secs in [1, 5, 20] {
        let refreshes = most_in(world, secs, refresh);
        let allowed = usize::try_from(REFRESHES_PER_SECOND * (2 + secs)).unwrap();
        assert!(refreshes <= allowed, "{refreshes} refreshes in {secs} seconds");
        let validations = most_in(world, secs, validation);
        let allowed = usize::try_from(VALIDATIONS_PER_SECOND * secs).unwrap() + 1;
        assert!(validations <= allowed, "SPREAD: {validations} validations in {secs} seconds");
    }
}

/// What is known of Twitch: one replay recovers from every lost answer.
#[tokio::test(start_paused = true)]
async fn an_outage_of_four_hours_at_twitch_signs_nobody_out() {
    let (world, app, browsers) = sign_ins_over_four_hours(ROTATES, Rotation::Rotates).await;
    four_hours_of_trouble(&world, &app, &browsers, false).await;
    let told = everybody_asks(&world, &app, &browsers).await;
    assert_eq!(told.to_renew, 0, "nobody has to go to the provider and back");
    assert!(told.to_come_back >= SESSIONS * 9 / 10, "nearly every token has expired by now: {told:?}");
    assert!(ambiguous(&world, &browsers).await > 0);
    everybody_recovers(&world, &app, &browsers.iter().collect::<Vec<_>>()).await;
    assert_eq!(ambiguous(&world, &browsers).await, 0, "LIVE");
    assert_eq!(world.twitch.most_sends(), 2, "SPENT: one replay");
}

/// A strict provider: where its answer was ambiguous the device has to go there and back, and no
/// other does.
#[tokio::test(start_paused = true)]
async fn an_outage_of_four_hours_at_a_strict_provider_signs_nobody_out() {
    let (world, app, browsers) = sign_ins_over_four_hours(ONE_TIME, Rotation::OneTimeKillsConnection).await;
    four_hours_of_trouble(&world, &app, &browsers, true).await;
    let told = everybody_asks(&world, &app, &browsers).await;
    assert!(told.to_renew > 0 && told.to_come_back > 0, "{told:?}");
    let mut to_renew = Vec::new();
    let mut others = Vec::new();
    for browser in &browsers {
        let row = world.row(browser.session).await;
        let beyond = row.beyond_refresh(world.now(), &ONE_TIME);
        if beyond { to_renew.push(browser) } else { others.push(browser) }
    }
    everybody_recovers(&world, &app, &others).await;
    for browser in to_renew {
        let token = world.token_of(&world.row(browser.session).await);
        if world.twitch.lives(&token) {
            browser.grant(&app).await.expect("served while the token lives");
        } else {
            assert_eq!(browser.grant(&app).await.unwrap_err(), Denied::SignInAgain);
        }
        let user = world.row(browser.session).await.subject.id;
        let started = app.begin_repair(&browser.cookie, ReturnTo::root()).await.unwrap().expect("needed");
        let callback = world.agree(&user, &started);
        app.finish_login(callback, Some(&started.cookie), Some(&browser.cookie), "").await.unwrap();
        let grant = browser.grant(&app).await.expect("LIVE");
        assert!(world.twitch.lives(grant.token.expose()));
    }
    assert_eq!(ambiguous(&world, &browsers).await, 0, "LIVE");
    assert_eq!(world.twitch.most_sends(), 1, "SPENT");
    world.assert_nothing_spent_twice();
    assert!(world.now().since(crate::world::START) > 2 * TOKEN_LIFE);
}
