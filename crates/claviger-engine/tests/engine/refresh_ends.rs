//! A session that ends during its refresh stays ended, and the late pair is revoked.

use claviger_core::{Assurance, EndReason, State};
use claviger_engine::{Denied, Target};
use claviger_mock::Endpoint;

use crate::world::{ADA, Browser, Instance, ONE_TIME, SECOND, World, habits, subject};

/// The ways to end the session of the first of three devices.
#[derive(Clone, Copy, Debug)]
enum Way {
    OwnLogout,
    OtherDevice,
    Others,
    Everywhere,
    Administrator,
    DeviceLimit,
    NewSignIn,
    Sweep,
}

async fn end(way: Way, world: &World, app: &Instance, devices: &[Browser]) {
    let (one, other) = (&devices[0], &devices[2]);
    let ended = match way {
        Way::OwnLogout => app.end_own(&one.cookie, EndReason::SignedOut).await,
        Way::OtherDevice => {
            let target = Target::DeviceOf(subject(ADA), one.session);
            app.end(target, EndReason::SignedOutFromAnotherDevice).await
        }
        Way::Others => {
            let target = Target::Others(subject(ADA), other.session);
            app.end(target, EndReason::SignedOutFromAnotherDevice).await.map(|count| count - 1)
        }
        Way::Everywhere => {
            let target = Target::AllOf(subject(ADA), world.now());
            app.end(target, EndReason::SignedOutEverywhere).await.map(|count| count - 2)
        }
        Way::Administrator => app.end(Target::One(one.session), EndReason::Administrator).await,
        Way::DeviceLimit => {
            world.sign_in(app, ADA).await;
            Ok(1)
        }
        Way::NewSignIn => {
            world.sign_in_again(app, ADA, Some(&one.cookie)).await.unwrap();
            Ok(1)
        }
        Way::Sweep => {
            world.pass(world.settings.lifetimes.idle);
            app.end_overdue().await.unwrap();
            Ok(1)
        }
    };
    assert_eq!(ended, Ok(1), "{way:?}");
}

/// ENDED, CASCADE: on the instance that refreshes and on another.
#[tokio::test(start_paused = true)]
async fn a_pair_after_the_end_is_revoked() {
    let ways = [
        Way::OwnLogout,
        Way::OtherDevice,
        Way::Others,
        Way::Everywhere,
        Way::Administrator,
        Way::DeviceLimit,
        Way::NewSignIn,
        Way::Sweep,
    ];
    for way in ways {
        for same_instance in [true, false] {
            let (world, app) = World::with(|setup| {
                habits(ONE_TIME)(setup);
                setup.settings.devices_per_user = 3;
            })
            .await;
            let elsewhere = world.instance().await;
            let devices = world.sign_in_on(&app, 3).await;
            let one = &devices[0];
            world.expire_tokens();
            let gate = world.twitch.hold(Endpoint::Token);
            let ending = async {
                gate.arrived().await;
                end(way, &world, if same_instance { &app } else { &elsewhere }, &devices).await;
                assert!(matches!(world.row(one.session).await.state, State::Ended { .. }));
                gate.open();
            };
            let (outcome, ()) = tokio::join!(one.asks(&app), ending);
            assert!(matches!(outcome, Err(Denied::Ended(_))), "{way:?}: {outcome:?}");
            let ended = world.row(one.session).await;
            assert!(matches!(ended.state, State::Ended { .. }), "ENDED by {way:?}");
            assert!(world.owed().await > 0, "CASCADE {way:?}");
            app.carry_out_revocations().await.unwrap();
            assert_eq!(world.owed().await, 0);
            let live = world.twitch.mock().live_access_tokens(ADA);
            let new_sign_ins = usize::from(matches!(way, Way::DeviceLimit | Way::NewSignIn));
            assert_eq!(live, new_sign_ins, "CASCADE {way:?}: the late pair is dead");
            for assurance in [Assurance::Cookie, Assurance::Session] {
                for app in [&app, &elsewhere] {
                    if assurance == Assurance::Cookie
                        && same_instance == std::ptr::eq(app, &raw const elsewhere)
                    {
                        continue;
                    }
                    let outcome = one.asks_with(app, assurance).await;
                    assert!(matches!(outcome, Err(Denied::Ended(_))), "{way:?} {assurance:?}: {outcome:?}");
                }
            }
            assert_eq!(world.row(one.session).await, ended, "nothing changes any more");
            world.assert_nothing_spent_twice();
        }
    }
}

/// A commit with an unknown outcome, and an end right after it: the end revokes the new pair.
#[tokio::test(start_paused = true)]
async fn an_end_after_a_commit_of_unknown_outcome_revokes_the_pair() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    let elsewhere = world.instance().await;
    let browser = world.sign_in(&app, ADA).await;
    world.expire_tokens();
    let gate = world.twitch.hold(Endpoint::Token);
    let story = async {
        gate.arrived().await;
        app.faulty_store.next(claviger_store::Method::Apply, crate::faulty_store::Trick::FailAfter);
        gate.open();
        world.run_for(SECOND / 100).await;
        assert!(world.row(browser.session).await.pair().unwrap().generation.0 > 1, "it was written");
        elsewhere.end(Target::One(browser.session), EndReason::Administrator).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(browser.asks(&app), story);
    assert_eq!(outcome.unwrap_err(), Denied::Ended(EndReason::Administrator), "ENDED");
    world.rest().await;
    app.carry_out_revocations().await.unwrap();
    assert_eq!(world.twitch.mock().live_access_tokens(ADA), 0, "CASCADE");
}

/// A dead refresh token and a logout at the same moment: the first reason stays.
#[tokio::test(start_paused = true)]
async fn a_rejection_after_the_end_changes_nothing() {
    let (world, app) = World::with(habits(ONE_TIME)).await;
    let browser = world.sign_in(&app, ADA).await;
    world.twitch.mock().kill_tokens(ADA);
    world.expire_tokens();
    let gate = world.twitch.hold(Endpoint::Token);
    let ending = async {
        gate.arrived().await;
        app.end_own(&browser.cookie, EndReason::SignedOut).await.unwrap();
        gate.open();
    };
    let (outcome, ()) = tokio::join!(browser.asks(&app), ending);
    assert_eq!(outcome.unwrap_err(), Denied::Ended(EndReason::SignedOut));
    assert_eq!(world.end_reason(browser.session).await, Some(EndReason::SignedOut), "ENDED");
}
