//! Kills the gateway (SIGKILL) again and again at random moments under load, on its real SQLite
//! file.
//!
//! `cargo xtask crash --kills 200` makes the long run; the tests make a short one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a helper of a test may fail as a test does, and a long run tells how far it is"
)]

#[path = "../common/mod.rs"]
mod common;
mod gateway;
mod journal;

use std::{sync::Arc, time::Duration};

use claviger_mock::Rotation;

use crate::{
    common::{history::History, users::Device},
    gateway::Site,
    journal::Journal,
};

/// Number of kills, unless `CRASH_TEST_KILLS` is set.
const KILLS: u32 = 6;
/// From this number of kills on, a run is a long one.
const LONG: u32 = 50;
const SESSIONS: usize = 150;
const WORKERS: usize = 8;
/// Longer than a claim's lease of 30 seconds, for which an interrupted refresh waits.
const RECOVERY: Duration = Duration::from_secs(90);

fn kills() -> u32 {
    std::env::var("CRASH_TEST_KILLS")
        .ok()
        .map_or(KILLS, |text| text.parse().expect("CRASH_TEST_KILLS is a number"))
}

/// The result of a run.
struct Survived {
    site: Arc<Site>,
    history: History,
    /// How often a row was found ambiguous after a kill.
    ambiguous: usize,
}

/// Kills the gateway again and again, and judges what is left.
async fn survive(rotation: Rotation, settings: &str) -> Survived {
    let site = Arc::new(Site::new(rotation, settings));
    let mut running = site.start().await;
    let devices = site.sign_in(SESSIONS).await;
    running.kill();
    let mut journal = site.journal();
    let mut history = History::of(&site.rows(&devices).await);
    let mut ambiguous = 0;
    running = site.start().await;
    for kill in 1..=kills() {
        let load = site.load(&devices, WORKERS);
        site.users.go_on_for(20 + (kill * 37) % 150).await;
        running.kill();
        load.stop().await;
        ambiguous += judge(&site, &devices, &mut journal, &mut history).await;
        running = site.start().await;
        if kill % 20 == 0 {
            eprintln!("{kill} kills, {} refreshes, {} commits", site.users.refreshes(), history.commits);
        }
    }
    site.users.all_recover(&devices, RECOVERY).await;
    running.kill();
    assert_eq!(
        judge(&site, &devices, &mut journal, &mut history).await,
        0,
        "LIVE: every ambiguous row recovered"
    );
    let operations = std::mem::take(&mut *site.users.operations());
    assert_eq!(operations.violations(0), [], "what users saw");
    assert_eq!(history.renewals_without_need(&operations), []);
    let (sends, repairs) = (site.users.sends(), site.users.repairs());
    eprintln!(
        "{} commits, {} refreshes; {ambiguous} times a row was found ambiguous; {} tokens claimed again, {} of which had arrived before; {} sessions renewed",
        history.commits,
        site.users.refreshes(),
        history.replays(),
        sends.replays(),
        repairs.values().sum::<usize>(),
    );
    assert!(kills() < LONG || ambiguous > 0, "a long run hits some refresh in progress");
    Survived { site, history, ambiguous }
}

/// Judges the commits since the last kill and the rows. Returns the number of ambiguous rows, for
/// whose answers nobody waits any more.
async fn judge(site: &Site, devices: &[Arc<Device>], journal: &mut Journal, history: &mut History) -> usize {
    journal.news().into_iter().for_each(|commit| history.committed(commit));
    let rows = site.rows(devices).await;
    rows.iter().for_each(|row| history.found(row));
    assert_eq!(rows.len(), devices.len(), "TRANSIENT: rows are gone");
    assert_eq!(history.violations(), []);
    site.users.sends();
    rows.iter().filter(|row| row.claimed).count()
}

/// A refresh token is good once, and a second use would kill the connection, so it must never
/// happen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_with_a_strict_provider_lose_no_session() {
    let strict = "provider.rotation = \"one_time\"\nprovider.replay_window = \"0s\"\nprovider.reuse_kills_connection = true";
    let survived = survive(Rotation::OneTimeKillsConnection, strict).await;
    assert_eq!(survived.site.users.reused(), 0, "SPENT");
    assert_eq!(survived.site.users.sends().most(), 1, "SPENT");
    assert_eq!(survived.history.replays(), 0, "no token is claimed for a second sending");
    let repairs: usize = survived.site.users.repairs().values().sum();
    assert!(repairs > 0 || survived.ambiguous == 0, "what was ambiguous was renewed by its user");
}

/// With Twitch's habits a refresh token whose answer was lost is sent once more. Its user goes to
/// the provider only if that answer is lost too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_with_twitchs_habits_lose_no_session() {
    let survived = survive(Rotation::Rotates, "").await;
    assert!(survived.site.users.sends().most() <= 2, "SPENT: one replay");
    assert!(survived.history.replays() > 0 || survived.ambiguous == 0, "what was ambiguous was replayed");
    for (session, repairs) in survived.site.users.repairs() {
        let replays = survived.history.replays_of(session);
        assert!(
            repairs <= replays,
            "{session}: {repairs} repairs for {replays} replays that may have been lost"
        );
    }
}
