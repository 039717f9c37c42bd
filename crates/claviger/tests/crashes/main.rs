//! The gateway is killed (SIGKILL) again and again at random moments under load, on its real SQLite file.
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

mod gateway;
mod history;

use std::{sync::Arc, time::Duration};

use claviger_mock::Rotation;

use crate::{gateway::Site, history::violations};

/// So many kills, unless `CRASH_TEST_KILLS` says otherwise.
const KILLS: u32 = 6;
const SESSIONS: usize = 150;
const WORKERS: usize = 8;
/// Longer than a claim's lease of 30 seconds: a refresh that was cut off waits for it.
const RECOVERY: Duration = Duration::from_secs(90);

fn kills() -> u32 {
    std::env::var("CRASH_TEST_KILLS")
        .ok()
        .map_or(KILLS, |text| text.parse().expect("CRASH_TEST_KILLS is a number"))
}

/// Kills the gateway again and again, and judges what is left. Gives how often a spent refresh token was sent.
async fn survive(rotation: Rotation, settings: &str) -> u64 {
    let site = Arc::new(Site::new(rotation, settings).await);
    let mut running = site.start().await;
    let devices = site.sign_in(SESSIONS).await;
    let mut findings = Vec::new();
    for kill in 1..=kills() {
        let load = site.load(&devices, WORKERS);
        site.await_answers(20 + (kill * 37) % 150).await;
        running.kill();
        load.stop().await;
        findings.push(site.rows(&devices).await);
        running = site.start().await;
        if kill % 20 == 0 {
            eprintln!("{kill} kills, {} refreshes", site.refreshes());
        }
    }
    let ambiguous = findings.iter().flatten().filter(|row| row.claimed).count();
    eprintln!("{} refreshes; kills found {ambiguous} of them under way", site.refreshes());
    let sessions: Vec<_> = devices.iter().map(|device| device.session).collect();
    assert_eq!(violations(&sessions, &findings), []);
    assert_eq!(site.complaints(), Vec::<String>::new(), "TRANSIENT: what clients saw");
    site.all_recover(&devices, RECOVERY).await;
    running.kill();
    let last = vec![site.rows(&devices).await];
    assert_eq!(violations(&sessions, &last), []);
    assert!(last[0].iter().all(|row| !row.claimed), "LIVE: every ambiguous row recovered");
    site.reused()
}

/// A refresh token is good once, a second use kills the connection, and so it is never made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_is_lost_with_a_provider_that_forgives_nothing() {
    let strict = "provider.rotation = \"one_time\"\nprovider.replay_window = \"0s\"\nprovider.reuse_kills_connection = true";
    let reused = survive(Rotation::OneTimeKillsConnection, strict).await;
    assert_eq!(reused, 0, "SPENT");
}

/// With what is known of Twitch, a refresh token whose answer was lost is sent once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_is_lost_with_twitchs_habits() {
    survive(Rotation::Rotates, "").await;
}
