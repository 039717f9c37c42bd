//! A checksum of rows that is the same for the same rows, whichever store they come from.

use std::fmt;

use claviger_core::{
    device::DeviceLabel,
    ids::{AttemptId, ProviderName, Subject, Version},
    policy::Custody,
    secret::{Fingerprint, SecretHash},
    session::{Claim, Holding, OwedRevocation, SealedBlob, SealedPair, Session, State},
    suspicion::Suspicion,
    time::{Expiry, Timestamp},
};
use sha2::{Digest as _, Sha256};

use super::Record;
use crate::{Memo, Owed, OwedId, Suspected, SuspicionKey, Wheel};

/// SHA-256 of rows in the order of their keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Makes a digest, row by row.
#[derive(Default)]
pub(super) struct Digester {
    hash: Sha256,
    row: Writing,
}

impl Digester {
    pub(super) fn add(&mut self, record: &Record) {
        self.row.0.clear();
        self.row.record(record);
        self.hash.update(length(&self.row.0));
        self.hash.update(&self.row.0);
    }

    pub(super) fn finish(self) -> Digest {
        Digest(self.hash.finalize().into())
    }
}

fn length(octets: &[u8]) -> [u8; 8] {
    u64::try_from(octets.len()).unwrap_or(u64::MAX).to_be_bytes()
}

/// Writes values one after the other, each so that where it ends is known. No field is left out by `..`, so one that is
/// added to a row is missed here when this is compiled.
#[derive(Default)]
struct Writing(Vec<u8>);

impl Writing {
    fn octets(&mut self, octets: &[u8]) {
        self.0.extend(length(octets));
        self.0.extend(octets);
    }

    fn text(&mut self, text: &str) {
        self.octets(text.as_bytes());
    }

    fn tag(&mut self, tag: u8) {
        self.0.push(tag);
    }

    fn number(&mut self, number: u64) {
        self.0.extend(number.to_be_bytes());
    }

    fn time(&mut self, at: Timestamp) {
        self.0.extend(at.as_millis().to_be_bytes());
    }

    fn version(&mut self, Version(version): Version) {
        self.number(version);
    }

    fn maybe<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.tag(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn holder(&mut self, holder: Option<AttemptId>) {
        self.maybe(holder, |own, AttemptId(attempt)| own.octets(&attempt));
    }

    fn record(&mut self, record: &Record) {
        match record {
            Record::Session(session) => self.session(session),
            Record::Owed { owed, due_at, holder } => {
                self.owed(owed);
                self.time(*due_at);
                self.holder(*holder);
            }
            Record::Login { state_hash, expires_at } => {
                self.octets(state_hash);
                self.time(*expires_at);
            }
            Record::Suspicion { suspected, noted_at, due_at, holder } => {
                self.suspected(suspected);
                self.time(*noted_at);
                self.maybe(*due_at, Self::time);
                self.holder(*holder);
            }
            Record::Slot { wheel, slot, due_at, lease_until, holder } => {
                self.tag(match wheel {
                    Wheel::Validation => 0,
                    Wheel::Probe => 1,
                });
                self.number(u64::from(slot.number()));
                self.time(*due_at);
                self.time(*lease_until);
                self.holder(*holder);
            }
            Record::Memo { name, memo: Memo { version, value } } => {
                self.text(name);
                self.version(*version);
                self.octets(value);
            }
        }
    }

    fn session(&mut self, session: &Session) {
        let Session {
            id,
            version,
            subject,
            display_name,
            secret_hash: SecretHash(secret_hash),
            custody,
            device,
            created_at,
            last_seen_at,
            state,
        } = session;
        self.octets(id.as_bytes());
        self.version(*version);
        self.subject(subject);
        self.text(display_name);
        self.octets(secret_hash);
        self.tag(match custody {
            Custody::Device => 0,
            Custody::Server => 1,
            Custody::None => 2,
        });
        self.text(DeviceLabel::as_str(device));
        self.time(*created_at);
        self.time(*last_seen_at);
        self.state(state);
    }

    fn subject(&mut self, Subject { provider: ProviderName(provider), id }: &Subject) {
        self.text(provider);
        self.text(id);
    }

    fn state(&mut self, state: &State) {
        let (tag, holding) = match state {
            State::Live(holding) => (0, holding),
            State::Parked(holding) => (1, holding),
            State::Suspect(holding) => (2, holding),
            State::Ended { reason, at } => {
                self.tag(3);
                self.text(reason.name());
                return self.time(*at);
            }
        };
        self.tag(tag);
        let Holding { pair, proven_at, claim } = holding;
        self.maybe(pair.as_ref(), Self::pair);
        self.time(*proven_at);
        self.maybe(claim.as_ref(), Self::claim);
    }

    fn pair(&mut self, SealedPair { generation, access, refresh, expiry }: &SealedPair) {
        self.version(*generation);
        self.blobs(access, refresh.as_ref());
        self.expiry(*expiry);
    }

    fn blobs(&mut self, SealedBlob(access): &SealedBlob, refresh: Option<&SealedBlob>) {
        self.octets(access);
        self.maybe(refresh, |own, SealedBlob(refresh)| own.octets(refresh));
    }

    fn expiry(&mut self, expiry: Expiry) {
        match expiry {
            Expiry::At(at) => {
                self.tag(0);
                self.time(at);
            }
            Expiry::Unknown => self.tag(1),
            Expiry::Never => self.tag(2),
        }
    }

    fn claim(&mut self, claim: &Claim) {
        let Claim { attempt, taken_at, lease_until, fingerprint, replay, answer_lost } = claim;
        let (AttemptId(attempt), Fingerprint(fingerprint)) = (attempt, fingerprint);
        self.octets(attempt);
        self.time(*taken_at);
        self.time(*lease_until);
        self.octets(fingerprint);
        self.tag(u8::from(*replay));
        self.tag(u8::from(*answer_lost));
    }

    fn owed(&mut self, Owed { id: OwedId(id), revocation, tries }: &Owed) {
        let OwedRevocation { session, generation, provider, access, refresh, expiry, owed_at } = revocation;
        let ProviderName(provider) = provider;
        self.0.extend(id.to_be_bytes());
        self.octets(session.as_bytes());
        self.version(*generation);
        self.text(provider);
        self.blobs(access, refresh.as_ref());
        self.expiry(*expiry);
        self.time(*owed_at);
        self.number(u64::from(*tries));
    }

    fn suspected(&mut self, Suspected { key: SuspicionKey(key), suspicion, tries }: &Suspected) {
        let Suspicion { subject, at, cause } = suspicion;
        self.octets(key);
        self.subject(subject);
        self.time(*at);
        self.text(cause.name());
        self.number(u64::from(*tries));
    }
}
