//! Callbacks and sign-outs that a browser sends more than once, because of impatience, a reload or
//! a proxy's retry.

use std::time::Duration;

use claviger_core::{EndReason, Session, SessionId, limits};
use claviger_engine::{Callback, EndError, FinishedSignIn, LoginError, LoginStarted};
use claviger_seal::{LoginCookie, SessionCookie};

use crate::world::{Instance, World, keyring};

/// A sign-in or a repair whose browser came back from the provider.
pub(crate) struct Return {
    callback: Callback,
    started: LoginStarted,
    login: LoginCookie,
}

impl Return {
    /// None if the engine cannot open its own cookie, which the caller need not expect.
    pub(crate) fn new(callback: Callback, started: LoginStarted) -> Option<Self> {
        let login = LoginCookie::open(&keyring(), &started.cookie).ok()?;
        Some(Self { callback, started, login })
    }

    /// Delivers the callback, sometimes twice at once. None if the instance died meanwhile.
    pub(crate) async fn deliver(
        &self,
        world: &World,
        device: usize,
        instance: &Instance,
        shown: Option<&SessionCookie>,
    ) -> Option<Result<FinishedSignIn, LoginError>> {
        let twice = world.rng.chance(100);
        let deliveries = async {
            if !twice {
                return self.finish(instance, shown).await;
            }
            world.record.count("browser: callback sent twice", device);
            let began = world.record.elapsed();
            let (first, second) = tokio::join!(self.finish(instance, shown), self.finish(instance, shown));
            // The second gives up where the first takes very long.
            let waits = limits::ADOPTION_WAIT.saturating_sub(Duration::from_secs(2));
            if world.record.elapsed() - began < waits {
                self.judge(world, &first, &second);
                self.judge(world, &second, &first);
            }
            first.or(second)
        };
        tokio::select! {
            biased;
            () = instance.fate.died() => None,
            outcome = deliveries => Some(outcome),
        }
    }

    /// The user reloads the page of the callback within a minute. Any instance may answer.
    pub(crate) async fn reload(
        &self,
        world: &World,
        device: usize,
    ) -> Option<Result<FinishedSignIn, LoginError>> {
        tokio::time::sleep(world.rng.span(Duration::ZERO, Duration::from_secs(45))).await;
        let instance = world.instance(world.rng.below(world.plan.instances))?;
        world.record.count("browser: callback reloaded", device);
        let shown = world.device(device).cookie;
        if let Some(shown) = &shown {
            world.ledger.may_end(shown.session, EndReason::ReplacedBySignIn);
        }
        let before = self.result(world, shown.as_ref());
        let outcome = tokio::select! {
            biased;
            () = instance.fate.died() => return None,
            outcome = self.finish(&instance, shown.as_ref()) => outcome,
        };
        let after = self.result(world, shown.as_ref());
        let stood = before.zip(after).is_some_and(|(before, after)| before.version == after.version);
        if stood && is_lost(&outcome) {
            world.record.violate("LOSER", format!("a reload lost the result of a sign-in: {outcome:?}"));
        }
        if outcome.as_ref().is_ok_and(|again| again.session != self.session()) {
            world.record.violate("ISO", "a callback led to another session");
        }
        Some(outcome)
    }

    async fn finish(
        &self,
        instance: &Instance,
        shown: Option<&SessionCookie>,
    ) -> Result<FinishedSignIn, LoginError> {
        let (callback, login) = (self.callback.clone(), Some(&*self.started.cookie));
        instance.engine.finish_login(callback, login, shown, "sim").await
    }

    /// LOSER: of two deliveries at once, both get the session or can try again.
    fn judge(
        &self,
        world: &World,
        one: &Result<FinishedSignIn, LoginError>,
        other: &Result<FinishedSignIn, LoginError>,
    ) {
        let Ok(signed_in) = one else { return };
        let in_force = world.ledger.last(signed_in.session).is_some_and(|row| !row.ended());
        if in_force && world.clocks_are_right() && is_lost(other) {
            world.record.violate("LOSER", format!("a callback lost against its twin: {other:?}"));
        }
        if other.as_ref().is_ok_and(|other| other.session != signed_in.session) {
            world.record.violate("ISO", "one callback signed in twice");
        }
    }

    fn session(&self) -> SessionId {
        self.login.repairs.unwrap_or_else(|| self.login.session().0)
    }

    /// The session that a delivery began or repaired, if a reload must lead to it.
    fn result(&self, world: &World, shown: Option<&SessionCookie>) -> Option<Session> {
        let row = world.ledger.last(self.session()).filter(|row| !row.ended())?;
        let must = if self.login.repairs.is_some() {
            shown.is_some_and(|shown| shown.session == row.id) && world.can_be_saved(&row)
        } else {
            // The clocks of instances differ, and a late reload need not succeed.
            let age = world.record.elapsed() - world.ledger.begun(&row);
            age + Duration::from_secs(10) < limits::CALLBACK_REPEATS
        };
        (must && world.clocks_are_right()).then_some(row)
    }
}

/// Whether the answer says that the sign-in is over.
fn is_lost(outcome: &Result<FinishedSignIn, LoginError>) -> bool {
    matches!(
        outcome,
        Err(LoginError::AlreadyUsed
            | LoginError::Stale
            | LoginError::CodeRejected
            | LoginError::SessionEnded)
    )
}

/// Signs the device out.
pub(crate) async fn sign_out(
    world: &World,
    device: usize,
    instance: &Instance,
    cookie: &SessionCookie,
) -> Result<(), EndError> {
    let end = || instance.engine.end_own(cookie, EndReason::SignedOut);
    if world.rng.chance(200) {
        world.record.count("browser: sign-out sent twice", device);
        let (first, second) = tokio::join!(end(), end());
        first.and(second)?;
    } else {
        end().await?;
    }
    instance.fate.tells_end(cookie.session);
    Ok(())
}
