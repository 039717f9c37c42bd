//! A change of a row, and which of the row's columns it writes.

use super::{ActiveState, PendingRevocation, Refused, Session, State};

/// The next row, and the kind of the change that leads to it.
///
/// Only the transitions of [`Session`] make one. A store writes the columns of the kind and leaves
/// all others as they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a change does nothing until a store applies it"]
pub struct Change {
    next: Session,
    kind: ChangeKind,
}

/// What a change is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// A refresh is claimed, given back, or marked as lost.
    Claim,
    /// The row has another token pair, or the same pair sealed with another key.
    Pair,
    /// A live row was proven.
    Proof,
    /// The row went to another state that is not the end.
    State,
    /// The provider calls the user by another name.
    Name,
    /// The session ended.
    End {
        /// The revocation of its last pair, unless none is needed. It is written in the same step.
        revocation: Option<PendingRevocation>,
    },
}

/// A group of columns that are written together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Which variant of [`State`] the row is in.
    State,
    /// [`ActiveState::proven_at`].
    Proof,
    /// [`ActiveState::claim`].
    Claim,
    /// [`ActiveState::pair`].
    Pair,
    /// [`Session::display_name`].
    Name,
    /// Reason and time of [`State::Ended`].
    End,
}

impl ChangeKind {
    /// The columns that a change of this kind writes, beside the version, which every change
    /// writes.
    pub const fn columns(&self) -> &'static [Column] {
        use Column::{Claim, End, Name, Pair, Proof, State};
        match self {
            Self::Claim => &[Claim],
            Self::Proof => &[Proof],
            Self::State => &[State, Proof],
            Self::Name => &[Name],
            Self::Pair => &[State, Proof, Claim, Pair],
            Self::End { .. } => &[State, Proof, Claim, Pair, End],
        }
    }

    /// Whether a change of this kind writes the column.
    pub fn writes(&self, column: Column) -> bool {
        self.columns().contains(&column)
    }
}

impl Session {
    /// Gives the session the name by which the provider calls its user now.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Superseded`] if it has that name.
    pub fn rename(mut self, name: &str) -> Result<Change, Refused> {
        if !self.ended() && self.display_name == name {
            return Err(Refused::Superseded);
        }
        self.display_name = name.to_owned();
        self.edit(ChangeKind::Name, |_| Ok(()))
    }
}

impl Change {
    pub(super) fn new(kind: ChangeKind, next: Session) -> Self {
        Self { next, kind }
    }

    /// Makes a change that no transition makes. Tests use it to show that a store ignores whatever
    /// `next` holds outside the columns of the kind.
    #[cfg(any(test, feature = "conformance"))]
    pub fn forged(kind: ChangeKind, next: Session) -> Self {
        Self { next, kind }
    }

    /// The row after the change.
    pub fn next(&self) -> &Session {
        &self.next
    }

    /// The row after the change.
    pub fn into_next(self) -> Session {
        self.next
    }

    /// What the change is about.
    pub fn kind(&self) -> &ChangeKind {
        &self.kind
    }

    /// The revocation that the store has to write in the same step.
    pub fn revocation(&self) -> Option<&PendingRevocation> {
        match &self.kind {
            ChangeKind::End { revocation } => revocation.as_ref(),
            _ => None,
        }
    }

    /// Whether the change brings a pair that the provider has just issued.
    pub fn has_new_pair(&self) -> bool {
        self.kind == ChangeKind::Pair && self.next.generation() == Some(self.next.version)
    }

    /// Whether the change leaves the row claimed by a refresh that may yet be sent.
    pub fn takes_claim(&self) -> bool {
        let claim = self.next.active().and_then(|active| active.claim);
        self.kind == ChangeKind::Claim && claim.is_some_and(|claim| !claim.answer_lost)
    }

    /// What a store holds after it wrote the change over `stored`: the version and the kind's
    /// columns from the change, everything else from `stored`.
    pub fn applied_to(&self, stored: &Session) -> Session {
        let mut row = Session { version: self.next.version, ..stored.clone() };
        let writes = |column| self.kind.writes(column);
        if writes(Column::Name) {
            row.display_name.clone_from(&self.next.display_name);
        }
        if writes(Column::End) {
            row.state = self.next.state.clone();
        } else if let (Some(old), Some(new)) = (stored.active(), self.next.active()) {
            let active = ActiveState {
                pair: if writes(Column::Pair) { &new.pair } else { &old.pair }.clone(),
                proven_at: if writes(Column::Proof) { new } else { old }.proven_at,
                claim: if writes(Column::Claim) { new } else { old }.claim,
            };
            let state = if writes(Column::State) { &self.next.state } else { &stored.state };
            row.state = match state {
                State::Parked(_) => State::Parked(active),
                State::Suspect(_) => State::Suspect(active),
                State::Live(_) | State::Ended { .. } => State::Live(active),
            };
        }
        row
    }
}
