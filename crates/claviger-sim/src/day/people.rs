//! The people of a day, each with one session. They come by the day's curve, send requests, and
//! some sign out and in again.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use claviger_core::{Assurance, EndReason, ReturnTo, SessionId, State, Timestamp, plan::DAY_CURVE};
use claviger_engine::{AtOnce, Caller, Denied, FinishedSignIn, LoginStarted};
use claviger_seal::SessionCookie;
use claviger_store::Store as _;
use futures_util::FutureExt as _;

use super::{World, instance::Instance, provider::user_id};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// How long a device is in use at a time, minimum and maximum.
pub(super) const IN_USE: (Duration, Duration) =
    (Duration::from_secs(2 * 60 * 60), Duration::from_secs(4 * 60 * 60));
/// Time between two requests, minimum and maximum.
const BETWEEN: (Duration, Duration) = (Duration::from_secs(10 * 60), Duration::from_secs(30 * 60));
/// People per thousand who sign out when they are done. Half of them are back within the hour.
const SIGN_OUT_PERMILLE: u64 = 60;
/// People per thousand who sign in again without need, as with cleared cookies.
const SIGN_IN_ANEW_PERMILLE: u64 = 20;

#[derive(Default)]
pub(super) struct Person {
    pub(super) cookie: Option<SessionCookie>,
    /// Until when the device is in use.
    pub(super) until: Timestamp,
    /// An instance died during this person's sign-in, so whether the old session goes on is
    /// unknown.
    pub(super) unsure: bool,
}

/// Something that a person will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    /// Starts to use the device.
    Come,
    /// Sends a request.
    Ask,
}

#[derive(Default)]
pub(super) struct People {
    persons: Mutex<Vec<Person>>,
    coming: Mutex<BinaryHeap<Reverse<(Timestamp, u32, Act)>>>,
    /// Sessions that ended as they should.
    over: Mutex<Vec<SessionId>>,
}

impl People {
    pub(super) fn add(&self, person: Person) {
        self.persons().push(person);
    }

    pub(super) fn plan(&self, at: Timestamp, user: usize, act: Act) {
        let user = u32::try_from(user).unwrap_or(u32::MAX);
        lock(&self.coming).push(Reverse((at, user, act)));
    }

    fn persons(&self) -> MutexGuard<'_, Vec<Person>> {
        lock(&self.persons)
    }

    fn with<T>(&self, user: usize, work: impl FnOnce(&mut Person) -> T) -> Option<T> {
        self.persons().get_mut(user).map(work)
    }

    fn due(&self, now: Timestamp) -> Option<(usize, Act)> {
        let mut coming = lock(&self.coming);
        if coming.peek().is_none_or(|Reverse((at, ..))| *at > now) {
            return None;
        }
        coming.pop().map(|Reverse((_, user, act))| (user as usize, act))
    }

    fn next_at(&self) -> Option<Timestamp> {
        lock(&self.coming).peek().map(|Reverse((at, ..))| *at)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Draws a time of day, since midnight, by the day's curve.
pub(super) fn begins(world_rng: &crate::rng::Rng) -> Duration {
    let all = DAY_CURVE.iter().sum::<u32>() as usize;
    let mut drawn = u32::try_from(world_rng.below(all)).unwrap_or(0);
    let mut hour = 0;
    for weight in DAY_CURVE {
        if drawn < weight {
            break;
        }
        drawn -= weight;
        hour += 1;
    }
    HOUR * hour + world_rng.span(Duration::ZERO, HOUR)
}

/// Lets the people act until the day ends.
pub(super) async fn live(world: Arc<World>) {
    loop {
        let now = world.clock.at();
        while let Some((user, act)) = world.people.due(now) {
            match act {
                Act::Come => come(&world, user, now),
                Act::Ask => ask_or_go(&world, user, now),
            }
        }
        let next = world.people.next_at().map_or(Duration::from_secs(1), |at| at.since(now));
        tokio::time::sleep(next.clamp(Duration::from_millis(1), Duration::from_secs(1))).await;
    }
}

fn come(world: &Arc<World>, user: usize, now: Timestamp) {
    let until = now.after(world.rng.span(IN_USE.0, IN_USE.1));
    let signed_in = world.people.with(user, |person| {
        person.until = until;
        person.cookie.is_some()
    });
    world.people.plan(now.after(world.rng.span(BETWEEN.0, BETWEEN.1)), user, Act::Ask);
    if signed_in == Some(true) && !world.rng.chance(SIGN_IN_ANEW_PERMILLE) {
        ask(world, user);
    } else {
        tokio::spawn(sign_in(Arc::clone(world), user));
    }
}

fn ask_or_go(world: &Arc<World>, user: usize, now: Timestamp) {
    let done = world.people.with(user, |person| person.until <= now).unwrap_or(true);
    if !done {
        world.people.plan(now.after(world.rng.span(BETWEEN.0, BETWEEN.1)), user, Act::Ask);
        return ask(world, user);
    }
    if world.rng.chance(SIGN_OUT_PERMILLE) {
        tokio::spawn(sign_out(Arc::clone(world), user));
        if world.rng.chance(500) {
            world.people.plan(now.after(world.rng.span(5 * MINUTE, HOUR)), user, Act::Come);
        }
    }
}

fn ask(world: &Arc<World>, user: usize) {
    let Some(cookie) = world.people.with(user, |person| person.cookie.clone()).flatten() else { return };
    let Some(instance) = world.any_instance() else { return };
    world.counts.requests.add();
    let cookie = match instance.engine.authenticate_at_once(cookie, Assurance::Session) {
        AtOnce::Caller(_) => return,
        AtOnce::Unknown(cookie) => cookie,
    };
    let (engine, shown) = (instance.engine.clone(), cookie.clone());
    let mut work = Box::pin(async move { engine.authenticate(shown, Assurance::Session).await });
    // Most need only the store, which answers at once.
    match (&mut work).now_or_never() {
        Some(outcome) => served(world, user, &cookie, outcome),
        None => {
            let world = Arc::clone(world);
            tokio::spawn(async move {
                tokio::select! {
                    outcome = work => served(&world, user, &cookie, outcome),
                    () = instance.found_dead() => world.counts.cut_off.add(),
                }
            });
        }
    }
}

fn served(world: &Arc<World>, user: usize, cookie: &SessionCookie, outcome: Result<Caller, Denied>) {
    match outcome {
        Ok(_) => {}
        Err(Denied::SignInAgain) => {
            tokio::spawn(repair(Arc::clone(world), user, cookie.clone()));
        }
        Err(denied @ (Denied::NoSession | Denied::Ended(_))) => signed_out(world, user, cookie, &denied),
        Err(_) => world.counts.put_off.add(),
    }
}

/// TRANSIENT: an answer says "signed out" only to people who signed out.
fn signed_out(world: &Arc<World>, user: usize, cookie: &SessionCookie, denied: &Denied) {
    let holds = |person: &mut Person| {
        let holds = person.cookie.as_ref().is_some_and(|own| own.session == cookie.session);
        (holds, holds && person.unsure)
    };
    match world.people.with(user, holds) {
        Some((true, false)) => {
            world.provider.watch().violate("TRANSIENT", format!("user {user} was signed out: {denied:?}"));
        }
        Some((true, true)) => {
            world.people.with(user, |person| person.cookie = None);
            tokio::spawn(sign_in(Arc::clone(world), user));
        }
        _ => {}
    }
}

async fn sign_in(world: Arc<World>, user: usize) {
    let Some(instance) = world.any_instance() else { return };
    let shown = world.people.with(user, |person| person.cookie.clone()).flatten();
    let started = instance.engine.begin_login(ReturnTo::root(), false);
    match come_back(&world, user, &instance, &started, shown.as_ref()).await {
        Back::With(signed_in) => {
            let cookie = signed_in.cookie.and_then(|value| instance.engine.open_cookie(&value).ok());
            let Some(cookie) = cookie else { return };
            world.counts.sign_ins.add();
            lock(&world.people.over).extend(shown.map(|shown| shown.session));
            // The identity only matters for assurance `cookie`, and takes memory.
            let cookie = SessionCookie { identity: None, ..cookie };
            world.people.with(user, |person| (person.cookie, person.unsure) = (Some(cookie), false));
        }
        Back::NotYet => world.people.plan(
            world.clock.at().after(world.rng.span(2 * MINUTE, 10 * MINUTE)),
            user,
            Act::Come,
        ),
        Back::CutOff => {
            world.people.with(user, |person| person.unsure = true);
            world.people.plan(world.clock.at().after(MINUTE), user, Act::Come);
        }
    }
}

/// How a trip to the provider ended.
enum Back {
    With(FinishedSignIn),
    NotYet,
    CutOff,
}

async fn come_back(
    world: &Arc<World>,
    user: usize,
    instance: &Instance,
    started: &LoginStarted,
    shown: Option<&SessionCookie>,
) -> Back {
    tokio::time::sleep(world.rng.span(Duration::from_secs(1), Duration::from_secs(20))).await;
    let Some(callback) = world.provider.authorize(&user_id(user), &started.location) else {
        return Back::NotYet;
    };
    let finished = instance.engine.finish_login(callback, Some(&started.cookie), shown, "Day");
    tokio::select! {
        finished = finished => finished.map_or(Back::NotYet, Back::With),
        () = instance.found_dead() => Back::CutOff,
    }
}

/// Renews a pair that no refresh can save: the browser goes to the provider and back.
async fn repair(world: Arc<World>, user: usize, cookie: SessionCookie) {
    let Some(instance) = world.any_instance() else { return };
    let begun = tokio::select! {
        begun = instance.engine.begin_repair(&cookie, ReturnTo::root()) => begun,
        () = instance.found_dead() => return,
    };
    let Ok(Some(started)) = begun else { return };
    if let Back::With(_) = come_back(&world, user, &instance, &started, Some(&cookie)).await {
        world.counts.repairs.add();
    }
}

async fn sign_out(world: Arc<World>, user: usize) {
    let Some(cookie) = world.people.with(user, |person| person.cookie.clone()).flatten() else { return };
    let Some(instance) = world.any_instance() else { return };
    let ended = tokio::select! {
        ended = instance.engine.end_own(&cookie, EndReason::SignedOut) => ended.is_ok(),
        () = instance.found_dead() => false,
    };
    if ended {
        world.counts.sign_outs.add();
        lock(&world.people.over).push(cookie.session);
        world.people.with(user, |person| person.cookie = None);
        world.provider.watch().left(user, world.clock.at());
    } else {
        world.people.with(user, |person| person.unsure = true);
    }
}

/// TRANSIENT at the end: exactly the rows that should have ended did.
pub(super) async fn check_rows(world: &World) {
    let held: Vec<_> = {
        let persons = world.people.persons();
        let sure = persons.iter().filter(|person| !person.unsure);
        sure.filter_map(|person| Some(person.cookie.as_ref()?.session)).collect()
    };
    for id in held {
        let row = world.store.load(id).await.ok().flatten();
        if row.as_ref().is_none_or(claviger_core::session::Session::ended) {
            world.provider.watch().violate("TRANSIENT", format!("{id} is over: {row:?}"));
        }
    }
    let over = std::mem::take(&mut *lock(&world.people.over));
    for id in over {
        let Ok(Some(row)) = world.store.load(id).await else { continue };
        let rightly = matches!(
            row.state,
            State::Ended { reason: EndReason::SignedOut | EndReason::ReplacedBySignIn, .. }
        );
        if !rightly {
            world.provider.watch().violate("ENDED", format!("{id} should be over: {:?}", row.state));
        }
    }
}
