//! Lifetimes, limits and provider habits: the data of the rules.

use std::time::Duration;

use crate::named;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Lifetimes of sessions and proofs. Both clocks are the server's (NIST SP 800-63B-4 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Idle limit: a session that was not used for this long ends. Background work is not use
    /// (IDLE).
    pub idle: Duration,
    /// Absolute limit: a session of this age ends, used or not.
    pub absolute: Duration,
    /// How long a proof counts with assurance `session`.
    pub proof: Duration,
    /// How long requests are served on the last proof while the provider's answers prove nothing.
    /// After it the session is parked and needs a refresh.
    pub max_unverified: Duration,
    /// Margin before its expiry at which an access token counts as expired. For short-lived tokens
    /// see [`Lifetimes::of_tokens`].
    pub refresh_margin: Duration,
    /// Maximum time before that margin at which a pair in use is refreshed. Each session has its
    /// own moment.
    pub refresh_spread: Duration,
}

impl Lifetimes {
    /// Returns the lifetimes where access tokens live for this long: the margin is at most a
    /// quarter of it, so that a short-lived token can be used.
    #[must_use]
    pub fn of_tokens(self, life: Duration) -> Self {
        Self { refresh_margin: self.refresh_margin.min(life / 4), ..self }
    }
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            idle: 14 * DAY,
            absolute: 30 * DAY,
            proof: HOUR,
            max_unverified: DAY,
            refresh_margin: Duration::from_secs(30),
            refresh_spread: Duration::from_secs(10 * 60),
        }
    }
}

named! {
    /// Who can open a refresh token.
    #[derive(Default)]
    pub enum Custody {
        /// Only the device, with the secret in its cookie. A stolen database with the server's keys
        /// opens none.
        #[default]
        Device = "device",
        /// The server, at any time: for work on behalf of absent users.
        Server = "server",
        /// Nobody: the token says once who the user is, and is then revoked and forgotten.
        None = "none",
    }
}

named! {
    /// What a dead refresh token of one session means for the user's other sessions. A disconnect
    /// that the provider reports is always investigated.
    #[derive(Default)]
    pub enum Cascade {
        /// Ask the provider about the user. Only its clear answer ends the others. Costs one
        /// question per dead token.
        #[default]
        Confirm = "confirm",
        /// End all of the user's older sessions at once. This is safe from a thief who disconnects
        /// nothing, but a single dead token signs the user out everywhere.
        Always = "always",
        /// Nothing: each session notices a disconnect when its own token is validated.
        Never = "never",
    }
}

named! {
    /// What a refresh does to the refresh token that was sent.
    pub enum Rotation {
        /// It stays good.
        None = "none",
        /// A new one may come, and the old one works for a while.
        Rotates = "rotates",
        /// A new one comes, and the old one is spent at once.
        OneTime = "one_time",
    }
}

/// What is known, or assumed, of a provider's habits. It decides what may be done about an answer
/// that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProviderHabits {
    /// What a refresh does to the token that was sent.
    pub rotation: Rotation,
    /// How long after a refresh the spent token may be sent once more and buys the same answer.
    pub replay_window: Duration,
    /// Whether a spent token that is sent again ends the user's whole connection.
    pub reuse_kills_connection: bool,
    /// Whether the access token from before a refresh goes on after it. Where it does not, a token
    /// that died before its time tells that a refresh whose answer was lost did happen.
    pub old_access_token_survives: bool,
}

impl ProviderHabits {
    /// The mildest habits that still rotate: a spent token may be sent again for a day, and does no
    /// harm. Tests, diagrams and the simulator vary them; each provider's own stand in its preset.
    pub const FORGIVING: Self = Self {
        rotation: Rotation::Rotates,
        replay_window: DAY,
        reuse_kills_connection: false,
        old_access_token_survives: true,
    };

    /// Whether sending a spent refresh token again does harm.
    pub fn reuse_is_harmful(&self) -> bool {
        self.rotation == Rotation::OneTime || self.reuse_kills_connection
    }

    /// Whether a refresh token whose answer was lost `ago` may be sent a second time.
    pub fn may_replay(&self, ago: Duration) -> bool {
        match self.rotation {
            Rotation::None => true,
            Rotation::Rotates | Rotation::OneTime => ago < self.replay_window,
        }
    }
}

/// The size of a share of a budget ([`shares`](crate::shares)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Number of places; at least one.
    pub count: u32,
    /// How long a used-up place takes to come back. They come back one after another.
    pub back_after: Duration,
}

/// The sizes of a budget that clients share ([`ClientBudget`](crate::ClientBudget)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPlaces {
    /// Places of all clients together.
    pub all: Places,
    /// How many of them are for clients that did not sign in before; the rest is kept for others.
    pub strangers: u32,
    /// Places of one address.
    pub address: Places,
    /// Places of one browser that signed in before.
    pub browser: Places,
}

/// Everything has a limit. These are the limits of the rules and the engine, each with its unit in
/// its type or name. The limits of an adapter stand at the top of its file.
pub mod limits {
    use std::time::Duration;

    use super::{ClientPlaces, Places};

    /// Maximum duration of a sign-in (OWASP ASVS 5.0, 10.1.2).
    pub const LOGIN_LIFETIME: Duration = Duration::from_secs(10 * 60);
    /// How long after a sign-in its callback, delivered again, leads to the same session. Its
    /// cookie lives on for [`LOGIN_LIFETIME`], so that the way back leads to the destination.
    pub const CALLBACK_REPEATS: Duration = Duration::from_secs(60);
    /// Interval between looks for the session that another delivery of a callback begins.
    pub const CALLBACK_POLL: Duration = Duration::from_millis(200);
    /// Maximum number of sign-ins, open or finished, that a browser has a cookie of. The oldest
    /// gives way.
    pub const LOGINS_PER_BROWSER: usize = 5;
    /// Maximum time for an answer of the provider.
    pub const PROVIDER_ANSWER: Duration = Duration::from_secs(10);
    /// Maximum time for the provider to accept a connection.
    pub const PROVIDER_CONNECT: Duration = Duration::from_secs(5);
    /// How long a claim on a row holds: longer than [`PROVIDER_ANSWER`] and the commit after it.
    pub const CLAIM_LEASE: Duration = Duration::from_secs(30);
    /// How long a request waits for another instance's refresh.
    pub const ADOPTION_WAIT: Duration = Duration::from_secs(12);
    /// How long a request waits for a refresh while its old access token is good.
    pub const REFRESH_PATIENCE: Duration = Duration::from_secs(1);
    /// Maximum length of a provider's answer, in bytes.
    pub const PROVIDER_ANSWER_BYTES: usize = 64 * 1024;
    /// Maximum length of a token. Opaque ones have 30 to 60 characters, JWTs rarely 4,000.
    pub const TOKEN_BYTES: usize = 8 * 1024;
    /// Maximum length of `return_to`.
    pub const RETURN_TO_BYTES: usize = 8 * 1024;
    /// Maximum length of a `return_to` in our cookies and in the headers of our answers, in bytes.
    /// Proxies take 4 KiB of headers by default. A longer one is kept in the store.
    pub const SHORT_RETURN_TO_BYTES: usize = 1024;
    /// Maximum number of destinations kept in the store. A new one takes the place of another.
    pub const KEPT_DESTINATIONS: u16 = 1024;
    /// Number of attempts to keep a destination when other writers win the race.
    pub const KEEP_TRIES: usize = 3;
    /// Maximum rate at which destinations are kept, per second. Anybody can ask for it.
    pub const DESTINATIONS_PER_SECOND: u32 = 10;
    /// Maximum length of a device's name, in characters; longer ones are cut.
    pub const DEVICE_LABEL_CHARS: usize = 80;
    /// Maximum length of a user's display name, in characters; longer ones are cut.
    pub const DISPLAY_NAME_CHARS: usize = 64;
    /// Default maximum number of devices per user. Providers keep about 50 live tokens for one user
    /// of one app.
    pub const DEVICES_PER_USER: u32 = 20;
    /// Maximum number of sessions in a device list.
    pub const DEVICES_LISTED: usize = 200;
    /// How long a browser that was led to the public host is not led there again.
    pub const LED_HERE: Duration = Duration::from_secs(15);
    /// Maximum length of all cookies of a request, in bytes: what nginx lets pass in four buffers.
    pub const COOKIE_HEADER_BYTES: usize = 32 * 1024;
    /// Maximum length of the session cookie's name and value together, in bytes.
    pub const SESSION_COOKIE_BYTES: usize = 300;
    /// Maximum length of a cookie's name and value together, in bytes (RFC 6265bis section 5.6).
    /// Browsers drop larger ones.
    pub const COOKIE_BYTES: usize = 4096;
    /// Minimum time between two writes of a session's last use.
    pub const LAST_SEEN_EVERY: Duration = Duration::from_secs(60);
    /// Maximum number of sessions on the denylist in memory.
    pub const DISTRUSTED_SESSIONS: usize = 100_000;
    /// Default of how long an instance that is cut off from the changes of others believes cookies.
    pub const COOKIE_WHEN_CUT_OFF: Duration = Duration::from_secs(60);
    /// Default of how long a call waits for a store that cannot be used for a moment.
    pub const STORE_WAIT: Duration = Duration::from_secs(5);
    /// Maximum number of calls that wait for the store at a time. Further ones fail at once.
    pub const STORE_WAITERS: usize = 1_024;
    /// Maximum age of an outage during which calls wait.
    pub const STORE_WAITED_FOR: Duration = Duration::from_secs(60);
    /// Interval between two looks whether the store is back.
    pub const STORE_LOOK_EVERY: Duration = Duration::from_millis(100);
    /// Maximum number of sessions cached for requests with assurance `session`.
    pub const CACHED_SESSIONS: usize = 10_000;
    /// Maximum number of uses in memory while the store cannot be written. Further ones are
    /// dropped.
    pub const PENDING_USES: usize = 100_000;
    /// Number of attempts to change a row when other writers win the race.
    pub const COMPARE_AND_SET_TRIES: usize = 16;
    /// Maximum number of steps (prove, refresh, end) before a request is served or denied.
    pub const STEPS_PER_REQUEST: usize = 6;
    /// Time between two looks at a row that another instance refreshes.
    pub const ADOPTION_POLL: Duration = Duration::from_millis(50);
    /// An access token that lives for less is too short-lived to be used.
    pub const TOKEN_LIFE_LEAST: Duration = Duration::from_secs(10);
    /// First backoff after a failed write of a new pair. It doubles up to [`COMMIT_PAUSE_MAX`].
    pub const COMMIT_PAUSE: Duration = Duration::from_millis(50);
    /// Maximum backoff between two attempts to write a new pair.
    pub const COMMIT_PAUSE_MAX: Duration = Duration::from_secs(5);
    /// How long a stop waits for work in progress.
    pub const SHUTDOWN_DRAIN: Duration = Duration::from_secs(20);
    /// Number of rows in a batch of background work.
    pub const BATCH_ROWS: usize = 256;
    /// Places of code exchanges, which ask the provider.
    pub const EXCHANGES: ClientPlaces = ClientPlaces {
        all: Places { count: 80, back_after: Duration::from_millis(125) },
        strangers: 64,
        address: Places { count: 16, back_after: Duration::from_secs(3) },
        browser: Places { count: 4, back_after: Duration::from_secs(10) },
    };
    /// Places of look-ups of kept destinations, which read the store.
    pub const DESTINATION_READS: ClientPlaces = ClientPlaces {
        all: Places { count: 80, back_after: Duration::from_millis(10) },
        strangers: 64,
        address: Places { count: 32, back_after: Duration::from_millis(250) },
        browser: Places { count: 16, back_after: Duration::from_secs(1) },
    };
    /// Maximum number of parties whose shares of a budget are counted. Further ones are limited
    /// only together.
    pub const PARTIES: usize = 10_000;
    /// Number of attempts to validate a new token at sign-in.
    pub const IDENTIFY_TRIES: usize = 2;
    /// The same while the provider does not know the token yet, which it issued a moment ago.
    pub const IDENTIFY_TRIES_UNKNOWN: usize = 4;
    /// First pause between these attempts. It doubles.
    pub const IDENTIFY_PAUSE: Duration = Duration::from_millis(250);
    /// Number of revocations leased at a time.
    pub const REVOCATIONS_AT_ONCE: usize = 16;
    /// Lease of revocations: longer than all of them take.
    pub const REVOCATION_LEASE: Duration = Duration::from_secs(5 * 60);
    /// First backoff after a failed revocation. It doubles up to [`REVOCATION_PAUSE_MAX`].
    pub const REVOCATION_PAUSE: Duration = Duration::from_secs(2);
    /// Maximum backoff between two attempts of a revocation.
    pub const REVOCATION_PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
    /// After this time a pending revocation is given up: no access token of a known provider lives
    /// longer.
    pub const REVOCATION_GIVEN_UP_AFTER: Duration = Duration::from_secs(60 * 24 * 60 * 60);
    /// Maximum number of ends buffered for slow listeners.
    pub const ENDINGS_BUFFERED: usize = 1024;
    /// How long an idle connection to the provider is kept.
    pub const PROVIDER_IDLE_CONNECTION: Duration = Duration::from_secs(20);
    /// Maximum pause before a failing provider is tried again, without Retry-After.
    pub const PROVIDER_PAUSE_MAX: Duration = Duration::from_secs(30);
    /// Maximum pause for all sessions after a Retry-After of a failing provider.
    pub const PROVIDER_PAUSE_ASKED_MAX: Duration = Duration::from_secs(60);
    /// Backoff after a second failed refresh of one session. It doubles up to
    /// [`PROVIDER_PAUSE_MAX`].
    pub const REFRESH_PAUSE: Duration = Duration::from_secs(1);
    /// Maximum number of per-session backoffs kept. The oldest are dropped.
    pub const REFRESH_PAUSES: usize = 10_000;
    /// Default maximum of refreshes per second.
    pub const REFRESHES_PER_SECOND: u32 = 100;
    /// A proof is renewed now if it would be within this time of the maximum age at the next visit.
    pub const SWEEP_SLACK: Duration = Duration::from_secs(2 * 60);
    /// Ratio of a sufficient budget of validations to what is needed, for catching up after an
    /// outage.
    pub const SWEEP_HEAD_ROOM: f64 = 1.2;
    /// Default maximum of validations per second, for providers that publish no limit. A 429 was
    /// reported after a burst of over 120 (twurple#390), so the rate limit adapts: it sends evenly,
    /// and more slowly after each 429.
    pub const VALIDATIONS_PER_SECOND: u32 = 20;
    /// Minimum rate of validations per second, except in a pause that the provider asks for.
    pub const RATE_LIMIT_FLOOR_PER_SECOND: u32 = 1;
    /// How far ahead permits of the shared budget are reserved. A crashed instance wastes at most
    /// this much, and others continue for at most this long after one gets a 429.
    pub const RATE_LIMIT_AHEAD: Duration = Duration::from_secs(1);
    /// How late a reserved permit may be used: by then the store has written the reservation.
    pub const RATE_LIMIT_LATE: Duration = Duration::from_millis(250);
    /// Number of reservations per second, each with as many permits as that takes.
    pub const RATE_LIMIT_RESERVATIONS_PER_SECOND: f64 = 8.0;
    /// Maximum number of permits in a reservation.
    pub const RATE_LIMIT_PLACES: u32 = 2048;
    /// How long a request waits for a permit. After it, the request is served on the proof that
    /// there is.
    pub const RATE_LIMIT_PATIENCE: Duration = Duration::from_secs(2);
    /// Minimum of the `max_age` that clients may ask for.
    pub const MAX_AGE_FLOOR: Duration = Duration::from_secs(1);
    /// Places of the validations that one user's requests ask for before they are due.
    pub const EARLY_PROOFS_PER_USER: Places = Places { count: 20, back_after: Duration::from_secs(1) };
    /// While the sweep waits for permits, one in this many is for early validations.
    pub const PERMITS_PER_EARLY: u32 = 4;
    /// Interval at which an early validation looks whether it is its turn.
    pub const EARLY_TURN_POLL: Duration = Duration::from_millis(20);
    /// How long a request waits to learn who is signed in, if it is served either way.
    pub const RECOGNIZED_WITHIN: Duration = Duration::from_secs(1);
    /// Interval between looks for due slots. A slot's share of 55 minutes is about three seconds.
    pub const SWEEP_LOOK_EVERY: Duration = Duration::from_secs(3);
    /// Lease of a slot in a visit, which the visitor extends.
    pub const SLOT_LEASE: Duration = Duration::from_secs(60);
    /// Maximum number of slots visited at a time.
    pub const SLOTS_AT_ONCE: usize = 32;
    /// Minimum number of slots visited at a time, however many rows they have.
    pub const SLOTS_AT_ONCE_LEAST: usize = 4;
    /// Number of rows that limits the slots visited at a time, within these bounds and the budget.
    pub const ROWS_IN_LINE: usize = 512;
    /// Number of slots at a time in the connection check.
    pub const CONNECTION_CHECKS_AT_ONCE: usize = 4;
    /// Number of concurrent validations in the sweep.
    pub const VALIDATIONS_AT_ONCE: usize = 64;
    /// Number of concurrent refreshes that no request asked for.
    pub const UNASKED_REFRESHES_AT_ONCE: usize = 16;
    /// Backoff of a token whose validation proved nothing.
    pub const VALIDATION_PAUSE: Duration = Duration::from_secs(1);
    /// Maximum number of proofs written in one step.
    pub const PROOFS_RECORDED: usize = 128;
    /// How long proofs are collected before they are written.
    pub const PROOFS_GATHERED: Duration = Duration::from_millis(50);
    /// Maximum validations of one token in a visit: two, so that a failing token opens the
    /// provider's breaker for only a few seconds.
    pub const VALIDATION_TRIES: u32 = 2;
    /// Time to a second visit of a slot where the provider gave no answer about a token, or a pair
    /// could not be refreshed. A period leaves time for it ([`Schedule::of`]).
    ///
    /// [`Schedule::of`]: crate::sweep::Schedule::of
    pub const VISIT_AGAIN: Duration = Duration::from_secs(3 * 60);
    /// Default period of the connection check of users without a living token.
    pub const CONNECTION_CHECK_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);
    /// Interval between looks for slots due for a connection check.
    pub const CONNECTION_CHECK_LOOK_EVERY: Duration = Duration::from_secs(60);
    /// From this number of users on, an answer that most of them are gone counts as the provider's
    /// own failure.
    pub const CONNECTION_CHECK_BELIEVED_OF: usize = 10;
    /// Number of users whose last answers are remembered.
    pub const CONNECTION_CHECK_REMEMBERED: usize = 100;
    /// Time to a second visit of a slot after such an answer.
    pub const CONNECTION_CHECK_AGAIN: Duration = Duration::from_secs(60 * 60);
    /// Interval at which an instance publishes a connected user to the others.
    pub const CONTROL_USER_EVERY: Duration = Duration::from_secs(10 * 60);
    /// Pause after each connection check, since the app's own calls share the provider's limit.
    pub const CONNECTION_CHECK_PAUSE: Duration = Duration::from_secs(1);
    /// Number of attempts of a connection check in a visit.
    pub const CONNECTION_CHECK_TRIES: usize = 5;
    /// Time before its expiry at which the app's own token is replaced.
    pub const APP_TOKEN_MARGIN: Duration = Duration::from_secs(10 * 60);
    /// Interval at which an instance replaces the app's own token because a caller says that it is
    /// dead.
    pub const APP_TOKEN_REPORTS_EVERY: Duration = Duration::from_secs(60);
    /// Number of suspicions taken at a time where the provider has no connection check.
    pub const SUSPICIONS_AT_ONCE: usize = 16;
    /// Interval between looks for due suspicions. A new one is investigated at once.
    pub const SUSPICIONS_LOOK_EVERY: Duration = Duration::from_secs(5);
    /// Lease of suspicions: longer than the investigation of all of them takes.
    pub const SUSPICION_LEASE: Duration = Duration::from_secs(5 * 60);
    /// First backoff before the provider is asked again about a suspicion. It doubles up to
    /// [`SUSPICION_PAUSE_MAX`].
    pub const SUSPICION_PAUSE: Duration = Duration::from_secs(5);
    /// Maximum backoff between two investigations of a suspicion.
    pub const SUSPICION_PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
    /// A suspicion that is neither confirmed nor cleared is dropped after this time. Until then a
    /// repeated event creates no new one.
    pub const SUSPICION_GIVEN_UP_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
    /// Interval between checks of the webhook subscriptions.
    pub const SUBSCRIPTIONS_EVERY: Duration = Duration::from_secs(60 * 60);
    /// The same while the subscriptions are not as they should be.
    pub const SUBSCRIPTIONS_RETRY: Duration = Duration::from_secs(60);
    /// Maximum number of tries to write down which subscription was made.
    pub const SUBSCRIPTION_WRITES: u32 = 3;
    /// Maximum number of pages in a list of subscriptions.
    pub const SUBSCRIPTION_PAGES: usize = 100;
    /// All 429s within this time lower the rate limit once: they come in volleys.
    pub const RATE_LIMIT_SLOWS_EVERY: Duration = Duration::from_secs(5);
    /// Time in which the rate limit grows evenly from nothing to its ceiling. If the provider's
    /// true limit is a tenth of the ceiling, this causes two 429s a minute. After a chance 429 the
    /// rate is back in half of it.
    pub const RATE_LIMIT_RECOVERY: Duration = Duration::from_secs(10 * 60);
    /// Maximum difference between the clocks of instances. Anything further ahead comes from a
    /// clock that was ahead.
    pub const CLOCK_SKEW: Duration = Duration::from_secs(10);
    /// Maximum time that an answer may take whose date is compared with our clock. The comparison
    /// is wrong by at most half of it.
    pub const CLOCK_ANSWER: Duration = Duration::from_secs(5);
    /// From this difference on, a step between our clock and the monotonic one is a jump.
    pub const CLOCK_JUMP: Duration = Duration::from_secs(5);
    /// Interval between looks for a jump.
    pub const CLOCK_LOOK_EVERY: Duration = Duration::from_secs(5);
    /// Minimum time between two questions to the provider for its time.
    pub const CLOCK_ASKED_EVERY: Duration = Duration::from_secs(5);
    /// How long a clock runs without a jump until it is trusted, where the provider's answers name
    /// no time.
    pub const CLOCK_TRUSTED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
    /// Maximum pause that a provider can ask for.
    pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);
    /// Rows resealed per second after a change of keys: a million in half an hour.
    pub const RESEALS_PER_SECOND: u32 = 500;
    /// Number of concurrent writes of resealed rows.
    pub const RESEALS_AT_ONCE: usize = 32;
    /// Lease of the instance that reseals rows, which it extends.
    pub const RESEAL_LEASE: Duration = Duration::from_secs(60);
    /// Number of slots after which the progress of resealing is written.
    pub const RESEAL_SLOTS: u16 = 16;
    /// Interval between looks for rows sealed with an older key.
    pub const RESEAL_LOOK_EVERY: Duration = Duration::from_secs(60);
    /// The same after a look that found none.
    pub const RESEAL_LOOK_EVERY_IDLE: Duration = Duration::from_secs(10 * 60);
    /// How long a key that was removed from the keyring still opens rows that were read before.
    pub const KEY_LEAVES_AFTER: Duration = Duration::from_secs(10 * 60);
    /// How long an assertion is valid. It is used again for half of that.
    pub const ASSERTION_LIFE: Duration = Duration::from_secs(60);
    /// Maximum number of signed assertions held in memory, of about one kilobyte each.
    pub const SIGNED_ASSERTIONS: usize = 16_384;
    /// How long a key signs assertions before the next one is published.
    pub const SIGNING_KEY_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    /// How long a key is published before it signs: longer than verifiers keep our keys without
    /// asking again.
    pub const SIGNING_KEY_LEAD: Duration = Duration::from_secs(24 * 60 * 60);
    /// How long a key stays published after it signed last. An instance that is cut off from the
    /// store signs with it meanwhile.
    pub const SIGNING_KEY_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
    /// Maximum number of keys that stay published after they signed.
    pub const SIGNING_KEYS_RETIRED: usize = 4;
    /// Interval between looks at the keys that all instances share.
    pub const SIGNING_KEYS_LOOK_EVERY: Duration = Duration::from_secs(10);
    /// How long caches may keep the published keys.
    pub const SIGNING_KEYS_CACHED: Duration = Duration::from_secs(5 * 60);
    /// Pause before a client tries again, where an operator has to act first.
    pub const RETRY_AFTER_OPERATOR: Duration = Duration::from_secs(60);
    /// Pause before a client tries again, where nobody said how long.
    pub const RETRY_AFTER: Duration = Duration::from_secs(5);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Named, Schedule};

    #[test]
    fn setting_values_have_distinct_names() {
        fn check<T: Named + std::fmt::Debug>(values: &[T]) {
            assert_eq!(T::NAMES.len(), values.len());
            for value in values {
                assert_eq!(T::from_name(value.name()), Some(*value));
            }
            assert_eq!(T::from_name("nonsense"), None);
        }
        check(&[Custody::Device, Custody::Server, Custody::None]);
        check(&[Cascade::Confirm, Cascade::Always, Cascade::Never]);
        check(&[Rotation::None, Rotation::Rotates, Rotation::OneTime]);
    }

    #[test]
    fn the_refresh_margin_is_a_share_of_a_short_life() {
        for (life_secs, margin_millis) in [(14_400, 30_000), (120, 30_000), (40, 10_000), (10, 2_500)] {
            let lifetimes = Lifetimes::default().of_tokens(Duration::from_secs(life_secs));
            assert_eq!(lifetimes.refresh_margin.as_millis(), margin_millis, "{life_secs}");
        }
    }

    #[test]
    fn a_lease_outlives_the_answer_it_waits_for() {
        assert!(limits::CLAIM_LEASE > limits::PROVIDER_ANSWER + limits::PROVIDER_CONNECT);
    }

    #[test]
    fn spans_are_what_the_documentation_says() {
        let lifetimes = Lifetimes::default();
        let table = [
            (lifetimes.idle, 1_209_600),
            (lifetimes.absolute, 2_592_000),
            (lifetimes.proof, 3_600),
            (lifetimes.max_unverified, 86_400),
            (lifetimes.refresh_spread, 600),
            (ProviderHabits::FORGIVING.replay_window, 86_400),
            (limits::LOGIN_LIFETIME, 600),
            (Schedule::default().period, 3_300),
            (limits::SWEEP_SLACK, 120),
            (limits::RATE_LIMIT_RECOVERY, 600),
            (limits::REVOCATION_LEASE, 300),
            (limits::REVOCATION_PAUSE_MAX, 900),
            (limits::REVOCATION_GIVEN_UP_AFTER, 5_184_000),
        ];
        for (span, secs) in table {
            assert_eq!(span, Duration::from_secs(secs));
        }
    }

    #[test]
    fn a_replay_is_allowed_by_the_providers_habits_only() {
        let window = Duration::from_secs(30);
        let habits = |rotation, reuse_kills_connection| ProviderHabits {
            rotation,
            replay_window: window,
            reuse_kills_connection,
            old_access_token_survives: true,
        };
        let table = [
            (habits(Rotation::None, true), window, true),
            (habits(Rotation::Rotates, false), window, false),
            (habits(Rotation::Rotates, false), Duration::from_secs(29), true),
            (habits(Rotation::Rotates, true), window, false),
            (habits(Rotation::Rotates, true), Duration::from_secs(29), true),
            (habits(Rotation::OneTime, false), window, false),
            (habits(Rotation::OneTime, false), Duration::from_secs(29), true),
        ];
        for (habits, ago, expected) in table {
            assert_eq!(habits.may_replay(ago), expected, "{habits:?} {ago:?}");
        }
    }
}
