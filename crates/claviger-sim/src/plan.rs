//! The acts of a history, drawn from the seed in advance, so that a failing one can be shrunk.

use std::time::Duration;

use claviger_core::{ProviderHabits, Rotation, limits};
use claviger_mock::{FaultKind, MalformedBody, RetryAfter};

use crate::{
    fate::{Point, Trap},
    rng::Rng,
};

/// The plan of a history.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// Number of instances that share the store.
    pub instances: usize,
    /// Number of devices of each user.
    pub devices: Vec<usize>,
    /// What the provider does with refresh tokens, as configured in the engine.
    pub habits: ProviderHabits,
    /// What the provider offers.
    pub offers: Offers,
    /// Whether the server can open refresh tokens.
    pub custody_server: bool,
    /// How far each instance's clock is ahead, in milliseconds.
    pub skews_ms: Vec<i64>,
    /// Whether unused pairs in the server's custody are refreshed.
    pub keep_alive: bool,
    /// Whether the provider sends webhook events.
    pub webhook: bool,
    /// Maximum validations per second.
    pub validations_per_second: u32,
    /// The acts.
    pub steps: Vec<Step>,
}

/// The capabilities that some providers lack. The mock has them all; what is false here is switched
/// off in the engine's provider, and the judges see to it that its endpoint is never called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offers {
    /// Access tokens can be validated at any time.
    pub validation: bool,
    /// Tokens can be revoked.
    pub revocation: bool,
}

impl Offers {
    /// All of them.
    pub const ALL: Self = Self { validation: true, revocation: true };

    /// Draws from numbers of its own, so that a seed has the same acts whatever the provider
    /// offers.
    fn draw(seed: u64) -> Self {
        let rng = Rng::new(seed ^ 0x0ffe_25ca_b1e5_0001);
        Self { validation: !rng.chance(100), revocation: !rng.chance(100) }
    }
}

/// An act and when it happens.
#[derive(Clone, Debug)]
pub struct Step {
    /// Time since the step before.
    pub after: Duration,
    /// The act.
    pub act: Act,
}

/// Something that happens. Devices, instances and users are numbers, taken modulo how many there
/// are.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each act says what its fields are for")]
pub enum Act {
    /// Tabs of a device send requests at the same time. Their users may go away before the answer.
    Ask { device: usize, tabs: Vec<Tab> },
    /// A device signs in, even if it is signed in already.
    SignIn { device: usize, instance: usize },
    /// A device whose pair no refresh can save goes to the provider and back.
    Repair { device: usize, instance: usize },
    /// A device signs out.
    SignOut { device: usize, instance: usize },
    /// A device ends another device of its user.
    EndOther { device: usize, other: usize, instance: usize },
    /// A device ends all other devices of its user.
    EndOthers { device: usize, instance: usize },
    /// A user disconnects the app at the provider.
    Disconnect { user: usize },
    /// A device signs in, and its user disconnects the app `gap_ms` after that began, or before it
    /// if negative.
    Reconnect { device: usize, instance: usize, gap_ms: i64 },
    /// A user's account at the provider is deleted.
    DeleteAccount { user: usize },
    /// Webhook events are delivered like this from now on.
    Mail { mail: Mail },
    /// Held webhook events are delivered, newest or oldest first.
    ReleaseMail { newest_first: bool },
    /// The provider fails the next validations like this.
    ValidateFault { kind: FaultKind, calls: u32 },
    /// The provider forgets a device's access token before its time.
    KillAccessToken { device: usize },
    /// An instance falls into this trap the next time that a refresh passes the point.
    Trap { instance: usize, point: Point, trap: Trap },
    /// An instance dies.
    Crash { instance: usize },
    /// The provider fails the next call of its token endpoint like this.
    TokenFault { kind: FaultKind },
    /// The provider fails every call like this for a while.
    Outage { kind: FaultKind, lasts: Duration },
    /// The network to the provider is like this for a while.
    Network { unplugged: bool, slow: bool, loses_permille: u64, lasts: Duration },
    /// An instance cannot reach the store for a while.
    StoreDown { instance: usize, lasts: Duration },
    /// The clock of an instance, or of all, is wrong by `by_ms` for a while.
    Clock { instance: Option<usize>, by_ms: i64, lasts: Duration },
    /// For a while the provider does not know new tokens for the first `lag_ms`.
    Lag { lag_ms: u64, lasts: Duration },
    /// Some writes of an instance fail for a while.
    StoreTrouble { instance: usize, permille: u64, lasts: Duration },
}

/// How webhook events are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mail {
    /// Once, and soon.
    Prompt,
    /// This late.
    Late(Duration),
    /// Twice.
    Twice,
    /// When they are released.
    Held,
    /// Never.
    Lost,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Tab {
    /// The instance that answers it.
    pub instance: usize,
    /// The request.
    pub asks: Asks,
    /// After how long its user goes away.
    pub gives_up_after: Option<Duration>,
}

/// A request to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Assurance `cookie`.
    Cookie,
    /// Assurance `session`.
    Session,
    /// Assurance `provider` with `max_age` zero.
    Provider,
    /// The access token.
    Grant,
    /// The access token, and a new one because the API said that it is dead.
    GrantDead,
    /// The access token, and a new one if the API's unclear refusal is about it.
    GrantUnclear,
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Lifetime of access tokens in histories.
pub(crate) const TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);

impl Plan {
    /// Draws a history.
    pub fn new(seed: u64) -> Self {
        let rng = Rng::new(seed ^ 0x51ed_2701_a4f1_c0de);
        let instances = 1 + rng.below(3);
        let devices: Vec<usize> = (0..1 + rng.below(2)).map(|_| 1 + rng.below(3)).collect();
        let all: usize = devices.iter().sum();
        let mut steps: Vec<Step> = (0..all)
            .map(|device| Step { after: SECOND, act: Act::SignIn { device, instance: rng.below(instances) } })
            .collect();
        let count = 30 + rng.below(60);
        steps.extend((0..count).map(|_| step(&rng, all, instances)));
        add_clock_jumps(&mut steps, seed, instances);
        add_lag(&mut steps, seed);
        let custody_server = rng.chance(300);
        Self {
            seed,
            instances,
            habits: habits(&rng),
            offers: Offers::draw(seed),
            custody_server,
            keep_alive: custody_server && rng.chance(500),
            webhook: rng.chance(700),
            validations_per_second: rng.pick(&[1, 2, 20], 20),
            skews_ms: (0..instances).map(|_| i64::try_from(rng.below(4_001)).unwrap_or(0) - 2_000).collect(),
            devices,
            steps,
        }
    }

    /// Returns whether a clock jumps.
    pub(crate) fn clocks_jump(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.act, Act::Clock { .. }))
    }

    /// Returns the user of a device.
    pub(crate) fn user_of(&self, device: usize) -> usize {
        let mut first = 0;
        for (user, count) in self.devices.iter().enumerate() {
            first += count;
            if device < first {
                return user;
            }
        }
        0
    }

    pub(crate) fn device_count(&self) -> usize {
        self.devices.iter().sum()
    }
}

/// Adds jumps of clocks to every third history: seconds to a year, both ways, of one instance or of
/// all. It draws from numbers of its own, so that a seed has the same other acts.
fn add_clock_jumps(steps: &mut Vec<Step>, seed: u64, instances: usize) {
    const FAR: [Duration; 8] = [
        Duration::from_secs(3),
        Duration::from_secs(8),
        Duration::from_secs(20),
        Duration::from_secs(2 * 60),
        Duration::from_secs(60 * 60),
        Duration::from_secs(24 * 60 * 60),
        Duration::from_secs(20 * 24 * 60 * 60),
        Duration::from_secs(365 * 24 * 60 * 60),
    ];
    let rng = Rng::new(seed ^ 0xc10c_6a3b_5e77_0001);
    if !rng.chance(333) {
        return;
    }
    for _ in 0..1 + rng.below(4) {
        let far_ms = i64::try_from(rng.pick(&FAR, SECOND).as_millis()).unwrap_or(i64::MAX);
        let act = Act::Clock {
            instance: rng.chance(500).then(|| rng.below(instances)),
            by_ms: if rng.chance(500) { far_ms } else { -far_ms },
            lasts: rng.span(SECOND, HOUR),
        };
        let place = rng.below(steps.len() + 1);
        steps.insert(place, Step { after: rng.span(Duration::ZERO, SECOND), act });
    }
}

/// Adds a provider whose reads lag behind its writes to every fourth history, from numbers of its
/// own.
fn add_lag(steps: &mut Vec<Step>, seed: u64) {
    let rng = Rng::new(seed ^ 0x1a66_3b5e_c0de_0001);
    if rng.chance(250) {
        let act = Act::Lag { lag_ms: 50 + u64::from(below(&rng, 2_000)), lasts: rng.span(MINUTE, 2 * HOUR) };
        let place = rng.below(steps.len() + 1);
        steps.insert(place, Step { after: Duration::ZERO, act });
    }
}

fn habits(rng: &Rng) -> ProviderHabits {
    let one_time = ProviderHabits {
        rotation: Rotation::OneTime,
        replay_window: Duration::ZERO,
        reuse_kills_connection: true,
        old_access_token_survives: true,
    };
    let hopeful = ProviderHabits { replay_window: HOUR, reuse_kills_connection: false, ..one_time };
    let table = [
        ProviderHabits::FORGIVING,
        one_time,
        one_time,
        ProviderHabits { old_access_token_survives: false, ..one_time },
        hopeful,
        ProviderHabits { old_access_token_survives: false, ..hopeful },
        ProviderHabits { rotation: Rotation::None, ..ProviderHabits::FORGIVING },
    ];
    rng.pick(&table, ProviderHabits::FORGIVING)
}

fn step(rng: &Rng, devices: usize, instances: usize) -> Step {
    let after = match rng.below(100) {
        0..60 => rng.span(Duration::ZERO, SECOND),
        60..80 => rng.span(SECOND, 20 * SECOND),
        80..88 => rng.span(MINUTE, 6 * MINUTE),
        88..98 => rng.span(TOKEN_LIFE - 2 * MINUTE, TOKEN_LIFE + 2 * MINUTE),
        _ => rng.span(HOUR, 3 * HOUR),
    };
    let (device, instance) = (rng.below(devices), rng.below(instances));
    let act = match rng.below(100) {
        0..44 => ask(rng, device, instances),
        44..49 => Act::SignIn { device, instance },
        49..54 => Act::Repair { device, instance },
        54..56 => Act::SignOut { device, instance },
        56..58 => Act::EndOther { device, other: rng.below(devices), instance },
        58..59 => Act::EndOthers { device, instance },
        59..64 => goes_away(rng, device, instance),
        64..67 => mail(rng),
        67..70 => Act::KillAccessToken { device },
        70..79 => trap(rng, instance),
        79..81 => Act::Crash { instance },
        81..87 => Act::TokenFault { kind: fault(rng) },
        87..89 => Act::ValidateFault { kind: fault(rng), calls: 1 + below(rng, 4) },
        89..92 => Act::Outage { kind: failure(rng), lasts: rng.span(SECOND, 2 * HOUR) },
        92..95 => network(rng),
        95..97 => Act::StoreDown { instance, lasts: rng.span(SECOND, 10 * MINUTE) },
        _ => Act::StoreTrouble { instance, permille: 300, lasts: rng.span(SECOND, 5 * MINUTE) },
    };
    Step { after, act }
}

/// A user disconnects or deletes the account, and may come back at once.
fn goes_away(rng: &Rng, device: usize, instance: usize) -> Act {
    let user = rng.below(2);
    match rng.below(20) {
        0..9 => Act::Disconnect { user },
        9 => Act::DeleteAccount { user },
        // A sign-in takes up to a few seconds.
        10..17 => Act::Reconnect { device, instance, gap_ms: i64::from(below(rng, 8_000)) - 4_000 },
        _ => Act::Reconnect { device, instance, gap_ms: -i64::from(below(rng, 600_000)) },
    }
}

fn mail(rng: &Rng) -> Act {
    let mail = match rng.below(8) {
        0 => Mail::Prompt,
        1 => Mail::Late(rng.span(SECOND, 12 * MINUTE)),
        2 => Mail::Twice,
        3 => Mail::Held,
        4 => Mail::Lost,
        newest => return Act::ReleaseMail { newest_first: newest > 5 },
    };
    Act::Mail { mail }
}

fn below(rng: &Rng, end: usize) -> u32 {
    u32::try_from(rng.below(end)).unwrap_or(0)
}

fn ask(rng: &Rng, device: usize, instances: usize) -> Act {
    const KINDS: [Asks; 8] = [
        Asks::Cookie,
        Asks::Session,
        Asks::Session,
        Asks::Provider,
        Asks::Grant,
        Asks::Grant,
        Asks::GrantDead,
        Asks::GrantUnclear,
    ];
    let tab = |_| Tab {
        instance: rng.below(instances),
        asks: rng.pick(&KINDS, Asks::Session),
        gives_up_after: rng.chance(200).then(|| rng.span(Duration::ZERO, SECOND / 2)),
    };
    Act::Ask { device, tabs: (0..1 + rng.below(5)).map(tab).collect() }
}

/// Draws a trap. It never stalls before the sending: a process that stops between its last look at
/// the clock and the sending cannot know that its lease is over.
fn trap(rng: &Rng, instance: usize) -> Act {
    let (point, _) = Point::ALL.get(rng.below(Point::ALL.len())).copied().unwrap_or(Point::ALL[0]);
    let longest = limits::CLAIM_LEASE * 2;
    let stalls = rng.chance(250) && point != Point::RequestUnsent;
    let trap = if stalls { Trap::Stall(rng.span(SECOND, longest)) } else { Trap::Crash };
    Act::Trap { instance, point, trap }
}

fn fault(rng: &Rng) -> FaultKind {
    match rng.below(6) {
        0 => FaultKind::CloseAfter,
        1 => FaultKind::CloseBefore,
        2 => FaultKind::delay(rng.span(SECOND, 40 * SECOND)),
        3 => FaultKind::Malformed { body: MalformedBody::Truncated },
        4 => FaultKind::Status {
            status: 403,
            body: r#"{"status":403,"message":"invalid client secret"}"#.to_owned(),
            retry_after: None,
        },
        _ => failure(rng),
    }
}

fn failure(rng: &Rng) -> FaultKind {
    match rng.below(6) {
        0 => FaultKind::status(500),
        1 => FaultKind::status(503),
        2 => FaultKind::status(404),
        3 => FaultKind::too_many_requests(None),
        4 => FaultKind::too_many_requests(Some(RetryAfter::Seconds(20))),
        _ => FaultKind::CloseBefore,
    }
}

fn network(rng: &Rng) -> Act {
    let lasts = rng.span(SECOND, 10 * MINUTE);
    let (unplugged, slow, loses_permille) = match rng.below(3) {
        0 => (true, false, 0),
        1 => (false, true, 0),
        _ => (false, false, 300),
    };
    Act::Network { unplugged, slow, loses_permille, lasts }
}
