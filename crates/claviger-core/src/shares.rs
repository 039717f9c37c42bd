//! Budgets that are shared out, so that nobody uses up the whole.
//!
//! A budget is a number of places. A party holds a place while it acts. A success gives it back at
//! once, and a failure only after a while. So honest use is limited only in what happens at the
//! same time, and failures are limited in their rate.
//!
//! The memory of these budgets belongs to one process.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use crate::{ClientPlaces, Places, SessionId, Timestamp, limits};

/// What became of something that held a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// The place is free again at once.
    No,
    /// The place is used up, and comes back later.
    Yes,
}

/// What one party uses of its places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Usage {
    held: u32,
    /// When all used-up places are back.
    whole_at: Timestamp,
}

impl Usage {
    const NOTHING: Self = Self { held: 0, whole_at: Timestamp::EPOCH };

    /// How long until a place is free; zero if one is.
    fn wait(&self, places: Places, now: Timestamp) -> Duration {
        let missing = self.rest(places, now);
        let free = places.back_after.saturating_mul(places.count.saturating_sub(self.held));
        // One place is free once less than the last one is missing.
        (missing + places.back_after).saturating_sub(free)
    }

    fn spend(&mut self, places: Places, now: Timestamp) {
        self.whole_at = now.after(self.rest(places, now) + places.back_after);
    }

    /// How long until all used-up places are back. More than all of them take comes from a clock
    /// that was set back.
    fn rest(&self, places: Places, now: Timestamp) -> Duration {
        let rest = self.whole_at.since(now);
        if rest > places.back_after.saturating_mul(places.count) { Duration::ZERO } else { rest }
    }

    fn is_idle(&self, places: Places, now: Timestamp) -> bool {
        self.held == 0 && self.rest(places, now).is_zero()
    }
}

/// The shares of all parties. Each has the same number of places.
#[derive(Clone, Debug)]
pub struct Shares<K> {
    places: Places,
    /// Parties that use nothing are left out.
    parties: BTreeMap<K, Usage>,
}

impl<K: Ord + Clone> Shares<K> {
    /// Creates shares of this size, of which nothing is used.
    pub const fn new(places: Places) -> Self {
        Self { places, parties: BTreeMap::new() }
    }

    /// Returns how long until this party has a place; zero if it has one.
    pub fn wait(&self, party: &K, now: Timestamp) -> Duration {
        self.parties.get(party).map_or(Duration::ZERO, |usage| usage.wait(self.places, now))
    }

    /// Takes a place, whether there is one or not.
    pub fn take(&mut self, party: &K, now: Timestamp) {
        if self.parties.len() >= limits::PARTIES {
            self.parties.retain(|_, usage| !usage.is_idle(self.places, now));
        }
        if self.parties.len() < limits::PARTIES || self.parties.contains_key(party) {
            self.parties.entry(party.clone()).or_insert(Usage::NOTHING).held += 1;
        }
    }

    /// Gives a place back that was taken.
    pub fn give_back(&mut self, party: &K, now: Timestamp, spent: Spent) {
        let Some(usage) = self.parties.get_mut(party) else { return };
        usage.held = usage.held.saturating_sub(1);
        if spent == Spent::Yes {
            usage.spend(self.places, now);
        }
        if usage.is_idle(self.places, now) {
            self.parties.remove(party);
        }
    }
}

/// The client that a request comes from, if it is not known who is signed in there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The client's address, if it is known.
    pub address: Option<IpAddr>,
    /// The session whose cookie the browser shows, live or not. Only a browser that signed in
    /// before has one.
    pub browser: Option<SessionId>,
}

/// The budget of something that anybody can ask for without a session.
///
/// What is used up counts for the address, for the browser, and for all together. Some places of
/// the whole are kept for browsers that signed in before.
#[derive(Clone, Debug)]
pub struct ClientBudget {
    places: ClientPlaces,
    all: Usage,
    addresses: Shares<IpAddr>,
    browsers: Shares<SessionId>,
}

impl ClientBudget {
    /// Creates a budget of this size, of which nothing is used.
    pub const fn new(places: ClientPlaces) -> Self {
        Self {
            places,
            all: Usage::NOTHING,
            addresses: Shares::new(places.address),
            browsers: Shares::new(places.browser),
        }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// How long until there is one.
    pub fn take(&mut self, arrival: &Arrival, now: Timestamp) -> Result<(), Duration> {
        let all = match arrival.browser {
            Some(_) => self.places.all,
            None => Places { count: self.places.strangers, ..self.places.all },
        };
        let address = arrival.address.map(network);
        let waits = [
            self.all.wait(all, now),
            address.map_or(Duration::ZERO, |address| self.addresses.wait(&address, now)),
            arrival.browser.map_or(Duration::ZERO, |browser| self.browsers.wait(&browser, now)),
        ];
        let wait = waits.into_iter().max().unwrap_or_default();
        if !wait.is_zero() {
            return Err(wait);
        }
        self.all.held += 1;
        if let Some(address) = address {
            self.addresses.take(&address, now);
        }
        if let Some(browser) = arrival.browser {
            self.browsers.take(&browser, now);
        }
        Ok(())
    }

    /// Gives a place back that was taken.
    pub fn give_back(&mut self, arrival: &Arrival, now: Timestamp, spent: Spent) {
        self.all.held = self.all.held.saturating_sub(1);
        if spent == Spent::Yes {
            self.all.spend(self.places.all, now);
        }
        if let Some(address) = arrival.address.map(network) {
            self.addresses.give_back(&address, now, spent);
        }
        if let Some(browser) = arrival.browser {
            self.browsers.give_back(&browser, now, spent);
        }
    }
}

/// Returns what one client has of addresses: one of IPv4, 2^64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests;
