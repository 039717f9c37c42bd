//! SECRET: no log line or debug output contains a token, code, secret or cookie.

use std::{
    fmt::Debug,
    io::Write,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use claviger_core::{ApiRefusal, Assurance, ClientSecret, Custody, EndReason, ReturnTo};
use claviger_engine::{Callback, Target};
use claviger_mock::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Endpoint, FaultKind};
use claviger_seal::SessionCookie;
use tracing_subscriber::filter::LevelFilter;

use crate::{
    faulty_store::Trick,
    world::{ADA, GRACE, HOUR, Instance, MINUTE, NOW, ROTATES, SECOND, World, keyring, subject},
};

/// Everything that was logged or printed, and every secret that must not be in it.
#[derive(Clone, Default)]
struct Canary {
    shown: Arc<Mutex<Vec<u8>>>,
    secrets: Arc<Mutex<Vec<String>>>,
}

impl Write for Canary {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.shown.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Canary {
    fn show(&self, value: &impl Debug) {
        writeln!(self.clone(), "{value:?} {value:#?}").unwrap();
    }

    fn hide(&self, secret: impl Into<String>) {
        self.secrets.lock().unwrap().push(secret.into());
    }

    fn hide_cookie(&self, value: &str) {
        self.hide(value);
        if let Ok(cookie) = SessionCookie::open(&keyring(&[1]), value) {
            let secret = cookie.secret.expose();
            self.hide(URL_SAFE_NO_PAD.encode(secret));
            self.hide(format!("{secret:?}"));
            self.hide(secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            self.show(&cookie);
        }
    }

    fn check(&self, world: &World) {
        world.twitch.secrets().into_iter().for_each(|secret| self.hide(secret));
        self.hide(DEMO_CLIENT_SECRET);
        let shown = String::from_utf8(self.shown.lock().unwrap().clone()).unwrap();
        assert!(shown.contains("signed in"), "the log is captured");
        assert!(shown.contains("said=\"slow_down"), "words of the provider are logged");
        for secret in self.secrets.lock().unwrap().iter().filter(|secret| !secret.is_empty()) {
            let line = shown.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(line, None, "SECRET");
        }
    }
}

async fn sign_in(canary: &Canary, world: &World, app: &Instance, user: &str) -> SessionCookie {
    let started = app.begin_login(ReturnTo::root(), false);
    canary.show(&started);
    canary.hide(&started.cookie);
    let callback = world.agree(user, &started);
    canary.show(&callback);
    canary.hide(&callback.state);
    let signed_in = app.finish_login(callback, Some(&started.cookie), None, "curl/8").await.unwrap();
    canary.show(&signed_in);
    let cookie = signed_in.cookie.clone().expect("a new session has a new cookie");
    canary.hide_cookie(&cookie);
    let cached = signed_in.cached_token_cookie.clone().expect("the setting is on");
    canary.hide(&cached);
    canary.show(&app.open_cached_token(&cached));
    app.open_cookie(&cookie).unwrap()
}

/// Signs in with every kind of failure.
async fn failing_sign_ins(canary: &Canary, world: &World, app: &Instance) {
    for endpoint in [Endpoint::Token, Endpoint::Validate] {
        for kind in crate::proofs::troubles() {
            world.twitch.always(endpoint, kind);
            canary.show(&world.sign_in_again(app, ADA, None).await.map(|_| ()));
            world.mend();
        }
    }
    world.run_for(SECOND).await;
    world.pass(MINUTE);
    world.twitch.echo();
    canary.show(&world.sign_in_again(app, ADA, None).await.map(|_| ()));
    world.mend();
    let started = app.begin_login(ReturnTo::root(), false);
    let callback = Callback { iss: Some("x".to_owned()), ..world.agree(ADA, &started) };
    canary.show(&app.finish_login(callback, Some(&started.cookie), None, "").await);
    app.faulty_store.next(claviger_store::Method::Insert, Trick::FailAfter);
    canary.show(&world.sign_in_again(app, ADA, None).await.map(|_| ()));
    world.run_for(MINUTE).await;
}

/// Sends requests through every failure, until the session is served again.
async fn troubled_requests(canary: &Canary, world: &World, app: &Instance, cookie: &SessionCookie) {
    world.twitch.echo();
    world.pass(5 * HOUR);
    canary.show(&app.authenticate(cookie.clone(), NOW).await);
    world.mend();
    for endpoint in [Endpoint::Token, Endpoint::Validate] {
        for kind in crate::proofs::troubles() {
            world.twitch.always(endpoint, kind);
            world.pass(5 * HOUR);
            canary.show(&app.authenticate(cookie.clone(), NOW).await);
            canary.show(&app.grant(cookie, None, claviger_core::Presence::Active).await);
            app.faulty_store.next(claviger_store::Method::Apply, Trick::FailAfter);
            canary.show(&app.authenticate(cookie.clone(), Assurance::Session).await);
            world.mend();
            world.run_for(SECOND).await;
        }
    }
}

async fn story(canary: &Canary, custody: Custody) {
    let (mut world, app) = World::with(|setup| {
        setup.settings.custody = custody;
        setup.settings.carry_access_token = true;
        setup.provider.habits = ROTATES;
        setup.provider.client.dialect.pkce = true;
        setup.mock.pkce = true;
        setup.mock.rotation = claviger_mock::Rotation::Rotates;
    })
    .await;
    canary.show(&world.provider);
    canary.show(&world.settings);
    canary.show(&keyring(&[1, 2]));
    let (one, two) = (sign_in(canary, &world, &app, ADA).await, sign_in(canary, &world, &app, GRACE).await);
    failing_sign_ins(canary, &world, &app).await;
    for cookie in [&one, &two] {
        let caller = app.authenticate(cookie.clone(), Assurance::Cookie).await.unwrap();
        canary.show(&caller);
        canary.show(&app.authenticate(cookie.clone(), Assurance::Session).await);
        let grant = app.grant(cookie, None, claviger_core::Presence::Active).await.unwrap();
        canary.show(&grant);
        for refusal in [ApiRefusal::Unclear, ApiRefusal::DeadToken, ApiRefusal::NotTheToken] {
            canary.show(&app.grant_after_refusal(cookie, &grant, refusal).await);
        }
        canary.show(&world.row(cookie.session).await);
    }
    troubled_requests(canary, &world, &app, &one).await;

    world.provider.client.secret = ClientSecret::new("another-client-secret");
    canary.hide("another-client-secret");
    let misconfigured = world.instance().await;
    world.pass(5 * HOUR);
    canary.show(&misconfigured.authenticate(two.clone(), Assurance::Session).await);
    let keyless = world.instance_with(&[2]).await;
    canary.show(&keyless.grant(&two, None, claviger_core::Presence::Active).await);

    world.twitch.mock().disconnect(ADA, DEMO_CLIENT_ID);
    canary.show(&app.authenticate(one.clone(), NOW).await);
    canary.show(&app.end_own(&two, EndReason::SignedOut).await);
    let all = Target::AllOf(subject(ADA), world.now());
    canary.show(&all);
    canary.show(&app.end(all, EndReason::SignedOutEverywhere).await);
    world.twitch.always(Endpoint::Revoke, FaultKind::status(503));
    canary.show(&app.carry_out_revocations().await);
    canary.show(&keyless.carry_out_revocations().await);
    world.mend();
    world.pass(HOUR);
    canary.show(&app.carry_out_revocations().await);
    canary.show(&app.devices(&subject(ADA)).await);
    canary.show(&*world.memory);
    app.drain().await;
    canary.check(&world);
}

#[tokio::test(start_paused = true)]
async fn no_secret_is_logged_or_printed() {
    // With a single subscriber, a call site that another thread reaches first would count as
    // disabled.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    for custody in [Custody::Device, Custody::Server] {
        let canary = Canary::default();
        let writer = canary.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let _captured = tracing::subscriber::set_default(subscriber);
        story(&canary, custody).await;
    }
}
