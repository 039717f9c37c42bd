//! Seals rows again that older keys sealed, in the background.
//!
//! One instance at a time goes through all slots, page by page and at a limited rate, and writes
//! down its progress. When its lease ends, another instance goes on from there. A row is changed by
//! compare-and-set and keeps its generation, so a refresh in flight goes on. Blobs that a device's
//! secret sealed cannot be opened here; the next refresh seals them with the new key. Cookies are
//! sealed again in the answer to a request that shows one.

use std::{sync::Arc, time::Duration};

use claviger_core::{AttemptId, SLOTS, Session, Slot, Timestamp, Version, limits};
use claviger_seal::{KeyId, Keyring, PairBinding};
use claviger_store::{Applied, SharedEntry, Store, StoreError, SweepKind};
use futures_util::future::try_join_all;
use tokio::sync::Notify;

use crate::{AppToken, Assertions, Env, Keys, Lock, Rows, SealedRows, keys::Resealed, metrics, part::part};

/// The name of the shared entry that holds the progress.
const NAME: &str = "reseal";

/// What older keys sealed, as far as this process knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resealing {
    /// The key that seals.
    pub sealing: KeyId,
    /// Number of keys that are older than that one.
    pub older_keys: u32,
    /// Rows that they sealed, when these were last counted. None before that.
    pub left: Option<SealedRows>,
    /// Number of rows that this process sealed again.
    pub done: u64,
    /// This process's progress in its round through all slots, in thousandths. None outside a
    /// round.
    pub round_permille: Option<u16>,
}

part! {
    /// Seals rows again that older keys sealed.
    pub(crate) struct Resealer needs {
        env: Env,
        store: Arc<dyn Store>,
        rows: Arc<Rows>,
        keys: Arc<Keys>,
        app_token: Arc<AppToken>,
        assertions: Arc<Assertions>,
    } owns {
        progress: Lock<Progress> = Lock::default(),
    }
}

#[derive(Clone, Copy, Default)]
struct Progress {
    left: Option<SealedRows>,
    done: u64,
    slot: Option<u16>,
}

/// A round through all slots, as the store keeps it.
struct Round {
    /// The key that everything is sealed with.
    sealing: KeyId,
    /// The next slot.
    slot: u16,
    /// Who goes through the slots, and until when nobody else may.
    holder: AttemptId,
    lease_until: Timestamp,
    /// The version of the shared entry that holds this.
    version: Version,
}

impl Round {
    fn read(entry: &SharedEntry) -> Option<Self> {
        let (sealing, rest) = entry.value.split_first_chunk()?;
        let (slot, rest) = rest.split_first_chunk()?;
        let (lease_until, holder) = rest.split_first_chunk()?;
        Some(Self {
            sealing: KeyId(u32::from_be_bytes(*sealing)),
            slot: u16::from_be_bytes(*slot),
            holder: AttemptId(holder.try_into().ok()?),
            lease_until: Timestamp::from_millis(i64::from_be_bytes(*lease_until)),
            version: entry.version,
        })
    }

    fn shared_entry(&self) -> SharedEntry {
        let mut value = self.sealing.0.to_be_bytes().to_vec();
        value.extend(self.slot.to_be_bytes());
        value.extend(self.lease_until.as_millis().to_be_bytes());
        value.extend(self.holder.0);
        SharedEntry { version: self.version, value }
    }

    /// Whether its holder may still go on.
    fn is_held(&self, now: Timestamp) -> bool {
        self.lease_until.left(now, limits::RESEAL_LEASE).is_some()
    }
}

impl Resealer {
    /// Is notified when there may be rows to seal again.
    pub(crate) fn keys_changed(&self) -> &Notify {
        self.keys.changed()
    }

    /// Seals rows again that older keys sealed, unless another instance does. Gives the number of
    /// rows that are left after it.
    ///
    /// # Errors
    /// If the store cannot be used. The next call goes on from where this one stood.
    pub(crate) async fn reseal(&self) -> Result<u64, StoreError> {
        self.keys.drop_left_keys();
        self.keys.note_sealing().await?;
        let keyring = self.keys.keyring_owned();
        if !keyring.has_older() {
            self.note(|progress| (progress.left, progress.slot) = (None, None));
            return Ok(0);
        }
        self.app_token.reseal().await?;
        self.assertions.keys().reseal().await?;
        let left = self.count_left(&keyring).await?;
        // Pending revocations are sealed again when they are tried.
        if left.sessions == 0 {
            return Ok(left.count());
        }
        let Some(round) = self.take_round(&keyring).await? else { return Ok(left.count()) };
        let key = keyring.sealing().0;
        tracing::info!(rows = left.count(), key, "sealing rows again that older keys sealed");
        let gone = self.go_round(&keyring, round).await;
        self.note(|progress| progress.slot = None);
        gone?;
        let left = self.count_left(&keyring).await?;
        if left.count() > 0 {
            tracing::info!(left = left.count(), key, "some rows are left for the next round");
        }
        Ok(left.count())
    }

    /// The progress as this process knows it.
    pub(crate) fn progress(&self) -> Resealing {
        let keyring = self.keys.keyring();
        let Progress { left, done, slot } = *self.progress.lock();
        let older = keyring.ids().filter(|id| keyring.is_older(*id)).count();
        Resealing {
            sealing: keyring.sealing(),
            older_keys: u32::try_from(older).unwrap_or(u32::MAX),
            left,
            done,
            round_permille: slot
                .map(|slot| u16::try_from(u32::from(slot) * 1000 / u32::from(SLOTS)).unwrap_or(0)),
        }
    }

    /// Counts the rows that are to be sealed again, and logs the keys that are missing.
    async fn count_left(&self, keyring: &Keyring) -> Result<SealedRows, StoreError> {
        let mut left = SealedRows::default();
        for key in self.keys.list().await? {
            let id = key.key;
            if keyring.is_older(id) && (keyring.holds(id) || keyring.leaving().any(|leaving| leaving == id)) {
                left.sessions += key.rows.sessions;
                left.revocations += key.rows.revocations;
            } else if !keyring.holds(id) {
                let rows = key.rows.to_string();
                tracing::error!(
                    key = id.0,
                    rows,
                    "rows need a key that is not in the keyring: the operator must put it back"
                );
            }
        }
        self.note(|progress| progress.left = Some(left));
        Ok(left)
    }

    /// Takes the round. None if another instance holds it, or seals with a newer key.
    async fn take_round(&self, keyring: &Keyring) -> Result<Option<Round>, StoreError> {
        let entry = self.store.shared_entry(NAME).await?;
        let (now, sealing) = (self.env.now(), keyring.sealing());
        let version = entry.as_ref().map_or(Version::FIRST, |entry| entry.version.next());
        let slot = match entry.as_ref().and_then(Round::read) {
            Some(round) if round.sealing > sealing => {
                if !keyring.holds(round.sealing) {
                    let key = round.sealing.0;
                    tracing::error!(
                        key,
                        "another instance seals with a key that this one lacks: the operator must add it here"
                    );
                }
                return Ok(None);
            }
            Some(round) if round.sealing == sealing && round.is_held(now) => return Ok(None),
            Some(round) if round.sealing == sealing && round.slot < SLOTS => round.slot,
            _ => 0,
        };
        let holder = AttemptId(self.env.random());
        let round = Round { sealing, slot, holder, lease_until: now.after(limits::RESEAL_LEASE), version };
        self.write_round(round).await
    }

    /// None if another instance took the round.
    async fn write_round(&self, round: Round) -> Result<Option<Round>, StoreError> {
        let written = self.store.put_shared_entry(NAME, &round.shared_entry()).await?;
        Ok(written.then_some(round))
    }

    /// Goes through the slots that are left. Ends early if another instance took over, or the keys
    /// were changed.
    async fn go_round(&self, keyring: &Keyring, mut round: Round) -> Result<(), StoreError> {
        while let Some(slot) = Slot::new(round.slot) {
            self.note(|progress| progress.slot = Some(slot.number()));
            let mut after = None;
            loop {
                let page = self.rows.in_slot(SweepKind::Connections, slot, after).await?;
                self.reseal_page(keyring, &page).await?;
                if round.lease_until < self.env.now().after(limits::RESEAL_LEASE / 2) {
                    let Some(prolonged) = self.prolong(round).await? else { return Ok(()) };
                    round = prolonged;
                }
                match page.last() {
                    Some(last) if page.len() == limits::BATCH_ROWS => after = Some(last.id),
                    _ => break,
                }
            }
            round.slot += 1;
            if round.slot.is_multiple_of(limits::RESEAL_SLOTS) {
                let Some(prolonged) = self.prolong(round).await? else { return Ok(()) };
                round = prolonged;
                if self.keys.keyring().sealing() != keyring.sealing() {
                    break;
                }
            }
        }
        // From now on any instance may take it.
        let version = round.version.next();
        self.write_round(Round { lease_until: Timestamp::EPOCH, version, ..round }).await.map(drop)
    }

    async fn prolong(&self, round: Round) -> Result<Option<Round>, StoreError> {
        let lease_until = self.env.now().after(limits::RESEAL_LEASE);
        self.write_round(Round { lease_until, version: round.version.next(), ..round }).await
    }

    async fn reseal_page(&self, keyring: &Keyring, page: &[Session]) -> Result<(), StoreError> {
        let outdated = |row: &&Session| {
            row.pair().is_some_and(|pair| {
                let refresh = pair.refresh.as_ref();
                keyring.is_outdated(&pair.access) || refresh.is_some_and(|blob| keyring.is_outdated(blob))
            })
        };
        let rows: Vec<_> = page.iter().filter(outdated).collect();
        let mut written = 0;
        for some in rows.chunks(limits::RESEALS_AT_ONCE) {
            let resealed = some.iter().map(|row| self.reseal_row(Session::clone(row)));
            written += try_join_all(resealed).await?.into_iter().map(u64::from).sum::<u64>();
        }
        self.note(|progress| {
            progress.done += written;
            if let Some(left) = &mut progress.left {
                left.sessions = left.sessions.saturating_sub(written);
            }
        });
        metrics::resealed(written);
        let paced = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        tokio::time::sleep(Duration::from_secs(1) * paced / limits::RESEALS_PER_SECOND).await;
        Ok(())
    }

    /// Seals one row's pair again, although others may change the row in the meantime. True if it
    /// did.
    async fn reseal_row(&self, mut row: Session) -> Result<bool, StoreError> {
        for _ in 0..limits::COMPARE_AND_SET_TRIES {
            let Some(pair) = row.pair() else { return Ok(false) };
            let at =
                PairBinding { provider: &row.subject.provider, session: row.id, generation: pair.generation };
            let resealed = self.keys.reseal_pair(at, &pair.access, pair.refresh.as_ref());
            let Resealed { access, refresh } = match resealed {
                Ok(Some(resealed)) => resealed,
                Ok(None) => return Ok(false),
                // One damaged row must not keep the others.
                Err(error) => {
                    tracing::error!(session = %row.id, %error, "a token cannot be sealed again");
                    return Ok(false);
                }
            };
            let generation = pair.generation;
            let Ok(change) = row.reseal(generation, access, refresh) else { return Ok(false) };
            match self.rows.apply(&change).await? {
                Applied::Done => return Ok(true),
                Applied::Conflict(Some(current)) => row = *current,
                Applied::Conflict(None) => return Ok(false),
            }
        }
        // The next round finds it.
        Ok(false)
    }

    fn note(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.lock());
    }
}
