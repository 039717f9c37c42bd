//! The user's name, as the provider says it.

use claviger_core::Assurance;
use claviger_mock::UserPatch;
use claviger_store::Method;

use crate::{
    faulty_store::Trick,
    world::{ADA, Browser, GRACE, HOUR, Instance, World},
};

impl World {
    fn rename(&self, user: &str, login: &str) {
        let patch = UserPatch::rename(login, login);
        self.twitch.mock().patch_user(user, &patch).unwrap();
    }
}

/// What apps get for each assurance.
async fn names(app: &Instance, browser: &Browser) -> [String; 2] {
    let with = async |assurance| {
        let caller = browser.asks_with(app, assurance).await.unwrap();
        caller.display_name().to_owned()
    };
    [with(Assurance::Session).await, with(Assurance::Cookie).await]
}

#[tokio::test(start_paused = true)]
async fn a_new_name_shows_on_every_device_after_one_validation() {
    for by_sweep in [false, true] {
        let (world, app) = World::start().await;
        let devices = world.sign_in_on(&app, 3).await;
        let grace = world.sign_in(&app, GRACE).await;
        let before = world.row(devices[1].session).await;
        world.rename(ADA, "lovelace");
        assert_eq!(names(&app, &devices[0]).await, ["ada_builds", "ada_builds"], "nobody asked as yet");
        world.pass(HOUR);
        if by_sweep {
            app.sweep_due().await.unwrap();
        } else {
            devices[0].asks(&app).await.unwrap();
        }
        world.rest().await;
        for device in &devices {
            let stored = world.row(device.session).await.display_name;
            assert_eq!(stored, "lovelace", "by the sweep: {by_sweep}");
            device.asks(&app).await.expect("from now on memory holds the row");
            assert_eq!(names(&app, device).await, ["lovelace", "lovelace"], "by the sweep: {by_sweep}");
        }
        assert_eq!(names(&app, &grace).await, ["grace_plays", "grace_plays"], "BLAST");
        let after = world.row(devices[1].session).await;
        assert_eq!((after.last_seen_at, after.generation()), (before.last_seen_at, before.generation()));
        assert_eq!(after.created_at, before.created_at);
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_not_written_comes_with_the_next_answer() {
    let (world, app) = World::start().await;
    let device = world.sign_in(&app, ADA).await;
    world.rename(ADA, "lovelace");
    world.pass(HOUR);
    app.faulty_store.next(Method::Devices, Trick::Fail);
    device.asks(&app).await.unwrap();
    world.rest().await;
    assert_eq!(world.row(device.session).await.display_name, "ada_builds");
    world.pass(HOUR);
    device.asks(&app).await.unwrap();
    world.rest().await;
    assert_eq!(world.row(device.session).await.display_name, "lovelace");
}

/// An answer without a name is no news.
#[tokio::test(start_paused = true)]
async fn an_answer_without_a_name_keeps_the_old_one() {
    let (world, app) = World::start().await;
    let device = world.sign_in(&app, ADA).await;
    world.twitch.rewrite(claviger_mock::Endpoint::Validate, |body| {
        drop(body.as_object_mut().unwrap().remove("login"))
    });
    world.pass(HOUR);
    device.asks(&app).await.unwrap();
    world.rest().await;
    assert_eq!(world.row(device.session).await.display_name, "ada_builds");
}
