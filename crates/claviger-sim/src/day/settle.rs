//! The start of a day: the sessions of the days before, in the state that they would have.

use std::time::Duration;

use claviger_core::{
    AccessToken, ActiveState, AttemptId, Custody, DeviceLabel, Expiry, ProviderHabits, RefreshToken, SLOTS,
    SealedPair, Session, SessionId, SessionSecret, Slot, State, Subject, Timestamp, Version,
};
use claviger_mock::{DEMO_CLIENT_ID, User};
use claviger_seal::{AccessPlain, PairBinding, RefreshLock, SessionCookie};
use claviger_store::{Item, LeaseTerms, Placement, Queue, Store as _, StoreError, SweepKind};

use crate::{plan::Offers, world};

use super::{
    World,
    people::{Act, IN_USE, Person, begins},
    provider::user_id,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum age of a session at the start.
const OLDEST: Duration = Duration::from_secs(12 * 24 * 60 * 60);

/// The history of one session before the start.
struct Past {
    /// When its token was issued, and when it was last proven.
    issued_at: Timestamp,
    proven_at: Timestamp,
    last_seen_at: Timestamp,
}

/// Adds the people of a day, each with a session of yesterday or this morning.
pub(super) async fn people_of_a_day(world: &World) -> Result<(), StoreError> {
    let (now, midnight) = (world.clock.start(), world.clock.midnight());
    for user in 0..world.sessions {
        let today = midnight.after(begins(&world.rng));
        let came_at = if today < now { today } else { midnight.before(DAY).after(begins(&world.rng)) };
        let until = came_at.after(world.rng.span(IN_USE.0, IN_USE.1));
        // People who stay longer than a token lives get a second one five minutes before its end.
        let second = came_at.after(world.token_life).before(Duration::from_secs(5 * 60));
        let issued_at = if second < now && second < until { second } else { came_at };
        let past = Past { issued_at, proven_at: issued_at, last_seen_at: until.min(now) };
        add(world, user, past, until).await?;
        if today >= now {
            world.people.plan(today, user, Act::Come);
        }
        if until > now {
            world.people.plan(
                now.after(world.rng.span(Duration::ZERO, Duration::from_secs(30 * 60))),
                user,
                Act::Ask,
            );
        }
    }
    make_slots_due(world, now).await
}

/// Adds sessions that were neither used nor validated for `down_for`, as after an outage of all
/// instances.
pub(super) async fn all_overdue(world: &World, down_for: Duration) -> Result<(), StoreError> {
    let went_down = world.clock.start().before(down_for);
    for user in 0..world.sessions {
        let issued_at = went_down.before(world.period * 2);
        add(world, user, Past { issued_at, proven_at: issued_at, last_seen_at: went_down }, Timestamp::EPOCH)
            .await?;
    }
    make_slots_due(world, went_down).await
}

/// Adds a user and a session with a living refresh token. Real sign-ins give the same rows, but a
/// million of them take minutes.
async fn add(world: &World, user: usize, past: Past, until: Timestamp) -> Result<(), StoreError> {
    let id = user_id(user);
    let tokens = {
        let mut mock = world.provider.mock();
        mock.add_user(User::new(id.as_str(), id.as_str()).without_email());
        mock.sign_in(&id, DEMO_CLIENT_ID, &[], past.issued_at.as_millis())
    };
    let Some(tokens) = tokens else { return Ok(()) };
    let created_at = past.issued_at.before(world.rng.span(Duration::ZERO, OLDEST));
    let session = SessionId::new(created_at, world.random());
    let secret = SessionSecret::new(world.random());
    let provider = world::provider_config(ProviderHabits::FORGIVING, Offers::ALL).name;
    let binding = PairBinding { provider: &provider, session, generation: Version::FIRST };
    let access = AccessPlain { token: AccessToken::new(tokens.access_token), scopes: Vec::new() };
    let dies_at = past.issued_at.after(world.token_life);
    let pair = SealedPair {
        generation: Version::FIRST,
        access: world.keyring.seal_access(binding, &access, world.random()),
        refresh: Some(world.keyring.seal_refresh(
            binding,
            RefreshLock::Device(&secret),
            &RefreshToken::new(tokens.refresh_token),
            world.random(),
        )),
        expiry: Expiry::At(dies_at),
    };
    let proven_at = last_visit(world, session, past.proven_at);
    let active = ActiveState { pair: Some(pair), proven_at, claim: None };
    let lives = dies_at > world.clock.start();
    let row = Session {
        id: session,
        version: Version::FIRST,
        subject: Subject { provider: provider.clone(), id: id.clone() },
        display_name: id,
        secret_hash: secret.hash(),
        custody: Custody::Device,
        device: DeviceLabel::from_user_agent("Day"),
        created_at,
        last_seen_at: past.last_seen_at,
        state: if lives { State::Live(active) } else { State::Parked(active) },
    };
    world.store.insert(row, Placement { limit: u32::MAX, replaces: None }).await?;
    if lives {
        world.provider.watch().begins(user, proven_at, dies_at);
    }
    let good_until = created_at.after(DAY * 30);
    let cookie = SessionCookie { session, secret, good_until, identity: None };
    world.people.add(Person { cookie: Some(cookie), until, ..Person::default() });
    Ok(())
}

/// Returns when the sweep last validated a session.
fn last_visit(world: &World, session: SessionId, issued_at: Timestamp) -> Timestamp {
    let swept_until = world.swept_until;
    issued_at.max(Slot::of(session).next_visit(world.period, swept_until.before(world.period)))
}

/// Makes each slot due at its first visit after this time.
async fn make_slots_due(world: &World, at: Timestamp) -> Result<(), StoreError> {
    let holder = AttemptId(world.random());
    let terms =
        LeaseTerms { holder, now: at, until: at.after(DAY), latest_due: Timestamp::from_millis(i64::MAX) };
    for kind in SweepKind::ALL {
        let period = if kind == SweepKind::Connections { DAY } else { world.period };
        for lease in world.store.take(Queue::Slots(kind), terms, usize::from(SLOTS)).await? {
            if let Item::Slot(slot) = lease.item {
                lease.reschedule(&*world.store, slot.next_visit(period, at)).await?;
            }
        }
    }
    Ok(())
}
