//! The refresh protocol explored exhaustively over the rules themselves: two instances, two devices of one user, up to three
//! generations, a crash of each instance, lost requests and answers, a sign-out and a disconnect at any moment.
//!
//! The steps are those of `claviger-engine`'s `refresh.rs`, cut at every await; what is decided in them is decided by the shipped
//! functions of this crate. Safety is checked in every state; what must be possible is looked for and must be found.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a helper of a test may fail as a test does"
)]

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    time::Duration,
};

use claviger_core::{
    device::DeviceLabel,
    ids::{AttemptId, ProviderName, SessionId, Subject, Version},
    policy::{Custody, ProviderHabits, Rotation, limits},
    secret::{AccessToken, Fingerprint, RefreshToken, SessionSecret},
    session::{Claim, EndReason, Holding, RefreshStep, Refused, SealedBlob, SealedPair, Session, State},
    time::{Expiry, Timestamp},
    verdict::{AfterRefresh, IssuedPair, Lifespan, TokenAnswer, Trouble, TroubleKind, after_refresh},
};

const BEGIN: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const DEVICES: usize = 2;
const INSTANCES: usize = 2;
/// Each device gets so many new pairs at most: three generations.
const NEW_PAIRS: u8 = 2;
/// So many refreshes begin.
const STARTS: u8 = 3;
/// So often the length of a lease passes.
const TICKS: u8 = 1;

/// A provider that takes a refresh token once, and kills the connection for a second use.
const STRICT: ProviderHabits = ProviderHabits {
    rotation: Rotation::OneTime,
    replay_window: Duration::ZERO,
    reuse_kills_connection: true,
    old_access_token_survives: true,
};

/// What is broken on purpose, to see that the explorer notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Planted {
    Nothing,
    CommitsOverAnEnd,
    SendsWithoutClaiming,
    ReplaysAlways,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Step {
    /// Read the row and decide.
    Read,
    /// Write the claim on the row as it was read at this version.
    Claim { read: u64, replay: bool },
    /// The claim is written: send.
    Send { token: u8, replay: bool },
    /// The request is under way.
    Await { token: u8, replay: bool, on_its_way: OnItsWay },
    /// The answer is there: carry it out.
    Answered { replay: bool, answer: Answer },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum OnItsWay {
    Request,
    Answer(Answer),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Answer {
    Issued(u8),
    Rejected,
    Lost,
}

/// One refresh by one instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Task {
    device: usize,
    seen: u64,
    attempt: u8,
    step: Step,
}

/// What the provider knows of one device.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Grant {
    /// The refresh tokens that it takes. A new authorization gives one more.
    good: BTreeSet<u8>,
    issued: u8,
}

#[derive(Clone)]
struct World {
    rows: [Session; DEVICES],
    grants: [Grant; DEVICES],
    connected: bool,
    tasks: [Option<Task>; INSTANCES],
    /// Requests whose sender died or gave up, on their way to the provider.
    orphans: BTreeSet<(usize, u8)>,
    starts: u8,
    crashed: [bool; INSTANCES],
    ticks: u8,
    signed_out: bool,
}

#[derive(Default)]
struct Seen {
    states: usize,
    deepest: usize,
    reached: BTreeSet<&'static str>,
    violated: BTreeSet<&'static str>,
}

const RECOVERED: &str = "recovery reached";
const CASCADE_RACES: &str = "cascade races refresh";
const OWED: &str = "the row ended in flight, and the new pair is owed";
const NOT_BELIEVED: &str = "a rejection was not believed after the row was read again";
const ADOPTED: &str = "a loser adopted the winner's pair";

impl World {
    fn new() -> Self {
        let row = |n: u8| Session {
            id: SessionId::new(BEGIN, [n; 10]),
            version: Version::FIRST,
            subject: Subject { provider: ProviderName("twitch".into()), id: "1".into() },
            display_name: String::new(),
            secret_hash: SessionSecret::new([n; 32]).hash(),
            custody: Custody::Device,
            device: DeviceLabel::new("device"),
            created_at: BEGIN,
            last_seen_at: BEGIN,
            state: State::Live(Holding {
                pair: Some(pair(Version::FIRST, 0)),
                proven_at: BEGIN,
                claim: None,
            }),
        };
        let grant = || Grant { good: BTreeSet::from([0]), issued: 0 };
        Self {
            rows: [row(1), row(2)],
            grants: [grant(), grant()],
            connected: true,
            tasks: [None, None],
            orphans: BTreeSet::new(),
            starts: 0,
            crashed: [false; INSTANCES],
            ticks: 0,
            signed_out: false,
        }
    }

    fn now(&self) -> Timestamp {
        BEGIN.after(limits::CLAIM_LEASE * u32::from(self.ticks))
    }

    /// What tells two states apart, and nothing else.
    fn key(&self) -> impl std::hash::Hash + Eq + use<> {
        let rows = self.rows.each_ref().map(|row| {
            let claim = row.holding().and_then(|holding| holding.claim);
            let claim = claim.map(|c| (c.attempt.0[0], c.replay, c.answer_lost, c.lease_until <= self.now()));
            (row.version, row.generation(), token_of(row), claim, std::mem::discriminant(&row.state))
        });
        let provider = (self.grants.clone(), self.connected, self.orphans.clone());
        // A process that died is another one, and instances are alike, so it does not matter which is which.
        let mut instances = [0, 1].map(|instance| (self.tasks[instance], self.crashed[instance]));
        instances.sort();
        (rows, provider, instances, self.starts, self.ticks, self.signed_out)
    }

    fn with_task(&self, instance: usize, task: Option<Task>) -> Self {
        let mut after = self.clone();
        after.tasks[instance] = task;
        after
    }

    /// Compare-and-set: writes the row, and checks what must hold of every write.
    fn write(&mut self, device: usize, next: Session, seen: &mut Seen) {
        let before = &self.rows[device];
        if before.ended() {
            seen.violated.insert("ENDED");
        }
        if next.version != before.version.next() {
            seen.violated.insert("MONO");
        }
        if let State::Ended { reason: EndReason::RefreshTokenRejected, .. } = next.state
            && self.connected
        {
            seen.violated.insert("TRANSIENT");
        }
        let ambiguous = before.ambiguous(self.now());
        if ambiguous && matches!(next.state, State::Live(_)) && next.generation() > before.generation() {
            seen.reached.insert(RECOVERED);
        }
        self.rows[device] = next;
    }

    /// The provider gets a refresh token.
    fn arrive(&mut self, device: usize, token: u8, seen: &mut Seen) -> Answer {
        if !self.connected {
            return Answer::Rejected;
        }
        let grant = &mut self.grants[device];
        if !grant.good.remove(&token) {
            seen.violated.insert("SPENT");
            self.connected = false;
            return Answer::Rejected;
        }
        grant.issued += 1;
        grant.good.insert(grant.issued);
        Answer::Issued(grant.issued)
    }

    /// STRAND: a row in force that nobody is at holds a token that the provider takes; else it says that it may not.
    fn check(&self, seen: &mut Seen) {
        for (row, grant) in self.rows.iter().zip(&self.grants) {
            let Some(holding) = row.holding() else { continue };
            let taken = token_of(row).is_some_and(|token| grant.good.contains(&token));
            if holding.claim.is_none() && self.connected && !taken {
                seen.violated.insert("STRAND");
            }
        }
    }
}

fn pair(generation: Version, token: u8) -> SealedPair {
    SealedPair {
        generation,
        access: SealedBlob(vec![token]),
        refresh: Some(SealedBlob(vec![token])),
        expiry: Expiry::At(BEGIN),
    }
}

fn token_of(row: &Session) -> Option<u8> {
    row.pair().and_then(|pair| pair.refresh.as_ref()).map(|blob| blob.0[0])
}

/// Every state that may follow.
fn successors(world: &World, planted: Planted, seen: &mut Seen) -> Vec<World> {
    let mut next = Vec::new();
    for instance in 0..INSTANCES {
        match world.tasks[instance] {
            None => next.extend((0..DEVICES).filter_map(|device| start(world, instance, device))),
            Some(task) => {
                next.extend(step(world, instance, task, planted, seen));
                if !world.crashed[instance] {
                    next.push(crash(world, instance, task));
                }
            }
        }
    }
    for orphan in &world.orphans {
        let mut lost = world.clone();
        lost.orphans.remove(orphan);
        let mut arrived = lost.clone();
        arrived.arrive(orphan.0, orphan.1, seen);
        next.extend([lost, arrived]);
    }
    next.extend(events(world, seen));
    next
}

/// What the user, time and other devices bring about.
fn events(world: &World, seen: &mut Seen) -> Vec<World> {
    let mut next = Vec::new();
    // A process may stand still while it waits, but it looks at its lease before it sends.
    let sends = |task: &Option<Task>| matches!(task, Some(Task { step: Step::Send { .. }, .. }));
    if world.ticks < TICKS && !world.tasks.iter().any(sends) {
        next.push(World { ticks: world.ticks + 1, ..world.clone() });
    }
    if !world.signed_out
        && let Ok((ended, _)) = world.rows[0].clone().end(EndReason::SignedOut, world.now())
    {
        let mut after = World { signed_out: true, ..world.clone() };
        after.write(0, ended, seen);
        next.push(after);
    }
    if world.connected {
        next.push(World { connected: false, ..world.clone() });
    }
    next.extend((0..DEVICES).filter_map(|device| repair(world, device, seen)));
    next.extend((0..DEVICES).filter_map(|device| cascade(world, device, seen)));
    next
}

/// A new authorization: the provider gives a pair of its own, and takes nothing from the others.
fn repair(world: &World, device: usize, seen: &mut Seen) -> Option<World> {
    let row = &world.rows[device];
    let room = world.grants[device].issued < NEW_PAIRS;
    if !world.connected || !room || !row.beyond_refresh(world.now(), &STRICT) {
        return None;
    }
    let mut after = world.clone();
    after.grants[device].issued += 1;
    let token = after.grants[device].issued;
    after.grants[device].good.insert(token);
    let subject = row.subject.clone();
    let seal = |generation| pair(generation, token);
    let repaired = row.clone().repair(&subject, world.now(), &STRICT, seal).unwrap();
    after.write(device, repaired, seen);
    Some(after)
}

/// The sibling of a row whose token was dead is checked, and found dead.
fn cascade(world: &World, device: usize, seen: &mut Seen) -> Option<World> {
    let (row, sibling) = (&world.rows[device], &world.rows[1 - device]);
    let dead = matches!(sibling.state, State::Ended { reason: EndReason::RefreshTokenRejected, .. });
    if !dead || world.connected || !matches!(row.state, State::Live(_)) {
        return None;
    }
    if world.tasks.iter().flatten().any(|task| task.device == device && task.step != Step::Read) {
        seen.reached.insert(CASCADE_RACES);
    }
    let mut after = world.clone();
    after.write(device, row.clone().suspect(row.generation().unwrap()).unwrap(), seen);
    Some(after)
}

fn start(world: &World, instance: usize, device: usize) -> Option<World> {
    let row = &world.rows[device];
    if world.starts == STARTS || world.grants[device].issued >= NEW_PAIRS || row.ended() {
        return None;
    }
    let seen = row.generation().map_or(0, |generation| generation.0);
    let attempt = 1 + world.starts;
    let mut after = world.with_task(instance, Some(Task { device, seen, attempt, step: Step::Read }));
    after.starts += 1;
    Some(after)
}

fn crash(world: &World, instance: usize, task: Task) -> World {
    let mut after = world.with_task(instance, None);
    after.crashed[instance] = true;
    if let Step::Await { token, on_its_way: OnItsWay::Request, .. } = task.step {
        after.orphans.insert((task.device, token));
    }
    after
}

fn step(world: &World, instance: usize, task: Task, planted: Planted, seen: &mut Seen) -> Vec<World> {
    let go = |step: Step| world.with_task(instance, Some(Task { step, ..task }));
    match task.step {
        Step::Read => vec![read(world, instance, task, planted, seen)],
        Step::Claim { read, replay } => claim(world, instance, task, read, replay, seen),
        Step::Send { token, replay } => {
            vec![go(Step::Await { token, replay, on_its_way: OnItsWay::Request })]
        }
        Step::Await { token, replay, on_its_way } => {
            let mut lost = go(Step::Answered { replay, answer: Answer::Lost });
            match on_its_way {
                OnItsWay::Request => {
                    // Its sender gave up; it may arrive yet.
                    lost.orphans.insert((task.device, token));
                    let mut arrived = world.clone();
                    let answer = arrived.arrive(task.device, token, seen);
                    let step = Step::Await { token, replay, on_its_way: OnItsWay::Answer(answer) };
                    arrived.tasks[instance] = Some(Task { step, ..task });
                    vec![arrived, lost]
                }
                OnItsWay::Answer(answer) => vec![go(Step::Answered { replay, answer }), lost],
            }
        }
        Step::Answered { replay, answer } => {
            vec![carry_out(world, instance, task, replay, answer, planted, seen)]
        }
    }
}

fn read(world: &World, instance: usize, task: Task, planted: Planted, seen: &mut Seen) -> World {
    let row = &world.rows[task.device];
    if row.generation().is_some_and(|generation| generation.0 > task.seen) {
        seen.reached.insert(ADOPTED);
        return world.with_task(instance, None);
    }
    let window = if planted == Planted::ReplaysAlways { Duration::from_secs(3600) } else { Duration::ZERO };
    let habits = ProviderHabits { replay_window: window, ..STRICT };
    let replay = match row.refresh_step(world.now(), &habits) {
        Ok(RefreshStep::Send) => false,
        Ok(RefreshStep::Replay) => true,
        // It asks again later; here, it asks no more.
        Ok(RefreshStep::Wait { .. } | RefreshStep::SignInAgain) | Err(_) => {
            return world.with_task(instance, None);
        }
    };
    let step = if planted == Planted::SendsWithoutClaiming {
        Step::Send { token: token_of(row).unwrap(), replay }
    } else {
        Step::Claim { read: row.version.0, replay }
    };
    world.with_task(instance, Some(Task { step, ..task }))
}

/// Writes the claim, unless another writer was first. Its owner may be told that nobody can say whether it was written; then it
/// is given back unsent.
fn claim(world: &World, instance: usize, task: Task, read: u64, replay: bool, seen: &mut Seen) -> Vec<World> {
    let row = &world.rows[task.device];
    if row.version.0 != read || row.ended() {
        return vec![world.with_task(instance, Some(Task { step: Step::Read, ..task }))];
    }
    let attempt = AttemptId([task.attempt; 16]);
    let claim = Claim {
        attempt,
        taken_at: world.now(),
        lease_until: world.now().after(limits::CLAIM_LEASE),
        fingerprint: Fingerprint([0; 16]),
        replay,
        answer_lost: false,
    };
    let step = Step::Send { token: token_of(row).unwrap(), replay };
    let mut written = world.with_task(instance, Some(Task { step, ..task }));
    written.write(task.device, row.clone().claim(claim).unwrap(), seen);
    let mut unknown = written.with_task(instance, None);
    let row = unknown.rows[task.device].clone();
    let given_back = if replay { row.lose_answer(attempt, true) } else { row.release(attempt) };
    unknown.write(task.device, given_back.unwrap(), seen);
    vec![written, unknown]
}

/// What the engine does with an answer. Each is one compare-and-set on the row as it is by then.
fn carry_out(
    world: &World,
    instance: usize,
    task: Task,
    replay: bool,
    answer: Answer,
    planted: Planted,
    seen: &mut Seen,
) -> World {
    let mut after = world.with_task(instance, None);
    let attempt = AttemptId([task.attempt; 16]);
    let row = world.rows[task.device].clone();
    let claim = row.holding().and_then(|holding| holding.claim);
    let ours = claim.is_some_and(|claim| claim.attempt == attempt);
    let told = match answer {
        Answer::Issued(_) => TokenAnswer::Issued(issued()),
        Answer::Rejected => TokenAnswer::Rejected,
        Answer::Lost => TokenAnswer::Lost(Trouble::new(TroubleKind::NoAnswer)),
    };
    let next = match (after_refresh(told, replay, &STRICT), answer) {
        (AfterRefresh::Commit(_), Answer::Issued(token)) => {
            let seal = |generation| pair(generation, token);
            let committed = if planted == Planted::CommitsOverAnEnd && row.ended() {
                let generation = row.version.next();
                let holding = Holding { pair: Some(seal(generation)), proven_at: world.now(), claim: None };
                Ok(Session { version: generation, state: State::Live(holding), ..row.clone() })
            } else {
                row.clone().rotate(attempt, world.now(), seal)
            };
            if committed.is_err() && row.ended() {
                seen.reached.insert(OWED);
            }
            committed
        }
        (AfterRefresh::End(reason), _) if ours => {
            row.clone().end(reason, world.now()).map(|(ended, _)| ended)
        }
        (AfterRefresh::End(_), _) => {
            if !row.ended() {
                seen.reached.insert(NOT_BELIEVED);
            }
            Err(Refused::Claimed)
        }
        (AfterRefresh::MarkLost { replay_left, .. }, _) => row.clone().lose_answer(attempt, replay_left),
        (after, answer) => panic!("{answer:?} leads to {after:?}"),
    };
    if let Ok(next) = next {
        after.write(task.device, next, seen);
    }
    after
}

fn issued() -> IssuedPair {
    IssuedPair {
        access: AccessToken::new("access"),
        refresh: Some(RefreshToken::new("refresh")),
        lifespan: Lifespan::Unknown,
        scopes: None,
    }
}

/// Visits every state, or stops at the first that violates something.
fn explore(planted: Planted) -> Seen {
    let mut seen = Seen::default();
    let mut visited = HashSet::new();
    let mut waiting = VecDeque::from([(World::new(), 0)]);
    visited.insert(World::new().key());
    while let Some((world, depth)) = waiting.pop_front() {
        seen.states += 1;
        seen.deepest = depth;
        for next in successors(&world, planted, &mut seen) {
            next.check(&mut seen);
            if visited.insert(next.key()) {
                waiting.push_back((next, depth + 1));
            }
        }
        if !seen.violated.is_empty() {
            break;
        }
    }
    seen
}

#[test]
fn no_state_violates_an_invariant_and_what_must_be_possible_is() {
    let seen = explore(Planted::Nothing);
    println!("{} states, {} steps deep", seen.states, seen.deepest);
    assert_eq!(seen.violated, BTreeSet::new());
    for name in [RECOVERED, CASCADE_RACES, OWED, NOT_BELIEVED, ADOPTED] {
        assert!(seen.reached.contains(name), "never reached: {name}");
    }
}

#[test]
fn planted_faults_are_found() {
    let table = [
        (Planted::CommitsOverAnEnd, &["ENDED"][..]),
        (Planted::SendsWithoutClaiming, &["SPENT", "STRAND"]),
        (Planted::ReplaysAlways, &["SPENT"]),
    ];
    for (planted, names) in table {
        let seen = explore(planted);
        assert!(seen.violated.iter().any(|name| names.contains(name)), "{planted:?}: {:?}", seen.violated);
    }
}
