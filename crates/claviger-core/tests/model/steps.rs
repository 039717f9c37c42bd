//! What may happen next.

use std::time::Duration;

use claviger_core::{
    AccessToken, ActiveState, AfterRefresh, BeforeReplay, Change, Claim, EndReason, FailureKind, Fingerprint,
    IssuedPair, Lifespan, Proof, ProviderFailure, ProviderHabits, RefreshStep, RefreshToken, Refused,
    Session, State, TokenAnswer, ValidateAnswer, Version, limits, verdict,
};

use crate::{
    Planted,
    world::{
        ADOPTED, Answer, CASCADE_RACES, COMMITTED_LATE, DEVICES, GIVEN_UP, INSTANCES, NOT_BELIEVED, OWED,
        OnItsWay, RECOVERED_BY_REPLAY, REPLAY_REJECTED, Seen, Step, Task, World, attempt_id, pair, token_of,
    },
};

/// Returns every state that may follow.
pub(crate) fn successors(world: &World, seen: &mut Seen) -> Vec<World> {
    let mut next = Vec::new();
    for instance in 0..INSTANCES {
        match world.tasks[instance] {
            None => next.extend((0..world.scope.devices).filter_map(|device| start(world, instance, device))),
            Some(task) => {
                next.extend(step(world, instance, task, seen));
                if !world.crashed[instance]
                    && world.crashed.iter().filter(|dead| **dead).count() < world.scope.crashes
                {
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

/// Events caused by the user, time and other devices.
fn events(world: &World, seen: &mut Seen) -> Vec<World> {
    let mut next = Vec::new();
    next.extend(tick(world));
    if !world.signed_out
        && let Ok(ended) = Session::clone(&world.rows[0]).end(EndReason::SignedOut, world.now())
    {
        let mut after = World { signed_out: true, ..world.clone() };
        after.write(0, ended.into_next(), seen);
        next.push(after);
    }
    if world.connected {
        next.push(World { connected: false, ..world.clone() });
    }
    next.extend((0..DEVICES).filter_map(|device| repair(world, device, seen)));
    next.extend((0..DEVICES).filter_map(|device| cascade(world, device, seen)));
    next
}

/// The length of a lease passes. A process may stall while it waits, but it looks at its lease
/// before it sends. If the time of arrival matters, a request that has not arrived by then never
/// does: it travels for at most half a lease.
fn tick(world: &World) -> Option<World> {
    let sends = |task: &Option<Task>| matches!(task, Some(Task { step: Step::Send { .. }, .. }));
    if world.ticks == world.scope.ticks || world.tasks.iter().any(sends) {
        return None;
    }
    let mut after = World { ticks: world.ticks + 1, ..world.clone() };
    if world.scope.has_a_window() {
        after.orphans.clear();
        for task in after.tasks.iter_mut().flatten() {
            if let Step::Await { replay, on_its_way: OnItsWay::Request, .. } = task.step {
                task.step = Step::Answered { replay, answer: Answer::Lost };
            }
        }
    }
    Some(after)
}

/// A new authorization: the provider adds a pair, and keeps the others.
fn repair(world: &World, device: usize, seen: &mut Seen) -> Option<World> {
    let row = &world.rows[device];
    let room = world.grants[device].issued < world.scope.new_pairs;
    if !world.connected || !room || !row.beyond_refresh(world.now(), &world.scope.habits) {
        return None;
    }
    let mut after = world.clone();
    let token = after.grants[device].authorize();
    let subject = row.subject.clone();
    let seal = |generation| pair(generation, token);
    let repaired = Session::clone(row).repair(&subject, world.now(), &world.scope.habits, seal).unwrap();
    after.write(device, repaired.into_next(), seen);
    Some(after)
}

/// The sibling of a row with a dead token is validated, and found dead.
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
    after.write(device, Session::clone(row).suspect(row.generation().unwrap()).unwrap().into_next(), seen);
    Some(after)
}

fn start(world: &World, instance: usize, device: usize) -> Option<World> {
    let row = &world.rows[device];
    let scope = world.scope;
    if world.starts == scope.starts || world.grants[device].issued >= scope.new_pairs || row.ended() {
        return None;
    }
    let seen = row.generation().map_or(0, |generation| generation.0);
    let task = Task { device, seen, attempt: 1 + world.starts, sent: 0, step: Step::Read };
    let mut after = world.with_task(instance, Some(task));
    after.starts += 1;
    Some(after)
}

fn crash(world: &World, instance: usize, task: Task) -> World {
    let mut after = world.with_task(instance, None);
    after.crashed[instance] = true;
    if let Step::Await { token, on_its_way: OnItsWay::Request, .. } = task.step {
        after.orphan(task.device, token);
    }
    after
}

fn step(world: &World, instance: usize, task: Task, seen: &mut Seen) -> Vec<World> {
    let go = |step: Step| world.with_task(instance, Some(Task { step, ..task }));
    match task.step {
        Step::Read => vec![read(world, instance, task, seen)],
        Step::Ask { read } => ask(world, instance, task, read, seen),
        Step::Claim { read, replay } => claim(world, instance, task, read, replay, seen),
        Step::Send { token, replay } => {
            let mut sent = go(Step::Await { token, replay, on_its_way: OnItsWay::Request });
            sent.send(task.device, token, seen);
            vec![sent]
        }
        Step::Await { token, replay, on_its_way } => {
            travel(world, instance, task, (token, replay), on_its_way, seen)
        }
        Step::Answered { replay, answer } => vec![carry_out(world, instance, task, replay, answer, seen)],
    }
}

/// The request arrives, is refused or lost, and so is its answer; or a gateway reports an error.
fn travel(
    world: &World,
    instance: usize,
    task: Task,
    (token, replay): (u8, bool),
    on_its_way: OnItsWay,
    seen: &mut Seen,
) -> Vec<World> {
    let told = |answer| {
        let step = Step::Answered { replay, answer };
        world.with_task(instance, Some(Task { step, ..task }))
    };
    let mut lost = told(Answer::Lost);
    match on_its_way {
        OnItsWay::Request => {
            // Its sender gave up; it may still arrive.
            lost.orphan(task.device, token);
            let mut turned_away = told(Answer::TurnedAway);
            turned_away.unsend(task.device, token);
            let mut arrived = world.clone();
            let answer = OnItsWay::Answer(arrived.arrive(task.device, token, seen));
            let step = Step::Await { token, replay, on_its_way: answer };
            arrived.tasks[instance] = Some(Task { step, ..task });
            vec![arrived, turned_away, told(Answer::Gateway), lost]
        }
        OnItsWay::Answer(answer) => vec![told(answer), told(Answer::Gateway), lost],
    }
}

fn read(world: &World, instance: usize, task: Task, seen: &mut Seen) -> World {
    let row = &world.rows[task.device];
    if row.generation().is_some_and(|generation| generation.0 > task.seen) {
        seen.reached.insert(ADOPTED);
        return world.with_task(instance, None);
    }
    let planted = world.scope.planted;
    let habits = match planted {
        Planted::ReplaysAlways => {
            &ProviderHabits { replay_window: Duration::from_secs(3600), ..world.scope.habits }
        }
        _ => &world.scope.habits,
    };
    let mut asked = Session::clone(row);
    if planted == Planted::ReplaysAgain
        && let State::Live(ActiveState { claim: Some(claim), .. }) = &mut asked.state
    {
        claim.replay = false;
    }
    let replay = match asked.refresh_step(world.now(), habits) {
        Ok(RefreshStep::Send) => false,
        Ok(RefreshStep::Replay) => true,
        // The engine asks again later; the model does not.
        Ok(RefreshStep::Wait { .. } | RefreshStep::SignInAgain) | Err(_) => {
            return world.with_task(instance, None);
        }
    };
    let step = match planted {
        Planted::SendsWithoutClaiming => Step::Send { token: token_of(row).unwrap(), replay },
        _ if replay => Step::Ask { read: row.version.0 },
        _ => Step::Claim { read: row.version.0, replay },
    };
    world.with_task(instance, Some(Task { step, ..task }))
}

/// The old access token is validated, or cannot be.
fn ask(world: &World, instance: usize, task: Task, read: u64, seen: &mut Seen) -> Vec<World> {
    let row = &world.rows[task.device];
    let mut next = vec![world.with_task(instance, None)];
    let Some(pair) = row.pair().filter(|_| row.version.0 == read) else {
        next.push(world.with_task(instance, Some(Task { step: Step::Read, ..task })));
        return next;
    };
    let habits = &world.scope.habits;
    let token = token_of(row).unwrap();
    let replaced = !habits.old_access_token_survives && world.grants[task.device].refreshed(token);
    let answer =
        if world.connected && !replaced { ValidateAnswer::Valid(proof()) } else { ValidateAnswer::Rejected };
    match verdict::before_replay(&answer, pair.expiry, world.now(), habits) {
        BeforeReplay::Replay => {
            let step = Step::Claim { read, replay: true };
            next.push(world.with_task(instance, Some(Task { step, ..task })));
        }
        BeforeReplay::Later(failure) => panic!("the provider answered: {failure:?}"),
        BeforeReplay::Spent => {
            seen.reached.insert(GIVEN_UP);
            let claim = row.active().and_then(|active| active.claim).unwrap();
            let mut given_up = world.with_task(instance, None);
            let lost = Session::clone(row).lose_answer(claim.attempt, false).unwrap();
            given_up.write(task.device, lost.into_next(), seen);
            next.push(given_up);
        }
    }
    next
}

/// Writes the claim, unless another writer is first. If its outcome is unknown to its owner, it is
/// given back unsent.
fn claim(world: &World, instance: usize, task: Task, read: u64, replay: bool, seen: &mut Seen) -> Vec<World> {
    let row = &world.rows[task.device];
    let planted = world.scope.planted;
    let checked = !matches!(planted, Planted::ReplaysLate | Planted::ReplaysAgain | Planted::ReplaysAlways);
    let late =
        replay && checked && row.refresh_step(world.now(), &world.scope.habits) != Ok(RefreshStep::Replay);
    if row.version.0 != read || row.ended() || late {
        return vec![world.with_task(instance, Some(Task { step: Step::Read, ..task }))];
    }
    let attempt = attempt_id(task.attempt);
    let first_sent = row.active().and_then(|active| active.claim).filter(|_| replay);
    let claim = Claim {
        attempt,
        taken_at: first_sent.map_or(world.now(), |claim| claim.taken_at),
        lease_until: world.now().after(limits::CLAIM_LEASE),
        fingerprint: Fingerprint([0; 16]),
        replay,
        answer_lost: false,
    };
    let step = Step::Send { token: token_of(row).unwrap(), replay };
    let sent = row.generation().unwrap().0;
    let task = Task { step, sent, ..task };
    let mut written = world.with_task(instance, Some(task));
    written.write(task.device, Session::clone(row).claim(claim).unwrap().into_next(), seen);
    let mut unwritten = world.with_task(instance, None);
    unwritten.write(task.device, Session::clone(row).bump_version().unwrap().into_next(), seen);
    let mut unknown = written.with_task(instance, None);
    let row = Session::clone(&unknown.rows[task.device]);
    let given_back = if replay { row.lose_answer(attempt, true) } else { row.release(attempt) };
    unknown.write(task.device, given_back.unwrap().into_next(), seen);
    vec![written, unwritten, unknown]
}

/// What the engine does with an answer: a compare-and-set on the current row.
fn carry_out(
    world: &World,
    instance: usize,
    task: Task,
    replay: bool,
    answer: Answer,
    seen: &mut Seen,
) -> World {
    let attempt = attempt_id(task.attempt);
    let row = Session::clone(&world.rows[task.device]);
    let planted = world.scope.planted;
    let believed = planted == Planted::EndsAfterRejectedReplay && answer == Answer::Rejected;
    let next = match verdict::after_refresh(told(answer, planted), replay && !believed, &world.scope.habits) {
        AfterRefresh::Commit(_) => {
            let Answer::Issued(new) = answer else { panic!("{answer:?} brings no pair") };
            return commit(world, instance, task, replay, new, seen);
        }
        AfterRefresh::End(reason) => {
            let ended = row.clone().end_rejected(attempt, reason, world.now());
            if ended == Err(Refused::Claimed) {
                seen.reached.insert(NOT_BELIEVED);
            }
            ended
        }
        AfterRefresh::Release(_) => row.release(attempt),
        AfterRefresh::MarkLost { replay_left, .. } => {
            if replay && answer == Answer::Rejected && !row.ended() {
                seen.reached.insert(REPLAY_REJECTED);
            }
            row.lose_answer(attempt, replay_left)
        }
        AfterRefresh::ReleaseAndAlarm => panic!("{answer:?} is no word about our client"),
    };
    let mut after = world.with_task(instance, None);
    if let Ok(next) = next {
        after.write(task.device, next.into_next(), seen);
    }
    after
}

/// Writes the new pair, if the row still has the one that was sent.
fn commit(world: &World, instance: usize, task: Task, replay: bool, new: u8, seen: &mut Seen) -> World {
    let attempt = attempt_id(task.attempt);
    let row = &world.rows[task.device];
    let seal = |generation| pair(generation, new);
    let mut after = world.with_task(instance, None);
    let sent = Some(Version(task.sent));
    let committed = if world.scope.planted == Planted::CommitsOverAnEnd && row.ended() {
        let generation = row.version.next();
        let active = ActiveState { pair: Some(seal(generation)), proven_at: world.now(), claim: None };
        Ok(Session { version: generation, state: State::Live(active), ..Session::clone(row) })
    } else {
        Session::clone(row).rotate(attempt, sent, world.now(), seal).map(Change::into_next)
    };
    match committed {
        Ok(next) => {
            let reached = if row.claimed_by(attempt) { RECOVERED_BY_REPLAY } else { COMMITTED_LATE };
            if replay || reached == COMMITTED_LATE {
                seen.reached.insert(reached);
            }
            after.write(task.device, next, seen);
        }
        Err(Refused::Ended) => drop(seen.reached.insert(OWED)),
        Err(_) => {}
    }
    after
}

fn told(answer: Answer, planted: Planted) -> TokenAnswer {
    let status = |status| TokenAnswer::Unknown(ProviderFailure::new(FailureKind::Status(status)));
    match answer {
        Answer::Issued(_) => TokenAnswer::Issued(IssuedPair {
            access: AccessToken::new("access"),
            refresh: Some(RefreshToken::new("refresh")),
            lifespan: Lifespan::Unknown,
            scopes: None,
        }),
        Answer::Rejected => TokenAnswer::Rejected,
        Answer::Gateway if planted != Planted::BelievesGateways => status(502),
        Answer::TurnedAway | Answer::Gateway => status(429),
        Answer::Lost => TokenAnswer::Lost(ProviderFailure::new(FailureKind::NoAnswer)),
    }
}

fn proof() -> Proof {
    Proof {
        client_id: String::new(),
        subject_id: Some("1".to_owned()),
        display_name: None,
        lifespan: Lifespan::Unknown,
        scopes: Vec::new(),
    }
}
