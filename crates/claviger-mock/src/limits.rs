//! Every limit of the mock, with its unit.

/// Bytes of a request body; beyond it the answer is 413.
pub(crate) const BODY_BYTES: usize = 64 * 1024;
/// Parameters of one request, query and body together.
pub(crate) const PARAMETERS: usize = 256;
/// Scopes of one authorization.
pub(crate) const SCOPES: usize = 200;
/// Bytes of one scope.
pub(crate) const SCOPE_BYTES: usize = 120;
/// Entries in the request log; the oldest are dropped.
pub(crate) const LOG_ENTRIES: usize = 10_000;
/// Faults at the same time.
pub(crate) const FAULTS: usize = 1_000;
/// Milliseconds that one request may be delayed by faults.
pub(crate) const DELAY_MS: u64 = 10 * 60 * 1_000;
/// Clients that the control API registers.
pub(crate) const CLIENTS: usize = 1_000;
/// Users that the control API adds.
pub(crate) const USERS: usize = 100_000;
/// Dead or replaced refresh tokens that are remembered.
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
/// Live subscriptions of one client and type (Twitch docs: Create EventSub Subscription; twitch4j
/// has the number).
pub(crate) const SAME_SUBSCRIPTIONS: usize = 3;
/// Subscriptions kept, dead ones included; beyond it the oldest dead one is dropped.
pub(crate) const SUBSCRIPTIONS: usize = 10_000;
/// Total cost of a client's live subscriptions (Twitch docs: managing event subscriptions).
pub(crate) const MAX_TOTAL_COST: usize = 10_000;
/// Characters of a subscription's secret (Twitch docs: verifying the event message).
pub(crate) const WEBHOOK_SECRET_CHARS: std::ops::RangeInclusive<usize> = 10..=100;
/// Seconds that a webhook has to answer; Twitch says "a few seconds" (Twitch docs: handling webhook
/// events).
pub(crate) const WEBHOOK_ANSWER_SECS: u64 = 10;
/// Bytes read of a webhook's answer.
pub(crate) const WEBHOOK_ANSWER_BYTES: usize = 64 * 1024;
/// Deliveries in flight at the same time.
pub(crate) const DELIVERIES_UNDER_WAY: usize = 64;
/// Deliveries that wait or are held; beyond it new ones are dropped.
pub(crate) const DELIVERIES_WAITING: usize = 10_000;
/// Deliveries that have ended and are still listed.
pub(crate) const DELIVERIES_ENDED: usize = 10_000;
/// Times that a message is sent again.
pub(crate) const RETRIES: usize = 20;
/// Copies of each notification.
pub(crate) const COPIES: u32 = 100;
/// Milliseconds by which a setting may shift a delivery or a timestamp: a year.
pub(crate) const SHIFT_MS: i64 = 366 * 24 * 60 * 60 * 1_000;
