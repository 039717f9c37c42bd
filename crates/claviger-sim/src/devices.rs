//! What the users' devices do: requests, sign-ins, repairs and sign-outs; and the checks of the
//! answers.

use std::{sync::Arc, time::Duration};

use claviger_core::{ApiRefusal, Assurance, EndReason, Presence, ReturnTo};
use claviger_engine::{Clock as _, Denied, FinishedSignIn, LoginError, LoginStarted, Target};
use claviger_seal::SessionCookie;

use crate::{
    deliveries::{self, Return},
    plan::{Asks, Tab},
    world::{Instance, World},
};

/// How many of a thousand callbacks are reloaded.
const RELOADS_PERMILLE: u64 = 150;

pub(crate) async fn ask(world: Arc<World>, device: usize, tab: Tab) {
    let (Some(instance), Some(cookie)) = (world.instance(tab.instance), world.device(device).cookie) else {
        return;
    };
    let who = instance.fate.who;
    let work = asked(&world, &instance, &cookie, tab.asks);
    let before = world.ledger.last(cookie.session);
    let (asked_at, begun) = (instance.fate.now(), world.record.elapsed());
    world.ledger.used(cookie.session, asked_at);
    let told_before = instance.fate.told_end(cookie.session);
    let patience = tab.gives_up_after.unwrap_or(Duration::from_secs(24 * 60 * 60));
    let outcome = tokio::select! {
        biased;
        () = instance.fate.died() => None,
        outcome = tokio::time::timeout(patience, work) => Some(outcome),
    };
    // The use may have counted at any moment until the answer, and the clock may have been set back
    // meanwhile.
    world.ledger.used(cookie.session, asked_at.after(world.record.elapsed() - begun));
    world.ledger.used(cookie.session, instance.fate.now());
    match outcome {
        None => world.record.count("caller: connection lost", who),
        Some(Ok(outcome)) => {
            if outcome == Err(Denied::SignInAgain) {
                world.check_renewal(&cookie, before.as_ref());
            }
            instance.fate.answers(cookie.session, told_before, &outcome);
            world.judge(who, device, &cookie, &outcome);
        }
        Some(Err(_)) => {
            world.record.count("caller: went away", who);
            instance.fate.caller_goes();
        }
    }
}

/// Sends a request to the engine, and checks the tokens that it gets.
pub(crate) async fn asked(
    world: &World,
    instance: &Instance,
    cookie: &SessionCookie,
    asks: Asks,
) -> Result<(), Denied> {
    let engine = &instance.engine;
    let assurance = match asks {
        Asks::Cookie => Assurance::Cookie,
        Asks::Session => Assurance::Session,
        Asks::Provider => Assurance::Provider { max_age: Duration::ZERO },
        Asks::Grant | Asks::GrantDead | Asks::GrantUnclear => {
            let grant = engine.grant(cookie, None, Presence::Active).await?;
            world.check_grant(cookie, &grant);
            let refusal = match asks {
                Asks::GrantDead => ApiRefusal::DeadToken,
                Asks::GrantUnclear => ApiRefusal::Unclear,
                _ => return Ok(()),
            };
            if let Some(newer) = engine.grant_after_refusal(cookie, &grant, refusal).await? {
                world.check_grant(cookie, &newer);
                if newer.generation <= grant.generation {
                    world.record.violate("MONO", "a refused token was handed out again");
                }
            }
            return Ok(());
        }
    };
    let caller = engine.authenticate(cookie.clone(), assurance).await?;
    let owner = world.ledger.last(cookie.session).map(|row| row.subject);
    if caller.session() != cookie.session || owner.as_ref() != Some(caller.subject()) {
        world.record.violate("ISO", format!("{} was taken for somebody else", cookie.session));
    }
    Ok(())
}

pub(crate) async fn sign_in(world: &World, device: usize, instance: usize) {
    let Some(instance) = world.instance(instance) else { return };
    let shown = world.device(device).cookie;
    if let Some(shown) = &shown {
        world.ledger.may_end(shown.session, EndReason::ReplacedBySignIn);
    }
    let started = instance.engine.begin_login(ReturnTo::root(), false);
    let Some(back) = come_back(world, device, started).await else { return };
    let outcome = back.deliver(world, device, &instance, shown.as_ref()).await;
    take(world, device, &instance, outcome);
    if world.rng.chance(RELOADS_PERMILLE) {
        let outcome = back.reload(world, device).await;
        take(world, device, &instance, outcome);
    }
}

/// The browser takes the cookie of its new session.
fn take(
    world: &World,
    device: usize,
    instance: &Instance,
    outcome: Option<Result<FinishedSignIn, LoginError>>,
) {
    if let Some(Ok(signed_in)) = outcome
        && let Some(Ok(cookie)) = signed_in.cookie.map(|value| instance.engine.open_cookie(&value))
    {
        world.record.count("device: signed in", device);
        world.ledger.delivered(cookie.session);
        world.set_cookie(device, Some(cookie));
    }
}

/// The browser goes to the provider and comes back.
async fn come_back(world: &World, device: usize, started: LoginStarted) -> Option<Return> {
    tokio::time::sleep(world.rng.span(Duration::from_millis(50), Duration::from_secs(3))).await;
    let callback = world.provider.authorize(world.user(device), &started.location)?;
    Return::new(callback, started)
}

/// Returns whether the device's session got a new pair.
pub(crate) async fn repair(world: &World, device: usize, instance: usize) -> bool {
    let (Some(instance), Some(cookie)) = (world.instance(instance), world.device(device).cookie) else {
        return false;
    };
    let begun = tokio::select! {
        biased;
        () = instance.fate.died() => return false,
        begun = instance.engine.begin_repair(&cookie, ReturnTo::root()) => begun,
    };
    let Ok(Some(started)) = begun else { return false };
    let Some(back) = come_back(world, device, started).await else { return false };
    let outcome = back.deliver(world, device, &instance, Some(&cookie)).await;
    let repaired = check_repair(world, device, &cookie, outcome);
    if world.rng.chance(RELOADS_PERMILLE) {
        let outcome = back.reload(world, device).await;
        return check_repair(world, device, &cookie, outcome) || repaired;
    }
    repaired
}

/// Returns whether a repair succeeded.
fn check_repair(
    world: &World,
    device: usize,
    cookie: &SessionCookie,
    outcome: Option<Result<FinishedSignIn, LoginError>>,
) -> bool {
    match outcome {
        Some(Ok(_)) => {
            world.record.count("device: repaired", device);
            return true;
        }
        Some(Err(LoginError::SessionEnded))
            if !world.ledger.last(cookie.session).is_some_and(|row| row.ended()) =>
        {
            world.record.violate("TRANSIENT", "a repair found an end that is none");
        }
        Some(Err(LoginError::AnotherUser)) => {
            world.record.violate("ISO", "a repair found another user");
        }
        _ => {}
    }
    false
}

pub(crate) async fn sign_out(world: &World, device: usize, instance: usize) {
    let (Some(instance), Some(cookie)) = (world.instance(instance), world.device(device).cookie) else {
        return;
    };
    world.ledger.may_end(cookie.session, EndReason::SignedOut);
    let ended = tokio::select! {
        biased;
        () = instance.fate.died() => return,
        ended = deliveries::sign_out(world, device, &instance, &cookie) => ended,
    };
    if ended.is_ok() {
        world.record.count("device: signed out", device);
        if world.ledger.last(cookie.session).is_some_and(|row| !row.ended()) {
            world.record.violate("ENDED", "a sign-out that succeeded left the session in force");
        }
        world.clear_cookie(device, &cookie);
    }
}

pub(crate) async fn end_other(world: &World, device: usize, other: usize, instance: usize) {
    let (Some(instance), Some(target)) = (world.instance(instance), world.device(other).cookie) else {
        return;
    };
    let Some(row) = world.ledger.last(target.session).filter(|row| row.subject.id == world.user(device))
    else {
        return;
    };
    world.ledger.may_end(target.session, EndReason::SignedOutFromAnotherDevice);
    let session = target.session;
    let target = Target::DeviceOf(row.subject, session);
    tokio::select! {
        biased;
        () = instance.fate.died() => {}
        ended = instance.engine.end(target, EndReason::SignedOutFromAnotherDevice) => {
            if ended.is_ok() {
                instance.fate.tells_end(session);
            }
        }
    }
}

pub(crate) async fn end_others(world: &World, device: usize, instance: usize) {
    let (Some(instance), Some(own)) = (world.instance(instance), world.device(device).cookie) else {
        return;
    };
    let user = world.user(device);
    let Some(row) = world.ledger.last(own.session) else { return };
    world.ledger.all_may_end(user, &[EndReason::SignedOutFromAnotherDevice]);
    // Clocks differ, so very recent sign-ins may be on either side.
    let before = world.provider.now().before(Duration::from_secs(5));
    let target = Target::Others(row.subject, own.session);
    let ended = tokio::select! {
        biased;
        () = instance.fate.died() => return,
        ended = instance.engine.end(target, EndReason::SignedOutFromAnotherDevice) => ended,
    };
    if ended.is_err() {
        return;
    }
    world.record.count("device: ended the others", device);
    for row in world.ledger.rows() {
        let meant = row.subject.id == user && row.id != own.session && row.created_at < before;
        if meant && !row.ended() {
            world.record.violate("OTHERS", format!("{} was left in force", row.id));
        } else if meant && world.ledger.ended_by(instance.fate.who, row.id) {
            // Instances do not notify each other here, so this one may not know of an end by
            // another.
            instance.fate.tells_end(row.id);
        }
    }
}

pub(crate) fn kill_access_token(world: &World, device: usize) {
    let Some(cookie) = world.device(device).cookie else { return };
    let token = world.ledger.last(cookie.session).and_then(|row| world.ledger.token_of(&row));
    if token.is_some_and(|token| world.provider.mock().kill_token(&token)) {
        world.record.count("fault: access token died early", device);
    }
}
