//! Every limit of the mock, with its unit.

/// Bytes of a request body; beyond it the answer is 413.
pub(crate) const BODY_BYTES: usize = 64 * 1024;
/// Parameters of one request, query and body together.
pub(crate) const PARAMETERS: usize = 256;
/// Scopes of one authorization.
pub(crate) const SCOPES: usize = 200;
/// Bytes of one scope.
pub(crate) const SCOPE_BYTES: usize = 120;
/// Entries that the request log keeps, newest first to stay.
pub(crate) const LOG_ENTRIES: usize = 10_000;
/// Faults waiting at the same time.
pub(crate) const FAULTS: usize = 1_000;
/// Milliseconds that one request may be delayed by faults.
pub(crate) const DELAY_MS: u64 = 10 * 60 * 1_000;
/// Clients that the control API registers.
pub(crate) const CLIENTS: usize = 1_000;
/// Users that the control API adds.
pub(crate) const USERS: usize = 100_000;
/// Dead or replaced refresh tokens that are still remembered.
pub(crate) const SPENT_REFRESH_TOKENS: usize = 100_000;
/// Authorization codes waiting to be exchanged.
pub(crate) const CODES: usize = 10_000;
/// Rate-limit buckets kept before the full ones are dropped.
pub(crate) const BUCKETS: usize = 100_000;
/// Ids that `/helix/authorization/users` takes (Twitch docs: Get Authorization By User).
pub(crate) const AUTHORIZATION_USER_IDS: usize = 10;
/// Ids and logins that `/helix/users` takes (Twitch docs: Get Users).
pub(crate) const HELIX_USERS: usize = 100;
/// Connections open at the same time.
pub(crate) const CONNECTIONS: usize = 4_096;
/// Characters of a client id, user id, login or redirect URI given to the control API.
pub(crate) const NAME_BYTES: usize = 2_000;
/// Seconds that an id_token lives (Twitch docs: OIDC, both samples).
pub(crate) const ID_TOKEN_SECS: i64 = 900;
