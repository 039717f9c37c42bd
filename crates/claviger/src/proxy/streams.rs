//! Knows the open requests of each session, and closes them when it ends.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use claviger_core::ids::SessionId;
use claviger_engine::Ending;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The open requests of all sessions, and the tunnels among them.
#[derive(Clone, Debug)]
pub struct Streams {
    open: Arc<Mutex<HashMap<SessionId, Open>>>,
    tunnels: TaskTracker,
    stop: CancellationToken,
}

/// The open requests of one session.
#[derive(Debug)]
struct Open {
    ended: CancellationToken,
    holders: usize,
}

impl Streams {
    /// Nothing is open. Tunnels close when `stop` comes.
    pub fn new(stop: CancellationToken) -> Self {
        Self { open: Arc::default(), tunnels: TaskTracker::new(), stop }
    }

    /// Notes a request of this session. Hold it before the session is looked at, or its end may be missed.
    pub fn hold(&self, session: SessionId) -> Hold {
        let mut open = self.lock();
        let entry =
            open.entry(session).or_insert_with(|| Open { ended: CancellationToken::new(), holders: 0 });
        entry.holders += 1;
        Hold { streams: self.clone(), session, ended: entry.ended.clone() }
    }

    /// Closes requests as their sessions end, until nobody tells of endings any more. Where some ended unheard, it closes those of
    /// which `doubts` says that they may have.
    pub async fn watch(
        &self,
        mut endings: broadcast::Receiver<Ending>,
        doubts: impl Fn(SessionId) -> bool + Send,
    ) {
        loop {
            match endings.recv().await {
                Ok(Ending::Of(session)) => self.end(session),
                Ok(Ending::Unheard) => {
                    let open: Vec<_> = self.lock().keys().copied().collect();
                    open.into_iter().filter(|session| doubts(*session)).for_each(|session| self.end(session));
                }
                // Nobody can say which ones were missed.
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(
                        missed,
                        "endings came faster than they could be followed; all streams are closed"
                    );
                    self.end_all();
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Runs a tunnel until it closes by itself or the gateway stops.
    pub fn tunnel(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tunnels.spawn(async move {
            // None says that the gateway stops; either way the tunnel is over.
            let _over = stop.run_until_cancelled_owned(work).await;
        });
    }

    /// Waits until the tunnels are closed that were open when the gateway was told to stop.
    pub async fn closed(&self) {
        self.tunnels.close();
        self.tunnels.wait().await;
    }

    /// How many sessions have open requests.
    pub fn sessions(&self) -> usize {
        self.lock().len()
    }

    fn end(&self, session: SessionId) {
        if let Some(open) = self.lock().remove(&session) {
            open.ended.cancel();
        }
    }

    fn end_all(&self) {
        for (_, open) in std::mem::take(&mut *self.lock()) {
            open.ended.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Open>> {
        // The map is whole after each of the short sections that lock it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open request of a session.
#[derive(Debug)]
pub struct Hold {
    streams: Streams,
    session: SessionId,
    ended: CancellationToken,
}

impl Hold {
    /// Is cancelled when the session ends.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Once ended, the entry is gone, and one that stands in its place is another sign-in's.
        if self.ended.is_cancelled() {
            return;
        }
        let mut open = self.streams.lock();
        if let Some(entry) = open.get_mut(&self.session) {
            entry.holders -= 1;
            if entry.holders == 0 {
                open.remove(&self.session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use claviger_core::time::Timestamp;

    use super::*;

    fn id(number: u8) -> SessionId {
        SessionId::new(Timestamp::from_millis(1), [number; 10])
    }

    #[test]
    fn an_ending_closes_all_requests_of_its_session_and_no_others() {
        let streams = Streams::new(CancellationToken::new());
        let (one, two, other) = (streams.hold(id(1)), streams.hold(id(1)), streams.hold(id(2)));
        streams.end(id(1));
        assert!(one.ended().is_cancelled() && two.ended().is_cancelled());
        assert!(!other.ended().is_cancelled());
        assert_eq!(streams.sessions(), 1);
    }

    #[test]
    fn what_is_closed_is_forgotten() {
        let streams = Streams::new(CancellationToken::new());
        let (one, two) = (streams.hold(id(1)), streams.hold(id(1)));
        drop(one);
        assert_eq!(streams.sessions(), 1);
        drop(two);
        assert_eq!(streams.sessions(), 0);
        let late = streams.hold(id(1));
        streams.end(id(1));
        let new = streams.hold(id(1));
        drop(late);
        assert_eq!(streams.sessions(), 1);
        drop(new);
        assert_eq!(streams.sessions(), 0);
    }

    #[tokio::test]
    async fn endings_that_were_missed_close_everything() {
        let streams = Streams::new(CancellationToken::new());
        let (sender, receiver) = broadcast::channel(1);
        let held = streams.hold(id(9));
        sender.send(Ending::Of(id(1))).unwrap();
        sender.send(Ending::Of(id(2))).unwrap();
        drop(sender);
        streams.watch(receiver, |_| false).await;
        assert!(held.ended().is_cancelled());
    }

    #[tokio::test]
    async fn where_some_ended_unheard_the_doubtful_are_closed() {
        let streams = Streams::new(CancellationToken::new());
        let (sender, receiver) = broadcast::channel(1);
        let (doubtful, other) = (streams.hold(id(8)), streams.hold(id(9)));
        sender.send(Ending::Unheard).unwrap();
        drop(sender);
        streams.watch(receiver, |session| session == id(8)).await;
        assert!(doubtful.ended().is_cancelled());
        assert!(!other.ended().is_cancelled());
    }
}
