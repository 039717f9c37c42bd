//! The faults of one instance of the engine: crashes, stalls, a wrong clock, store failures.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use claviger_core::{SessionId, Timestamp};
use claviger_engine::{Clock, Denied};
use tokio_util::sync::CancellationToken;

use crate::{record::Record, rng::Rng};

/// Points at which a refresh can be interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// Before the claim is written.
    ClaimUnwritten,
    /// After the claim is written, before its owner knows.
    ClaimUnheard,
    /// Before the request is sent.
    RequestUnsent,
    /// While the request is under way.
    RequestSent,
    /// While the answer is under way.
    AnswerUnheard,
    /// Before the new pair is written.
    PairUnwritten,
    /// After the new pair is written, before its owner knows.
    PairUnheard,
    /// Before the result of a refresh without a pair is written.
    LossUnwritten,
}

impl Point {
    /// All points, with the names under which their crashes are counted.
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

/// What happens to an instance at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// The process dies.
    Crash,
    /// The process stops for this time.
    Stall(Duration),
}

/// One life of an instance, from a start to a crash.
pub(crate) struct Fate {
    pub(crate) who: usize,
    pub(crate) record: Arc<Record>,
    pub(crate) rng: Arc<Rng>,
    /// The clock of its machine, which outlives it.
    clock: Arc<MachineClock>,
    dead: CancellationToken,
    traps: Mutex<Vec<(Point, Trap)>>,
    store_down: Mutex<bool>,
    /// Writes per thousand that fail, some of them after they were done.
    store_trouble_permille: Mutex<u64>,
    /// Number of callers that went away, for
    /// [`Variant::DropsWithCaller`](crate::Variant::DropsWithCaller).
    pub(crate) callers_gone: Mutex<u64>,
    /// Sessions that it has reported as ended.
    ends_told: Mutex<BTreeSet<SessionId>>,
}

impl Fate {
    pub(crate) fn new(who: usize, record: Arc<Record>, rng: Arc<Rng>, clock: Arc<MachineClock>) -> Self {
        Self {
            who,
            record,
            rng,
            clock,
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

    /// Stops here for ever if the process is dead.
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

    /// A refresh passes a point, where a trap may wait.
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

    /// Notes that it reported a session's end.
    pub(crate) fn tells_end(&self, id: SessionId) {
        self.lock(&self.ends_told).insert(id);
    }

    pub(crate) fn told_end(&self, id: SessionId) -> bool {
        self.lock(&self.ends_told).contains(&id)
    }

    /// ENDED: a request that began after the session's end was reported is not served.
    pub(crate) fn answers(&self, id: SessionId, told_before: bool, outcome: &Result<(), Denied>) {
        match outcome {
            Ok(()) if told_before => {
                let what = format!("{id} was served after instance {} reported its end", self.who);
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

/// Clocks of instances differ by less than this, so events closer together may have happened in
/// either order.
pub(crate) const CLOCKS_APART: Duration = Duration::from_secs(5);

/// The start of every history.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// The clock of an instance's machine.
pub(crate) struct MachineClock {
    /// How far it is always ahead, in milliseconds.
    skew_ms: i64,
    /// How far it jumped, in milliseconds.
    jumped_ms: AtomicI64,
}

impl MachineClock {
    pub(crate) fn new(skew_ms: i64) -> Self {
        Self { skew_ms, jumped_ms: AtomicI64::new(0) }
    }

    /// Sets it wrong by this much, or right with zero.
    pub(crate) fn set_wrong(&self, by_ms: i64) {
        self.jumped_ms.store(by_ms, Ordering::SeqCst);
    }

    pub(crate) fn is_right(&self) -> bool {
        self.jumped_ms.load(Ordering::SeqCst) == 0
    }
}

impl Clock for Fate {
    fn now(&self) -> Timestamp {
        let ahead_ms = self.clock.skew_ms.saturating_add(self.clock.jumped_ms.load(Ordering::SeqCst));
        Timestamp::from_millis(START.as_millis().saturating_add(ahead_ms)).after(self.record.elapsed())
    }

    fn monotonic(&self) -> Duration {
        self.record.elapsed()
    }
}
