//! Checks of the states of sign-ins. Each is valid for one callback.

use std::sync::Arc;

use super::fixtures::*;
use crate::{Leftover, Store};

pub(super) async fn a_state_is_used_up_once(store: Arc<dyn Store>) {
    assert_eq!(store.spend_login([1; 32], t(600)).await, Ok(true));
    assert_eq!(store.spend_login([1; 32], t(600)).await, Ok(false), "a state is used up once");
    assert_eq!(store.spend_login([2; 32], t(600)).await, Ok(true), "another state is another sign-in");
    assert_eq!(
        store.spend_login([1; 32], t(9000)).await,
        Ok(false),
        "a later expiry makes it no other state"
    );
    assert_eq!(
        store.purge(Leftover::SpentLogins, t(600), 10).await,
        Ok(2),
        "a second call has not prolonged a state"
    );
}

pub(super) async fn one_of_many_callbacks_wins(store: Arc<dyn Store>) {
    for round in 0..ROUNDS {
        let callbacks = (0..RACERS).map(|_| {
            let store = Arc::clone(&store);
            async move { store.spend_login([round; 32], t(600)).await.expect("spend_login") }
        });
        let won = race(callbacks).await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 1, "one of {RACERS} callbacks uses up the state, in round {round}");
    }
}

pub(super) async fn expired_states_are_forgotten(store: Arc<dyn Store>) {
    for (tag, expires) in [(1, 30), (2, 10), (3, 20), (4, 40)] {
        assert_eq!(store.spend_login([tag; 32], t(expires)).await, Ok(true));
    }
    assert_eq!(store.purge(Leftover::SpentLogins, t(9), 10).await, Ok(0), "nothing has expired");
    assert_eq!(store.purge(Leftover::SpentLogins, t(30), 2).await, Ok(2), "no more than asked for");
    assert_eq!(store.spend_login([2; 32], t(99)).await, Ok(true), "the oldest are forgotten first");
    assert_eq!(store.spend_login([1; 32], t(99)).await, Ok(false), "the younger one is remembered");
    assert_eq!(
        store.purge(Leftover::SpentLogins, t(30), 10).await,
        Ok(1),
        "what expires at this moment has expired"
    );
    assert_eq!(store.spend_login([4; 32], t(99)).await, Ok(false), "what has not expired is remembered");
}
