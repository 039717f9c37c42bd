//! The headers that tell an app behind us who is calling. Only we may set them.

use claviger_engine::Caller;
use claviger_seal::CookieIdentity;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// Whose users these are, such as `twitch`.
pub const HEADER_PROVIDER: HeaderName = HeaderName::from_static("x-auth-provider");
/// The provider's id of the user: the key to know a user by.
pub const HEADER_USER: HeaderName = HeaderName::from_static("x-auth-user");
/// What the provider called the user at sign-in, percent-encoded where it is not plain ASCII. Not a key.
pub const HEADER_NAME: HeaderName = HeaderName::from_static("x-auth-name");
/// The id of the device's session. A name, not a credential.
pub const HEADER_SESSION: HeaderName = HeaderName::from_static("x-auth-session");

const PREFIX: &[u8] = b"x-auth-";
const UNSAFE_IN_HEADERS: &AsciiSet = &CONTROLS.add(b'%');

/// Removes every inbound header that could be taken for one of ours. Servers that fold `_`, or all but letters and
/// digits, to one sign are common.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let foreign: Vec<HeaderName> = headers.keys().filter(|name| looks_like_ours(name)).cloned().collect();
    for name in foreign {
        headers.remove(name);
    }
}

fn looks_like_ours(name: &HeaderName) -> bool {
    let folded = name.as_str().bytes().map(|byte| if byte.is_ascii_alphanumeric() { byte } else { b'-' });
    folded.take(PREFIX.len()).eq(PREFIX.iter().copied())
}

/// Says who is calling.
pub(crate) fn add(headers: &mut HeaderMap, caller: Caller) {
    put(headers, HEADER_SESSION, caller.session().to_string());
    let CookieIdentity { subject, display_name } = caller.into_identity();
    put(headers, HEADER_PROVIDER, subject.provider.0);
    put(headers, HEADER_USER, subject.id);
    put(headers, HEADER_NAME, display_name);
}

/// Text that is plain becomes a value without being copied.
fn put(headers: &mut HeaderMap, name: HeaderName, text: String) {
    let plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'%');
    let text = if plain { text } else { utf8_percent_encode(&text, UNSAFE_IN_HEADERS).to_string() };
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_says_who_is_calling() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-auth-user",
            "x_auth_user",
            "x-auth_name",
            "x.auth.user",
            "x~auth!user",
            "x-auth-anything",
            "x-authority",
            "accept",
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("evil"));
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("twice"));
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "x-authority"]);
    }

    #[test]
    fn a_name_cannot_break_out_of_its_header() {
        let mut headers = HeaderMap::new();
        put(&mut headers, HEADER_NAME, "Zoë\r\nX-Evil: 1 100%".to_owned());
        assert_eq!(headers.get(HEADER_NAME).unwrap(), "Zo%C3%AB%0D%0AX-Evil: 1 100%25");
    }
}
