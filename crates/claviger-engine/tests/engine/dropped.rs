//! Callers that go away. Whatever they began is finished or never began, wherever they leave.

use std::{pin::pin, time::Duration};

use claviger_core::{ApiRefusal, Assurance, EndReason, ReturnTo, State};
use claviger_engine::{Denied, Target};
use claviger_mock::Endpoint;

use crate::world::{ADA, Instance, MINUTE, ONE_TIME, SECOND, World, habits, subject};

/// Longer than the wait between two looks at a row that another instance refreshes.
const MOMENT: Duration = Duration::from_millis(60);

/// Number of polls before time moves.
const POLLS_A_MOMENT: usize = 12;

/// Polls a future this many times and drops it. Returns whether it had finished. Tasks run after
/// each poll, and timers of some milliseconds after some of them.
pub(crate) async fn drop_after<T>(polls: usize, work: impl Future<Output = T>) -> bool {
    let mut work = pin!(work);
    for poll in 1..=polls {
        if futures_util::poll!(work.as_mut()).is_ready() {
            return true;
        }
        if poll % POLLS_A_MOMENT == 0 {
            tokio::time::sleep(MOMENT).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
    false
}

/// Creates a fresh world for every point at which the caller may leave, until there is none left.
macro_rules! at_every_point {
    (|$world:ident, $app:ident, $polls:ident| $story:block) => {
        at_every_point!(crate::dropped::slow_world(), |$world, $app, $polls| $story)
    };
    ($begin:expr, |$world:ident, $app:ident, $polls:ident| $story:block) => {{
        let mut finished = false;
        for $polls in 1..300 {
            let ($world, $app) = $begin.await;
            finished = $story;
            if finished {
                break;
            }
        }
        assert!(finished, "the story ends");
    }};
}
pub(crate) use at_every_point;

pub(crate) async fn slow_world() -> (World, Instance) {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    app.faulty_store.slow();
    (world, app)
}

/// STRAND: the pair is stored, wherever the request goes away.
#[tokio::test(start_paused = true)]
async fn a_refresh_is_finished_without_its_caller() {
    at_every_point!(|world, app, polls| {
        let browser = world.sign_in(&app, ADA).await;
        world.expire_tokens();
        let finished = drop_after(polls, browser.asks(&app)).await;
        world.run_for(SECOND).await;
        let row = world.row(browser.session).await;
        assert_eq!(row.active().unwrap().claim, None, "after {polls} polls");
        let refreshed = world.twitch.refreshes() == 1;
        assert_eq!(row.pair().unwrap().generation.0 > 1, refreshed, "STRAND after {polls} polls");
        browser.asks(&app).await.expect("LIVE");
        assert_eq!(world.twitch.refreshes(), 1);
        world.assert_nothing_spent_twice();
        finished
    });
}

/// As above, while other callers wait for the same refresh.
#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_does_not_disturb_the_others() {
    at_every_point!(|world, app, polls| {
        let browser = world.sign_in(&app, ADA).await;
        world.expire_tokens();
        let (finished, stayed) = tokio::join!(drop_after(polls, browser.asks(&app)), browser.grant(&app));
        assert_eq!(stayed.unwrap().token.expose(), world.access_token(browser.session).await);
        assert_eq!(world.twitch.refreshes(), 1);
        finished
    });
}

/// CASCADE: a row holds every issued pair, or it is revoked.
#[tokio::test(start_paused = true)]
async fn an_abandoned_sign_in_strands_no_pair() {
    at_every_point!(|world, app, polls| {
        let old = world.sign_in(&app, ADA).await;
        world.pass(SECOND);
        let started = app.begin_login(ReturnTo::root(), false);
        let callback = world.agree(ADA, &started);
        let login = app.finish_login(callback, Some(&started.cookie), Some(&old.cookie), "");
        let finished = drop_after(polls, login).await;
        world.run_for(SECOND).await;
        app.carry_out_revocations().await.unwrap();
        let open = app.devices(&subject(ADA)).await.unwrap();
        assert_eq!(world.twitch.mock().live_access_tokens(ADA), open.len(), "CASCADE after {polls} polls");
        assert_eq!(open.len(), 1, "either the old session or the new one");
        assert_ended_and_known(&world, &app, &old).await;
        finished
    });
}

/// A row that ended is refused by this process; one that did not is served.
async fn assert_ended_and_known(world: &World, app: &Instance, browser: &crate::world::Browser) {
    let ended = world.end_reason(browser.session).await;
    for assurance in [Assurance::Cookie, Assurance::Session] {
        let denied = browser.asks_with(app, assurance).await.err();
        assert_eq!(denied, ended.map(Denied::Ended), "ENDED with {assurance:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_counts_without_its_caller() {
    at_every_point!(|world, app, polls| {
        let browser = world.sign_in(&app, ADA).await;
        browser.asks(&app).await.unwrap();
        let finished = drop_after(polls, app.end_own(&browser.cookie, EndReason::SignedOut)).await;
        world.rest().await;
        assert_ended_and_known(&world, &app, &browser).await;
        finished
    });
}

#[tokio::test(start_paused = true)]
async fn an_end_of_the_others_counts_without_its_caller() {
    at_every_point!(|world, app, polls| {
        let devices = world.sign_in_on(&app, 3).await;
        for device in &devices {
            device.asks(&app).await.unwrap();
        }
        let others = Target::Others(subject(ADA), devices[0].session);
        let ending = app.end(others, EndReason::SignedOutFromAnotherDevice);
        let finished = drop_after(polls, ending).await;
        world.rest().await;
        for device in &devices {
            assert_ended_and_known(&world, &app, device).await;
        }
        finished
    });
}

#[tokio::test(start_paused = true)]
async fn a_suspicion_counts_without_its_caller() {
    at_every_point!(|world, app, polls| {
        let browser = world.sign_in(&app, ADA).await;
        let refused = browser.grant(&app).await.unwrap();
        let held = world.twitch.hold(Endpoint::Token);
        let call = app.grant_after_refusal(&browser.cookie, &refused, ApiRefusal::DeadToken);
        let finished = drop_after(polls.min(60), call).await;
        world.rest().await;
        let suspect = matches!(world.row(browser.session).await.state, State::Suspect(_));
        app.faulty_store.down(true);
        let outcome = browser.asks_with(&app, Assurance::Cookie).await;
        assert_eq!(outcome.is_err(), suspect, "after {polls} polls");
        app.faulty_store.down(false);
        held.open();
        world.rest().await;
        browser.asks_with(&app, Assurance::Cookie).await.expect("LIVE");
        finished || polls > 60
    });
}

/// IDLE: a use that a request recorded is not lost with the request.
#[tokio::test(start_paused = true)]
async fn uses_are_written_without_their_writer() {
    at_every_point!(|world, app, polls| {
        let browser = world.sign_in(&app, ADA).await;
        world.pass(MINUTE);
        browser.asks_with(&app, Assurance::Cookie).await.unwrap();
        let used_at = world.now();
        let finished = drop_after(polls, app.end_overdue()).await;
        world.rest().await;
        app.end_overdue().await.unwrap();
        assert_eq!(world.row(browser.session).await.last_seen_at, used_at, "after {polls} polls");
        finished
    });
}

#[tokio::test(start_paused = true)]
async fn revocations_are_carried_out_without_their_worker() {
    at_every_point!(|world, app, polls| {
        let devices = world.sign_in_on(&app, 2).await;
        let all = Target::AllOf(subject(ADA), world.now());
        app.end(all, EndReason::SignedOutEverywhere).await.unwrap();
        let finished = drop_after(polls, app.carry_out_revocations()).await;
        world.pass(claviger_core::policy::limits::REVOCATION_LEASE);
        app.carry_out_revocations().await.unwrap();
        assert_eq!((world.owed().await, devices.len()), (0, 2));
        assert_eq!(world.twitch.mock().live_access_tokens(ADA), 0, "CASCADE");
        finished
    });
}
