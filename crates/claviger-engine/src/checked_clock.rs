//! The time that may end sessions. What ends one by age or idleness, or deletes for good, asks
//! here.

use std::{sync::Arc, time::Duration};

use claviger_core::{Timestamp, limits};

use crate::{ClockWatch, Env, ProviderClient, part::part};

part! {
    /// Confirms our clock with the provider's.
    pub(crate) struct CheckedClock needs {
        env: Env,
        watch: Arc<ClockWatch>,
        provider: Arc<ProviderClient>,
    } owns {
        /// When the provider was last asked for the time, by the monotonic clock, and after how
        /// many jumps. One task asks at a time.
        asked: tokio::sync::Mutex<Option<(Duration, u64)>> = tokio::sync::Mutex::default(),
    }
}

impl CheckedClock {
    /// The time that may end sessions, as far as is known without asking.
    pub(crate) fn known(&self) -> Option<Timestamp> {
        self.watch.confirmed()
    }

    /// Whether the provider has not answered since the start or the last jump.
    pub(crate) fn is_untold(&self) -> bool {
        self.watch.is_untold()
    }

    /// The time on which all instances agree: the provider's. It is asked first if it has not
    /// named its time since the start or the last jump. Our time if it does not say.
    pub(crate) async fn of_provider(&self) -> Timestamp {
        self.ask_unless_told().await;
        self.known_of_provider()
    }

    /// The same, as far as is known without asking.
    pub(crate) fn known_of_provider(&self) -> Timestamp {
        self.watch.of_provider()
    }

    /// A time on which all instances agree, as far as is known without asking.
    pub(crate) fn agreed(&self) -> Option<Timestamp> {
        self.watch.agreed()
    }

    /// The time that may end sessions. If the provider has not answered since the start or the last
    /// jump, it is asked for its time. None if it does not say.
    pub(crate) async fn confirmed(&self) -> Option<Timestamp> {
        self.ask_unless_told().await;
        self.known()
    }

    async fn ask_unless_told(&self) {
        if !self.is_untold() {
            return;
        }
        let mut asked = self.asked.lock().await;
        let (monotonic, jumps) = (self.env.monotonic(), self.watch.state().jumps);
        let lately = |at: Duration| monotonic.saturating_sub(at) < limits::CLOCK_ASKED_EVERY;
        if asked.is_some_and(|(at, before)| before == jumps && lately(at)) {
            return;
        }
        *asked = Some((monotonic, jumps));
        if self.watch.is_untold() {
            self.provider.ask_time().await;
            // Those who waited meanwhile do not ask again at once.
            *asked = Some((self.env.monotonic(), jumps));
        }
    }
}
