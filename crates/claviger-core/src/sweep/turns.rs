//! Who takes the next permit of the rate limit.

use crate::limits;

/// Why an access token is validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The sweep has come to it. It waits for as long as it takes.
    Sweep,
    /// A request or an investigation needs it now.
    Due,
    /// A request asks for it although the last proof still counts.
    Early,
}

/// The turns of one process. While the sweep waits, early validations get a fixed part of the
/// permits, so that users cannot keep the sweep from its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    since_early: u32,
}

impl Default for Turns {
    /// An early validation may begin.
    fn default() -> Self {
        Self { since_early: limits::PERMITS_PER_EARLY }
    }
}

impl Turns {
    /// Returns whether it is this purpose's turn.
    pub fn is_of(self, purpose: Purpose, sweep_waits: bool) -> bool {
        purpose != Purpose::Early || !sweep_waits || self.since_early + 1 >= limits::PERMITS_PER_EARLY
    }

    /// Returns the turns after a permit was taken.
    #[must_use]
    pub fn after(self, purpose: Purpose) -> Self {
        match purpose {
            Purpose::Early => Self { since_early: 0 },
            Purpose::Sweep | Purpose::Due => Self { since_early: self.since_early.saturating_add(1) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_validations_get_every_fourth_permit_while_the_sweep_waits() {
        use Purpose::{Due, Early, Sweep};
        // What was taken before, and whether it is then the turn of an early validation.
        let table: [(&[Purpose], bool); 8] = [
            (&[], true),
            (&[Early], false),
            (&[Early, Sweep], false),
            (&[Early, Sweep, Due], false),
            (&[Early, Sweep, Sweep, Sweep], true),
            (&[Early, Due, Due, Due], true),
            (&[Early, Sweep, Sweep, Sweep, Sweep, Sweep], true),
            (&[Early, Sweep, Sweep, Sweep, Sweep, Sweep, Early], false),
        ];
        for (taken, expected) in table {
            let turns = taken.iter().fold(Turns::default(), |turns, purpose| turns.after(*purpose));
            assert_eq!(turns.is_of(Early, true), expected, "{taken:?}");
            assert!(turns.is_of(Early, false), "{taken:?}: nobody else waits");
            assert!(turns.is_of(Due, true) && turns.is_of(Sweep, true), "{taken:?}");
        }
    }
}
