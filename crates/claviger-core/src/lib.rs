//! The rules of Claviger as plain values: what a session is, what a provider's answer proves, what
//! a request needs.
//!
//! Nothing here is async, reads a clock, draws a random number or does IO. Time, ids and random
//! bytes are arguments, so a table can test every rule and a simulator can drive it.
//!
//! | module | the question it answers |
//! |---|---|
//! | [`session`] | the states of a device's session, and the changes between them |
//! | [`claims`] | whether a refresh may send under its claim, and how to take a claim back |
//! | [`verdict`] | what a provider's answer proves, and what follows from it |
//! | [`request`] | what a request needs before it is served |
//! | [`breaker`], [`token_bucket`] | when to send a request to a provider |
//! | [`shares`] | how a budget is shared out, so that nobody uses up the whole |
//! | [`sweep`] | when each session is validated, and the common rate limit of all instances |
//! | [`suspicion`] | whether a user disconnected the app, and what follows |
//! | [`plan`] | how many requests a number of users needs, and whether a budget suffices |
//! | [`policy`] | the lifetimes, limits and provider habits |
//! | [`clock`] | what a stored time is worth, and whether our clock is right |
//! | [`signing_keys`] | which key signs assertions, and which keys are published |
//! | `return_to` | where a sign-in may send the browser afterwards |
//! | `device` | the name of a device for people |
//! | [`display`] | which characters of a stranger's text show as themselves |
//! | `ids`, `names`, `secret`, `time` | the small types of the others |
//!
//! Other crates name the types at the root, such as [`Session`], and call a rule by its module, as
//! in [`verdict::after_refresh`].
//!
//! # How to add
//!
//! * **A rule:** a pure function in the module of its question, which returns a value and causes
//!   nothing. Test it with a table. If it decides about a session's state, add it to the model in
//!   `tests/model/` and to `examples/diagrams.rs`, and run `cargo xtask diagrams`.
//! * **An end reason:** a variant of [`session::EndReason`] with its stable name; say in
//!   `user_wide` whether it ends all of the user's sessions. It takes two releases: see "Add an end
//!   reason" in CONTRIBUTING.md.
//! * **A limit:** a constant in [`policy::limits`], with its unit in its type or name, and one line
//!   that begins with words such as "Maximum", "Number of", "How long", "Interval" or "Lease".

pub mod breaker;
pub mod claims;
pub mod clock;
mod device;
pub mod display;
mod ids;
mod names;
pub mod plan;
pub mod policy;
pub mod request;
mod return_to;
mod secret;
pub mod session;
pub mod shares;
pub mod signing_keys;
pub mod suspicion;
pub mod sweep;
mod time;
pub mod token_bucket;
pub mod verdict;

pub use breaker::{Breaker, BreakerState};
pub use claims::{AfterClaim, ClaimWrite, TimeLeft, Undo};
pub use clock::{ClockCheck, ClockJump, ClockState};
pub use device::DeviceLabel;
pub use ids::{AttemptId, MalformedId, ProviderName, SessionId, Subject, Version};
pub use names::Named;
pub use policy::{Cascade, ClientPlaces, Custody, Lifetimes, Places, ProviderHabits, Rotation, limits};
pub use request::{Ask, Assurance, Need, Presence};
pub use return_to::ReturnTo;
pub use secret::{
    AccessToken, AuthorizationCode, ClientSecret, CodeVerifier, Fingerprint, RefreshToken, SecretHash,
    SessionSecret,
};
pub use session::{
    ActiveState, BlobHead, Change, ChangeKind, Claim, Column, EndReason, PendingRevocation, Placement,
    RefreshStep, Refused, SealedBlob, SealedPair, Session, State, TokenStatus,
};
pub use shares::{Arrival, ClientBudget, Shares, Spent};
pub use signing_keys::{KeyStep, SigningKeys, Since};
pub use suspicion::{Cause, Connection, Finding, Suspicion};
pub use sweep::{
    Purpose, RATE_LIMIT_BYTES, RateLimit, RateLimitBounds, Reservation, SLOTS, Schedule, Slot, Turns,
};
pub use time::{Expiry, Timestamp};
pub use token_bucket::{Budget, TokenBucket};
pub use verdict::{
    AfterRefresh, AfterValidate, ApiRefusal, BeforeReplay, FailureKind, IssuedPair, Lifespan, Proof,
    ProviderFailure, RevokeAnswer, TokenAnswer, ValidateAnswer, Verdict,
};
