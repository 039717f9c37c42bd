//! Messages of a browser that arrive twice: it was impatient, or a proxy tried again.

use claviger_core::session::EndReason;
use claviger_engine::{Callback, EndError, LoginError, LoginStarted, SignedIn};
use claviger_seal::SessionCookie;

use crate::history::{Instance, World};

/// The browser comes back from the provider. One callback signs in once.
pub(crate) async fn callback(
    world: &World,
    device: usize,
    instance: &Instance,
    callback: &Callback,
    started: &LoginStarted,
    shown: Option<&SessionCookie>,
) -> Result<SignedIn, LoginError> {
    let finish = || instance.engine.finish_login(callback.clone(), Some(&started.cookie), shown, "sim");
    if !world.rng.chance(100) {
        return finish().await;
    }
    world.record.count("browser: callback sent twice", device);
    let (first, second) = tokio::join!(finish(), finish());
    let new = |one: &Result<SignedIn, LoginError>| one.as_ref().is_ok_and(|done| done.cookie.is_some());
    if new(&first) && new(&second) {
        world.record.violate("ISO", "one callback signed in twice");
    }
    first.or(second)
}

/// The device signs out.
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
