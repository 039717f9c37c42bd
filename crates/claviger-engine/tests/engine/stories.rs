//! Random stories of several users, devices and instances. The invariants are checked after each
//! step.

use std::{collections::BTreeMap, time::Duration};

use claviger_core::{ApiRefusal, Assurance, EndReason, ProviderHabits, Rotation, Session, SessionId};
use claviger_engine::{Denied, Target};
use claviger_mock::{DEMO_CLIENT_ID, Endpoint, FaultKind, LiveTokenLimit, MalformedBody};
use proptest::{prelude::*, sample::select};

use crate::world::{
    ADA, Browser, GRACE, HOUR, Instance, MINUTE, NOW, ONE_TIME, ROTATES, SECOND, World, subject,
};

#[derive(Clone, Debug)]
enum Step {
    SignIn {
        user: usize,
        at: usize,
    },
    /// A new sign-in of a browser with its session cookie.
    Replace {
        device: usize,
        at: usize,
    },
    Ask {
        device: usize,
        at: usize,
        assurance: Assurance,
    },
    Call {
        device: usize,
        at: usize,
    },
    /// The API refuses the device's last granted token.
    Refused {
        device: usize,
        at: usize,
        refusal: ApiRefusal,
    },
    /// Every device sends requests to every instance at the same time.
    Crowd,
    Pass(Duration),
    Fault {
        endpoint: Endpoint,
        kind: FaultKind,
    },
    Mend,
    StoreDown {
        at: usize,
    },
    StoreUp {
        at: usize,
    },
    Restart {
        at: usize,
    },
    End {
        device: usize,
        at: usize,
    },
    EndOthers {
        device: usize,
        at: usize,
    },
    EndAll {
        user: usize,
        at: usize,
    },
    /// The access tokens die early.
    Expire {
        user: usize,
    },
    Disconnect {
        user: usize,
    },
    Settle {
        at: usize,
    },
    Sweep {
        at: usize,
    },
}

/// What is known of one device from outside.
struct Device {
    browser: Browser,
    user: usize,
    /// The row at the last look.
    row: Session,
    last_token: Option<String>,
    granted: Option<claviger_engine::Grant>,
    /// Something happened that may end it.
    doomed: bool,
    /// The instance that ended it, if any. Without a change feed the others learn of it later.
    ended_at: Option<usize>,
}

struct Story {
    world: World,
    apps: Vec<Instance>,
    devices: Vec<Device>,
    /// The owner of each token.
    owners: BTreeMap<String, SessionId>,
}

const USERS: [&str; 2] = [ADA, GRACE];

impl Story {
    async fn begin(habits: ProviderHabits, slow: bool) -> Self {
        let (world, app) = World::with(|setup| {
            setup.provider.habits = habits;
            setup.mock.live_token_limit = LiveTokenLimit::Off;
            setup.mock.rotation = match habits.rotation {
                Rotation::None => claviger_mock::Rotation::None,
                Rotation::Rotates => claviger_mock::Rotation::Rotates,
                Rotation::OneTime => claviger_mock::Rotation::OneTimeKillsConnection,
            };
        })
        .await;
        let apps = vec![app, world.instance().await];
        if slow {
            apps.iter().for_each(|app| app.faulty_store.slow());
        }
        Self { world, apps, devices: Vec::new(), owners: BTreeMap::new() }
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::SignIn { user, at } => {
                let signed_in = self.world.sign_in_again(&self.apps[*at], USERS[*user], None).await;
                self.welcome(*user, signed_in.ok()).await;
            }
            Step::Replace { device, at } => self.replace(*device, *at).await,
            Step::Ask { device, at, assurance } => self.ask(*device, *at, *assurance).await,
            Step::Call { device, at } => self.call(*device, *at).await,
            Step::Refused { device, at, refusal } => self.refused(*device, *at, *refusal).await,
            Step::Crowd => self.crowd().await,
            Step::Pass(by) => self.world.pass(*by),
            Step::Fault { endpoint, kind } => self.world.twitch.once(*endpoint, kind.clone()),
            Step::Mend => self.world.mend(),
            Step::StoreDown { at } => self.apps[*at].faulty_store.down(true),
            Step::StoreUp { at } => self.apps[*at].faulty_store.down(false),
            Step::Restart { at } => {
                self.apps[*at].faulty_store.down(false);
                self.apps[*at] = self.world.instance().await;
                // The dead instance ended nothing that the new one would not know.
            }
            Step::End { device, at } => self.end(*device, *at).await,
            Step::EndOthers { device, at } => self.end_others(*device, *at).await,
            Step::EndAll { user, at } => self.end_all(*user, *at).await,
            Step::Expire { user } => {
                self.world.twitch.mock().expire_access_tokens(USERS[*user]);
            }
            Step::Disconnect { user } => {
                self.world.twitch.mock().disconnect(USERS[*user], DEMO_CLIENT_ID);
                self.of_user(*user).for_each(|device| device.doomed = true);
            }
            Step::Settle { at } => drop(self.apps[*at].carry_out_revocations().await),
            Step::Sweep { at } => drop(self.apps[*at].end_overdue().await),
        }
    }

    fn of_user(&mut self, user: usize) -> impl Iterator<Item = &mut Device> {
        self.devices.iter_mut().filter(move |device| device.user == user)
    }

    fn index(&self, device: usize) -> Option<usize> {
        device.checked_rem(self.devices.len())
    }

    async fn welcome(&mut self, user: usize, browser: Option<Browser>) {
        let Some(browser) = browser else { return };
        let row = self.world.row(browser.session).await;
        self.devices.push(Device {
            browser,
            user,
            row,
            last_token: None,
            granted: None,
            doomed: false,
            ended_at: None,
        });
    }

    async fn replace(&mut self, device: usize, at: usize) {
        let Some(index) = self.index(device) else { return };
        let (user, shown) = (self.devices[index].user, self.devices[index].browser.cookie.clone());
        self.devices[index].doomed = true;
        let signed_in = self.world.sign_in_again(&self.apps[at], USERS[user], Some(&shown)).await;
        if signed_in.is_ok() {
            self.devices[index].ended_at.get_or_insert(at);
        }
        self.welcome(user, signed_in.ok()).await;
    }

    async fn ask(&mut self, device: usize, at: usize, assurance: Assurance) {
        let Some(index) = self.index(device) else { return };
        let device = &self.devices[index];
        let outcome = device.browser.asks_with(&self.apps[at], assurance).await;
        if let Ok(caller) = &outcome {
            assert_eq!(caller.subject(), &subject(USERS[device.user]), "ISO");
            assert_ne!(device.ended_at, Some(at), "ENDED: served by the instance that ended it");
        }
        self.judge(index, outcome.err()).await;
    }

    async fn call(&mut self, device: usize, at: usize) {
        let Some(index) = self.index(device) else { return };
        let outcome = self.devices[index].browser.grant(&self.apps[at]).await;
        if let Ok(grant) = &outcome {
            self.own(index, grant);
        }
        self.judge(index, outcome.err()).await;
    }

    async fn refused(&mut self, device: usize, at: usize, refusal: ApiRefusal) {
        let Some(index) = self.index(device) else { return };
        let Some(grant) = self.devices[index].granted.clone() else { return };
        let cookie = self.devices[index].browser.cookie.clone();
        let outcome = self.apps[at].grant_after_refusal(&cookie, &grant, refusal).await;
        if let Ok(Some(newer)) = &outcome {
            assert!(newer.generation > grant.generation, "MONO");
            self.own(index, newer);
        }
        self.judge(index, outcome.err()).await;
    }

    async fn crowd(&mut self) {
        let requests = self.devices.iter().enumerate().flat_map(|(index, device)| {
            self.apps.iter().map(move |app| async move { (index, device.browser.grant(app).await) })
        });
        for (index, outcome) in futures_util::future::join_all(requests).await {
            if let Ok(grant) = &outcome {
                self.own(index, grant);
            }
            self.judge(index, outcome.err()).await;
        }
    }

    /// ISO: a token belongs to one session for ever.
    fn own(&mut self, index: usize, grant: &claviger_engine::Grant) {
        let session = self.devices[index].browser.session;
        let owner = *self.owners.entry(grant.token.expose().to_owned()).or_insert(session);
        assert_eq!(owner, session, "ISO");
        self.devices[index].granted = Some(grant.clone());
    }

    /// LOSER, TRANSIENT: only the end of its own row signs a device out.
    async fn judge(&self, index: usize, denied: Option<Denied>) {
        let device = &self.devices[index];
        if let Some(Denied::NoSession | Denied::Ended(_)) = denied {
            assert!(self.world.row(device.browser.session).await.ended(), "LOSER, TRANSIENT: {denied:?}");
        }
    }

    async fn end(&mut self, device: usize, at: usize) {
        let Some(index) = self.index(device) else { return };
        self.devices[index].doomed = true;
        let before = self.rows().await;
        let cookie = self.devices[index].browser.cookie.clone();
        if self.apps[at].end_own(&cookie, EndReason::SignedOut).await.is_ok() {
            self.devices[index].ended_at.get_or_insert(at);
            for (other, (before, after)) in before.into_iter().zip(self.rows().await).enumerate() {
                assert!(other == index || before.ended() == after.ended(), "BLAST");
            }
        }
    }

    async fn end_others(&mut self, device: usize, at: usize) {
        let Some(index) = self.index(device) else { return };
        let (user, caller) = (self.devices[index].user, self.devices[index].browser.session);
        let now = self.world.now();
        let others = Target::Others(subject(USERS[user]), caller);
        let ended = self.apps[at].end(others, EndReason::SignedOutFromAnotherDevice).await.is_ok();
        // A session that began at this moment ends with the others, or stays.
        let concerned =
            |device: &&mut Device| device.browser.session != caller && device.row.created_at <= now;
        for device in self.of_user(user).filter(concerned) {
            device.doomed = true;
            if ended && !device.row.ended() && device.row.created_at < now {
                device.ended_at.get_or_insert(at);
            }
        }
        if ended {
            for device in &self.devices {
                let other = device.user == user && device.browser.session != caller;
                if other && device.row.created_at < now {
                    assert!(self.world.row(device.browser.session).await.ended(), "OTHERS");
                }
            }
        }
    }

    async fn end_all(&mut self, user: usize, at: usize) {
        let now = self.world.now();
        let all = Target::AllOf(subject(USERS[user]), now);
        let ended = self.apps[at].end(all, EndReason::SignedOutEverywhere).await.is_ok();
        for device in self.of_user(user).filter(|device| device.row.created_at < now) {
            device.doomed = true;
            if ended && !device.row.ended() {
                device.ended_at.get_or_insert(at);
            }
        }
    }

    async fn rows(&self) -> Vec<Session> {
        let mut rows = Vec::new();
        for device in &self.devices {
            rows.push(self.world.row(device.browser.session).await);
        }
        rows
    }

    /// Checks what must hold after every step.
    async fn check(&mut self) {
        let rows = self.rows().await;
        for (device, row) in self.devices.iter_mut().zip(rows) {
            let last = &device.row;
            assert!(row.version >= last.version, "MONO");
            assert!(row.version > last.version || row.state == last.state, "MONO");
            if last.ended() {
                assert_eq!(&row, last, "ENDED");
            }
            assert!(!row.ended() || device.doomed, "TRANSIENT, BLAST: {:?}", row.state);
            if row.pair().is_some() {
                let token = self.world.token_of(&row);
                assert_eq!(*self.owners.entry(token.clone()).or_insert(row.id), row.id, "ISO");
                device.last_token = Some(token);
            }
            device.row = row;
        }
        self.check_spent();
    }

    /// SPENT: a spent refresh token is sent at most once more, and only where the rule allows it.
    fn check_spent(&self) {
        let mut replays: BTreeMap<String, u32> = BTreeMap::new();
        let mock = self.world.twitch.mock();
        for entry in mock.log().filter(|entry| entry.reused) {
            *replays.entry(entry.token.clone().unwrap_or_default()).or_default() += 1;
        }
        let allowed = u32::from(self.world.provider.habits.rotation == Rotation::Rotates);
        assert!(replays.values().all(|sent| *sent <= allowed), "SPENT");
    }

    /// LIVE, CASCADE: all failures end, and everything settles.
    async fn finish(&mut self) {
        self.world.mend();
        self.apps.iter().for_each(|app| app.faulty_store.down(false));
        self.world.run_for(MINUTE).await;
        self.world.pass(MINUTE);
        self.check().await;
        for index in 0..self.devices.len() {
            let browser = &self.devices[index].browser;
            let outcome = match browser.asks_with(&self.apps[0], NOW).await {
                Ok(_) => browser.grant(&self.apps[0]).await,
                Err(denied) => Err(denied),
            };
            let device = &self.devices[index];
            let row = self.world.row(device.browser.session).await;
            match outcome {
                Ok(grant) => {
                    assert!(device.doomed || self.world.twitch.lives(grant.token.expose()), "LIVE");
                }
                Err(Denied::SignInAgain) => assert!(row.ambiguous(self.world.now()), "LIVE"),
                Err(Denied::ProviderUnavailable { .. }) => {
                    assert!(row.ambiguous(self.world.now()), "LIVE: after a replay that was refused");
                }
                Err(denied) => assert!(row.ended(), "LIVE: {denied}"),
            }
        }
        self.check().await;
        for _ in 0..4 {
            self.world.pass(20 * MINUTE);
            for app in &self.apps {
                app.carry_out_revocations().await.unwrap();
            }
        }
        assert_eq!(self.world.owed().await, 0, "CASCADE");
        for device in self.devices.iter().filter(|device| device.row.ended()) {
            let token = device.last_token.as_ref().unwrap();
            assert!(!self.world.twitch.lives(token), "CASCADE");
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kinds = vec![
        FaultKind::status(500),
        FaultKind::status(503),
        FaultKind::status(404),
        FaultKind::too_many_requests(None),
        FaultKind::CloseBefore,
        FaultKind::CloseAfter,
        FaultKind::delay(5 * SECOND),
        FaultKind::delay(MINUTE),
        FaultKind::Malformed { body: MalformedBody::Html },
    ];
    let endpoints = vec![Endpoint::Token, Endpoint::Token, Endpoint::Validate, Endpoint::Revoke];
    let assurances = vec![Assurance::Cookie, Assurance::Session, NOW];
    let refusals = vec![ApiRefusal::DeadToken, ApiRefusal::Unclear];
    let passes = vec![SECOND, MINUTE, HOUR, 4 * HOUR];
    let (device, at, user) = (0usize..6, 0usize..2, 0usize..2);
    let step = prop_oneof![
        6 => (user.clone(), at.clone()).prop_map(|(user, at)| Step::SignIn { user, at }),
        2 => (device.clone(), at.clone()).prop_map(|(device, at)| Step::Replace { device, at }),
        8 => (device.clone(), at.clone(), select(assurances))
            .prop_map(|(device, at, assurance)| Step::Ask { device, at, assurance }),
        8 => (device.clone(), at.clone()).prop_map(|(device, at)| Step::Call { device, at }),
        4 => (device.clone(), at.clone(), select(refusals))
            .prop_map(|(device, at, refusal)| Step::Refused { device, at, refusal }),
        4 => Just(Step::Crowd),
        10 => select(passes).prop_map(Step::Pass),
        8 => (select(endpoints), select(kinds)).prop_map(|(endpoint, kind)| Step::Fault { endpoint, kind }),
        2 => Just(Step::Mend),
        2 => at.clone().prop_map(|at| Step::StoreDown { at }),
        3 => at.clone().prop_map(|at| Step::StoreUp { at }),
        2 => at.clone().prop_map(|at| Step::Restart { at }),
        2 => (device.clone(), at.clone()).prop_map(|(device, at)| Step::End { device, at }),
        1 => (device, at.clone()).prop_map(|(device, at)| Step::EndOthers { device, at }),
        1 => (user.clone(), at.clone()).prop_map(|(user, at)| Step::EndAll { user, at }),
        2 => user.clone().prop_map(|user| Step::Expire { user }),
        1 => user.prop_map(|user| Step::Disconnect { user }),
        2 => at.clone().prop_map(|at| Step::Settle { at }),
        1 => at.prop_map(|at| Step::Sweep { at }),
    ];
    proptest::collection::vec(step, 1..40)
}

fn habits() -> impl Strategy<Value = ProviderHabits> {
    let careful = ProviderHabits { reuse_kills_connection: true, replay_window: 2 * HOUR, ..ROTATES };
    select(vec![ONE_TIME, ROTATES, careful, ProviderHabits { rotation: Rotation::None, ..ROTATES }])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_invariants_hold_in_random_stories(habits in habits(), slow in any::<bool>(), steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut story = Story::begin(habits, slow).await;
            for step in &steps {
                story.take(step).await;
                story.check().await;
            }
            story.finish().await;
        });
    }
}
