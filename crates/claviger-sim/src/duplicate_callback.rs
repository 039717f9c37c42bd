//! Callbacks and sign-outs that a browser sends twice, because of impatience or a proxy's retry.

use claviger_core::EndReason;
use claviger_engine::{Callback, EndError, LoginError, LoginStarted, SignedIn};
use claviger_seal::SessionCookie;

use crate::world::{Instance, World};

/// Finishes a sign-in. A repeated callback must sign in only once.
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
    if let (Ok(first), Ok(second)) = (&first, &second)
        && first.session != second.session
    {
        world.record.violate("ISO", "one callback signed in twice");
    }
    first.or(second)
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
