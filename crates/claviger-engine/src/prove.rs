//! Asks the provider about an access token, and records what the answer proves.

use std::{sync::Arc, time::Duration};

use claviger_core::{
    ids::{ProviderName, SessionId},
    policy::limits,
    session::{Refused, SealedPair, Session, State},
    time::Timestamp,
    verdict::{AfterValidate, Trouble, TroubleKind, ValidateAnswer, Verdict, after_validate},
};
use claviger_seal::{AccessPlain, PairBinding};

use crate::{Engine, amend::Amended, errors::Denied, meter, turns::TooLate};

/// What asking the provider came to.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// The answer said something, and this is the row after it.
    Settled(Arc<Session>),
    /// The answer proves nothing.
    Nothing(Trouble),
}

pub(crate) type Outcome = Result<Asked, Denied>;

impl Engine {
    /// Asks the provider about the row's access token. Callers at the same time share one question.
    pub(crate) async fn prove(&self, id: SessionId) -> Outcome {
        let engine = self.clone();
        let flight = self.inner.proofs.join(id, move || async move { engine.prove_once(id).await });
        flight.await.unwrap_or_else(|| Err(Denied::lost_task()))
    }

    async fn prove_once(&self, id: SessionId) -> Outcome {
        let row = self.fresh_row(id).await?.ok_or(Denied::NoSession)?;
        let Some(pair) = row.pair() else { return Ok(Asked::Settled(row)) };
        let (asked_at, answer) = self.ask_about(&row, pair, limits::PACE_PATIENCE).await?;
        let after = after_validate(&row, pair.generation, &self.provider().client_id, &answer);
        self.follow(&row, asked_at, after).await
    }

    /// Does what follows from a validation of the row's pair.
    pub(crate) async fn follow(&self, row: &Session, asked_at: Timestamp, after: AfterValidate) -> Outcome {
        let id = row.id;
        let amended = match after {
            AfterValidate::Nothing(trouble) => return Ok(Asked::Nothing(trouble)),
            AfterValidate::Alarm => {
                tracing::error!(session = %id, "a stored token is another client's: was the client id changed?");
                return Ok(Asked::Nothing(Trouble::new(TroubleKind::Unreadable)));
            }
            AfterValidate::Prove(generation) => {
                let asked_of_suspect = matches!(row.state, State::Suspect(_));
                self.amend(id, |row: Session| {
                    // An answer under way does not lift a suspicion that is younger than its question.
                    if matches!(row.state, State::Suspect(_)) && !asked_of_suspect {
                        return Err(Refused::Superseded);
                    }
                    Ok((row.prove(generation, asked_at)?, None))
                })
                .await?
            }
            AfterValidate::Suspect(generation) => {
                tracing::info!(session = %id, "the provider rejected an access token");
                self.amend(id, |row: Session| Ok((row.suspect(generation)?, None))).await?
            }
            AfterValidate::End(reason) => {
                tracing::error!(session = %id, "the provider says that a stored token belongs to somebody else");
                let generation = row.generation();
                let at = self.now();
                self.amend(id, |row: Session| {
                    if row.pair().is_some() && row.generation() != generation {
                        return Err(Refused::Superseded);
                    }
                    row.end(reason, at)
                })
                .await?
            }
        };
        match amended {
            Amended::Done(row) | Amended::Refused(_, row) => Ok(Asked::Settled(row)),
            Amended::Missing => Err(Denied::NoSession),
        }
    }

    /// What the provider says of this pair's access token, and when it was asked. Changes no row. It is asked within the budget
    /// of validations, if there is a place in it within `patience`; not while it is in trouble, and not about a token that
    /// expired while it waited for its place.
    pub(crate) async fn ask_about(
        &self,
        row: &Session,
        pair: &SealedPair,
        patience: Duration,
    ) -> Result<(Timestamp, ValidateAnswer), Denied> {
        let access = self.open_access(row, pair)?;
        let later = |wait| {
            let trouble = Trouble { kind: TroubleKind::NotSent, retry_after: Some(wait) };
            Ok((self.now(), ValidateAnswer::Unknown(trouble)))
        };
        let lived = !pair.expiry.passed(self.now());
        if let Some(left) = self.inner.proof_breaker.left(self.now()) {
            return later(left);
        }
        if let Err(TooLate(wait)) = self.await_place(patience).await? {
            return later(wait);
        }
        let permit = match self.inner.proof_breaker.ask(&*self.inner.parts.clock) {
            Ok(permit) => permit,
            Err(left) => return later(left),
        };
        let asked_at = self.now();
        if lived && pair.expiry.passed(asked_at) {
            return later(Duration::ZERO);
        }
        let answer = self.inner.parts.http.send(self.provider().validate(&access.token)).await;
        let answer = self.provider().read_validate(answer, self.now());
        meter::validation_answered(&answer);
        match &answer {
            ValidateAnswer::Unknown(trouble) => {
                permit.troubled(trouble);
                if trouble.kind == TroubleKind::Status(429)
                    && let Err(error) = self.slow_down(trouble.retry_after).await
                {
                    // What the provider said counts all the same; its next 429 is noted.
                    tracing::error!(%error, "the pace of validations cannot be slowed down");
                }
            }
            ValidateAnswer::Valid(_) | ValidateAnswer::Rejected => permit.answered(),
        }
        if answer.verdict(&self.provider().client_id, Some(&row.subject.id)) == Verdict::Valid {
            self.note_connected(&row.subject.id);
        }
        Ok((asked_at, answer))
    }

    /// The access token of a pair, for requests to the provider that issued it.
    pub(crate) fn open_access(&self, row: &Session, pair: &SealedPair) -> Result<AccessPlain, Denied> {
        self.require_issuer(row.id, &row.subject.provider)?;
        let binding =
            PairBinding { provider: &row.subject.provider, session: row.id, generation: pair.generation };
        self.keyring().open_access(binding, &pair.access).map_err(Denied::from_row)
    }

    /// Tokens are sent to who issued them and to nobody else. Those of a provider that is no longer configured stay where they are,
    /// which is the operator's business and signs nobody out.
    pub(crate) fn require_issuer(&self, session: SessionId, issuer: &ProviderName) -> Result<(), Denied> {
        if *issuer == self.provider().name {
            return Ok(());
        }
        tracing::error!(%session, issuer = issuer.0, "a token of a provider that is not configured was not sent");
        Err(Denied::Misconfigured)
    }
}
