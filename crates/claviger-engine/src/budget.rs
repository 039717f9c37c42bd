//! Budgets of what anybody can ask for without a session.

use std::time::Duration;

use claviger_core::{Arrival, ClientBudget, ClientPlaces, Spent};

use crate::{Env, Lock};

/// A budget that clients share.
pub(crate) struct SharedBudget {
    env: Env,
    budget: Lock<ClientBudget>,
}

/// A place in a budget. It is used up when it is dropped, unless it is made free.
pub(crate) struct Place<'a> {
    of: &'a SharedBudget,
    arrival: Arrival,
    spent: Spent,
}

impl SharedBudget {
    pub(crate) fn new(env: &Env, places: ClientPlaces) -> Self {
        Self { env: env.clone(), budget: Lock::new(ClientBudget::new(places)) }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// How long until there is one.
    pub(crate) fn take(&self, arrival: Arrival) -> Result<Place<'_>, Duration> {
        self.budget.lock().take(&arrival, self.env.now())?;
        Ok(Place { of: self, arrival, spent: Spent::Yes })
    }
}

impl Place<'_> {
    /// Gives the place back unused.
    pub(crate) fn free(mut self) {
        self.spent = Spent::No;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let now = self.of.env.now();
        self.of.budget.lock().give_back(&self.arrival, now, self.spent);
    }
}
