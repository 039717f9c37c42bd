//! Twitch's messages and what they mean, from its documentation and from recorded answers.

use crate::dialect::{
    Meaning::{self, DeadGrant, DeadToken, NoToken, NotTheToken, OurFault},
    Words::{self, Are, Begin},
};

pub(super) const MESSAGES: &[(Words, Meaning)] = &[
    // POST /token
    (Are("invalid refresh token"), DeadGrant),
    (Are("invalid authorization code"), DeadGrant),
    (Are("missing refresh token"), OurFault),
    (Are("parameter redirect_uri does not match registered uri"), OurFault),
    (Begin("invalid scope requested"), OurFault),
    // Any of them: "invalid client", "invalid client secret", "Invalid client_id: x"
    (Begin("invalid client"), OurFault),
    (Are("missing client secret"), OurFault),
    (Are("missing client id"), OurFault),
    (Are("client does not exist"), OurFault),
    // GET /validate, POST /revoke, and the API
    (Are("invalid access token"), DeadToken),
    (Are("invalid oauth token"), DeadToken),
    (Are("missing authorization token"), NoToken),
    (Are("client id and oauth token do not match"), NotTheToken),
    (Begin("missing scope"), NotTheToken),
];

/// Messages of POST /revoke alone: elsewhere they could mean any token.
pub(super) const REVOCATION_MESSAGES: &[(Words, Meaning)] =
    &[(Are("invalid token"), DeadToken), (Are("missing oauth token"), OurFault)];
