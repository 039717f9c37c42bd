//! Hundreds of sessions without a sign-in for each, engines that run, and the checks for all of
//! them.

use std::time::Duration;

use claviger_core::{
    AccessToken, ActiveState, Custody, DeviceLabel, Expiry, RefreshToken, SLOTS, SealedPair, Session,
    SessionId, SessionSecret, Slot, State, Timestamp, Version, limits,
};
use claviger_engine::Entropy;
use claviger_mock::{DEMO_CLIENT_ID, LiveTokenLimit, User};
use claviger_seal::{AccessPlain, Nonce, PairBinding, RefreshLock};
use claviger_store::{Placement, Store};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::world::{Instance, MINUTE, SCOPE, Setup, World, keyring, subject};

/// An engine with all its background work.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Instance {
    pub(crate) fn run(&self) -> Running {
        let (stop, engine) = (CancellationToken::new(), self.engine.clone());
        let token = stop.clone();
        Running { stop, task: tokio::spawn(async move { engine.run(token).await }) }
    }

    /// Runs the engine until it dies at some point and no longer reaches the store.
    pub(crate) fn die(&self, running: &Running) {
        self.faulty_store.down(true);
        running.task.abort();
    }
}

impl Running {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// Tokens live for days, and a user may have any number of them.
pub(crate) fn crowded(setup: &mut Setup) {
    setup.mock.live_token_limit = LiveTokenLimit::Off;
    setup.mock.token_lifetime_secs = 10 * 24 * 60 * 60;
    setup.settings.devices_per_user = 100_000;
}

/// A user of the mock, by number.
pub(crate) fn user(number: u64) -> String {
    format!("2{number:08}")
}

impl World {
    /// Adds this many users to the mock.
    pub(crate) fn populate(&self, users: u64) {
        for number in 0..users {
            self.twitch.mock().add_user(User::new(user(number), format!("user_{number}")));
        }
    }

    /// Adds a session as a sign-in just now would leave it. `change` modifies it.
    pub(crate) async fn plant(&self, user: &str, change: impl FnOnce(&mut Session)) -> SessionId {
        let mut random = [0; 10];
        self.entropy.fill(&mut random);
        self.plant_as(SessionId::new(self.now(), random), user, change).await
    }

    /// As above, in this slot.
    pub(crate) async fn plant_in(
        &self,
        slot: u16,
        user: &str,
        change: impl FnOnce(&mut Session),
    ) -> SessionId {
        let mut random = [0; 10];
        self.entropy.fill(&mut random);
        let within = u32::from_be_bytes([0, random[0], random[1], random[2]]) >> 2;
        random[6..].copy_from_slice(&((u32::from(slot) << 22) | within).to_be_bytes());
        let id = SessionId::new(self.now(), random);
        assert_eq!(Slot::of(id).number(), slot);
        self.plant_as(id, user, change).await
    }

    async fn plant_as(&self, id: SessionId, user: &str, change: impl FnOnce(&mut Session)) -> SessionId {
        let now = self.now();
        let tokens = self
            .twitch
            .mock()
            .sign_in(user, DEMO_CLIENT_ID, &[SCOPE], now.as_millis())
            .expect("a known user");
        let (ring, secret, subject) = (keyring(&[1]), SessionSecret::new([7; 32]), subject(user));
        let custody = self.settings.custody;
        let at = PairBinding { provider: &subject.provider, session: id, generation: Version::FIRST };
        let lock =
            if custody == Custody::Server { RefreshLock::Server } else { RefreshLock::Device(&secret) };
        let plain = AccessPlain {
            token: AccessToken::new(tokens.access_token.as_str()),
            scopes: vec![SCOPE.to_owned()],
        };
        let refresh = RefreshToken::new(tokens.refresh_token.as_str());
        let nonce = || {
            let mut nonce = Nonce::default();
            self.entropy.fill(&mut nonce);
            nonce
        };
        let pair = SealedPair {
            generation: Version::FIRST,
            access: ring.seal_access(at, &plain, nonce()),
            refresh: Some(ring.seal_refresh(at, lock, &refresh, nonce())),
            expiry: Expiry::At(now.after(Duration::from_secs(tokens.expires_in_secs.into()))),
        };
        let mut row = Session {
            id,
            version: Version::FIRST,
            subject: subject.clone(),
            display_name: self.login_of(user),
            secret_hash: secret.hash(),
            custody,
            device: DeviceLabel::from_user_agent("curl/8"),
            created_at: now,
            last_seen_at: now,
            state: State::Live(ActiveState { pair: Some(pair), proven_at: now, claim: None }),
        };
        change(&mut row);
        self.memory.insert(row, Placement { limit: u32::MAX, replaces: None }).await.unwrap();
        id
    }

    fn login_of(&self, id: &str) -> String {
        let mock = self.twitch.mock();
        mock.users().find(|user| user.id == id).expect("a known user").login.clone()
    }

    /// Returns every row that has not ended, in no particular order.
    pub(crate) async fn open_rows(&self) -> Vec<Session> {
        let ever = Timestamp::from_millis(i64::MAX);
        let mut rows = Vec::new();
        for id in self.memory.overdue(ever, ever, usize::MAX).await.unwrap() {
            rows.push(self.row(id).await);
        }
        rows
    }

    /// HOURLY: checks that no live row's proof is older than this.
    pub(crate) async fn assert_proven_within(&self, age: Duration) {
        let now = self.now();
        for row in self.open_rows().await {
            if let State::Live(ActiveState { proven_at, pair: Some(_), .. }) = row.state {
                assert!(now.since(proven_at) <= age, "HOURLY: {} since {:?}", row.id, now.since(proven_at));
            }
        }
    }

    /// Lets time pass and checks every minute that each live row was proven within the hour.
    pub(crate) async fn run_hourly(&self, by: Duration) {
        let until = self.now().after(by);
        while self.now() < until {
            self.run_for(MINUTE).await;
            self.assert_proven_within(60 * MINUTE).await;
        }
    }

    /// SPREAD: checks that no window of validations since the log was cleared exceeded the budget.
    pub(crate) fn assert_within_budget(&self, what: &str) {
        let per_second = self.settings.sweep.validations_per_second;
        assert_within(&self.twitch.validation_times(), per_second, what);
    }
}

/// SPREAD: checks that no window holds more of these times than the budget allows.
pub(crate) fn assert_within(times: &[i64], per_second: u32, what: &str) {
    let burst = f64::from(per_second.div_ceil(4));
    let rate = f64::from(per_second);
    for (first, from) in times.iter().enumerate() {
        for (count, until) in times[first..].iter().enumerate() {
            let secs = millis(until - from + 1) / 1000.0;
            let most = burst + (secs + limits::RATE_LIMIT_LATE.as_secs_f64()) * rate;
            let count = f64::from(u32::try_from(count + 1).unwrap());
            assert!(count <= most, "SPREAD {what}: {count} in {secs} s, where {most} are allowed");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "tests are too short for that")]
fn millis(millis: i64) -> f64 {
    millis as f64
}

/// Parks the row.
pub(crate) fn parked(row: &mut Session) {
    if let State::Live(active) = row.state.clone() {
        row.state = State::Parked(active);
    }
}

/// A slot, by any number.
pub(crate) fn slot(number: u64) -> u16 {
    u16::try_from(number % u64::from(SLOTS)).unwrap()
}
