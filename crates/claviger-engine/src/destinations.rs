//! Keeps destinations of sign-ins that are too long for headers and cookies.
//!
//! Anybody can have one kept, without a session. So there is a fixed number of places, each a
//! shared entry of the store, and a rate limit. A new destination takes the place of another, and a
//! page tells its user so. Anybody can look one up too, so clients share a budget for that.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use claviger_core::{Arrival, Budget, ReturnTo, TokenBucket, Version, limits};
use claviger_seal::destination;
use claviger_store::{SharedEntry, Store};

use crate::{DestinationError, Env, Lock, SharedBudget, part::part};

part! {
    /// The destinations that are kept.
    pub(crate) struct Destinations needs {
        env: Env,
        store: Arc<dyn Store>,
    } owns {
        rate: Lock<TokenBucket> =
            Lock::new(TokenBucket::new(Budget::per_second(limits::DESTINATIONS_PER_SECOND))),
        reads: SharedBudget = SharedBudget::new(env, limits::DESTINATION_READS),
    }
}

impl Destinations {
    /// Keeps a destination, and returns its reference. None if it cannot be kept.
    pub(crate) async fn keep(&self, to: &ReturnTo) -> Option<String> {
        self.rate.lock().take(self.env.now(), Duration::ZERO)?;
        for _ in 0..limits::KEEP_TRIES {
            let reference: [u8; 32] = self.env.random();
            let name = place(&reference);
            let before = self.store.shared_entry(&name).await.ok()?;
            let version = before.map_or(Version::FIRST, |entry| entry.version.next());
            let value = destination::seal(&reference, to.as_str(), self.env.nonce());
            if self.store.put_shared_entry(&name, &SharedEntry { version, value }).await.ok()? {
                return Some(URL_SAFE_NO_PAD.encode(reference));
            }
        }
        None
    }

    /// The destination that has this reference. None if another one took its place.
    pub(crate) async fn find(
        &self,
        reference: &str,
        arrival: Arrival,
    ) -> Result<Option<ReturnTo>, DestinationError> {
        let mut id = [0; 32];
        if URL_SAFE_NO_PAD.decode_slice(reference, &mut id) != Ok(id.len()) {
            return Ok(None);
        }
        // Used up even if it is found, since it may be looked up any number of times.
        let _place =
            self.reads.take(arrival).map_err(|retry_after| DestinationError::Busy { retry_after })?;
        let entry = self.store.shared_entry(&place(&id)).await?;
        let kept = entry.and_then(|entry| destination::open(&id, &entry.value).ok());
        Ok(kept.and_then(|kept| ReturnTo::parse(&kept)))
    }
}

/// The name of the shared entry of a reference.
fn place(reference: &[u8; 32]) -> String {
    let [a, b, ..] = *reference;
    format!("destination-{}", u16::from_be_bytes([a, b]) % limits::KEPT_DESTINATIONS)
}
