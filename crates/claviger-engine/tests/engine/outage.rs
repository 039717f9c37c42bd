//! A provider that is away for four hours: nobody is signed out, and when it is back everybody is served within a minute.

use std::time::Duration;

use claviger_core::{policy::limits, session::State};
use claviger_engine::Denied;
use claviger_mock::{Endpoint, FaultKind};

use crate::world::{
    ADA, Browser, GRACE, HOUR, Instance, MINUTE, ONE_TIME, SECOND, TOKEN_LIFE, World, habits,
};

const SESSIONS: usize = 60;
const REFRESHES_PER_SECOND: u32 = 4;

/// Everybody asks once a minute, each a second after the one before, and is told nothing but "served" or "try again".
async fn everybody_asks(world: &World, app: &Instance, browsers: &[Browser]) -> usize {
    let mut served = 0;
    for browser in browsers {
        match browser.grant(app).await {
            Ok(grant) => {
                assert!(!grant.expiry.passed(world.now()), "an expired token is handed to nobody");
                served += 1;
            }
            Err(Denied::ProviderTrouble { retry_after }) => {
                assert!(retry_after > Duration::ZERO && retry_after <= limits::RETRY_AFTER_MAX);
            }
            Err(denied) => panic!("TRANSIENT: {denied}"),
        }
        world.run_for(SECOND).await;
    }
    served
}

#[tokio::test(start_paused = true)]
async fn four_hours_without_the_provider_sign_nobody_out() {
    let (world, app) = World::with(|setup| {
        habits(ONE_TIME)(setup);
        setup.settings.devices_per_user = 1000;
        setup.settings.refreshes_per_second = REFRESHES_PER_SECOND;
        setup.mock.live_token_limit = claviger_mock::LiveTokenLimit::Off;
    })
    .await;
    let mut browsers = Vec::new();
    for n in 0..SESSIONS {
        browsers.push(world.sign_in(&app, if n % 2 == 0 { ADA } else { GRACE }).await);
    }
    let begun = world.now();
    let stages = [
        FaultKind::status(503),
        // Nothing takes effect, and nobody answers.
        FaultKind::CloseBefore,
        FaultKind::too_many_requests(None),
    ];
    world.pass(10 * MINUTE);
    for kind in stages {
        world.twitch.mend();
        for endpoint in [Endpoint::Token, Endpoint::Validate] {
            world.twitch.always(endpoint, kind.clone());
        }
        let until = world.now().after(80 * MINUTE);
        while world.now() < until {
            let lives = world.now().after(2 * MINUTE).since(begun) < TOKEN_LIFE;
            let served = everybody_asks(&world, &app, &browsers).await;
            assert!(!lives || served == SESSIONS, "served while the tokens live: {served}");
        }
    }
    assert!(world.now().since(begun) >= 4 * HOUR);
    assert_eq!(everybody_asks(&world, &app, &browsers).await, 0, "every token has expired by now");
    for browser in &browsers {
        assert!(!matches!(world.row(browser.session).await.state, State::Ended { .. }), "TRANSIENT");
    }

    world.twitch.mend();
    world.twitch.mock().clear_log();
    let back = world.now();
    let mut waiting: Vec<&Browser> = browsers.iter().collect();
    while !waiting.is_empty() {
        let outcomes =
            futures_util::future::join_all(waiting.iter().map(|browser| browser.grant(&app))).await;
        let mut denied = outcomes.iter().map(Result::is_err);
        waiting.retain(|_| denied.next().unwrap_or(false));
        world.run_for(SECOND).await;
        assert!(world.now().since(back) <= MINUTE, "LIVE: {} are not served", waiting.len());
    }
    let sent = world.twitch.refresh_times();
    let most =
        sent.iter().map(|from| sent.iter().filter(|at| (*from..from + 1000).contains(at)).count()).max();
    let budget = usize::try_from(3 * REFRESHES_PER_SECOND).unwrap();
    assert!(most.unwrap() <= budget, "{most:?} refreshes in a second");
    world.assert_nothing_spent_twice();
}
