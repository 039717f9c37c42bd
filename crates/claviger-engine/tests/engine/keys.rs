//! Keys change while everything runs: no session ends, no request fails, and nothing stays on an
//! old key.

use claviger_core::{Assurance, Custody, EndReason, SealedBlob, SessionId, limits};
use claviger_engine::{CookieUse, Denied, KeyRole, KeysRefused, LoginError, SealedRows, Target};
use claviger_mock::{Endpoint, FaultKind, LiveTokenLimit, Rotation};
use claviger_seal::{KeyId, Keyring, RootKey};
use claviger_store::{Method, Store};

use crate::{
    crowd::{crowded, parked, user},
    world::{ADA, Browser, GRACE, HOUR, Instance, MINUTE, NOW, SECOND, World, keyring},
};

/// Counts the rows that each key sealed.
async fn rows(app: &Instance) -> Vec<(u32, u64)> {
    let keys = app.keys().await.unwrap().into_iter();
    keys.filter(|key| key.rows.count() > 0).map(|key| (key.key.0, key.rows.count())).collect()
}

/// A browser after an answer that renewed its cookie.
fn renewed(app: &Instance, browser: &Browser) -> Browser {
    let value = app.reseal_cookie(&browser.value).expect("an older key sealed it");
    Browser { cookie: app.open_cookie(&value).unwrap(), value, ..browser.clone() }
}

fn in_use(key: u32, sessions: u64, revocations: u64) -> KeysRefused {
    KeysRefused::InUse { key: KeyId(key), rows: SealedRows { sessions, revocations } }
}

#[tokio::test(start_paused = true)]
async fn resealing_frees_the_old_key() {
    for custody in [Custody::Device, Custody::Server] {
        let (world, app) = World::with(|setup| setup.settings.custody = custody).await;
        let browser = world.sign_in(&app, ADA).await;
        let before = world.row(browser.session).await;
        let token = world.access_token(browser.session).await;
        app.use_keys(keyring(&[2, 1])).await.unwrap();
        assert_eq!(rows(&app).await, [(1, 1)]);
        assert_eq!(browser.grant(&app).await.unwrap().token.expose(), token);
        assert_eq!(app.reseal().await, Ok(0));
        assert_eq!(rows(&app).await, [(2, 1)]);
        let after = world.row(browser.session).await;
        assert_eq!((after.version, after.generation()), (before.version.next(), before.generation()), "MONO");
        assert_eq!(after.last_seen_at, before.last_seen_at, "IDLE");

        let browser = renewed(&app, &browser);
        app.use_keys(keyring(&[2])).await.unwrap();
        assert_eq!(browser.grant(&app).await.unwrap().token.expose(), token);
        world.expire_tokens();
        browser.grant(&app).await.expect("the refresh token opens too");
        assert_eq!(world.twitch.refreshes(), 1);
        assert_eq!(app.reseal_cookie(&browser.value), None, "it is as new as can be");
        assert_eq!(world.end_reason(browser.session).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_in_use_is_not_retired() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let refused = app.use_keys(keyring(&[2])).await.unwrap_err();
    assert_eq!(refused, in_use(1, 1, 0));
    let told = refused.to_string();
    assert!(told.contains("key 1") && told.contains("1 sessions") && told.contains("operator"), "{told}");
    browser.grant(&app).await.expect("the old keys stay in force");

    let keyless = world.instance_with(&[2]).await;
    assert_eq!(keyless.require_keys().await, Err(in_use(1, 1, 0)), "at a start");
    assert_eq!(keyless.keys().await.unwrap()[1].role, KeyRole::Missing);
    keyless
        .use_keys(keyring(&[3, 2]))
        .await
        .expect("what was missing before keeps nobody from adding others");
    keyless.use_keys(keyring(&[3, 2, 1])).await.unwrap();
    assert_eq!(keyless.require_keys().await, Ok(()));

    app.end(Target::One(browser.session), EndReason::SignedOut).await.unwrap();
    assert_eq!(
        app.use_keys(keyring(&[2])).await,
        Err(in_use(1, 0, 1)),
        "CASCADE: what is owed needs it as well"
    );
    world.rest().await;
    app.carry_out_revocations().await.unwrap();
    app.use_keys(keyring(&[2])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn contradicting_keys_are_refused() {
    let (_world, app) = World::start().await;
    let impostor = Keyring::new(vec![RootKey::new(KeyId(1), [99; 32])]).unwrap();
    assert_eq!(app.use_keys(impostor).await, Err(KeysRefused::Contradiction(KeyId(1))));
}

#[tokio::test(start_paused = true)]
async fn a_store_outage_retires_no_key() {
    let (_world, app) = World::start().await;
    app.faulty_store.down(true);
    assert!(matches!(app.use_keys(keyring(&[2])).await, Err(KeysRefused::Store(_))));
    app.use_keys(keyring(&[2, 1])).await.expect("to add one needs no store");
}

#[tokio::test(start_paused = true)]
async fn with_one_key_nothing_is_counted() {
    let (world, app) = World::start().await;
    world.sign_in(&app, ADA).await;
    assert_eq!(app.reseal().await, Ok(0));
    assert_eq!(world.memory.calls(Method::KeyIdCounts), 0);
}

#[tokio::test(start_paused = true)]
async fn pending_revocations_are_resealed_when_tried() {
    let (world, app) = World::with(|setup| {
        setup.settings.custody = Custody::Server;
        setup.provider.capabilities.revocation.as_mut().unwrap().refresh_tokens =
            claviger_provider::RefreshTokens::All;
    })
    .await;
    let browser = world.sign_in(&app, ADA).await;
    let token = world.access_token(browser.session).await;
    world.twitch.always(Endpoint::Revoke, FaultKind::status(500));
    app.end(Target::One(browser.session), EndReason::SignedOut).await.unwrap();
    app.carry_out_revocations().await.unwrap();
    app.use_keys(keyring(&[2, 1])).await.unwrap();
    assert_eq!(rows(&app).await, [(1, 1)]);
    world.pass(HOUR);
    app.carry_out_revocations().await.unwrap();
    assert_eq!(rows(&app).await, [(2, 1)]);
    app.use_keys(keyring(&[2])).await.unwrap();
    world.mend();
    world.pass(HOUR);
    world.assert_revoked(&app, &token).await;
}

#[tokio::test(start_paused = true)]
async fn the_app_token_is_resealed() {
    let (world, app) = World::with(crowded).await;
    world.plant(ADA, parked).await;
    app.check_due_connections().await.unwrap();
    let before = world.memory.shared_entry("app-token").await.unwrap().expect("the probe needs one");
    let token = world.app_token().await;
    app.use_keys(keyring(&[2, 1])).await.unwrap();
    app.reseal().await.unwrap();
    let after = world.memory.shared_entry("app-token").await.unwrap().unwrap();
    assert_eq!(after.version, before.version.next());
    assert_eq!(KeyId::of(SealedBlob(after.value[8..].to_vec()).head()), Some(KeyId(2)));
    assert_eq!(world.app_token().await, token);
}

/// Two steps, so that every instance can open what another seals: add the new key everywhere, then
/// seal with it everywhere.
#[tokio::test(start_paused = true)]
async fn a_mixed_fleet_rolls_from_one_key_to_the_next() {
    let (world, old) = World::start().await;
    let new = world.instance().await;
    let fleet = [&old, &new];
    let mut browsers = vec![world.sign_in(&old, ADA).await, world.sign_in(&new, GRACE).await];
    let all_are_served = async |browsers: &[Browser]| {
        for browser in browsers {
            for app in fleet {
                browser.grant(app).await.unwrap();
                browser.asks_with(app, NOW).await.unwrap();
            }
        }
    };
    for keys in [[1, 2], [2, 1]] {
        for app in fleet {
            app.use_keys(keyring(&keys)).await.unwrap();
            browsers.push(world.sign_in(app, ADA).await);
            all_are_served(&browsers).await;
            // Each instance reseals what is older for it, and no two work against each other.
            for app in fleet {
                app.reseal().await.unwrap();
                world.pass(limits::RESEAL_LEASE);
            }
            all_are_served(&browsers).await;
        }
    }
    assert_eq!(rows(&old).await, [(2, 6)]);
    let versions: Vec<_> = world.versions(&browsers).await;
    for app in fleet {
        assert_eq!(app.reseal().await, Ok(0));
    }
    assert_eq!(world.versions(&browsers).await, versions, "nothing is resealed twice");
    let browsers: Vec<_> =
        browsers
            .iter()
            .map(|browser| {
                if old.is_cookie_outdated(&browser.value) { renewed(&new, browser) } else { browser.clone() }
            })
            .collect();
    for app in fleet {
        app.use_keys(keyring(&[2])).await.unwrap();
    }
    all_are_served(&browsers).await;
}

/// An instance without the new key answers 503, names the key, signs nobody out, and recovers with
/// the key.
#[tokio::test(start_paused = true)]
async fn a_missing_key_signs_nobody_out() {
    let (world, old) = World::start().await;
    let new = world.instance_with(&[2, 1]).await;
    let browser = world.sign_in(&new, ADA).await;
    let missing = Denied::UnknownKey(KeyId(2));
    assert_eq!(old.open_cookie(&browser.value).unwrap_err(), missing);
    assert_eq!(browser.grant(&old).await.unwrap_err(), missing);
    assert_eq!(old.reseal_cookie(&browser.value), None);
    assert_eq!(world.end_reason(browser.session).await, None, "TRANSIENT");
    old.use_keys(keyring(&[1, 2])).await.unwrap();
    browser.grant(&old).await.unwrap();
    old.open_cookie(&browser.value).unwrap();
}

/// A row of the old key is in this instance's memory, though another instance has resealed it.
#[tokio::test(start_paused = true)]
async fn memory_holds_nothing_of_a_removed_key() {
    let (world, app) = World::start().await;
    let other = world.instance_with(&[2, 1]).await;
    let browser = world.sign_in(&app, ADA).await;
    browser.grant(&app).await.unwrap();
    app.use_keys(keyring(&[2, 1])).await.unwrap();
    browser.grant(&app).await.unwrap();
    assert_eq!(other.reseal().await, Ok(0));
    app.use_keys(keyring(&[2])).await.unwrap();
    world.pass(limits::KEY_LEAVES_AFTER);
    app.reseal().await.unwrap();
    browser.grant(&app).await.unwrap();
}

/// An ended session gets no new cookie: a late answer could replace that of the next sign-in.
#[tokio::test(start_paused = true)]
async fn the_cookie_of_a_session_that_ended_is_not_renewed() {
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    app.use_keys(keyring(&[2, 1])).await.unwrap();
    assert!(app.reseal_cookie(&browser.value).is_some());
    world.sign_in_again(&app, ADA, Some(&browser.cookie)).await.unwrap();
    assert_eq!(app.reseal_cookie(&browser.value), None);
    assert_eq!(app.reseal_cookie("AQAAAAFub25zZW5zZQ"), None);
}

#[tokio::test(start_paused = true)]
async fn two_instances_share_the_resealing_and_survive_a_crash() {
    let (world, app) = World::with(crowded).await;
    world.populate(40);
    let mut ids = Vec::new();
    for n in 0..800 {
        ids.push(world.plant(&user(n % 40), |_| {}).await);
    }
    let other = world.instance_with(&[2, 1]).await;
    app.use_keys(keyring(&[2, 1])).await.unwrap();
    let dies = tokio::spawn({
        let engine = app.engine.clone();
        async move { engine.reseal().await }
    });
    world.run_for(SECOND / 2).await;
    assert_eq!(other.reseal().await.map(|left| left > 0), Ok(true), "somebody is at it");
    assert_eq!(other.report().await.resealing.done, 0);
    dies.abort();
    let done = app.report().await.resealing.done;
    assert!(0 < done && done < 800, "{done}");
    world.pass(limits::RESEAL_LEASE);
    let mut left = other.reseal().await.unwrap();
    // Rows that the dead instance read but did not write are in a slot that it had not finished.
    if left > 0 {
        left = other.reseal().await.unwrap();
    }
    assert_eq!(left, 0);
    assert_eq!(rows(&other).await, [(2, 800)]);
    let mut versions = 0;
    for id in ids {
        versions += world.row(id).await.version.0 - 1;
    }
    assert_eq!(versions, 800, "each row once");
}

#[tokio::test(start_paused = true)]
async fn resealing_keeps_its_rate() {
    let (world, app) = World::with(crowded).await;
    world.populate(1);
    for _ in 0..1000 {
        world.plant(&user(0), |_| {}).await;
    }
    app.use_keys(keyring(&[2, 1])).await.unwrap();
    let begun = world.now();
    assert_eq!(app.reseal().await, Ok(0));
    let took = world.now().since(begun);
    assert!(took >= SECOND * 1000 / limits::RESEALS_PER_SECOND, "{took:?}");
}

/// The answer to a refresh arrives while its row is resealed.
#[tokio::test(start_paused = true)]
async fn resealing_does_not_disturb_a_refresh() {
    for custody in [Custody::Device, Custody::Server] {
        let (world, app) = World::with(|setup| setup.settings.custody = custody).await;
        world.twitch.mock().settings_mut().rotation = Rotation::OneTime;
        let browser = world.sign_in(&app, ADA).await;
        world.expire_tokens();
        let gate = world.twitch.hold(Endpoint::Token);
        let asking = tokio::spawn({
            let (engine, browser) = (app.engine.clone(), browser.clone());
            async move { browser.grant(&engine).await }
        });
        gate.arrived().await;
        app.use_keys(keyring(&[2, 1])).await.unwrap();
        app.reseal().await.unwrap();
        assert_eq!(rows(&app).await, [(2, 1)]);
        gate.open();
        let grant = asking.await.unwrap().unwrap();
        assert_eq!(grant.token.expose(), world.access_token(browser.session).await, "STRAND");
        assert_eq!(rows(&app).await, [(2, 1)]);
        world.assert_nothing_spent_twice();
    }
}

/// Users are active on both instances all the time, their tokens expire, and the keys roll.
#[tokio::test(start_paused = true)]
async fn a_rotation_under_load_fails_no_request() {
    let (world, app) = World::with(|setup| {
        setup.settings.custody = Custody::Server;
        setup.mock.live_token_limit = LiveTokenLimit::Off;
        setup.mock.token_lifetime_secs = 600;
        setup.settings.devices_per_user = 40;
    })
    .await;
    let other = world.instance().await;
    let (work, others_work) = (app.run(), other.run());
    let mut browsers = Vec::new();
    for n in 0..40 {
        browsers.push(world.sign_in(if n % 2 == 0 { &app } else { &other }, ADA).await);
    }
    let mut steps = [[1, 2], [2, 1]].iter().flat_map(|keys| [(&app, keys), (&other, keys)]);
    let mut served = 0;
    for round in 0..240 {
        if round % 30 == 10
            && let Some((instance, keys)) = steps.next()
        {
            instance.use_keys(keyring(keys)).await.unwrap();
        }
        let calls = browsers.iter_mut().enumerate().map(|(n, browser)| {
            let instance = if (n + round) % 2 == 0 { &app } else { &other };
            async move {
                browser.grant(instance).await.expect("no request fails");
                if instance.is_cookie_outdated(&browser.value) {
                    *browser = renewed(instance, browser);
                }
            }
        });
        served += futures_util::future::join_all(calls).await.len();
        world.run_for(5 * SECOND).await;
    }
    assert_eq!(served, 40 * 240);
    assert!(world.twitch.refreshes() > 40, "tokens expired meanwhile");
    assert_eq!(rows(&app).await, [(2, 40)], "nothing is left on the old key");
    for instance in [&app, &other] {
        instance.use_keys(keyring(&[2])).await.unwrap();
    }
    world.run_for(11 * MINUTE).await;
    for browser in &browsers {
        browser.grant(&app).await.unwrap();
        assert_eq!(world.end_reason(browser.session).await, None);
    }
    world.assert_nothing_spent_twice();
    work.stop().await;
    others_work.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_client_secret_counts_from_the_next_request() {
    let (world, app) = World::with(|setup| {
        setup.provider.client.secret = claviger_core::ClientSecret::new("an-old-one");
    })
    .await;
    let refused = world.sign_in_again(&app, ADA, None).await.unwrap_err();
    assert_eq!(refused, LoginError::Misconfigured);
    let secret = claviger_core::ClientSecret::new(claviger_mock::DEMO_CLIENT_SECRET);
    app.use_client_secret(secret).await;
    world.sign_in(&app, ADA).await;
}

impl World {
    async fn versions(&self, browsers: &[Browser]) -> Vec<(SessionId, u64)> {
        let mut versions = Vec::new();
        for browser in browsers {
            versions.push((browser.session, self.row(browser.session).await.version.0));
        }
        versions
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_key_may_go_when_no_cookie_of_it_can_be_shown_any_more() {
    let (world, app) = World::start().await;
    app.reseal().await.unwrap();
    app.use_keys(keyring(&[2, 1])).await.unwrap();
    let of_older = async || app.keys().await.unwrap().pop().unwrap();
    assert_eq!(of_older().await.cookies, CookieUse::Unknown, "nobody has written it down yet");
    app.reseal().await.unwrap();
    let until = world.now().after(world.settings.lifetimes.idle);
    assert_eq!(of_older().await.cookies, CookieUse::Until(until));
    assert!(!of_older().await.may_go());

    // An instance that still seals with the older key moves the time on.
    world.pass(HOUR);
    let behind = world.instance_with(&[1, 2]).await;
    behind.reseal().await.unwrap();
    let until = world.now().after(world.settings.lifetimes.idle);
    assert_eq!(of_older().await.cookies, CookieUse::Until(until));
    world.pass(world.settings.lifetimes.idle);
    assert!(of_older().await.may_go());
}

#[tokio::test(start_paused = true)]
async fn the_log_says_once_that_everything_is_sealed_even_by_ordinary_use() {
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let (log, _captured) = crate::store_health::Log::begin();
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    app.use_keys(keyring(&[2, 1])).await.unwrap();
    let said = || log.lines_with("everything is sealed with the newest key").len();
    app.keys().await.unwrap();
    assert_eq!(said(), 0, "a row is left");
    // Ordinary use seals the row, before the job does.
    world.expire_tokens();
    app.authenticate(browser.cookie.clone(), Assurance::Session).await.unwrap();
    for _ in 0..2 {
        app.keys().await.unwrap();
        assert_eq!(said(), 1);
    }
}
