//! The end of a history, without faults: each device must get a living token in bounded time, and
//! every promise must be kept.

use std::time::Duration;

use claviger_core::{ActiveState, Presence, Session, State, limits};
use claviger_engine::Denied;
use claviger_seal::SessionCookie;
use claviger_store::{Queue, Store as _};

use crate::{
    devices,
    fate::CLOCKS_APART,
    mail,
    plan::{Asks, Mail, TOKEN_LIFE},
    world::{self, World},
};

/// Longer than every lease, backoff and breaker.
const CALM: Duration = Duration::from_secs(2 * 60);
/// Longer than a revocation waits for its next attempt.
const OUTBOX: Duration = Duration::from_secs(20 * 60);
const TRIES: usize = 12;

pub(crate) async fn settle(world: &World) {
    world.provider.mend();
    for instance in world.alive() {
        instance.fate.clear_traps();
        instance.fate.set_store_down(false);
        instance.fate.set_store_trouble(0);
    }
    world.set_clocks(None, 0);
    world.restart_all().await;
    mail::set_mail(world, Mail::Prompt);
    mail::release(world, false);
    world.record.say(0, || "the faults have stopped".to_owned());
    tokio::time::sleep(CALM).await;
    tokio::time::sleep(world::PERIOD).await;
    check_live(world);
    for device in 0..world.plan.device_count() {
        reaches_a_living_token(world, device).await;
    }
    // A clock that was ahead may have put a revocation off for as long as any can be.
    tokio::time::sleep(if world.plan.clocks_jump() { limits::RETRY_AFTER_MAX + OUTBOX } else { OUTBOX })
        .await;
    if !world.plan.offers.validation {
        // A token that died early is noticed at its next use, or when its user is away.
        tokio::time::sleep(TOKEN_LIFE + world::PERIOD + world::CONNECTION_CHECK_PERIOD).await;
    }
    check_outbox(world).await;
    check_disconnects(world);
    check_deliveries(world);
    world.check_rows_in_force();
    check_rows(world).await;
}

/// HOURLY, and LIVE for users who disconnected: within a period the sweep has validated each living
/// token, if the provider has a validation.
fn check_live(world: &World) {
    if !world.plan.offers.validation {
        return;
    }
    let now = world.provider.now();
    let visited_before = world::PERIOD + CLOCKS_APART;
    for row in world.ledger.rows() {
        let State::Live(ActiveState { pair: Some(pair), proven_at, .. }) = &row.state else { continue };
        if pair.expiry.passed(now.after(CLOCKS_APART)) {
            // The next visit parks it; a request notices sooner.
            continue;
        }
        if proven_at.age(now.after(CLOCKS_APART)).is_none() {
            world.record.violate("CLOCK", format!("{} keeps a proof from the future", row.id));
        }
        if now.since(*proven_at) > world::PROOF {
            let age = now.since(*proven_at);
            world.record.violate("HOURLY", format!("{} is Live and was proven {age:?} ago", row.id));
        }
        let dead = world.ledger.token_of(&row).is_some_and(|token| !world.provider.takes(&token));
        if dead && now.since(row.created_at) > visited_before {
            world.record.violate("LIVE", format!("{} holds a dead token a period later", row.id));
        }
    }
}

/// LIVE: users who disconnected the app and did not come back are out everywhere, at the latest
/// after the connection check. The provider does not mention deleted accounts, which counts only if
/// it names somebody else (docs/decisions/0012).
fn check_disconnects(world: &World) {
    let rows = world.ledger.rows();
    let anybody_left = rows.iter().any(|row| !row.ended() && world.provider.connected(&row.subject.id));
    for row in rows.into_iter().filter(|row| !row.ended()) {
        let told = anybody_left || world.provider.exists(&row.subject.id);
        if told && !world.provider.connected(&row.subject.id) {
            world.record.violate("LIVE", format!("{} is in force without its user", row.id));
        }
        let Some(at) = world.ledger.last_disconnect(&row.subject.id) else { continue };
        let older = world.ledger.begun(&row) + CLOCKS_APART < at;
        let dead = world.ledger.token_of(&row).is_some_and(|token| !world.provider.takes(&token));
        if older && dead && matches!(row.state, State::Live(_)) {
            world.record.violate("LIVE", format!("{} is older than a disconnect, and Live", row.id));
        }
    }
}

/// LIVE: a device in force gets a token that the provider accepts, within a few tries.
async fn reaches_a_living_token(world: &World, device: usize) {
    for n in 0..TRIES {
        let (Some(cookie), Some(instance)) = (world.device(device).cookie, world.instance(n % 3)) else {
            return;
        };
        let outcome = devices::asked(world, &instance, &cookie, Asks::Provider).await;
        world.ledger.used(cookie.session, claviger_engine::Clock::now(&*instance.fate));
        world.judge(instance.fate.who, device, &cookie, &outcome);
        match outcome {
            Ok(()) => return check_token(world, &instance, &cookie).await,
            Err(Denied::SignInAgain) => {
                devices::repair(world, device, n % 3).await;
            }
            Err(Denied::ProviderUnavailable { retry_after }) => tokio::time::sleep(retry_after).await,
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
    // A deleted account cannot come back. The connection check ends its sessions.
    let exists = world.provider.exists(world.user(device));
    if let Some(cookie) = world.device(device).cookie.filter(|_| exists) {
        let row = world.ledger.last(cookie.session);
        world.record.violate("LIVE", format!("device {device} reaches no living token: {row:?}"));
    }
}

async fn check_token(world: &World, instance: &world::Instance, cookie: &SessionCookie) {
    match instance.engine.grant(cookie, None, Presence::Active).await {
        Ok(grant) => {
            world.check_grant(cookie, &grant);
            if !world.provider.takes(grant.token.expose()) {
                world.record.violate("LIVE", format!("{} was given a dead token", cookie.session));
            }
        }
        Err(denied) => {
            world.record.violate("LIVE", format!("{} is served, but has no token: {denied}", cookie.session))
        }
    }
}

/// CASCADE: no revocation is still pending.
async fn check_outbox(world: &World) {
    let backlog = world.ledger.memory.backlog(Queue::Revocations).await.unwrap_or_default();
    if backlog.count > 0 {
        world.record.violate("CASCADE", format!("{} revocations are still pending", backlog.count));
    }
}

/// STRAND: a pair that reached a process is or was in its row, or was revoked, unless the process
/// died.
fn check_deliveries(world: &World) {
    for pair in world.provider.delivered() {
        let kept = world.ledger.owner(&pair.access).is_some();
        if !kept && !world.ledger.was_owed(&pair.access) && pair.to.alive() {
            world.record.violate("STRAND", format!("instance {} lost a pair that it was given", pair.to.who));
        }
        if !kept && world.ledger.was_owed(&pair.access) {
            world.record.count("pair: owed, since no row could hold it", pair.to.who);
            if world.plan.offers.revocation && world.provider.takes(&pair.access) {
                world.record.violate("CASCADE", "a pair that no row holds lives on");
            }
        }
    }
}

async fn check_rows(world: &World) {
    let mut rows: Vec<Session> = Vec::new();
    for row in world.ledger.rows() {
        rows.extend(world.ledger.row(row.id).await);
    }
    world.ledger.check_idle_clocks(&rows);
    for row in &rows {
        let known = world.ledger.last(row.id);
        if known.is_none_or(|known| known.version != row.version || known.state != row.state) {
            world.record.violate("MONO", format!("{} is not as it was committed last", row.id));
        }
    }
    for (token, session) in world.ledger.tokens() {
        let owed = world.plan.offers.revocation;
        let ended = owed && world.ledger.last(session).is_none_or(|row| row.ended());
        if ended && world.ledger.was_last(&token, session) && world.provider.takes(&token) {
            world.record.violate("CASCADE", format!("the last token of {session} lives on"));
        }
    }
}
