//! The state of everything, its invariants, and its identity.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use claviger_core::{
    ActiveState, AttemptId, Custody, DeviceLabel, EndReason, Expiry, ProviderName, Rotation, SealedBlob,
    SealedPair, Session, SessionId, SessionSecret, State, Subject, Timestamp, Version, limits,
};

use crate::{
    Scope,
    provider::{Bought, Grant, Kind, TOKENS},
};

pub(crate) const BEGIN: Timestamp = Timestamp::from_millis(1_790_000_000_000);
pub(crate) const DEVICES: usize = 2;
pub(crate) const INSTANCES: usize = 2;

pub(crate) const RECOVERED: &str = "recovery reached";
pub(crate) const RECOVERED_BY_REPLAY: &str = "recovery by replay reached";
pub(crate) const CASCADE_RACES: &str = "cascade races refresh";
pub(crate) const OWED: &str = "the row ended in flight, and the new pair is owed";
pub(crate) const NOT_BELIEVED: &str = "a rejection was not believed after the row was read again";
pub(crate) const ADOPTED: &str = "a loser adopted the winner's pair";
pub(crate) const COMMITTED_LATE: &str = "a pair was committed although its lease had gone to another";
pub(crate) const REPLAY_REJECTED: &str = "a replay was rejected, and the row stayed";
pub(crate) const GIVEN_UP: &str = "a token was known to be spent, and not sent again";

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Step {
    /// Read the row and decide.
    Read,
    /// Validate the old access token before the refresh token of the row at this version is sent
    /// again.
    Ask { read: u64 },
    /// Write the claim on the row at this version.
    Claim { read: u64, replay: bool },
    /// The claim is written: send.
    Send { token: u8, replay: bool },
    /// The request is in progress.
    Await { token: u8, replay: bool, on_its_way: OnItsWay },
    /// The answer is there: carry it out.
    Answered { replay: bool, answer: Answer },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum OnItsWay {
    Request,
    Answer(Answer),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Answer {
    Issued(u8),
    Rejected,
    /// 429: nothing was done.
    TurnedAway,
    /// 502: it may have been done.
    Gateway,
    Lost,
}

/// One refresh by one instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Task {
    pub(crate) device: usize,
    pub(crate) seen: u64,
    pub(crate) attempt: u8,
    /// The generation of the pair that is sent.
    pub(crate) sent: u64,
    pub(crate) step: Step,
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) scope: &'static Scope,
    pub(crate) rows: [Rc<Session>; DEVICES],
    pub(crate) grants: [Grant; DEVICES],
    /// How often each refresh token was sent, except where the provider refused to process it.
    pub(crate) sends: [[u8; TOKENS]; DEVICES],
    pub(crate) connected: bool,
    pub(crate) tasks: [Option<Task>; INSTANCES],
    /// Requests on their way to the provider whose sender died or gave up.
    pub(crate) orphans: BTreeSet<(usize, u8)>,
    pub(crate) starts: u8,
    pub(crate) crashed: [bool; INSTANCES],
    pub(crate) ticks: u8,
    pub(crate) signed_out: bool,
}

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) states: usize,
    pub(crate) reached: BTreeSet<&'static str>,
    pub(crate) violated: BTreeSet<&'static str>,
}

impl World {
    pub(crate) fn new(scope: &'static Scope) -> Self {
        let row = |n: u8| Session {
            id: SessionId::new(BEGIN, [n; 10]),
            version: Version::FIRST,
            subject: Subject { provider: ProviderName("twitch".into()), id: "1".into() },
            display_name: String::new(),
            secret_hash: SessionSecret::new([n; 32]).hash(),
            custody: Custody::Device,
            device: DeviceLabel::new("device"),
            created_at: BEGIN,
            last_seen_at: BEGIN,
            state: State::Live(ActiveState {
                pair: Some(pair(Version::FIRST, 0)),
                proven_at: BEGIN,
                claim: None,
            }),
        };
        Self {
            scope,
            rows: [Rc::new(row(1)), Rc::new(row(2))],
            grants: [Grant::new(), Grant::new()],
            sends: [[0; TOKENS]; DEVICES],
            connected: true,
            tasks: [None, None],
            orphans: BTreeSet::new(),
            starts: 0,
            crashed: [false; INSTANCES],
            ticks: 0,
            signed_out: false,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        BEGIN.after(limits::CLAIM_LEASE * u32::from(self.ticks))
    }

    /// Returns what distinguishes two states.
    pub(crate) fn key(&self) -> impl std::hash::Hash + Eq + use<> {
        let rows = self.rows.each_ref().map(|row| {
            let claim = row.active().and_then(|active| active.claim);
            let claim = claim.map(|claim| {
                let (free, window) = (claim.lease_until <= self.now(), self.scope.has_a_window());
                let taken_at = window.then_some(claim.taken_at);
                (claim.attempt.0[0], taken_at, claim.replay, claim.answer_lost, free)
            });
            (row.version, row.generation(), token_of(row), claim, std::mem::discriminant(&row.state))
        });
        let provider = (self.grants.clone(), self.sends_that_matter(), self.connected, self.orphans.clone());
        // A process that died is a new one, and instances are alike, so their order does not
        // matter.
        let mut instances = [0, 1].map(|instance| (self.tasks[instance], self.crashed[instance]));
        instances.sort();
        (rows, provider, instances, self.starts, self.ticks, self.signed_out)
    }

    /// The sends of tokens that may still be sent.
    fn sends_that_matter(&self) -> [[u8; TOKENS]; DEVICES] {
        let mut matter = [[0; TOKENS]; DEVICES];
        let sending = self.tasks.iter().flatten().filter_map(|task| match task.step {
            Step::Send { token, .. } | Step::Await { token, on_its_way: OnItsWay::Request, .. } => {
                Some((task.device, token))
            }
            _ => None,
        });
        let held = self.rows.iter().enumerate().filter_map(|(device, row)| Some((device, token_of(row)?)));
        for (device, token) in sending.chain(held) {
            let at = usize::from(token);
            matter[device][at] = self.sends[device][at];
        }
        matter
    }

    pub(crate) fn with_task(&self, instance: usize, task: Option<Task>) -> Self {
        let mut after = self.clone();
        after.tasks[instance] = task;
        after
    }

    /// Compare-and-set: writes the row, and checks what must hold for every write.
    pub(crate) fn write(&mut self, device: usize, next: Session, seen: &mut Seen) {
        let before = &self.rows[device];
        if before.ended() {
            seen.violated.insert("ENDED");
        }
        if next.version != before.version.next() {
            seen.violated.insert("MONO");
        }
        if let State::Ended { reason: EndReason::RefreshTokenRejected, .. } = next.state
            && self.connected
        {
            seen.violated.insert("TRANSIENT");
        }
        if let Some(attempt) = given_up(before)
            && next.claimed_by(attempt)
            && given_up(&next).is_none()
        {
            seen.violated.insert("SPENT");
        }
        let ambiguous = before.ambiguous(self.now());
        if ambiguous && matches!(next.state, State::Live(_)) && next.generation() > before.generation() {
            seen.reached.insert(RECOVERED);
        }
        self.rows[device] = Rc::new(next);
    }

    /// SPENT: a refresh token leaves. No value does so twice, except one replay if the provider's
    /// habits allow it.
    pub(crate) fn send(&mut self, device: usize, token: u8, seen: &mut Seen) {
        let sends = &mut self.sends[device][usize::from(token)];
        let habits = &self.scope.habits;
        if habits.rotation == Rotation::None {
            return;
        }
        *sends += 1;
        let allowed = if habits.may_replay(Duration::ZERO) { 2 } else { 1 };
        if *sends > allowed {
            seen.violated.insert("SPENT");
        }
    }

    /// A request continues without its sender. If that spends nothing, it has no effect.
    pub(crate) fn orphan(&mut self, device: usize, token: u8) {
        if let Kind::OneTime { .. } = self.scope.provider {
            self.orphans.insert((device, token));
        }
    }

    /// The provider refused to process a request.
    pub(crate) fn unsend(&mut self, device: usize, token: u8) {
        let sends = &mut self.sends[device][usize::from(token)];
        *sends = sends.saturating_sub(1);
    }

    /// The provider receives a refresh token.
    pub(crate) fn arrive(&mut self, device: usize, token: u8, seen: &mut Seen) -> Answer {
        if !self.connected {
            return Answer::Rejected;
        }
        match self.grants[device].refresh(self.scope.provider, token, self.ticks) {
            Bought::Pair(issued) => Answer::Issued(issued),
            Bought::Nothing => Answer::Rejected,
            Bought::Harm => {
                seen.violated.insert("SPENT");
                self.connected = false;
                Answer::Rejected
            }
        }
    }

    /// STRAND: a row in force without a refresh in progress has a token that the provider accepts,
    /// or says that it may not.
    pub(crate) fn check(&self, seen: &mut Seen) {
        for (row, grant) in self.rows.iter().zip(&self.grants) {
            let Some(active) = row.active() else { continue };
            let taken = token_of(row).is_some_and(|token| grant.takes(token));
            if active.claim.is_none() && self.connected && !taken {
                seen.violated.insert("STRAND");
            }
        }
    }
}

pub(crate) fn attempt_id(attempt: u8) -> AttemptId {
    AttemptId([attempt; 16])
}

pub(crate) fn pair(generation: Version, token: u8) -> SealedPair {
    SealedPair {
        generation,
        access: SealedBlob(vec![token]),
        refresh: Some(SealedBlob(vec![token])),
        expiry: Expiry::At(BEGIN.after(Duration::from_secs(60 * 60))),
    }
}

pub(crate) fn token_of(row: &Session) -> Option<u8> {
    row.pair().and_then(|pair| pair.refresh.as_ref()).map(|blob| blob.0[0])
}

/// The attempt whose refresh token must not be sent any more.
fn given_up(row: &Session) -> Option<AttemptId> {
    let claim = row.active()?.claim?;
    (claim.answer_lost && claim.replay).then_some(claim.attempt)
}
