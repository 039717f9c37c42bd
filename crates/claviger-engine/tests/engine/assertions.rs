//! Assertions: what they say, how long one is used, and keys that rotate while verifiers keep old
//! ones.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use claviger_core::{Assurance, SealedBlob, Version, limits};
use claviger_engine::{AssertionSettings, Caller, Denied, Engine, KeysRefused, Parts};
use claviger_seal::{KeyId, Keyring, RootKey};
use claviger_store::{Method, SharedEntry, Store as _};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, jwk::JwkSet};
use serde_json::{Value, json};

use crate::{
    faulty_store::{FaultyStore, Trick},
    world::{ADA, Browser, DAY, HOUR, Instance, MINUTE, ManualClock, SECOND, Setup, World, keyring},
};

const ENTRY: &str = "assertion-keys";
const LIFE: Duration = limits::ASSERTION_LIFE;
const PROVIDER: Assurance = Assurance::Provider { max_age: Duration::from_secs(1) };

fn wanted(setup: &mut Setup) {
    setup.assertions =
        Some(AssertionSettings { issuer: "https://app.example".to_owned(), audience: "app".to_owned() });
}

fn key_set(app: &Engine) -> JwkSet {
    serde_json::from_slice(&app.key_set().unwrap().expect("assertions are wanted")).unwrap()
}

fn published(app: &Engine) -> Vec<String> {
    key_set(app).keys.into_iter().map(|key| key.common.key_id.unwrap()).collect()
}

fn assertion(app: &Engine, caller: &Caller) -> String {
    app.assertion(caller).unwrap().expect("assertions are wanted").expose().to_owned()
}

fn header(token: &str) -> Header {
    jsonwebtoken::decode_header(token).unwrap()
}

/// What an app reads that has these keys. Its clock is right.
fn verified(keys: &JwkSet, token: &str, world: &World) -> Option<Value> {
    let _installed = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let key = keys.find(&header(token).kid?)?;
    let mut rules = Validation::new(Algorithm::ES256);
    rules.set_audience(&["app"]);
    rules.set_issuer(&["https://app.example"]);
    rules.validate_exp = false;
    let key = DecodingKey::from_jwk(key).unwrap();
    let claims = jsonwebtoken::decode::<Value>(token, &key, &rules).ok()?.claims;
    (claims["exp"].as_i64().unwrap() > world.clock.true_now().as_secs()).then_some(claims)
}

/// What an assertion says. The signature is not checked.
fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

/// The assertion of a request that only needs its row.
async fn asserted(app: &Instance, browser: &Browser) -> String {
    assertion(app, &browser.asks_with(app, Assurance::Row).await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn an_assertion_says_who_calls_and_how_that_is_known() {
    let (world, app) = World::with(wanted).await;
    let browser = world.sign_in(&app, ADA).await;
    let signed_in = world.now().as_secs();
    world.pass(10 * SECOND);
    let cases = [
        (Assurance::Cookie, "cookie", false),
        (Assurance::Session, "session", true),
        (PROVIDER, "provider", true),
    ];
    for (asked, assurance, proven) in cases {
        let caller = browser.asks_with(&app, asked).await.unwrap();
        let token = assertion(&app, &caller);
        let head = header(&token);
        assert_eq!((head.alg, head.typ.as_deref()), (Algorithm::ES256, Some("claviger-assertion+jwt")));
        let now = world.now().as_secs();
        let mut expected = json!({
            "iss": "https://app.example", "aud": "app", "sub": format!("twitch:{ADA}"),
            "iat": now, "exp": now + 60, "auth_time": signed_in, "sid": browser.session.to_string(),
            "provider": "twitch", "name": caller.display_name(), "assurance": assurance,
        });
        if proven {
            let at = if asked == PROVIDER { now } else { signed_in };
            expected["proof_time"] = at.into();
        }
        assert_eq!(verified(&key_set(&app), &token, &world), Some(expected), "{asked:?}");
        let debug =
            format!("{:?} {:?}", app.assertion(&caller), app.assertion(&caller).unwrap().unwrap().header());
        assert!(!debug.contains(&token), "SECRET: {debug}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_setting_there_are_neither_keys_nor_assertions() {
    let (world, app) = World::start().await;
    let caller = world.sign_in(&app, ADA).await.asks(&app).await.unwrap();
    app.look_at_signing_keys().await.unwrap();
    assert!(app.assertion(&caller).unwrap().is_none());
    assert_eq!(app.key_set(), Ok(None));
    assert_eq!(world.memory.shared_entry(ENTRY).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn one_signature_serves_until_half_of_its_life_or_a_new_proof() {
    let (world, app) = World::with(wanted).await;
    let browser = world.sign_in(&app, ADA).await;
    let first = assertion(&app, &browser.asks(&app).await.unwrap());
    world.pass(LIFE / 2 - SECOND);
    assert_eq!(assertion(&app, &browser.asks(&app).await.unwrap()), first);
    assert_ne!(asserted(&app, &browser).await, first, "another assurance");
    world.pass(SECOND);
    let second = assertion(&app, &browser.asks(&app).await.unwrap());
    assert_ne!(second, first);
    let proven = browser.asks_with(&app, PROVIDER).await.unwrap();
    assert_ne!(assertion(&app, &proven), second);
    let third = assertion(&app, &browser.asks(&app).await.unwrap());
    assert_ne!(third, second, "the proof is another one");

    world.clock.set_wrong(HOUR);
    let ahead = assertion(&app, &browser.asks(&app).await.unwrap());
    world.clock.set_wrong(Duration::ZERO);
    assert_ne!(assertion(&app, &browser.asks(&app).await.unwrap()), ahead, "CLOCK: it is from the future");
    let other = world.sign_in(&app, ADA).await;
    let token = assertion(&app, &other.asks(&app).await.unwrap());
    assert_eq!(verified(&key_set(&app), &token, &world).unwrap()["sid"], other.session.to_string(), "ISO");
}

/// A verifier has a copy of the keys that is 23 hours old, and never asks again.
#[tokio::test(start_paused = true)]
async fn a_rotation_refuses_nobody_who_has_the_keys_of_yesterday() {
    let (world, app) = World::with(wanted).await;
    let other = world.instance().await;
    assert_eq!(published(&app), published(&other), "they agree on the first key");
    let mut browser = world.sign_in(&app, ADA).await;
    let mut copies = VecDeque::from(vec![key_set(&app); 23]);
    let mut signers = BTreeSet::new();
    for hour in 1..=70 * 24 {
        world.pass(HOUR);
        if hour % (7 * 24) == 0 {
            browser = world.sign_in(&app, ADA).await;
        }
        // The one that looks first takes the step, and the other one follows.
        app.look_at_signing_keys().await.unwrap();
        let late = asserted(&other, &browser).await;
        other.look_at_signing_keys().await.unwrap();
        let yesterday = copies.pop_front().unwrap();
        for token in [asserted(&app, &browser).await, late] {
            assert!(verified(&yesterday, &token, &world).is_some(), "{hour}: {:?}", header(&token));
            signers.insert(header(&token).kid.unwrap());
        }
        assert_eq!(published(&app), published(&other));
        assert!(published(&app).len() <= 2, "{:?}", published(&app));
        copies.push_back(key_set(&other));
    }
    assert_eq!(signers.len(), 3, "two rotations in 70 days");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_not_confirmed_rotates_nothing() {
    let (world, app) = World::with(wanted).await;
    let first = published(&app);
    world.clock.set_wrong(365 * DAY);
    let ahead = world.instance().await;
    for app in [&app, &ahead] {
        app.look_at_signing_keys().await.unwrap();
        assert_eq!(published(app), first, "CLOCK: no provider confirmed the year that passed");
    }
    // The provider names its time, so all instances agree on it.
    let browser = world.sign_in(&ahead, ADA).await;
    ahead.look_at_signing_keys().await.unwrap();
    assert_eq!(published(&ahead), first);
    assert!(verified(&key_set(&app), &asserted(&ahead, &browser).await, &world).is_some());
    world.clock.set_wrong(Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn one_instance_makes_the_first_key_and_the_next() {
    let (world, app) = World::with(wanted).await;
    let browser = world.sign_in(&app, ADA).await;
    let apps = [app, world.instance().await, world.instance().await];
    for other in &apps {
        browser.asks_with(other, PROVIDER).await.unwrap();
        world.pass(2 * SECOND);
    }
    world.pass(limits::SIGNING_KEY_LIFE);
    let looks = futures_util::future::join_all(apps.iter().map(|app| app.look_at_signing_keys())).await;
    assert!(looks.iter().all(Result::is_ok), "{looks:?}");
    let [first, others @ ..] = &apps;
    assert_eq!(published(first).len(), 2);
    for other in others {
        assert_eq!(published(other), published(first));
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_stops_no_assertion() {
    let (world, app) = World::with(wanted).await;
    let browser = world.sign_in(&app, ADA).await;
    let caller = browser.asks(&app).await.unwrap();
    app.faulty_store.down(true);
    world.pass(MINUTE);
    app.look_at_signing_keys().await.unwrap_err();
    assert!(verified(&key_set(&app), &assertion(&app, &caller), &world).is_some());
    app.faulty_store.down(false);

    world.pass(limits::SIGNING_KEY_LIFE);
    app.faulty_store.next(Method::PutSharedEntry, Trick::FailAfter);
    app.look_at_signing_keys().await.unwrap_err();
    assert_eq!(published(&app).len(), 1, "it is not known whether the next key was stored");
    app.look_at_signing_keys().await.unwrap();
    assert_eq!(published(&app).len(), 2, "it was");
    let other = world.instance().await;
    assert_eq!(published(&other), published(&app));
}

#[tokio::test(start_paused = true)]
async fn keys_survive_a_change_of_the_keyring() {
    let (world, app) = World::with(wanted).await;
    let keys = published(&app);
    app.use_keys(keyring(&[2, 1])).await.unwrap();
    app.reseal().await.unwrap();
    app.use_keys(keyring(&[2])).await.unwrap();
    let restarted = world.instance_with(&[2]).await;
    assert_eq!(published(&restarted), keys, "they are sealed with the new key");
    assert_eq!(restarted.require_keys().await, Ok(()));
}

/// Assertions are off while the key changes, and are turned on again after it left.
#[tokio::test(start_paused = true)]
async fn keys_are_resealed_without_the_setting() {
    let (mut world, app) = World::with(wanted).await;
    let keys = published(&app);
    let settings = world.assertions.take();
    let off = world.instance_with(&[2, 1]).await;
    off.reseal().await.unwrap();
    let SharedEntry { value, .. } = world.memory.shared_entry(ENTRY).await.unwrap().unwrap();
    assert_eq!(KeyId::of(SealedBlob(value).head()), Some(KeyId(2)));
    world.assertions = settings;
    let on = world.instance_with(&[2]).await;
    assert_eq!((on.require_keys().await, published(&on)), (Ok(()), keys));
}

#[tokio::test(start_paused = true)]
async fn only_the_operators_word_replaces_keys_that_do_not_open() {
    let (world, app) = World::with(wanted).await;
    let browser = world.sign_in(&app, ADA).await;
    let caller = browser.asks(&app).await.unwrap();
    let keys = published(&app);
    let stored = world.memory.shared_entry(ENTRY).await;
    let faulty_store = Arc::new(FaultyStore::new(Arc::clone(&world.memory)));
    let impostor = Keyring::new(vec![RootKey::new(KeyId(1), [9; 32])]).unwrap();
    let parts = Parts { keyring: impostor, ..world.parts(faulty_store, &[1]) };
    let wrong = Engine::start(parts).await.unwrap();
    assert_eq!(wrong.require_keys().await, Err(KeysRefused::AssertionKeysDoNotOpen));
    let missing = world.instance_with(&[2]).await;
    for lone in [&wrong, &missing.engine] {
        lone.look_at_signing_keys().await.unwrap();
        assert_eq!(world.memory.shared_entry(ENTRY).await, stored, "they serve other instances");
        assert!(matches!(lone.key_set(), Err(Denied::Store(_))));
        assert!(matches!(lone.assertion(&caller), Err(Denied::Store(_))), "503, not a request without it");
    }

    app.replace_unreadable_signing_keys().await.unwrap();
    assert_eq!(world.memory.shared_entry(ENTRY).await, stored, "it can open them");
    missing.replace_unreadable_signing_keys().await.unwrap();
    assert_ne!(published(&missing), keys);
    app.look_at_signing_keys().await.unwrap();
    assert_eq!(published(&app), keys, "an instance that cannot open the new ones keeps its own");
}

#[tokio::test(start_paused = true)]
async fn a_missing_key_and_damage_are_named_at_a_start() {
    let (world, _app) = World::with(wanted).await;
    let keyless = world.instance_with(&[2]).await;
    assert_eq!(keyless.require_keys().await, Err(KeysRefused::SignsAssertions(KeyId(1))));
    let damaged = SharedEntry { version: Version(2), value: vec![0; 40] };
    assert_eq!(world.memory.put_shared_entry(ENTRY, &damaged).await, Ok(true));
    let app = world.instance().await;
    assert_eq!(app.require_keys().await, Err(KeysRefused::AssertionKeysDoNotOpen));
}

#[tokio::test(start_paused = true)]
async fn an_assertion_has_the_providers_time() {
    let (world, app) = World::with(wanted).await;
    for set_wrong in [ManualClock::set_wrong, ManualClock::set_back] {
        set_wrong(&world.clock, HOUR);
        // Its answer names its time.
        let browser = world.sign_in(&app, ADA).await;
        let claims = claims(&asserted(&app, &browser).await);
        let (iat, now) = (claims["iat"].as_i64().unwrap(), world.clock.true_now().as_secs());
        assert!(iat.abs_diff(now) <= 2, "CLOCK: {iat} is not {now}");
        assert_eq!(claims["exp"], iat + 60);
    }
}
