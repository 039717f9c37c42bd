//! The rules of Claviger as plain values: what a session is, what a provider's answer proves, what a request needs.
//!
//! Nothing here is async, reads a clock, draws a random number or does IO. Time, ids and random bytes are arguments,
//! so every rule is a function that a table can test and a simulator can drive.
//!
//! | module | the question it answers |
//! |---|---|
//! | [`session`] | which states a device's session has, and which change leads from one to the next |
//! | [`verdict`] | what a provider's answer proves, and what follows from it |
//! | [`request`] | what a request needs before it may be served |
//! | [`breaker`], [`pacer`] | when a provider may be asked |
//! | [`sweep`] | when which session is validated, and how fast all instances together may ask |
//! | [`suspicion`] | whether a user disconnected the app, and what follows |
//! | [`plan`] | how much so many users need, and whether a budget suffices |
//! | [`policy`] | which lifetimes, limits and provider habits the rules go by |
//! | [`return_to`] | where a sign-in may send the browser afterwards |
//! | [`device`] | how a device is named to a person |
//! | [`ids`], [`secret`], [`time`] | the small types that the others speak in |

pub mod breaker;
pub mod device;
pub mod ids;
pub mod pacer;
pub mod plan;
pub mod policy;
pub mod request;
pub mod return_to;
pub mod secret;
pub mod session;
pub mod suspicion;
pub mod sweep;
pub mod time;
pub mod verdict;
