//! What is remembered of the subscription that was made last. The provider does not tell which
//! secret it signs with, so a changed one would go unnoticed.

use claviger_core::Version;
use claviger_store::{SharedEntry, Store, StoreError};

/// The name of the shared entry in the store.
const NAME: &str = "webhook-subscription";
/// The first byte of a value.
const FORMAT: u8 = 1;

/// A subscription as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registration {
    /// Hash of the settings that it was made with, or is about to be.
    pub(super) settings: [u8; 32],
    /// Its id at the provider. Empty until it is made.
    pub(super) id: String,
    /// The address that it sends its events to.
    pub(super) callback: String,
}

/// A registration as stored, with the version of its entry.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    version: Option<Version>,
    pub(super) registration: Option<Registration>,
}

impl Registration {
    fn to_bytes(&self) -> Vec<u8> {
        // No provider has ids that are longer than 255 bytes.
        let length = u8::try_from(self.id.len()).unwrap_or(0);
        let id = self.id.get(..usize::from(length)).unwrap_or_default();
        [&[FORMAT], &self.settings[..], &[length], id.as_bytes(), self.callback.as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[FORMAT], rest) = bytes.split_first_chunk()? else { return None };
        let (&settings, rest) = rest.split_first_chunk()?;
        let (&[length], rest) = rest.split_first_chunk()?;
        let (id, callback) = rest.split_at_checked(usize::from(length))?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        Some(Self { settings, id: text(id)?, callback: text(callback)? })
    }
}

impl Stored {
    /// Reads it. A value that is not understood counts as none.
    pub(super) async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let entry = store.shared_entry(NAME).await?;
        Ok(Self {
            version: entry.as_ref().map(|entry| entry.version),
            registration: entry.and_then(|entry| Registration::from_bytes(&entry.value)),
        })
    }

    /// Replaces it. False if another instance was first.
    pub(super) async fn replace(
        &self,
        store: &dyn Store,
        registration: &Registration,
    ) -> Result<bool, StoreError> {
        let version = self.version.map_or(Version::FIRST, Version::next);
        store.put_shared_entry(NAME, &SharedEntry { version, value: registration.to_bytes() }).await
    }

    /// Whether it was made with other settings, or is about to be.
    pub(super) fn differs(&self, settings: &[u8; 32]) -> bool {
        self.registration.as_ref().is_some_and(|registration| registration.settings != *settings)
    }

    /// The id of the subscription that was made with these settings.
    pub(super) fn current(&self, settings: &[u8; 32]) -> Option<&str> {
        let registration = self.registration.as_ref().filter(|one| one.settings == *settings)?;
        Some(&*registration.id).filter(|id| !id.is_empty())
    }

    /// A subscription that was made for another address. The store may be a copy of the one of a
    /// deployment there.
    pub(super) fn elsewhere(&self, callback: &str) -> Option<&Registration> {
        self.registration.as_ref().filter(|one| !one.id.is_empty() && one.callback != callback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_is_read_as_it_was_written() {
        for id in ["", "1-2", &"x".repeat(255)] {
            let registration = Registration {
                settings: [7; 32],
                id: id.to_owned(),
                callback: "https://app.example/auth/webhook".to_owned(),
            };
            assert_eq!(Registration::from_bytes(&registration.to_bytes()), Some(registration));
        }
        for bytes in [&[][..], &[2; 60], &[FORMAT; 20], &[[FORMAT; 33].as_slice(), &[9, 1]].concat()] {
            assert_eq!(Registration::from_bytes(bytes), None, "{bytes:?}");
        }
    }
}
