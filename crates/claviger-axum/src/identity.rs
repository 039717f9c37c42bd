//! The headers that tell an app behind us who is calling. Inbound copies are removed.

use claviger_engine::Caller;
use claviger_seal::CookieIdentity;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// The stable name of the user's provider.
pub const HEADER_PROVIDER: HeaderName = HeaderName::from_static("x-auth-provider");
/// The provider's id of the user. Apps key their data by it.
pub const HEADER_USER: HeaderName = HeaderName::from_static("x-auth-user");
/// The user's name at the provider, percent-encoded unless plain ASCII. It may change, so it is not
/// a key.
pub const HEADER_NAME: HeaderName = HeaderName::from_static("x-auth-name");
/// The user's login at the provider, in the same form. It may change too. It is left out if the
/// provider said none.
pub const HEADER_LOGIN: HeaderName = HeaderName::from_static("x-auth-login");
/// The id of the device's session. It is an identifier, not a credential.
pub const HEADER_SESSION: HeaderName = HeaderName::from_static("x-auth-session");
/// A JWT that proves to the app who is calling.
pub const HEADER_ASSERTION: HeaderName = HeaderName::from_static("x-auth-assertion");

/// How our names begin: what we tell the app, and what a script tells us.
const PREFIXES: [&[u8]; 2] = [b"x-auth-", b"x-claviger-"];
const UNSAFE_IN_HEADERS: &AsciiSet = &CONTROLS.add(b'%');

/// Removes every inbound header that a server could take for one of ours. Many servers fold `_`, or
/// everything but letters and digits, to one character.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let foreign: Vec<HeaderName> = headers.keys().filter(|name| looks_like_ours(name)).cloned().collect();
    for name in foreign {
        headers.remove(name);
    }
}

fn looks_like_ours(name: &HeaderName) -> bool {
    let folded = name.as_str().bytes().map(|byte| if byte.is_ascii_alphanumeric() { byte } else { b'-' });
    PREFIXES.iter().any(|prefix| folded.clone().take(prefix.len()).eq(prefix.iter().copied()))
}

/// Adds the identity headers.
pub(crate) fn add(headers: &mut HeaderMap, caller: Caller) {
    put(headers, HEADER_SESSION, value(caller.session().to_string()));
    let CookieIdentity { subject, display_name } = caller.into_identity();
    put(headers, HEADER_PROVIDER, value(subject.provider.0));
    // A user without a name is called by the id.
    let has_login = display_name != subject.id;
    put(headers, HEADER_USER, value(subject.id));
    let name = value(display_name);
    put(headers, HEADER_NAME, name.clone());
    if has_login {
        put(headers, HEADER_LOGIN, name);
    }
}

/// A header's value. Plain text is not copied.
fn value(text: String) -> Option<HeaderValue> {
    // Every byte is looked at, so that the compiler can take many at once.
    let plain = text.bytes().fold(true, |plain, byte| plain & (b' '..=b'~').contains(&byte) & (byte != b'%'));
    let text = if plain { text } else { utf8_percent_encode(&text, UNSAFE_IN_HEADERS).to_string() };
    HeaderValue::try_from(text).ok()
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    if let Some(value) = value {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inbound_identity_headers_are_stripped() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-auth-user",
            "x_auth_user",
            "x-auth_name",
            "x.auth.user",
            "x~auth!user",
            "x-auth-anything",
            "x-auth-assertion",
            "x_auth.assertion",
            "x-claviger-passive",
            "x_claviger_passive",
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
    fn a_user_name_is_encoded() {
        let encoded = value("Zoë\r\nX-Evil: 1 100%".to_owned());
        assert_eq!(encoded.unwrap(), "Zo%C3%AB%0D%0AX-Evil: 1 100%25");
    }
}
