//! The endpoints of id.twitch.tv under `/oauth2/`.

pub(crate) mod authorize;
pub(crate) mod callback;
pub(crate) mod oidc;
pub(crate) mod signing;
pub(crate) mod token;
pub(crate) mod validate;
