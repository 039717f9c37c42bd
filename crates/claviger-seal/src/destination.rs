//! Seals the destination of a sign-in that is kept in the store.
//!
//! The key follows from the reference that the browser has. So the store reveals no destination,
//! and a change of the server's keys loses none.

use aws_lc_rs::{
    aead::LessSafeKey,
    hkdf::{HKDF_SHA256, Salt},
};
use zeroize::Zeroizing;

use crate::{
    encoding::{Reader, Writer},
    envelope::{self, KeyId, Nonce, OpenError, Purpose},
};

const SALT: &[u8] = b"claviger destination, format 1";

/// Seals a destination under its reference, padded to 64 bytes.
pub fn seal(reference: &[u8; 32], destination: &str, nonce: Nonce) -> Vec<u8> {
    let mut writer = Writer::with_room_for(std::iter::once(destination.len()));
    let plain = writer.text(destination).pad().bytes();
    envelope::seal(&key(reference), KeyId::NONE, &bound_to(), nonce, plain)
}

/// Opens what [`seal`] sealed under the same reference.
///
/// # Errors
/// [`OpenError::Invalid`].
pub fn open(reference: &[u8; 32], sealed: &[u8]) -> Result<String, OpenError> {
    if envelope::key_id(sealed)? != KeyId::NONE {
        return Err(OpenError::Invalid);
    }
    let plain = envelope::open(&key(reference), &bound_to(), Zeroizing::new(sealed.to_vec()))?;
    let mut reader = Reader::new(&plain);
    let destination = reader.text()?.to_owned();
    reader.end_of_padded()?;
    Ok(destination)
}

fn key(reference: &[u8; 32]) -> LessSafeKey {
    let root = Salt::new(HKDF_SHA256, SALT).extract(reference);
    envelope::derive(&root, Purpose::Destination, &[])
}

fn bound_to() -> [u8; 6] {
    envelope::binding(KeyId::NONE, Purpose::Destination)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_opens_only_with_its_reference() {
        let sealed = seal(&[1; 32], "/inbox?token=secret", [7; 12]);
        assert_eq!(open(&[1; 32], &sealed), Ok("/inbox?token=secret".to_owned()));
        assert_eq!(open(&[2; 32], &sealed), Err(OpenError::Invalid));
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(&[1; 32], &changed), Err(OpenError::Invalid), "{at}");
            assert_eq!(open(&[1; 32], &sealed[..at]), Err(OpenError::Invalid), "{at}");
        }
    }
}
