//! What is said about an outage of the store, and about each end of a session.

use std::{
    io,
    sync::{Arc, Mutex},
};

use claviger_core::{Assurance, EndReason};
use claviger_engine::{Denied, Target};
use claviger_store::StoreError;
use tracing::subscriber::DefaultGuard;

use crate::world::{ADA, MINUTE, SECOND, World, subject};

/// What this thread logs, while it lives.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The lines of level INFO and above.
    pub(crate) fn begin() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn lines_with(&self, part: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_logged_once_a_minute_and_its_end_once() {
    // With a single subscriber, a call site that another thread reaches first would count as
    // disabled.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let (log, _captured) = Log::begin();
    let (world, app) = World::start().await;
    let browser = world.sign_in(&app, ADA).await;
    let restarted = world.instance().await;
    world.memory.fail_with(Some(StoreError::Full("a test".to_owned())));
    for _ in 0..100 {
        let denied = restarted.authenticate(browser.cookie.clone(), Assurance::Session).await;
        assert!(matches!(denied, Err(Denied::Store(_))), "TRANSIENT: {denied:?}");
    }
    assert_eq!(log.lines_with("the session store fails; requests that need it wait, or get 503").len(), 1);
    world.pass(MINUTE);
    let _denied = restarted.authenticate(browser.cookie.clone(), Assurance::Session).await;
    let still = log.lines_with("the session store still fails");
    assert!(still.len() == 1 && still[0].contains("failures=101"), "{still:?}");
    assert_eq!(log.lines_with("is back"), [] as [&str; 0]);
    world.memory.fail_with(None);
    for _ in 0..2 {
        restarted.authenticate(browser.cookie.clone(), Assurance::Session).await.unwrap();
    }
    let back = log.lines_with("the session store is back");
    assert!(back.len() == 1 && back[0].contains("seconds=60"), "{back:?}");
}

#[tokio::test(start_paused = true)]
async fn a_report_says_what_fails_at_the_store_even_if_nobody_writes() {
    let (world, app) = World::start().await;
    let works = app.report().await;
    assert_eq!((works.store.reads, works.store.writes), (None, None));
    let full = StoreError::Full("a test".to_owned());
    world.memory.fail_with(Some(full.clone()));
    world.pass(SECOND);
    let report = app.report().await;
    assert_eq!(report.outbox, None);
    for failing in [report.store.reads, report.store.writes] {
        assert_eq!(failing.unwrap().error, full);
    }
    world.memory.fail_with(None);
    let again = app.report().await;
    assert_eq!((again.store.reads, again.store.writes), (None, None));
}

#[tokio::test(start_paused = true)]
async fn every_end_is_logged_with_session_user_and_reason() {
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let (log, _captured) = Log::begin();
    let (world, app) = World::start().await;
    let [own, other, third] = world.sign_in_on(&app, 3).await.try_into().unwrap();
    app.end_own(&own.cookie, EndReason::SignedOut).await.unwrap();
    let device = Target::DeviceOf(subject(ADA), other.session);
    app.end(device, EndReason::SignedOutFromAnotherDevice).await.unwrap();
    let all = Target::AllOf(subject(ADA), world.now());
    app.end(all, EndReason::SignedOutEverywhere).await.unwrap();
    let ends = log.lines_with("a session ended");
    for (session, reason) in [
        (own.session, EndReason::SignedOut),
        (other.session, EndReason::SignedOutFromAnotherDevice),
        (third.session, EndReason::SignedOutEverywhere),
    ] {
        let (session, reason) = (format!("session={session}"), format!("reason=\"{}\"", reason.name()));
        let said = |line: &&String| line.contains(&session) && line.contains(&reason) && line.contains(ADA);
        assert_eq!(ends.iter().filter(said).count(), 1, "{session} {reason}: {ends:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_operator_must_mend_is_logged_once_and_reported() {
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let (log, _captured) = Log::begin();
    let (world, app) = World::start().await;
    let running = app.run();
    world.run_for(MINUTE).await;
    app.faulty_store.has_trouble(Some("the file is gone"));
    world.run_for(3 * MINUTE).await;
    let said = log.lines_with("the file is gone");
    assert!(said.len() == 1 && said[0].contains("ERROR"), "{said:?}");
    assert_eq!(app.report().await.store.trouble.as_deref(), Some("the file is gone"));
    app.faulty_store.has_trouble(None);
    world.run_for(MINUTE).await;
    assert_eq!(log.lines_with("as it should be again").len(), 1);
    assert_eq!(app.report().await.store.trouble, None);
    running.stop().await;
}
