//! Lifetimes, limits and what is known of a provider's habits: the data that the rules go by.

use std::time::Duration;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a session lives, and how old its proof may grow. Both clocks are the server's (NIST SP 800-63B-4 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// A session that nobody used for so long ends. Background work is no use (invariant IDLE).
    pub idle: Duration,
    /// A session of this age ends, used or not.
    pub absolute: Duration,
    /// A proof from the provider counts for so long with assurance `session` (Twitch asks for one an hour).
    pub proof: Duration,
    /// Requests are served for so long on the last proof while the provider's answers prove nothing. After it the
    /// session is parked: it needs a refresh.
    pub max_unverified: Duration,
    /// An access token is taken for expired so long before it is.
    pub refresh_margin: Duration,
    /// A pair that is in use is refreshed up to so long before that, each session at its own moment.
    pub refresh_spread: Duration,
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

/// Who can open a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Custody {
    /// Only the device, with the secret in its cookie. A stolen database with the server's keys opens none.
    #[default]
    Device,
    /// The server, at any time: for work on behalf of users who are away.
    Server,
    /// Nobody: the token says once who signed in and is then revoked and forgotten.
    None,
}

/// What a dead refresh token of one session means for the user's other sessions. A disconnect that the provider reports is
/// looked into whatever is chosen here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Cascade {
    /// The provider is asked about the user, and only its clear word ends the others. Costs a question for each dead token.
    #[default]
    Confirm,
    /// All of the user's older sessions end at once. Safe from a thief who disconnects nothing, at the price that a token that
    /// died alone signs the user out everywhere.
    Always,
    /// Each session is on its own: a disconnect is noticed by each when its own token is asked about.
    Never,
}

/// What a refresh does to the refresh token that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The same token is good again and again.
    None,
    /// A new one may come, and the old one goes on for a while.
    Rotates,
    /// A new one comes, and the old one is spent at once.
    OneTime,
}

/// What is known, or assumed, of a provider's habits. It decides what may be done about an answer that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProviderHabits {
    /// What a refresh does to the token that was sent.
    pub rotation: Rotation,
    /// For so long after a refresh the spent token may be sent once more and buys the same answer.
    pub replay_window: Duration,
    /// Whether a spent token that is sent again ends the user's whole connection.
    pub reuse_kills_connection: bool,
    /// Whether the access token from before a refresh goes on after it. Where it does not, a token that died before its
    /// time tells that a refresh whose answer was lost did happen.
    pub old_access_token_survives: bool,
}

impl ProviderHabits {
    /// Twitch with a confidential client. None of it is promised, so every value can be configured.
    ///
    /// | habit | value | source |
    /// |---|---|---|
    /// | `rotation` | rotates | docs, "Refreshing access tokens" (dev.twitch.tv/docs/authentication/refresh-tokens): the answer's refresh token may differ, so it is always taken; its sample shows the same one |
    /// | `replay_window` | a day | docs, same page: refresh tokens of confidential clients do not expire; nothing says that a refresh spends them |
    /// | `reuse_kills_connection` | false | reported for public clients only (twitchdev/issues#903) |
    /// | `old_access_token_survives` | true | docs, same page: up to 50 access tokens of one refresh token are valid at a time; reports of 401s at a rotation contradict it, and a 401 is answered with the newer token either way |
    pub const TWITCH: Self = Self {
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

/// Everything has a limit. Here are those of the rules and the engine, each with its unit in its type or name; those of
/// one adapter stand at the top of its file.
pub mod limits {
    use std::time::Duration;

    /// A sign-in that was not finished by then starts again (OWASP ASVS 5.0, 10.1.2).
    pub const LOGIN_LIFETIME: Duration = Duration::from_secs(10 * 60);
    /// So many sign-ins may be open in one browser; the oldest makes room.
    pub const LOGINS_PER_BROWSER: usize = 5;
    /// The provider has so long for one answer.
    pub const PROVIDER_ANSWER: Duration = Duration::from_secs(10);
    /// The provider has so long to accept a connection.
    pub const PROVIDER_CONNECT: Duration = Duration::from_secs(5);
    /// A claim on a row holds so long: longer than [`PROVIDER_ANSWER`] and the commit after it.
    pub const CLAIM_LEASE: Duration = Duration::from_secs(30);
    /// A request waits so long for somebody else's refresh.
    pub const ADOPTION_WAIT: Duration = Duration::from_secs(12);
    /// An answer of the provider is read up to so many bytes.
    pub const PROVIDER_ANSWER_BYTES: usize = 64 * 1024;
    /// A token longer than this is refused: Twitch's have 30 to 60 characters, JWTs rarely 4,000.
    pub const TOKEN_BYTES: usize = 8 * 1024;
    /// `return_to` longer than this is refused.
    pub const RETURN_TO_BYTES: usize = 1024;
    /// A device's name is cut to so many characters.
    pub const DEVICE_LABEL_CHARS: usize = 80;
    /// A user's display name is cut to so many characters.
    pub const DISPLAY_NAME_CHARS: usize = 64;
    /// A user may have so many devices, unless configured otherwise. Twitch keeps 50 live tokens for one user of one app.
    pub const DEVICES_PER_USER: u32 = 20;
    /// A device list names so many sessions at most.
    pub const DEVICES_LISTED: usize = 200;
    /// The browser's Cookie header is read up to so many bytes.
    pub const COOKIE_HEADER_BYTES: usize = 16 * 1024;
    /// A session cookie's name and value together stay below so many bytes.
    pub const SESSION_COOKIE_BYTES: usize = 300;
    /// A cookie's name and value together may have so many octets (RFC 6265bis section 5.6); browsers drop larger ones.
    pub const COOKIE_BYTES: usize = 4096;
    /// Uses of a session are written down at most so often.
    pub const LAST_SEEN_EVERY: Duration = Duration::from_secs(60);
    /// So many ids of sessions whose cookie alone is not to be believed are kept in memory.
    pub const DISTRUSTED_SESSIONS: usize = 100_000;
    /// So many sessions are kept in memory for requests with assurance `session`.
    pub const CACHED_SESSIONS: usize = 10_000;
    /// So many uses of sessions wait to be written down while the store cannot be written; more are forgotten.
    pub const PENDING_USES: usize = 100_000;
    /// A change of one row is tried so often when other writers are first.
    pub const COMPARE_AND_SET_TRIES: usize = 16;
    /// A request may need so many steps (prove, refresh, end) before it is served or denied.
    pub const STEPS_PER_REQUEST: usize = 6;
    /// Pause between two looks at a row that another instance is refreshing.
    pub const ADOPTION_POLL: Duration = Duration::from_millis(50);
    /// The first pause after a write that failed with a pair in hand; it doubles up to [`COMMIT_PAUSE_MAX`].
    pub const COMMIT_PAUSE: Duration = Duration::from_millis(50);
    /// The longest pause between two tries to write a pair that is in hand.
    pub const COMMIT_PAUSE_MAX: Duration = Duration::from_secs(5);
    /// Work in flight has so long to finish when the process stops.
    pub const SHUTDOWN_DRAIN: Duration = Duration::from_secs(20);
    /// Background work takes so many rows at a time.
    pub const BATCH_ROWS: usize = 256;
    /// So many sign-ins may ask the provider at the same time; more are told to try again.
    pub const SIGN_INS_AT_ONCE: usize = 64;
    /// The provider is asked so often whose a new token is, where it does not answer.
    pub const IDENTIFY_TRIES: usize = 2;
    /// So many revocations are taken at a time.
    pub const REVOCATIONS_AT_ONCE: usize = 16;
    /// Revocations that were taken are nobody else's for so long: longer than all of them take.
    pub const REVOCATION_LEASE: Duration = Duration::from_secs(5 * 60);
    /// The first pause after a revocation that failed; it doubles up to [`REVOCATION_PAUSE_MAX`].
    pub const REVOCATION_PAUSE: Duration = Duration::from_secs(2);
    /// The longest pause between two tries of a revocation.
    pub const REVOCATION_PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
    /// A revocation that is still owed after so long is given up: no access token of a known provider lives longer.
    pub const REVOCATION_GIVEN_UP_AFTER: Duration = Duration::from_secs(60 * 24 * 60 * 60);
    /// So many endings are kept for listeners that are slow to hear of them.
    pub const ENDINGS_BUFFERED: usize = 1024;
    /// Connections to the provider that nobody uses are kept so long.
    pub const PROVIDER_IDLE_CONNECTION: Duration = Duration::from_secs(20);
    /// The longest pause after which a provider in trouble is asked again, unless it said when to come back.
    pub const PROVIDER_PAUSE_MAX: Duration = Duration::from_secs(30);
    /// A provider in trouble that said when to come back is left alone by all sessions for so long at most.
    pub const PROVIDER_PAUSE_ASKED_MAX: Duration = Duration::from_secs(60);
    /// The pause after a second refresh of one session came to nothing; it doubles up to [`PROVIDER_PAUSE_MAX`].
    pub const REFRESH_PAUSE: Duration = Duration::from_secs(1);
    /// A session with a pause is known for at most so many sessions; the pauses of others are forgotten.
    pub const REFRESH_PAUSES: usize = 10_000;
    /// Refreshes that may be sent in a second, unless configured otherwise.
    pub const REFRESHES_PER_SECOND: u32 = 100;
    /// Every live session is validated once in this time, unless configured otherwise: what is left of the hour that Twitch
    /// asks for is for what comes late.
    pub const SWEEP_PERIOD: Duration = Duration::from_secs(55 * 60);
    /// A proof that would be younger than the greatest age by less than this at the next visit is renewed now.
    pub const SWEEP_SLACK: Duration = Duration::from_secs(2 * 60);
    /// A budget of validations that suffices is so much more than what is needed, to catch up after an outage.
    pub const SWEEP_HEAD_ROOM: f64 = 1.2;
    /// Validations that may be sent in a second, unless configured otherwise. Twitch publishes no limit; a 429 was reported
    /// after a burst of over 120 (twurple#390), so the pace learns: it sends evenly, and slower after each 429.
    pub const VALIDATIONS_PER_SECOND: u32 = 20;
    /// Validations are never sent slower than so many a second, whatever the provider answers, unless it asks for a pause.
    pub const PACE_FLOOR_PER_SECOND: u32 = 1;
    /// Places in the shared budget are taken so far ahead at most: so long an instance that dies wastes some, and so long
    /// others go on after one heard a 429.
    pub const PACE_AHEAD: Duration = Duration::from_secs(1);
    /// A place in the shared budget may be used so long after its time: by then the store has written that it is taken.
    pub const PACE_LATE: Duration = Duration::from_millis(250);
    /// Places in the shared budget are taken so often in a second, as many at a time as that takes.
    pub const PACE_RESERVATIONS_PER_SECOND: f64 = 8.0;
    /// So many places are taken at a time at most.
    pub const PACE_PLACES: u32 = 2048;
    /// A request waits so long for a place in the budget of validations; then it is served on the proof that there is.
    pub const PACE_PATIENCE: Duration = Duration::from_secs(2);
    /// It is looked so often whether a slot is due: a slot's share of the hour is about three seconds.
    pub const SWEEP_LOOK_EVERY: Duration = Duration::from_secs(3);
    /// A slot that is being visited is nobody else's for so long; who is at it prolongs this.
    pub const SLOT_LEASE: Duration = Duration::from_secs(60);
    /// So many slots are visited at a time at most, one behind the other.
    pub const SLOTS_AT_ONCE: usize = 32;
    /// So many at least, however many rows they have.
    pub const SLOTS_AT_ONCE_LEAST: usize = 4;
    /// Slots with so many rows together are visited at a time, within these bounds, and no more than the budget allows in a moment.
    pub const ROWS_IN_LINE: usize = 512;
    /// So many slots are probed at a time.
    pub const PROBES_AT_ONCE: usize = 4;
    /// So many tokens are asked about at a time by the sweep.
    pub const VALIDATIONS_AT_ONCE: usize = 64;
    /// So many pairs are refreshed at a time though nobody asked.
    pub const UNASKED_REFRESHES_AT_ONCE: usize = 16;
    /// A token of which nothing was learnt is asked about again after so long.
    pub const VALIDATION_PAUSE: Duration = Duration::from_secs(1);
    /// So many proofs are written in one step.
    pub const PROOFS_RECORDED: usize = 128;
    /// Proofs are gathered for so long before they are written.
    pub const PROOFS_GATHERED: Duration = Duration::from_millis(50);
    /// A token about which nothing can be learnt is asked about so often in a visit: twice, so that one that has trouble of its own
    /// opens the provider's breaker for a few seconds only.
    pub const VALIDATION_TRIES: u32 = 2;
    /// A slot is visited again after so long where the provider said nothing about one of its tokens, or a pair could not be
    /// refreshed: together with a period it is less than an hour.
    pub const VISIT_AGAIN: Duration = Duration::from_secs(3 * 60);
    /// Each user without a living token is asked about once in this time, unless configured otherwise.
    pub const PROBE_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);
    /// It is looked so often whether a slot's users are to be asked about.
    pub const PROBE_LOOK_EVERY: Duration = Duration::from_secs(60);
    /// If the provider says of so many users, or more, that most are gone, that is taken for its own trouble.
    pub const PROBE_BELIEVED_OF: usize = 10;
    /// Of about so many users, the last ones, it is remembered what the provider said.
    pub const PROBE_REMEMBERED: usize = 100;
    /// A slot is visited again after so long where that was not believed.
    pub const PROBE_AGAIN: Duration = Duration::from_secs(60 * 60);
    /// An instance names a user who lets the app in to the others so often.
    pub const WITNESS_EVERY: Duration = Duration::from_secs(10 * 60);
    /// Pause after each question about users: the app's own calls share the provider's limit.
    pub const PROBE_PAUSE: Duration = Duration::from_secs(1);
    /// In a visit the provider is asked so often about the same users, where it does not answer.
    pub const PROBE_TRIES: usize = 5;
    /// The app's own token is replaced so long before it expires.
    pub const APP_TOKEN_MARGIN: Duration = Duration::from_secs(10 * 60);
    /// It is looked so often whether a suspicion is due; a new one is looked into at once.
    pub const SUSPICIONS_LOOK_EVERY: Duration = Duration::from_secs(5);
    /// Suspicions that were taken are nobody else's for so long: longer than looking into all of them takes.
    pub const SUSPICION_LEASE: Duration = Duration::from_secs(5 * 60);
    /// The first pause before the provider is asked again about a suspicion; it doubles up to [`SUSPICION_PAUSE_MAX`].
    pub const SUSPICION_PAUSE: Duration = Duration::from_secs(5);
    /// The longest pause between two looks into a suspicion.
    pub const SUSPICION_PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
    /// A suspicion that nothing confirms or clears is dropped after so long, and its word not taken for a new one until then.
    pub const SUSPICION_GIVEN_UP_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
    /// Subscriptions to the provider's notices are compared with what they should be so often.
    pub const SUBSCRIPTIONS_EVERY: Duration = Duration::from_secs(60 * 60);
    /// The same while they are not what they should be.
    pub const SUBSCRIPTIONS_RETRY: Duration = Duration::from_secs(60);
    /// A list of subscriptions is read up to so many pages.
    pub const SUBSCRIPTION_PAGES: usize = 100;
    /// All 429s in this time slow the pace once: they come in volleys.
    pub const PACE_SLOWS_EVERY: Duration = Duration::from_secs(5);
    /// The pace grows evenly, from nothing to its ceiling in this time. Where the provider's true limit is a tenth of the
    /// ceiling, that is a 429 about twice a minute and not all the time; where the 429 was chance, the pace is back after half of it.
    pub const PACE_RECOVERY: Duration = Duration::from_secs(10 * 60);
    /// Clocks of instances differ by no more than this; what lies further ahead is from a clock that was set back.
    pub const CLOCK_SKEW: Duration = Duration::from_secs(10);
    /// The longest pause that a provider may ask for.
    pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);
    /// So many rows are sealed anew in a second after a change of keys: a million in half an hour.
    pub const RESEALS_PER_SECOND: u32 = 500;
    /// So many of them are written at a time.
    pub const RESEALS_AT_ONCE: usize = 32;
    /// Who seals rows anew keeps the others from it for so long, and prolongs this.
    pub const RESEAL_LEASE: Duration = Duration::from_secs(60);
    /// Where it stands with it is written down after so many slots.
    pub const RESEAL_SLOTS: u16 = 16;
    /// It is looked so often whether rows are still, or again, sealed with an older key.
    pub const RESEAL_LOOK_EVERY: Duration = Duration::from_secs(60);
    /// The same where the last look found none.
    pub const RESEAL_LOOK_EVERY_IDLE: Duration = Duration::from_secs(10 * 60);
    /// A key that was taken out of the keyring opens rows for so long, which may have been read before.
    pub const KEY_LEAVES_AFTER: Duration = Duration::from_secs(10 * 60);
    /// Pause before a client tries again, where an operator has to act first.
    pub const RETRY_AFTER_OPERATOR: Duration = Duration::from_secs(60);
    /// Pause before a client tries again, where nobody said how long.
    pub const RETRY_AFTER: Duration = Duration::from_secs(5);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_outlives_the_answer_it_waits_for() {
        assert!(limits::CLAIM_LEASE > limits::PROVIDER_ANSWER + limits::PROVIDER_CONNECT);
    }

    #[test]
    fn the_sweep_keeps_proofs_young() {
        assert!(limits::SWEEP_PERIOD + limits::SWEEP_SLACK < Lifetimes::default().proof);
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
            (ProviderHabits::TWITCH.replay_window, 86_400),
            (limits::LOGIN_LIFETIME, 600),
            (limits::SWEEP_PERIOD, 3_300),
            (limits::SWEEP_SLACK, 120),
            (limits::PACE_RECOVERY, 600),
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
