//! What befalls one instance of the engine: it crashes, it stalls, its clock is off, it loses the store.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use claviger_core::{ids::SessionId, time::Timestamp};
use claviger_engine::{Clock, Denied};
use tokio_util::sync::CancellationToken;

use crate::{record::Record, rng::Rng};

/// Where a refresh can be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// The claim is about to be written.
    ClaimUnwritten,
    /// The claim is written, and its owner has not heard of it.
    ClaimUnheard,
    /// The request is about to leave.
    RequestUnsent,
    /// The request is under way.
    RequestSent,
    /// The provider answered, and the answer is under way.
    AnswerUnheard,
    /// The new pair is about to be written.
    PairUnwritten,
    /// The new pair is written, and its owner has not heard of it.
    PairUnheard,
    /// What became of a refresh without a pair is about to be written.
    LossUnwritten,
}

impl Point {
    /// All of them, with the name under which crashes there are counted.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::ClaimUnwritten, "crash: claim unwritten"),
        (Self::ClaimUnheard, "crash: claim unheard"),
        (Self::RequestUnsent, "crash: request unsent"),
        (Self::RequestSent, "crash: request sent"),
        (Self::AnswerUnheard, "crash: answer unheard"),
        (Self::PairUnwritten, "crash: pair unwritten"),
        (Self::PairUnheard, "crash: pair unheard"),
        (Self::LossUnwritten, "crash: loss unwritten"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(point, _)| *point == self).map_or("crash", |(_, name)| name)
    }
}

/// What waits for an instance at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// The process dies.
    Crash,
    /// The process stands still for so long.
    Stall(Duration),
}

/// One life of one instance. After a crash the next life has another fate.
pub(crate) struct Fate {
    pub(crate) who: usize,
    pub(crate) record: Arc<Record>,
    pub(crate) rng: Arc<Rng>,
    /// How far its clock is ahead, in milliseconds.
    skew_ms: i64,
    dead: CancellationToken,
    traps: Mutex<Vec<(Point, Trap)>>,
    store_down: Mutex<bool>,
    /// So many writes in a thousand fail, some of them after they happened.
    store_trouble_permille: Mutex<u64>,
    /// Grows when a caller goes away, for the variant in which its work goes with it.
    pub(crate) callers_gone: Mutex<u64>,
    /// Sessions of which it told somebody that they are over.
    ends_told: Mutex<BTreeSet<SessionId>>,
}

impl Fate {
    pub(crate) fn new(who: usize, record: Arc<Record>, rng: Arc<Rng>, skew_ms: i64) -> Self {
        Self {
            who,
            record,
            rng,
            skew_ms,
            dead: CancellationToken::new(),
            traps: Mutex::default(),
            store_down: Mutex::default(),
            store_trouble_permille: Mutex::default(),
            callers_gone: Mutex::default(),
            ends_told: Mutex::default(),
        }
    }

    pub(crate) fn alive(&self) -> bool {
        !self.dead.is_cancelled()
    }

    pub(crate) fn crash(&self) {
        self.record.count("fault: crash", self.who);
        self.dead.cancel();
    }

    /// Returns when the process dies.
    pub(crate) async fn died(&self) {
        self.dead.cancelled().await;
    }

    /// Nothing of a dead process goes on.
    pub(crate) async fn live_on(&self) {
        if !self.alive() {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn set_trap(&self, point: Point, trap: Trap) {
        self.lock(&self.traps).push((point, trap));
    }

    pub(crate) fn clear_traps(&self) {
        self.lock(&self.traps).clear();
    }

    /// A refresh passes a point.
    pub(crate) async fn pass(&self, point: Point) {
        let trap = {
            let mut traps = self.lock(&self.traps);
            let index = traps.iter().position(|(at, _)| *at == point);
            index.map(|index| traps.remove(index).1)
        };
        match trap {
            None => {}
            Some(Trap::Crash) => {
                self.record.count(point.name(), self.who);
                self.crash();
            }
            Some(Trap::Stall(span)) => {
                self.record.count("fault: stall", self.who);
                tokio::time::sleep(span).await;
            }
        }
        self.live_on().await;
    }

    pub(crate) fn set_store_down(&self, down: bool) {
        *self.lock(&self.store_down) = down;
    }

    pub(crate) fn store_down(&self) -> bool {
        *self.lock(&self.store_down)
    }

    pub(crate) fn set_store_trouble(&self, permille: u64) {
        *self.lock(&self.store_trouble_permille) = permille;
    }

    pub(crate) fn store_trouble(&self) -> bool {
        let permille = *self.lock(&self.store_trouble_permille);
        permille > 0 && self.rng.chance(permille)
    }

    pub(crate) fn gone(&self) -> u64 {
        *self.lock(&self.callers_gone)
    }

    pub(crate) fn caller_goes(&self) {
        *self.lock(&self.callers_gone) += 1;
    }

    /// It told somebody that a session is over.
    pub(crate) fn tells_end(&self, id: SessionId) {
        self.lock(&self.ends_told).insert(id);
    }

    pub(crate) fn told_end(&self, id: SessionId) -> bool {
        self.lock(&self.ends_told).contains(&id)
    }

    /// ENDED: a request that began after it had told of the session's end is not served.
    pub(crate) fn answers(&self, id: SessionId, told_before: bool, outcome: &Result<(), Denied>) {
        match outcome {
            Ok(()) if told_before => {
                let what = format!("{id} was served after instance {} had told of its end", self.who);
                self.record.violate("ENDED", what);
            }
            Err(Denied::Ended(_)) => self.tells_end(id),
            _ => {}
        }
    }

    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> std::sync::MutexGuard<'a, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When histories begin.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

impl Clock for Fate {
    fn now(&self) -> Timestamp {
        let shifted = START.as_millis().saturating_add(self.skew_ms);
        Timestamp::from_millis(shifted).after(self.record.elapsed())
    }
}
