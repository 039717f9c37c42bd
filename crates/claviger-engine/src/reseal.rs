//! Seals anew what older keys sealed, in the background.
//!
//! One instance at a time goes through all slots, page by page and not too fast, and writes down how far it got; whoever finds
//! its lease over goes on from there. A row is changed by compare-and-set, keeps its generation, and a refresh of it goes on.
//! What a device's secret sealed is not ours to open; it is sealed anew by the next refresh. Cookies are sealed anew in the
//! answer to a request that shows one.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use claviger_core::{
    ids::{AttemptId, Version},
    policy::limits,
    session::{SealedBlob, Session},
    sweep::{SLOTS, Slot},
    time::Timestamp,
};
use claviger_seal::{KeyId, Keyring, OpenError, PairBinding, RefreshLock};
use claviger_store::{Memo, Replaced, StoreError, Wheel};
use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;

use crate::{Engine, keys::Rows, meter};

/// Where it stands, in the store.
const NAME: &str = "reseal";

/// How it stands with what older keys sealed, as far as this process knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resealing {
    /// The key that seals.
    pub sealing: KeyId,
    /// Keys that are older than that one.
    pub older_keys: u32,
    /// Rows that they sealed, when these were counted last. None before that.
    pub left: Option<Rows>,
    /// Rows that this process sealed anew.
    pub done: u64,
    /// How far this process is in its round through all slots, in thousandths. None while it is at none.
    pub round_permille: Option<u16>,
}

/// What was seen last.
#[derive(Default)]
pub(crate) struct LastResealing(Mutex<Seen>);

#[derive(Clone, Copy, Default)]
struct Seen {
    left: Option<Rows>,
    done: u64,
    slot: Option<u16>,
}

impl LastResealing {
    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A round through all slots, as the store keeps it.
struct Round {
    /// With this key everything is sealed anew.
    sealing: KeyId,
    /// The slot that is next.
    slot: u16,
    /// Who is at it, and until when that is nobody else's.
    holder: AttemptId,
    lease_until: Timestamp,
    /// Of the memo that holds this.
    version: Version,
}

impl Round {
    fn read(memo: &Memo) -> Option<Self> {
        let (sealing, rest) = memo.value.split_first_chunk()?;
        let (slot, rest) = rest.split_first_chunk()?;
        let (lease_until, holder) = rest.split_first_chunk()?;
        Some(Self {
            sealing: KeyId(u32::from_be_bytes(*sealing)),
            slot: u16::from_be_bytes(*slot),
            holder: AttemptId(holder.try_into().ok()?),
            lease_until: Timestamp::from_millis(i64::from_be_bytes(*lease_until)),
            version: memo.version,
        })
    }

    fn memo(&self) -> Memo {
        let mut value = self.sealing.0.to_be_bytes().to_vec();
        value.extend(self.slot.to_be_bytes());
        value.extend(self.lease_until.as_millis().to_be_bytes());
        value.extend(self.holder.0);
        Memo { version: self.version, value }
    }

    /// Whether somebody may be at it. A lease that lies too far ahead is from a clock that was set back.
    fn is_held(&self, now: Timestamp) -> bool {
        now < self.lease_until && self.lease_until <= now.after(limits::RESEAL_LEASE + limits::CLOCK_SKEW)
    }
}

impl Engine {
    pub(crate) async fn keep_resealing(&self, stop: &CancellationToken) {
        loop {
            let look_after = match stop.run_until_cancelled(self.reseal()).await {
                None => return,
                Some(Ok(0)) => limits::RESEAL_LOOK_EVERY_IDLE,
                Some(Ok(_)) => limits::RESEAL_LOOK_EVERY,
                Some(Err(error)) => {
                    tracing::error!(%error, "what older keys sealed waits to be sealed anew");
                    limits::RESEAL_LOOK_EVERY
                }
            };
            let wake = tokio::time::timeout(look_after, self.inner.in_force.changed.notified());
            if stop.run_until_cancelled(wake).await.is_none() {
                return;
            }
        }
    }

    /// Seals anew what older keys sealed, unless another instance is at it. Gives how many rows are left after it.
    ///
    /// # Errors
    /// If the store cannot be used. The next time goes on from where this one stood.
    pub async fn reseal(&self) -> Result<u64, StoreError> {
        self.let_keys_go();
        let keyring = self.inner.in_force.keyring.load_full();
        if !keyring.has_older() {
            self.inner.in_force.resealing.note(|seen| (seen.left, seen.slot) = (None, None));
            return Ok(0);
        }
        self.reseal_app_token().await?;
        let left = self.count_left(&keyring).await?;
        // Owed revocations are sealed anew when they are tried.
        if left.sessions == 0 {
            return Ok(left.count());
        }
        let Some(round) = self.take_round(&keyring).await? else { return Ok(left.count()) };
        tracing::info!(rows = left.count(), key = keyring.sealing().0, "sealing anew what older keys sealed");
        let gone = self.go_round(&keyring, round).await;
        self.inner.in_force.resealing.note(|seen| seen.slot = None);
        gone?;
        let left = self.count_left(&keyring).await?;
        if left.count() == 0 {
            tracing::info!(key = keyring.sealing().0, "everything is sealed with the newest key");
        } else {
            tracing::info!(
                left = left.count(),
                key = keyring.sealing().0,
                "some rows are left for the next round"
            );
        }
        Ok(left.count())
    }

    /// How it stands.
    pub fn resealing(&self) -> Resealing {
        let keyring = self.keyring();
        let Seen { left, done, slot } =
            *self.inner.in_force.resealing.0.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Counts the rows that are to be sealed anew. Names the keys that are missing.
    async fn count_left(&self, keyring: &Keyring) -> Result<Rows, StoreError> {
        let mut left = Rows::default();
        for key in self.keys().await? {
            let id = key.key;
            if keyring.is_older(id) && (keyring.holds(id) || keyring.leaving().any(|leaving| leaving == id)) {
                left.sessions += key.rows.sessions;
                left.owed += key.rows.owed;
            } else if !keyring.holds(id) {
                let rows = key.rows.to_string();
                tracing::error!(
                    key = id.0,
                    rows,
                    "rows need a key that is not in the keyring: the operator must put it back"
                );
            }
        }
        self.inner.in_force.resealing.note(|seen| seen.left = Some(left));
        Ok(left)
    }

    /// Takes the round. None if another instance is at it, or seals with a younger key.
    async fn take_round(&self, keyring: &Keyring) -> Result<Option<Round>, StoreError> {
        let memo = self.inner.parts.store.memo(NAME).await?;
        let (now, sealing) = (self.now(), keyring.sealing());
        let version = memo.as_ref().map_or(Version::FIRST, |memo| memo.version.next());
        let slot = match memo.as_ref().and_then(Round::read) {
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
        let holder = AttemptId(self.random());
        let round = Round { sealing, slot, holder, lease_until: now.after(limits::RESEAL_LEASE), version };
        self.write_round(round).await
    }

    /// None if another instance took the round.
    async fn write_round(&self, round: Round) -> Result<Option<Round>, StoreError> {
        let written = self.inner.parts.store.put_memo(NAME, &round.memo()).await?;
        Ok(written.then_some(round))
    }

    /// Goes through the slots that are left. Ends early where another instance took over, or the keys were changed.
    async fn go_round(&self, keyring: &Keyring, mut round: Round) -> Result<(), StoreError> {
        while let Some(slot) = Slot::new(round.slot) {
            self.inner.in_force.resealing.note(|seen| seen.slot = Some(slot.number()));
            let mut after = None;
            loop {
                let page =
                    self.inner.parts.store.in_slot(Wheel::Probe, slot, after, limits::BATCH_ROWS).await?;
                self.reseal_page(keyring, &page).await?;
                if round.lease_until < self.now().after(limits::RESEAL_LEASE / 2) {
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
                if self.keyring().sealing() != keyring.sealing() {
                    break;
                }
            }
        }
        // It is nobody's from now on.
        let version = round.version.next();
        self.write_round(Round { lease_until: Timestamp::EPOCH, version, ..round }).await.map(drop)
    }

    async fn prolong(&self, round: Round) -> Result<Option<Round>, StoreError> {
        let lease_until = self.now().after(limits::RESEAL_LEASE);
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
        self.inner.in_force.resealing.note(|seen| {
            seen.done += written;
            if let Some(left) = &mut seen.left {
                left.sessions = left.sessions.saturating_sub(written);
            }
        });
        meter::resealed(written);
        let paced = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        tokio::time::sleep(Duration::from_secs(1) * paced / limits::RESEALS_PER_SECOND).await;
        Ok(())
    }

    /// Seals one row's pair anew, whatever else changes the row meanwhile. Says whether it did.
    async fn reseal_row(&self, mut row: Session) -> Result<bool, StoreError> {
        for _ in 0..limits::COMPARE_AND_SET_TRIES {
            let Some(pair) = row.pair() else { return Ok(false) };
            let at =
                PairBinding { provider: &row.subject.provider, session: row.id, generation: pair.generation };
            let (access, refresh) = match self.blobs_anew(at, &pair.access, pair.refresh.as_ref()) {
                Ok(Some(anew)) => anew,
                Ok(None) => return Ok(false),
                // One damaged row must not keep the others.
                Err(error) => {
                    tracing::error!(session = %row.id, %error, "a token cannot be sealed anew");
                    return Ok(false);
                }
            };
            let generation = pair.generation;
            let Ok(next) = row.reseal(generation, access, refresh) else { return Ok(false) };
            match self.replace(&next, None).await? {
                Replaced::Done => return Ok(true),
                Replaced::Conflict(Some(current)) => row = *current,
                Replaced::Conflict(None) => return Ok(false),
            }
        }
        // The next round finds it.
        Ok(false)
    }

    /// Both blobs of a pair, each sealed anew if an older key sealed it. None if there is nothing to do.
    pub(crate) fn blobs_anew(
        &self,
        at: PairBinding<'_>,
        access: &SealedBlob,
        refresh: Option<&SealedBlob>,
    ) -> Result<Option<(SealedBlob, Option<SealedBlob>)>, OpenError> {
        let keyring = self.keyring();
        let outdated_access = keyring.is_outdated(access);
        let outdated_refresh = refresh.is_some_and(|refresh| keyring.is_outdated(refresh));
        if !outdated_access && !outdated_refresh {
            return Ok(None);
        }
        let access = if outdated_access {
            keyring.seal_access(at, &keyring.open_access(at, access)?, self.nonce())
        } else {
            access.clone()
        };
        let refresh = match refresh {
            Some(sealed) if outdated_refresh => {
                let token = keyring.open_refresh(at, RefreshLock::Server, sealed)?;
                Some(keyring.seal_refresh(at, RefreshLock::Server, &token, self.nonce()))
            }
            other => other.cloned(),
        };
        Ok(Some((access, refresh)))
    }
}
