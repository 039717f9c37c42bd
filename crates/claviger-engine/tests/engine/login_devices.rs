//! The device limit, and sign-ins that race for it.

use claviger_core::{Assurance, EndReason};
use claviger_mock::LiveTokenLimit;

use crate::world::{ADA, GRACE, MINUTE, SECOND, World, subject};

#[tokio::test(start_paused = true)]
async fn the_device_limit_ends_the_least_recently_used() {
    let (world, app) = World::start().await;
    assert_eq!(world.settings.devices_per_user, 20);
    let devices = world.sign_in_on(&app, 20).await;
    let bystander = world.sign_in(&app, GRACE).await;
    world.pass(MINUTE);
    for device in devices.iter().filter(|device| device.session != devices[3].session) {
        device.asks_with(&app, Assurance::Cookie).await.unwrap();
    }
    app.end_overdue().await.expect("writes the uses down");
    let token = world.access_token(devices[3].session).await;
    world.sign_in(&app, ADA).await;
    for device in &devices {
        let expected = (device.session == devices[3].session).then_some(EndReason::DeviceLimit);
        assert_eq!(world.end_reason(device.session).await, expected, "BLAST");
        assert_eq!(device.asks_with(&app, Assurance::Cookie).await.is_err(), expected.is_some());
    }
    assert_eq!(world.end_reason(bystander.session).await, None, "BLAST");
    assert_eq!(app.devices(&subject(ADA)).await.unwrap().len(), 20);
    world.assert_revoked(&app, &token).await;
}

#[tokio::test(start_paused = true)]
async fn a_replaced_session_does_not_count_for_the_device_limit() {
    let (world, app) = World::with(|setup| setup.settings.devices_per_user = 2).await;
    let devices = world.sign_in_on(&app, 2).await;
    world.sign_in_again(&app, ADA, Some(&devices[1].cookie)).await.unwrap();
    assert_eq!(world.end_reason(devices[0].session).await, None, "BLAST");
    assert_eq!(world.end_reason(devices[1].session).await, Some(EndReason::ReplacedBySignIn));
}

#[tokio::test(start_paused = true)]
async fn concurrent_sign_ins_respect_the_device_limit() {
    let (world, app) = World::with(|setup| {
        setup.settings.devices_per_user = 3;
        setup.mock.live_token_limit = LiveTokenLimit::Off;
    })
    .await;
    let elsewhere = world.instance().await;
    for app in [&app, &elsewhere] {
        app.faulty_store.slow();
    }
    let first = world.sign_in_on(&app, 3).await;
    let logins = (0..12).map(|n| world.sign_in_again(if n % 2 == 0 { &app } else { &elsewhere }, ADA, None));
    let outcomes = futures_util::future::join_all(logins).await;
    let browsers: Vec<_> = first.into_iter().chain(outcomes.into_iter().map(Result::unwrap)).collect();
    let open = app.devices(&subject(ADA)).await.unwrap();
    assert_eq!(open.len(), 3);
    for browser in &browsers {
        let stays = open.iter().any(|row| row.id == browser.session);
        let expected = (!stays).then_some(EndReason::DeviceLimit);
        assert_eq!(world.end_reason(browser.session).await, expected);
    }
    assert_eq!(world.owed().await, 12);
    world.pass(SECOND);
    app.carry_out_revocations().await.unwrap();
    assert_eq!(world.twitch.mock().live_access_tokens(ADA), 3, "CASCADE");
}
