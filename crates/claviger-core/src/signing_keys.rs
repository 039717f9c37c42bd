//! The keys that sign assertions: which one signs, which are published, and which step of the
//! rotation is due.
//!
//! | role | published | signs | until |
//! |---|---|---|---|
//! | next | yes | no | every cache has it: [`limits::SIGNING_KEY_LEAD`] after its publication |
//! | signs | yes | yes | a next one takes its place |
//! | retired | yes | no | [`limits::SIGNING_KEY_KEPT`] after it signed last |
//!
//! All instances read one list from the store, and replace it by compare-and-set. So the list says
//! which key signs, and no instance asks its own clock. Only a step needs a time, which is one that
//! the provider confirms ([`ClockCheck::agreed`](crate::ClockCheck::agreed)).

use crate::{Timestamp, limits};

/// Keys with their roles. One of them signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKeys<K> {
    /// The key that signs.
    pub signs: Since<K>,
    /// The key that signs next, since its publication.
    pub next: Option<Since<K>>,
    /// The keys that signed before, the last one first, since they signed last.
    pub retired: Vec<Since<K>>,
}

/// A key, and since when it has its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since<K> {
    /// The key.
    pub key: K,
    /// Since when it has its role.
    pub since: Timestamp,
}

/// A step of the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStep {
    /// Times that only a wrong clock can have written are replaced by now.
    Correct,
    /// The next key begins to sign.
    Promote,
    /// A next key is made and published.
    Publish,
    /// Retired keys are no longer published.
    Drop,
}

impl<K: Clone> SigningKeys<K> {
    /// The first key signs at once, since there is no signature of another one.
    pub fn first(key: K, now: Timestamp) -> Self {
        Self { signs: Since { key, since: now }, next: None, retired: Vec::new() }
    }

    /// Returns all keys, which are all published.
    pub fn published(&self) -> impl Iterator<Item = &K> {
        self.all().map(|held| &held.key)
    }

    /// Returns the step that is due.
    pub fn due(&self, now: Timestamp) -> Option<KeyStep> {
        let is_over = |held: &Since<K>, span| held.since.age(now).is_some_and(|age| age >= span);
        if self.all().any(|held| held.since.age(now).is_none()) {
            Some(KeyStep::Correct)
        } else if self.next.as_ref().is_some_and(|next| is_over(next, limits::SIGNING_KEY_LEAD)) {
            Some(KeyStep::Promote)
        } else if self.next.is_none() && is_over(&self.signs, limits::SIGNING_KEY_LIFE) {
            Some(KeyStep::Publish)
        } else if self.retired.iter().any(|held| is_over(held, limits::SIGNING_KEY_KEPT)) {
            Some(KeyStep::Drop)
        } else {
            None
        }
    }

    /// Returns the keys after a step. `make` makes a new key.
    #[must_use]
    pub fn after(&self, step: KeyStep, now: Timestamp, make: impl FnOnce() -> K) -> Self {
        let mut keys = self.clone();
        match step {
            KeyStep::Correct => {
                let all = std::iter::once(&mut keys.signs).chain(&mut keys.next).chain(&mut keys.retired);
                all.filter(|held| held.since.age(now).is_none()).for_each(|held| held.since = now);
            }
            KeyStep::Promote => {
                if let Some(next) = keys.next.take() {
                    let before = std::mem::replace(&mut keys.signs, Since { since: now, ..next });
                    keys.retired.insert(0, Since { since: now, ..before });
                    keys.retired.truncate(limits::SIGNING_KEYS_RETIRED);
                }
            }
            KeyStep::Publish => keys.next = Some(Since { key: make(), since: now }),
            KeyStep::Drop => {
                let is_young = |age| age < limits::SIGNING_KEY_KEPT;
                keys.retired.retain(|held| held.since.age(now).is_none_or(is_young));
            }
        }
        keys
    }

    fn all(&self) -> impl Iterator<Item = &Since<K>> {
        std::iter::once(&self.signs).chain(&self.next).chain(&self.retired)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const MOMENT: Duration = Duration::from_millis(1);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    const LIFE: Duration = limits::SIGNING_KEY_LIFE;
    const LEAD: Duration = limits::SIGNING_KEY_LEAD;
    const KEPT: Duration = limits::SIGNING_KEY_KEPT;

    fn since(key: u32, since: Timestamp) -> Since<u32> {
        Since { key, since }
    }

    fn keys(signs: Timestamp, next: Option<Timestamp>, retired: &[Timestamp]) -> SigningKeys<u32> {
        let retired = retired.iter().map(|at| since(1, *at)).collect();
        SigningKeys { signs: since(2, signs), next: next.map(|at| since(3, at)), retired }
    }

    #[test]
    fn one_step_is_due_at_a_time() {
        let (old, new) = (NOW.before(LIFE), NOW.before(LIFE).after(MOMENT));
        let lead = NOW.before(LEAD);
        let gone = NOW.before(KEPT);
        let (ahead, allowed) = (NOW.after(limits::CLOCK_SKEW + MOMENT), NOW.after(limits::CLOCK_SKEW));
        let table = [
            ("a new key", keys(NOW, None, &[]), None),
            ("it signed almost for its life", keys(new, None, &[]), None),
            ("it signed for its life", keys(old, None, &[]), Some(KeyStep::Publish)),
            ("the next one is not known to all", keys(old, Some(lead.after(MOMENT)), &[]), None),
            ("the next one is known to all", keys(old, Some(lead), &[]), Some(KeyStep::Promote)),
            ("tokens of the old one may live", keys(NOW, None, &[gone.after(MOMENT)]), None),
            ("no token of the old one lives", keys(NOW, None, &[gone]), Some(KeyStep::Drop)),
            ("the clock of another differs a little", keys(allowed, Some(allowed), &[allowed]), None),
            ("a key that signs, from the future", keys(ahead, None, &[]), Some(KeyStep::Correct)),
            ("a next one from the future", keys(old, Some(ahead), &[gone]), Some(KeyStep::Correct)),
            ("a retired one from the future", keys(old, Some(lead), &[ahead]), Some(KeyStep::Correct)),
        ];
        for (name, keys, expected) in table {
            assert_eq!(keys.due(NOW), expected, "{name}");
        }
    }

    #[test]
    fn each_step_changes_what_it_says() {
        let (old, gone, ahead) = (NOW.before(LIFE), NOW.before(KEPT), NOW.after(YEAR));
        let table = [
            (KeyStep::Publish, keys(old, None, &[]), keys(old, Some(NOW), &[])),
            (KeyStep::Correct, keys(ahead, Some(ahead), &[old, ahead]), keys(NOW, Some(NOW), &[old, NOW])),
            (KeyStep::Drop, keys(NOW, None, &[NOW, gone]), keys(NOW, None, &[NOW])),
            (
                KeyStep::Promote,
                keys(old, Some(old), &[gone]),
                SigningKeys {
                    signs: since(3, NOW),
                    next: None,
                    retired: vec![since(2, NOW), since(1, gone)],
                },
            ),
        ];
        for (step, before, expected) in table {
            let make = || {
                assert_eq!(step, KeyStep::Publish, "no other step makes a key");
                3
            };
            assert_eq!(before.after(step, NOW, make), expected, "{step:?}");
        }
    }

    /// A list that is looked at and changed by instances at these times.
    struct Run {
        keys: SigningKeys<u32>,
        made: u32,
        steps: Vec<KeyStep>,
    }

    impl Run {
        fn new(now: Timestamp) -> Self {
            Self { keys: SigningKeys::first(0, now), made: 0, steps: Vec::new() }
        }

        fn look(&mut self, now: Timestamp) {
            if let Some(step) = self.keys.due(now) {
                let made = &mut self.made;
                self.keys = self.keys.after(step, now, || {
                    *made += 1;
                    *made
                });
                self.steps.push(step);
            }
        }
    }

    #[test]
    fn a_clock_that_is_wrong_for_a_while_brings_no_flood_of_keys() {
        for wrong in [NOW.after(YEAR), NOW.before(YEAR)] {
            let mut run = Run::new(wrong);
            for n in 0..1000 {
                run.look(NOW.after(limits::SIGNING_KEYS_LOOK_EVERY * n));
            }
            assert!(run.made <= 1, "{:?}", run.steps);
        }
    }

    proptest! {
        /// While clocks agree, a key is published for its lead before it signs, and stays for its
        /// time after it signed last, however seldom an instance looks.
        #[test]
        fn a_key_is_published_before_and_after_it_signs(
            pauses in prop::collection::vec((1_u64..3_000_000, 0_u64..10), 1..400),
        ) {
            let (mut now, mut run) = (NOW, Run::new(NOW));
            let mut published = BTreeMap::from([(0, NOW.before(LEAD))]);
            let mut signed = BTreeMap::new();
            for (seconds, behind) in pauses {
                signed.insert(run.keys.signs.key, now);
                now = now.after(Duration::from_secs(seconds));
                // Until this look the key of before signed.
                signed.insert(run.keys.signs.key, now);
                let before: Vec<u32> = run.keys.published().copied().collect();
                run.look(now.before(Duration::from_secs(behind)));
                let after: Vec<u32> = run.keys.published().copied().collect();
                for key in &after {
                    published.entry(*key).or_insert(now);
                }
                let slack = limits::CLOCK_SKEW;
                let signs = run.keys.signs.key;
                prop_assert!(now.since(published[&signs]) + slack >= LEAD, "it signs too early");
                for gone in before.iter().filter(|key| !after.contains(key)) {
                    prop_assert!(now.since(signed[gone]) + slack >= KEPT, "it went too early");
                }
                prop_assert!(after.len() <= 2 + limits::SIGNING_KEYS_RETIRED);
            }
        }

        /// Whatever wrong clocks wrote, one key signs, and no time from the future counts.
        #[test]
        fn any_clock_leaves_one_key_that_signs(
            offsets in prop::collection::vec(-400_000_000_i64..400_000_000, 1..200),
        ) {
            let mut run = Run::new(NOW);
            for offset in offsets {
                let now = Timestamp::from_millis(NOW.as_millis() + offset * 1000);
                let ahead = run.keys.all().any(|held| held.since.age(now).is_none());
                let before = run.keys.signs.key;
                run.look(now);
                if ahead {
                    prop_assert_eq!(run.steps.last(), Some(&KeyStep::Correct));
                    prop_assert_eq!(run.keys.signs.key, before);
                }
                let mut all: Vec<u32> = run.keys.published().copied().collect();
                prop_assert!(all.len() <= 2 + limits::SIGNING_KEYS_RETIRED);
                all.sort_unstable();
                all.dedup();
                prop_assert_eq!(all.len(), run.keys.published().count(), "no key has two roles");
            }
        }
    }
}
