//! Asks the provider about one access token at a time, and records what the answer proves.

pub(crate) mod rate_limit;

use std::{sync::Arc, time::Duration};

use claviger_core::{
    AfterValidate, BreakerState, FailureKind, ProviderFailure, Purpose, Refused, SealedPair, Session,
    SessionId, Shares, Spent, State, Timestamp, ValidateAnswer, Verdict, limits, request, verdict,
};

use crate::{
    ControlUser, Denied, Env, Keys, Lock, ProviderClient, Rows, SharedBreaker, Singleflight, Updated,
    metrics, part::part,
};
use rate_limit::{Acquired, SharedRateLimit};

part! {
    /// Validates access tokens.
    pub(crate) struct Validator needs {
        env: Env,
        rows: Arc<Rows>,
        keys: Arc<Keys>,
        provider: Arc<ProviderClient>,
        control_user: Arc<ControlUser>,
        rate_limit: Arc<SharedRateLimit>,
    } owns {
        breaker: SharedBreaker = SharedBreaker::default(),
        in_flight: Singleflight<Outcome> = Singleflight::new(env.tasks()),
        /// What each user's requests ask for before it is due.
        early: Lock<Shares<String>> = Lock::new(Shares::new(limits::EARLY_PROOFS_PER_USER)),
    }
}

/// Who wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForWhom {
    /// A request of the session's user, which has a share of the validations that are not due.
    Request,
    /// Background work.
    Nobody,
}

/// A place of a user's share. It is used up if it is marked so.
pub(crate) struct EarlyPlace<'a> {
    validator: &'a Validator,
    user: String,
    pub(crate) spent: Spent,
}

impl Drop for EarlyPlace<'_> {
    fn drop(&mut self) {
        let now = self.validator.env.now();
        self.validator.early.lock().give_back(&self.user, now, self.spent);
    }
}

/// What came of validating a row's token.
#[derive(Clone, Debug)]
pub(crate) enum Validated {
    /// The answer proved something, and this is the row after it.
    Recorded(Arc<Session>),
    /// The answer proves nothing.
    NoAnswer(ProviderFailure),
    /// Nothing was asked, since the user's requests asked for more than their share. How long until
    /// there is a place.
    OverShare(Duration),
    /// The provider has no validation.
    NotOffered,
}

pub(crate) type Outcome = Result<Validated, Denied>;

/// An answer about an access token.
pub(crate) struct Asked {
    /// When the question was sent.
    pub(crate) at: Timestamp,
    pub(crate) answer: ValidateAnswer,
    /// What the answer proves of the token.
    pub(crate) verdict: Verdict,
    /// What follows from it for the row.
    pub(crate) after: AfterValidate,
}

impl Validator {
    pub(crate) fn breaker_state(&self) -> BreakerState {
        self.breaker.state(self.env.now())
    }

    /// Whether the breaker lets nothing be sent now.
    pub(crate) fn is_breaker_open(&self) -> bool {
        self.breaker.open_for(self.env.now()).is_some()
    }

    /// Takes a place of the user's share for a proof that is not due. None if it is due.
    ///
    /// # Errors
    /// How long until there is a place.
    pub(crate) fn early_place(&self, row: &Session) -> Result<Option<EarlyPlace<'_>>, Duration> {
        let now = self.env.now();
        if request::is_proof_due(row, now, &self.env.settings().lifetimes) {
            return Ok(None);
        }
        let (user, mut early) = (row.subject.id.clone(), self.early.lock());
        let wait = early.wait(&user, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        early.take(&user, now);
        Ok(Some(EarlyPlace { validator: self, user, spent: Spent::No }))
    }

    /// Validates the row's access token. Callers at the same time share one question.
    pub(crate) async fn validate(self: &Arc<Self>, id: SessionId, for_whom: ForWhom) -> Outcome {
        let validator = Arc::clone(self);
        let flight = self.in_flight.join(id, || async move { validator.validate_once(id, for_whom).await });
        flight.await.unwrap_or_else(|| Err(Denied::lost_task()))
    }

    async fn validate_once(&self, id: SessionId, for_whom: ForWhom) -> Outcome {
        let row = self.rows.load_stored(id).await?.ok_or(Denied::NoSession)?;
        let Some(pair) = row.pair() else { return Ok(Validated::Recorded(row)) };
        let mut place = match for_whom {
            ForWhom::Request => match self.early_place(&row) {
                Ok(place) => place,
                Err(wait) => return Ok(Validated::OverShare(wait)),
            },
            ForWhom::Nobody => None,
        };
        let purpose = if place.is_some() { Purpose::Early } else { Purpose::Due };
        let asked = self.ask(&row, pair, purpose).await?;
        let sent = asked.as_ref().is_some_and(|asked| !asked.answer.was_not_sent());
        if let Some(place) = place.as_mut().filter(|_| sent) {
            place.spent = Spent::Yes;
        }
        match asked {
            Some(asked) => self.record(&row, asked.at, asked.after).await,
            None => Ok(Validated::NotOffered),
        }
    }

    /// Whether the provider validates access tokens. Otherwise only a refresh proves anything.
    pub(crate) fn is_offered(&self) -> bool {
        self.provider.has_validation()
    }

    /// Asks the provider about this pair's access token, and changes no row. None if the provider
    /// has no validation.
    ///
    /// Nothing is sent if there is no permit of the rate limit in time, while the breaker is open,
    /// or if the token expired while it waited for its permit.
    pub(crate) async fn ask(
        &self,
        row: &Session,
        pair: &SealedPair,
        purpose: Purpose,
    ) -> Result<Option<Asked>, Denied> {
        if !self.is_offered() {
            return Ok(None);
        }
        let access = self.keys.open_access(row, pair)?;
        let later = |wait| {
            let failure = ProviderFailure { kind: FailureKind::NotSent, retry_after: Some(wait) };
            Ok(Some(self.asked(row, pair, self.env.now(), ValidateAnswer::Unknown(failure))))
        };
        let lived = !pair.expiry.passed(self.env.now());
        if let Some(left) = self.breaker.open_for(self.env.now()) {
            return later(left);
        }
        if let Acquired::TooLate(wait) = self.rate_limit.acquire(purpose).await? {
            return later(wait);
        }
        let admission = match self.breaker.admit(self.env.clock()) {
            Ok(admission) => admission,
            Err(left) => return later(left),
        };
        let at = self.env.now();
        if lived && pair.expiry.passed(at) {
            return later(Duration::ZERO);
        }
        let Some(answer) = self.provider.validate(&access.token).await else { return Ok(None) };
        metrics::validation_answered(&answer);
        match &answer {
            ValidateAnswer::Unknown(failure) => {
                admission.failed(failure);
                if failure.kind == FailureKind::Status(429)
                    && let Err(error) = self.rate_limit.slow_down(failure.retry_after).await
                {
                    // The answer counts all the same, and the next 429 tries again.
                    tracing::error!(%error, "the rate limit of validations could not be lowered");
                }
            }
            ValidateAnswer::Valid(_) | ValidateAnswer::Rejected => admission.answered(),
        }
        let asked = self.asked(row, pair, at, answer);
        if asked.verdict == Verdict::Valid {
            self.control_user.note_connected(&row.subject.id);
            if let ValidateAnswer::Valid(proof) = &asked.answer {
                self.rows.note_name(row, proof.name());
            }
        }
        Ok(Some(asked))
    }

    fn asked(&self, row: &Session, pair: &SealedPair, at: Timestamp, answer: ValidateAnswer) -> Asked {
        let client_id = &self.provider.provider().client.id;
        let verdict = answer.verdict(client_id, Some(&row.subject.id));
        let after = verdict::after_validate(row, pair.generation, client_id, &answer);
        Asked { at, answer, verdict, after }
    }

    /// Records what follows from a validation of the row's pair.
    pub(crate) async fn record(&self, row: &Session, asked_at: Timestamp, after: AfterValidate) -> Outcome {
        let id = row.id;
        let updated = match after {
            AfterValidate::Nothing(failure) => return Ok(Validated::NoAnswer(failure)),
            AfterValidate::Alarm => {
                tracing::error!(session = %id, "a stored token is another client's: was the client id changed?");
                return Ok(Validated::NoAnswer(ProviderFailure::new(FailureKind::Unreadable)));
            }
            AfterValidate::Prove(generation) => {
                let asked_while_suspect = matches!(row.state, State::Suspect(_));
                let prove = |row: Session| {
                    // An answer does not lift a suspicion that is younger than its question.
                    if matches!(row.state, State::Suspect(_)) && !asked_while_suspect {
                        return Err(Refused::Superseded);
                    }
                    row.prove(generation, asked_at)
                };
                self.rows.update(id, prove).await?
            }
            AfterValidate::Suspect(generation) => {
                tracing::info!(session = %id, "the provider rejected an access token");
                self.rows.update(id, |row: Session| row.suspect(generation)).await?
            }
            AfterValidate::End(reason) => {
                tracing::error!(session = %id, "the provider says that a stored token belongs to another user");
                let generation = row.generation();
                let at = self.env.now();
                let end = |row: Session| {
                    if row.pair().is_some() && row.generation() != generation {
                        return Err(Refused::Superseded);
                    }
                    row.end(reason, at)
                };
                self.rows.update(id, end).await?
            }
        };
        match updated {
            Updated::Done(row) | Updated::Refused(_, row) => Ok(Validated::Recorded(row)),
            Updated::Missing => Err(Denied::NoSession),
        }
    }
}
